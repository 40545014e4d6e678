//! Text to tokens.

/// Tokens an answer may have; a longer one is a text, not an answer.
pub const TOKENS_MAX: usize = 4096;

/// One token; texts borrow from the input.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Token<'a> {
    /// Digits with at most one decimal point.
    Number(&'a str),
    /// A number followed by a percent sign, which is not part of the text.
    PercentNumber(&'a str),
    /// A number with an exponent, such as `1.5E-3`.
    Scientific(&'a str),
    /// A letter that is a variable.
    Letter(char),
    /// Euler's number.
    E,
    /// The letter `E`.
    UpperE,
    /// `dx`: the variable's name.
    Differential(&'a str),
    /// A Greek letter or symbol that is a variable: its name.
    Symbol(&'a str),
    /// The content of `\text{...}` and the like.
    Word(&'a str),
    /// The content of an accent such as `\vec{...}`, after its canonical name.
    Accent(&'static str, &'a str),
    /// A command without its backslash.
    Command(&'static str),
    /// `\begin{...}` of a matrix or determinant.
    Begin(&'a str),
    /// `\end{...}` of a matrix or determinant.
    End(&'a str),
    /// A set with a letter of its own: `N`, `Z`, `Q`, `R`, `C` or `0` for the empty set.
    NamedSet(char),
    /// `^T` or a prime.
    Transpose,
    /// A degree sign.
    Degree,
    /// `\\`.
    NewRow,
    /// Any other sign. Synonyms are folded: `*`, `/`, `-`, `<`, `>`, `≤`, `≥`, `=`, `≠`, `≈`, `±`, `∪`, `∩`, `∖`, `∈`.
    Sign(char),
    /// `\{` or `\lbrace`.
    OpenSet,
    /// `\}` or `\rbrace`.
    CloseSet,
}

/// Commands that are one sign.
const SIGNS: &[(&str, char)] = &[
    ("times", '*'),
    ("cdot", '*'),
    ("div", '/'),
    ("over", '/'),
    ("le", '≤'),
    ("leq", '≤'),
    ("leqslant", '≤'),
    ("ge", '≥'),
    ("geq", '≥'),
    ("geqslant", '≥'),
    ("lt", '<'),
    ("gt", '>'),
    ("ne", '≠'),
    ("neq", '≠'),
    ("equiv", '='),
    ("approx", '≈'),
    ("pm", '±'),
    ("mp", '±'),
    ("cup", '∪'),
    ("cap", '∩'),
    ("setminus", '∖'),
    ("in", '∈'),
    ("lbrack", '['),
    ("rbrack", ']'),
    ("lgroup", '('),
    ("rgroup", ')'),
    ("vert", '|'),
];

/// Commands the parser treats by name.
const COMMANDS: &[&str] = &[
    "frac", "dfrac", "tfrac", "cfrac", "sqrt", "binom", "tbinom", "dbinom", "choose", "mod", "log", "ln", "exp", "sin", "cos",
    "tan", "csc", "sec", "cot", "arcsin", "arccos", "arctan", "arccsc", "arcsec", "arccot", "sinh", "cosh", "tanh", "arsinh",
    "arcosh", "artanh", "arcsinh", "arccosh", "arctanh", "gcd", "lcm", "floor", "ceil", "max", "min", "det", "lfloor", "rfloor",
    "lceil", "rceil", "lvert", "rvert", "infty", "boxed", "phantom",
];

/// Commands that are variables (or, for `\pi` and `\gamma`, constants).
const SYMBOLS: &[&str] = &[
    "alpha",
    "beta",
    "gamma",
    "Gamma",
    "delta",
    "Delta",
    "epsilon",
    "varepsilon",
    "zeta",
    "eta",
    "theta",
    "Theta",
    "vartheta",
    "iota",
    "kappa",
    "lambda",
    "Lambda",
    "mu",
    "nu",
    "xi",
    "Xi",
    "omicron",
    "pi",
    "Pi",
    "varpi",
    "rho",
    "varrho",
    "sigma",
    "Sigma",
    "varsigma",
    "tau",
    "upsilon",
    "Upsilon",
    "phi",
    "Phi",
    "varphi",
    "chi",
    "psi",
    "Psi",
    "omega",
    "Omega",
    "wp",
    "nabla",
    "angle",
    "ell",
    "hbar",
    "imath",
    "jmath",
    "triangle",
    "square",
    "prime",
    "partial",
    "Re",
    "Im",
    "varnothing",
    "heartsuit",
    "spadesuit",
    "clubsuit",
    "diamondsuit",
    "natural",
    "flat",
    "sharp",
    "complement",
    "exponentialE",
];

/// Spaces, and commands without meaning.
const BLANKS: &[&str] =
    &["quad", "qquad", "thinspace", "medspace", "thickspace", "negthinspace", "negmedspace", "negthickspace", "vspace", "vskip"];

/// Commands that take one argument, read as a name; the empty name drops the accent.
const ACCENTS: &[(&str, &str)] = &[
    ("text", ""),
    ("textit", ""),
    ("textbf", ""),
    ("textnormal", ""),
    ("mbox", ""),
    ("bar", "bar"),
    ("overline", "bar"),
    ("vec", "vec"),
    ("overrightarrow", "vec"),
    ("tilde", "tilde"),
    ("widetilde", "tilde"),
    ("hat", "hat"),
    ("dot", "dot"),
    ("ddot", "ddot"),
    ("acute", "acute"),
    ("grave", "grave"),
    ("breve", "breve"),
    ("check", "check"),
    ("bm", "bm"),
    ("boldsymbol", "boldsymbol"),
    ("mathbb", "math"),
    ("mathbf", "math"),
    ("mathcal", "math"),
    ("mathfrak", "math"),
    ("mathit", "math"),
    ("mathnormal", "math"),
    ("mathrm", "math"),
    ("mathscr", "math"),
    ("mathsf", "math"),
    ("mathtt", "math"),
];

/// Greek letters and signs that stand for commands.
const UNICODE_SYMBOLS: &[(char, &str)] = &[
    ('α', "alpha"),
    ('β', "beta"),
    ('γ', "gamma"),
    ('Γ', "Gamma"),
    ('δ', "delta"),
    ('Δ', "Delta"),
    ('ε', "epsilon"),
    ('ζ', "zeta"),
    ('η', "eta"),
    ('θ', "theta"),
    ('Θ', "Theta"),
    ('ι', "iota"),
    ('κ', "kappa"),
    ('λ', "lambda"),
    ('Λ', "Lambda"),
    ('μ', "mu"),
    ('ν', "nu"),
    ('ξ', "xi"),
    ('π', "pi"),
    ('ρ', "rho"),
    ('σ', "sigma"),
    ('Σ', "Sigma"),
    ('τ', "tau"),
    ('φ', "phi"),
    ('Φ', "Phi"),
    ('ϕ', "varphi"),
    ('χ', "chi"),
    ('ψ', "psi"),
    ('Ψ', "Psi"),
    ('ω', "omega"),
    ('Ω', "Omega"),
];

/// Words that mean an operator when they stand bare, and so cannot be products of letters.
const RESERVED_WORDS: &[&str] = &[
    "arcsinh", "arccosh", "arctanh", "arsinh", "arcosh", "artanh", "bmatrix", "pmatrix", "vmatrix", "matrix", "hstack", "vstack",
    "floor", "trace", "zeros", "ceil", "cols", "diag", "norm", "ones", "orth", "rank", "rows", "rref", "eig", "eye", "gcd",
    "lcm", "svd", "SVD", "tr",
];

/// Splits `text` into tokens; none if it holds something that is not mathematics, or too much of it.
pub fn tokenize(text: &str) -> Option<Vec<Token<'_>>> {
    let mut tokens = Vec::with_capacity(text.len().min(64));
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if tokens.len() == TOKENS_MAX {
            return None;
        }
        let (token, length) = match first {
            ' ' | '\t' | '\r' | '\n' => (None, 1),
            '\\' => command(rest)?,
            '0'..='9' | '.' => number(rest)?,
            '^' => (Some(caret(rest)), caret_length(rest)),
            _ if first.is_ascii_alphabetic() => letter(rest, first)?,
            _ => {
                let (sign, length) = sign(rest, first)?;
                (Some(sign), length)
            }
        };
        tokens.extend(token);
        rest = &rest[length..];
    }
    Some(tokens)
}

/// A superscript that is a mark rather than a power.
const MARKS: &[(&str, Token<'static>)] = &[
    ("^{\\circ}", Token::Degree),
    ("^{\\degree}", Token::Degree),
    ("^\\circ", Token::Degree),
    ("^\\degree", Token::Degree),
    ("^{°}", Token::Degree),
    ("^°", Token::Degree),
    ("^{T}", Token::Transpose),
    ("^T", Token::Transpose),
];

fn caret(rest: &str) -> Token<'static> {
    MARKS.iter().find(|(mark, _)| rest.starts_with(mark)).map_or(Token::Sign('^'), |(_, token)| *token)
}

fn caret_length(rest: &str) -> usize {
    MARKS.iter().find(|(mark, _)| rest.starts_with(mark)).map_or(1, |(mark, _)| mark.len())
}

fn digits(text: &str) -> usize {
    text.bytes().take_while(u8::is_ascii_digit).count()
}

fn number(rest: &str) -> Option<(Option<Token<'_>>, usize)> {
    let mut length = digits(rest);
    if rest[length..].starts_with('.') {
        let decimals = digits(&rest[length + 1..]);
        if decimals > 0 {
            length += 1 + decimals;
        }
    }
    if length == 0 {
        return None;
    }
    let text = &rest[..length];
    let after = &rest[length..];
    if let Some(exponent) = after.strip_prefix('E') {
        let sign = usize::from(exponent.starts_with(['+', '-', '−']));
        let sign_length = exponent.chars().next().filter(|_| sign == 1).map_or(0, char::len_utf8);
        let decimals = digits(&exponent[sign_length..]);
        if decimals > 0 {
            let total = length + 1 + sign_length + decimals;
            return Some((Some(Token::Scientific(&rest[..total])), total));
        }
    }
    let blank = usize::from(after.starts_with([' ', '\t', '\r', '\n']));
    let percent = &after[blank..];
    if percent.starts_with("\\%") {
        return Some((Some(Token::PercentNumber(text)), length + blank + 2));
    }
    if percent.starts_with('%') {
        return Some((Some(Token::PercentNumber(text)), length + blank + 1));
    }
    Some((Some(Token::Number(text)), length))
}

fn letter(rest: &str, first: char) -> Option<(Option<Token<'_>>, usize)> {
    let bytes = rest.as_bytes();
    if bytes.get(1).is_some_and(u8::is_ascii_alphabetic)
        && RESERVED_WORDS.iter().any(|word| word.as_bytes()[..2] == bytes[..2] && rest.starts_with(word))
    {
        return None;
    }
    if first == 'd' {
        let blanks = rest[1..].bytes().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n')).count();
        let after = &rest[1 + blanks..];
        if after.starts_with(|next: char| next.is_ascii_alphabetic()) {
            return Some((Some(Token::Differential(&after[..1])), 2 + blanks));
        }
        if let Some(name) = after.strip_prefix('\\') {
            let length = name.bytes().take_while(u8::is_ascii_alphabetic).count();
            if length > 0 {
                return Some((Some(Token::Differential(&name[..length])), 2 + blanks + length));
            }
        }
    }
    let token = match first {
        'e' => Token::E,
        'E' => Token::UpperE,
        _ => Token::Letter(first),
    };
    Some((Some(token), 1))
}

fn command(rest: &str) -> Option<(Option<Token<'_>>, usize)> {
    let body = &rest[1..];
    let first = body.chars().next()?;
    if !first.is_ascii_alphabetic() {
        let token = match first {
            '{' if body[1..].starts_with("\\}") => return Some((Some(Token::NamedSet('0')), 4)),
            '{' => Some(Token::OpenSet),
            '}' => Some(Token::CloseSet),
            '(' => Some(Token::Sign('(')),
            ')' => Some(Token::Sign(')')),
            '\\' => Some(Token::NewRow),
            '|' => Some(Token::Sign('‖')),
            ',' | ':' | ';' | '!' | '$' => None,
            _ => return None,
        };
        return Some((token, 2));
    }
    let letters = body.bytes().take_while(u8::is_ascii_alphabetic).count();
    // The longest known beginning counts: `\pix` is `\pi` times `x`.
    for length in (1..=letters.min(20)).rev() {
        if let Some((token, argument)) = known_command(&body[..length], &body[length..]) {
            return Some((token, 1 + length + argument));
        }
    }
    None
}

/// A name in a table; the first byte tells most names apart without a call.
fn find<'t, T>(table: &'t [T], name: &str, key: impl Fn(&T) -> &'static str) -> Option<&'t T> {
    let first = name.as_bytes()[0];
    table.iter().find(|entry| key(entry).as_bytes()[0] == first && key(entry) == name)
}

/// The token of a command, and how much of what follows belongs to it.
fn known_command<'a>(name: &'a str, after: &'a str) -> Option<(Option<Token<'a>>, usize)> {
    if let Some(known) = find(COMMANDS, name, |known| known) {
        return Some((Some(Token::Command(known)), 0));
    }
    if let Some((_, sign)) = find(SIGNS, name, |(known, _)| known) {
        return Some((Some(Token::Sign(*sign)), 0));
    }
    if name == "exponentialE" {
        return Some((Some(Token::E), 0));
    }
    if let Some(known) = find(SYMBOLS, name, |known| known) {
        return Some((Some(Token::Symbol(known)), 0));
    }
    if BLANKS.contains(&name) {
        return Some((None, 0));
    }
    match name {
        "lbrace" if after.starts_with("\\rbrace") => return Some((Some(Token::NamedSet('0')), 7)),
        "lbrace" => return Some((Some(Token::OpenSet), 0)),
        "rbrace" => return Some((Some(Token::CloseSet), 0)),
        "operatorname" => {
            let (operator, length) = argument(after)?;
            let known = if operator.is_empty() { None } else { find(COMMANDS, operator, |known| known) }?;
            return Some((Some(Token::Command(known)), length));
        }
        "emptyset" => return Some((Some(Token::NamedSet('0')), 0)),
        "begin" | "end" => {
            let (environment, length) = argument(after)?;
            if !matches!(environment, "matrix" | "pmatrix" | "bmatrix" | "vmatrix" | "array") {
                return None;
            }
            if name == "end" {
                return Some((Some(Token::End(environment)), length));
            }
            let columns = if environment == "array" { argument(&after[length..])?.1 } else { 0 };
            return Some((Some(Token::Begin(environment)), length + columns));
        }
        _ => {}
    }
    let (_, accent) = find(ACCENTS, name, |(known, _)| known)?;
    let blank = usize::from(after.starts_with([' ', '\t', '\r', '\n']));
    let (content, length) = argument(&after[blank..])?;
    let token = match (name, content) {
        ("mathbb", "N" | "Z" | "Q" | "R" | "C") => Token::NamedSet(content.chars().next()?),
        _ if accent.is_empty() => Token::Word(content),
        _ => Token::Accent(accent, content),
    };
    Some((Some(token), blank + length))
}

/// The content of `{...}` up to the first closing brace, and its length with the braces.
fn argument(text: &str) -> Option<(&str, usize)> {
    let body = text.strip_prefix('{')?;
    let end = body.find('}')?;
    Some((&body[..end], end + 2))
}

fn sign(rest: &str, first: char) -> Option<(Token<'_>, usize)> {
    for (text, sign) in [("<=", '≤'), (">=", '≥'), ("!==", '≠'), ("!=", '≠'), ("==", '='), ("~=", '≈')] {
        if rest.starts_with(text) {
            return Some((Token::Sign(sign), text.len()));
        }
    }
    let token = match first {
        '\'' => Token::Transpose,
        'ℕ' => Token::NamedSet('N'),
        'ℤ' => Token::NamedSet('Z'),
        'ℚ' => Token::NamedSet('Q'),
        'ℝ' => Token::NamedSet('R'),
        'ℂ' => Token::NamedSet('C'),
        '∅' => Token::NamedSet('0'),
        '+' | '-' | '*' | '/' | '(' | ')' | '[' | ']' | '{' | '}' | '|' | '_' | ',' | ';' | ':' | '!' | '=' | '<' | '>' | '&'
        | '≤' | '≥' | '≠' | '≈' | '±' | '∪' | '∩' | '∖' | '∈' => Token::Sign(first),
        '−' => Token::Sign('-'),
        '×' | '⋅' | '∗' | '∙' | '∘' | '⋆' => Token::Sign('*'),
        '÷' | '∕' => Token::Sign('/'),
        '∓' => Token::Sign('±'),
        '≡' | '≔' => Token::Sign('='),
        '≦' => Token::Sign('≤'),
        '≧' => Token::Sign('≥'),
        '≃' | '≅' => Token::Sign('≈'),
        _ => Token::Symbol(UNICODE_SYMBOLS.iter().find(|(known, _)| *known == first)?.1),
    };
    Some((token, first.len_utf8()))
}
