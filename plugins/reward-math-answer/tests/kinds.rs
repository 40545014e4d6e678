//! What counts as equal, kind by kind. Each pair was checked against math-verify 0.9.0.

use reward_math_answer::extract::extract;
use reward_math_answer::plugin::grade;

/// Compares two formulas, without delimiters.
#[track_caller]
fn check(reference: &str, equal: &[&str], unequal: &[&str]) {
    let parsed = extract(&format!("${reference}$"));
    assert!(!parsed.is_empty(), "`{reference}` is not read");
    for (completions, expected) in [(equal, true), (unequal, false)] {
        for completion in completions {
            let verdict = grade(&parsed, &format!("${completion}$"));
            assert_eq!(verdict.correct, expected, "`{completion}` for `{reference}`");
        }
    }
}

/// Compares a reference with texts.
#[track_caller]
fn check_text(reference: &str, equal: &[&str], unequal: &[&str]) {
    let parsed = extract(reference);
    for (completions, expected) in [(equal, true), (unequal, false)] {
        for completion in completions {
            assert_eq!(grade(&parsed, completion).correct, expected, "`{completion}` for `{reference}`");
        }
    }
}

#[test]
fn fractions_equal_by_value() {
    check(r"\frac{1}{2}", &[r"\frac{2}{4}", r"\frac12", r"1/2", r"1 \div 2", "0.5", r"50\%", r"2^{-1}"], &["2", r"-\frac12"]);
    check(r"\frac{5}{2}", &[r"2\frac{1}{2}", r"2\frac12", "2.5"], &[r"-2\frac12", "5.2"]);
}

#[test]
fn decimals_equal_to_six_places() {
    check(r"\frac{1}{3}", &["0.333333", "0.3333333"], &["0.333", "0.33333", "0.333334"]);
    check(r"8\pi", &["25.132741"], &["25.13"]);
    check("1500", &["1500.0", r"1.5\times 10^3", "1,500"], &["1501.0"]);
}

#[test]
fn percentages_equal_their_number_and_their_value() {
    check("50", &[r"50\%"], &[r"5\%"]);
    check("0.5", &[r"50\%"], &[r"51\%"]);
    check_text("50", &["50%", "50 percent"], &["5 percent"]);
}

#[test]
fn roots_and_powers_equal_exactly() {
    check(r"\sqrt{72}", &[r"6\sqrt{2}", r"6\sqrt2", r"\frac{72}{\sqrt{72}}", r"72^{1/2}"], &[r"6\sqrt{3}", r"2\sqrt{6}"]);
    check(r"1+\sqrt{2}", &[r"\frac{1}{\sqrt{2}-1}"], &[r"1-\sqrt{2}"]);
    check(r"\sqrt{5+2\sqrt6}", &[r"\sqrt2+\sqrt3"], &[r"\sqrt2+\sqrt5"]);
    check("2^{100}", &["1267650600228229401496703205376"], &["1267650600228229401496703205377"]);
    check(r"\sqrt[3]{27}", &["3"], &["9"]);
}

#[test]
fn functions_are_evaluated() {
    check(r"\sin\frac{\pi}{6}", &[r"\frac12"], &["1"]);
    check(r"\log_2 8", &["3", r"\frac{\ln 8}{\ln 2}"], &["2"]);
    check(r"\ln 2 + \ln 3", &[r"\ln 6"], &[r"\ln 5"]);
    check("120", &["5!", r"\binom{10}{3}"], &["4!"]);
    check(r"\lceil 2.3 \rceil", &["3", r"\lfloor 3.9 \rfloor"], &["2"]);
}

#[test]
fn expressions_equal_as_functions_of_their_variables() {
    check("x^2+3x+2", &["(x+1)(x+2)", "x(x+3)+2", "2+3x+x^2"], &["x^2+2x+3", "y^2+3y+2", "x^2+3x"]);
    check(r"\frac{x^2-1}{x-1}", &["x+1"], &["x-1"]);
    check(r"\sqrt{x^2}", &["|x|"], &["-x"]);
    check(r"2\sin x\cos x", &[r"\sin 2x"], &[r"\sin x"]);
}

#[test]
fn assignments_name_their_variable() {
    check("5", &["x = 5", "x = 2 + 3 = 5"], &["x = 6"]);
    check("x = 5", &["5", "x = 5", r"x=\frac{10}{2}"], &["y = 5", "x = 6"]);
}

#[test]
fn relations_equal_when_moved_or_flipped() {
    check("y = 2x + 1", &["2x - y + 1 = 0", "2x + 1 = y"], &["y = 2x"]);
    check("2x + y = 3", &["4x + 2y = 6"], &["4x + 2y = 3"]);
    check("x > 2", &["2 < x", r"(2,\infty)"], &["x < 2", r"x \ge 2", r"[2,\infty)"]);
    check(r"(2,\infty)", &[r"x \in (2,\infty)"], &["x > 2"]);
}

#[test]
fn sets_ignore_order_and_tuples_keep_it() {
    check(r"\{1,2,3\}", &[r"\{3,2,1\}", "3,1,2", "(1,2,3)"], &[r"\{1,2\}", r"\{1,2,4\}"]);
    check("(1,2)", &[r"\left(1,2\right)", "(1, 2)", "1,2"], &["(2,1)", "[1,2]"]);
    check(r"x = \pm 2", &[r"\{-2,2\}", "x=2, x=-2"], &["2"]);
    check_text(r"$\{7,18\}$", &["$7$ and $18$", r"\boxed{18} or \boxed{7}"], &["$7$"]);
}

#[test]
fn intervals_equal_with_their_ends() {
    check("[1,2)", &["[1, 2)", "[1.0,2)"], &["(1,2)", "[1,2]", "[1,3)"]);
    check(r"(-\infty,1)\cup(1,\infty)", &[r"\mathbb{R}\setminus\{1\}", r"(1,\infty)\cup(-\infty,1)"], &[r"\mathbb{R}"]);
    check(r"(1,3)", &[r"(1,2]\cup[2,3)"], &[r"(1,2)\cup(2,3)"]);
}

#[test]
fn matrices_equal_by_entry() {
    check(
        r"\begin{pmatrix}1&2\\3&4\end{pmatrix}",
        &[r"\begin{bmatrix}1&2\\\frac{6}{2}&4\end{bmatrix}"],
        &[r"\begin{pmatrix}1&2\\3&5\end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}"],
    );
}

#[test]
fn words_equal_in_any_case_and_font() {
    check(r"\text{east}", &[r"\textbf{East}", r"\mathrm{east}"], &[r"\text{west}"]);
    check(r"\text{(A)}", &["A"], &["B"]);
}

#[test]
fn infinite_and_undefined_answers_compare_by_sign() {
    check(r"\infty", &[r"\infty", r"+\infty"], &[r"-\infty", "1"]);
}
