//! The content of `\boxed{...}`.

use super::Text;

/// Which boxes of a text count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boxes {
    /// All: they list an answer's parts.
    All,
    /// The last, and those that stand right before it: earlier ones were steps on the way.
    Last,
}

/// Two boxes with less text between them than this belong together.
const NEAR: usize = 10;
/// Two boxes with a comma, `and` or `or` between them may be this far apart.
const NEAR_IN_A_LIST: usize = 70;
/// Boxes that are read.
const BOXES_MAX: usize = 64;

/// The contents, joined by commas; the text itself if it has no box.
pub fn open(text: &str, which: Boxes) -> Text<'_> {
    if !text.contains("box") {
        return text.into();
    }
    // From right to left, as the last box is the answer.
    let mut contents: Vec<&str> = Vec::new();
    let mut end = text.len();
    let mut last_start = None;
    while let Some((start, command_end)) = last_box(&text[..end])
        && contents.len() < BOXES_MAX
    {
        let body = text[command_end..end].trim_start();
        let body_start = end - body.len();
        let Some(close) = body.starts_with('{').then(|| closing_brace(body)).flatten() else {
            // A box cut off by the token limit holds all that follows.
            if contents.is_empty() && !body.is_empty() {
                contents.push(body);
            }
            break;
        };
        let content = body[1..close].trim();
        if let (Boxes::Last, Some(next)) = (which, last_start)
            && !belongs_together(&text[body_start + close + 1..next], content, contents.last().copied())
        {
            break;
        }
        if contents.last() != Some(&content) {
            contents.push(content);
        }
        last_start = Some(start);
        end = start;
    }
    if contents.is_empty() {
        return text.into();
    }
    contents.reverse();
    contents.join(",").into()
}

/// Start and end of the last `\boxed` or `\fbox`.
fn last_box(text: &str) -> Option<(usize, usize)> {
    let boxed = text.rfind("\\boxed").map(|start| (start, start + 6));
    let framed = text.rfind("\\fbox").map(|start| (start, start + 5));
    boxed.max(framed)
}

fn closing_brace(text: &str) -> Option<usize> {
    let mut depth = 0;
    for (index, byte) in text.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => {
                depth -= 1;
                if depth == 0 {
                    return Some(index);
                }
            }
            _ => {}
        }
    }
    None
}

fn belongs_together(between: &str, content: &str, next: Option<&str>) -> bool {
    let length = between.chars().count();
    let listed = || {
        between.contains([',', ';'])
            || between.split(|c: char| !(c.is_alphanumeric() || c == '_')).any(|word| matches!(word, "and" | "or"))
    };
    length < NEAR || (length < NEAR_IN_A_LIST && next != Some(content) && listed())
}
