//! Texts made to stall or crash a grader, and arbitrary ones.

use proptest::prelude::*;
use reward_math_answer::extract::extract;
use reward_math_answer::parse::parse;
use reward_math_answer::plugin::grade;

fn grade_text(completion: &str) -> bool {
    grade(&extract("$42$"), completion).correct
}

#[test]
fn towers_of_powers_are_not_computed() {
    for text in ["$9^{9^{9^{9}}}$", "9^9^9^9", "$10^{10^{10}}$", "$((99!)!)!$", "$2^{99999999}$", "$\\binom{9999999}{99999}$"] {
        assert!(!grade_text(text), "{text}");
    }
    // As written, two towers are the same.
    assert!(grade(&extract("$9^{9^{9}}$"), "$9^{9^{9}}$").correct);
}

#[test]
fn deep_nesting_is_refused_without_overflow() {
    let depth = 10_000;
    let nested = [
        format!("${}42{}$", "\\frac{1}{".repeat(depth), "}".repeat(depth)),
        format!("${}42{}$", "(".repeat(depth), ")".repeat(depth)),
        format!("${}42{}$", "x(".repeat(depth), ")".repeat(depth)),
        format!("${}42{}$", "\\sqrt{".repeat(depth), "}".repeat(depth)),
        format!("${}42$", "-".repeat(depth + 1)),
        format!("$x{}$", "!".repeat(depth)),
        format!("$x{}$", "^x".repeat(depth)),
        format!("$x{}$", "^2".repeat(depth)),
        format!("$1{}$", "/x/2".repeat(500)),
        format!("$1{}$", "=1<2".repeat(depth)),
        format!("{}42{}", "(".repeat(depth), ")".repeat(depth)),
        format!("1{}", "+(1-(".repeat(depth)),
        format!("1{}", "**2".repeat(depth)),
    ];
    for text in &nested {
        assert!(!grade_text(text), "{}...", &text[..text.len().min(20)]);
    }
}

#[test]
fn long_texts_are_searched_in_linear_time() {
    for pattern in [
        "$",
        "\\(",
        "\\[",
        " [",
        "\\boxed{",
        "$$ ",
        "answer ",
        "final answer is ",
        "1 ",
        "1+",
        "= ",
        "\\frac{1}{2",
        "\\frac{",
        "{",
        "\\!",
    ] {
        assert!(!grade_text(&pattern.repeat(40_000 / pattern.len())), "{pattern}");
    }
}

#[test]
fn large_products_are_left_alone() {
    assert!(!grade_text("$(a+1)(b+1)(c+1)(f+1)(g+1)(h+1)(j+1)(k+1)(m+1)(n+1)(p+1)(q+1)(r+1)(s+1)(t+1)(u+1)(v+1)(w+1)$"));
    assert!(!grade_text("$(a+b+c+f+g+h)^{60}$"));
    assert!(!grade_text(&format!("${}$", "9".repeat(5_000))));
}

#[test]
fn answer_at_the_end_of_a_long_text_is_found() {
    assert!(grade_text(&format!("{} so the answer is $42$.", "Let us think about 7. ".repeat(20_000))));
}

proptest! {
    #[test]
    fn prop_arbitrary_text_does_not_panic(text in "\\PC{0,200}") {
        grade_text(&text);
        parse(&text);
    }

    #[test]
    fn prop_text_of_latex_pieces_does_not_panic(pieces in prop::collection::vec(prop::sample::select(vec![
        "$", "\\frac", "{", "}", "1", "x", "\\sqrt", "^", "_", "(", ")", "[", "]", "\\{", "\\}", ",", ";", "=", "<", "\\boxed{", "\\text{",
        " and ", "%", "\\pi", "-", "+", "/", "!", "\\pm", "\\cup", "\\infty", "|", " ", "\n", "answer", " is ", "I", "e", "d", "\\begin{matrix}",
        "\\end{matrix}", "&", "\\\\", "0", "9", ".", "\\log", "\\sin", "π", "é",
    ]), 0..40)) {
        let text = pieces.concat();
        grade_text(&text);
        extract(&format!("${text}$"));
        extract(&format!("\\boxed{{{text}}}"));
    }

    #[test]
    fn prop_every_answer_equals_itself(a in -50i64..50, b in 1i64..50, c in 2u32..9) {
        for text in [
            format!("$\\frac{{{a}}}{{{b}}}$"), format!("${a}\\sqrt{{{b}}}$"), format!("$x^{c}+{b}x$"), format!("$\\{{{a},{b}\\}}$"),
            format!("$({a},{b})$"), format!("$x={a}$"), format!("$x>{a}$"), format!("${a}\\pi$"), format!("{a}"), format!("{a}.{b}"),
            format!("$\\begin{{pmatrix}}{a}&{b}\\\\{c}&1\\end{{pmatrix}}$"), format!("$(-\\infty,{a})\\cup[{},\\infty)$", a + b),
        ] {
            prop_assert!(grade(&extract(&text), &text).correct, "{}", text);
        }
    }

    #[test]
    fn prop_scaled_fractions_are_equal_and_shifted_ones_are_not(a in -99i64..99, b in 1i64..99, k in 1i64..20) {
        let reference = extract(&format!("$\\frac{{{a}}}{{{b}}}$"));
        let scaled = format!("\\boxed{{\\frac{{{}}}{{{}}}}}", a * k, b * k);
        let shifted = format!("\\boxed{{\\frac{{{}}}{{{}}}}}", a * k + 1, b * k);
        prop_assert!(grade(&reference, &scaled).correct);
        prop_assert!(!grade(&reference, &shifted).correct);
    }
}
