//! Where the JSON of a text is, and what stands in it.

use plumb_sdk::tool::{Descriptor, Fault, Tool};
use serde::Deserialize;
use serde_json::{Deserializer, Value};

/// There is nothing to set.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {}

// ANCHOR: tool
/// What it is called with.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Arguments {
    /// A text with a JSON object or list somewhere.
    pub text: String,
    /// JSON pointer (RFC 6901) to the value that is wanted; the whole document when empty.
    #[serde(default)]
    pub pointer: String,
}

/// The tool.
pub struct JsonTool;

impl Tool for JsonTool {
    type Config = Config;
    type Arguments = Arguments;
    const DESCRIPTOR: Descriptor =
        plumb_sdk::descriptor!().config_schema(r#"{"type": "object", "additionalProperties": false, "properties": {}}"#);

    fn new(_: Config) -> Result<Self, Fault> {
        Ok(JsonTool)
    }

    fn call(&self, Arguments { text, pointer }: Arguments) -> Result<String, Fault> {
        let document = find(&text).ok_or_else(|| Fault::unparseable("the text holds no JSON object or list"))?;
        let value =
            document.pointer(&pointer).ok_or_else(|| Fault::new("not-found", format!("nothing stands at `{pointer}`")))?;
        Ok(value.to_string())
    }
}
// ANCHOR_END: tool

/// Places where JSON may begin that are tried, so that no text of brackets costs a square of its length.
const TRIES: usize = 64;

/// The largest of the objects and lists that begin in the text outside of each other; the first of equal ones. A fence around it
/// does not matter.
fn find(text: &str) -> Option<Value> {
    let mut best: Option<(usize, Value)> = None;
    let mut from = 0;
    for _ in 0..TRIES {
        let Some(start) = text[from..].find(['{', '[']).map(|at| from + at) else { break };
        let mut stream = Deserializer::from_str(&text[start..]).into_iter::<Value>();
        match stream.next() {
            Some(Ok(value)) => {
                let length = stream.byte_offset();
                if best.as_ref().is_none_or(|(longest, _)| length > *longest) {
                    best = Some((length, value));
                }
                from = start + length;
            }
            _ => from = start + 1,
        }
    }
    best.map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use plumb_sdk::testing;
    use plumb_sdk::tool::{Texts, call_rows};

    fn call(text: &str, pointer: &str) -> Result<String, String> {
        JsonTool.call(Arguments { text: text.to_owned(), pointer: pointer.to_owned() }).map_err(|fault| fault.code)
    }

    #[test]
    fn value_is_found_in_prose_and_fences() {
        let text = "Sure [1]:\n```json\n{\"a\": [1, {\"b\": \"x\"}]}\n```\nDone.";
        assert_eq!(call(text, "/a/1/b"), Ok("\"x\"".to_owned()));
        assert_eq!(call(text, ""), Ok("{\"a\":[1,{\"b\":\"x\"}]}".to_owned()));
        assert_eq!(call("{broken [1, 2]", "/1"), Ok("2".to_owned()));
    }

    #[test]
    fn texts_without_json_and_pointers_to_nothing_are_faults() {
        assert_eq!(call("no {json here", ""), Err("unparseable".to_owned()));
        assert_eq!(call("[1]", "/3"), Err("not-found".to_owned()));
        assert_eq!(call(&"[".repeat(100_000), ""), Err("unparseable".to_owned()));
    }

    #[test]
    fn rows_are_answered_one_by_one() {
        let tool: JsonTool = testing::tool("{}").unwrap();
        let rows: Texts = [r#"{"text": "[7]", "pointer": "/0"}"#, r#"{"txt": 1}"#].into_iter().collect();
        let outputs = call_rows(&tool, &rows);
        assert_eq!(outputs.output.get(0), "7");
        assert_eq!((outputs.faults[0].row, outputs.faults[0].fault.code.as_str()), (1, Fault::BAD_ARGUMENTS));
    }
}
