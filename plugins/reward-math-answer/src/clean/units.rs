//! Units at the end of an answer.

/// Words that count as a unit after a number, a brace or a blank; each may have a plural `s` or `es`.
const UNITS: &[&str] = &[
    // lengths, areas, volumes
    "mm",
    "cm",
    "dm",
    "m",
    "km",
    "mt",
    "mtr",
    "meter",
    "metre",
    "inch",
    "inches",
    "feet",
    "ft",
    "yard",
    "mile",
    "acre",
    "hectare",
    "square",
    "sq",
    "cube",
    "cubic",
    "cc",
    "l",
    "liter",
    "litre",
    "lt",
    "gal",
    "gallon",
    "sq m",
    "sq inch",
    "cu cm",
    "unit",
    // weights, times, speeds, angles
    "g",
    "gm",
    "kg",
    "lb",
    "pound",
    "s",
    "sec",
    "second",
    "min",
    "minute",
    "h",
    "hr",
    "hour",
    "day",
    "month",
    "yr",
    "year",
    "am",
    "pm",
    "noon",
    "mph",
    "kmh",
    "kmph",
    "deg",
    "degree",
    "ohm",
    "per",
    // money and counts
    "cent",
    "rs",
    "rupee",
    "coin",
    "point",
    "digit",
    "mark",
    "number",
    "multiple",
    "ratio",
    "rounds",
    "th",
    "st",
    "rd",
    "d",
    "t",
    "c",
    "o",
    "man",
    "men",
    "woman",
    "women",
    "student",
    "soldier",
    "apple",
    "meal",
    "pie",
    "tile",
    "toy",
    "monkey",
    "edge",
    "prime",
    "way",
    "children ticket",
    // words of comparison
    "more",
    "less",
    "gain",
    "loss",
    "profit",
    "increase",
    "decrease",
    "rise",
    "excess",
    "east",
    "west",
    "by",
    "are",
    "pure",
    "Surface",
    "ab",
    "bc",
];

/// The text without a trailing `\text{...}` (with its power) and without up to two trailing units.
pub fn strip(text: &str) -> String {
    let mut text = text.to_owned();
    if text.contains("\\text") || text.contains("\\mbox") {
        let shorter = without_final_text(&text).trim();
        if !shorter.is_empty() {
            text = shorter.to_owned();
        }
    }
    for _ in 0..2 {
        if let Some(end) = unit_start(&text) {
            text.truncate(end);
        }
    }
    text
}

/// Cuts at the first `\text{` if the text ends with a brace, or with a brace and a power.
fn without_final_text(text: &str) -> &str {
    let mut end = text;
    if let Some(rest) = text.strip_suffix(|c: char| c.is_ascii_digit())
        && let Some(rest) = rest.strip_suffix('^')
        && rest.ends_with('}')
    {
        end = rest;
    } else if let Some(rest) = text.strip_suffix('}').and_then(|rest| rest.strip_suffix(|c: char| c.is_ascii_digit()))
        && let Some(rest) = rest.strip_suffix("{^")
        && rest.ends_with('}')
    {
        end = rest;
    }
    let first = [end.find("\\text{"), end.find("\\mbox{")].into_iter().flatten().min();
    match first {
        Some(start) if end.ends_with('}') => &text[..start],
        _ => text,
    }
}

/// Where the trailing unit starts, if there is one: the longest that stands after a number, a brace or a blank.
fn unit_start(text: &str) -> Option<usize> {
    let body = text.trim_end();
    if !body.ends_with(|c: char| c.is_ascii_alphabetic()) {
        return None;
    }
    let mut longest: Option<usize> = None;
    for plural in ["", "s", "es"] {
        let Some(singular) = body.strip_suffix(plural) else { continue };
        let last = singular.bytes().last();
        for unit in UNITS {
            // The last byte tells most units apart without a call.
            if unit.bytes().last() != last {
                continue;
            }
            let Some(before) = singular.strip_suffix(unit) else { continue };
            let trimmed = before.trim_end();
            let allowed = trimmed.len() < before.len() || before.ends_with(|c: char| c.is_ascii_digit() || c == '}');
            if !allowed {
                continue;
            }
            // Of the blanks before the unit the one after a number goes too; a lone blank stays.
            let start = if trimmed.ends_with(|c: char| c.is_ascii_digit() || c == '}') {
                trimmed.len()
            } else {
                trimmed.len() + before[trimmed.len()..].chars().next().map_or(0, char::len_utf8)
            };
            longest = Some(longest.map_or(start, |known| known.min(start)));
        }
    }
    longest.filter(|start| *start > 0)
}
