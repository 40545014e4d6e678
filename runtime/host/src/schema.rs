//! A configuration against the JSON schema that its plugin describes: what is wrong in a recipe is said before the plugin runs on it.
//!
//! The schema comes from the plugin, so that nothing of it may cost more than it is worth: no reference leaves the document, no
//! pattern is run, and depth is bounded. The keywords below decide, as JSON Schema 2020-12 says; all others (`title`, `default`,
//! `format`, `pattern`, ...) are annotations here, and what they mean the plugin checks itself in `init`.

use serde_json::{Map, Value};

/// Most faults that are told at once.
const TOLD: usize = 8;
/// Allowed values that a fault lists.
const VALUES_TOLD: usize = 16;
/// Bytes of a fault's words: values and lists of keys may be of any length. Longer ones are cut.
const FAULT_BYTES: usize = 400;
/// Schemas within schemas and references, at most.
const DEPTH: usize = 64;
/// Schemas that one check may apply: alternatives in alternatives multiply.
const STEPS: usize = 100_000;

/// Why a configuration was not accepted.
#[derive(Debug, PartialEq)]
pub enum Refusal {
    /// The schema is none: the author's mistake.
    Schema(String),
    /// The configuration does not fit it: the user's.
    Config(String),
}

/// Checks `config`. A plugin without a schema (an empty text) takes anything.
pub fn check(schema: &str, config: &Value) -> Result<(), Refusal> {
    if schema.trim().is_empty() {
        return Ok(());
    }
    let root: Value = serde_json::from_str(schema).map_err(|error| Refusal::Schema(error.to_string()))?;
    let mut check = Check { root: &root, steps: 0, faults: Vec::new() };
    check.apply(&root, config, "", 0).map_err(Refusal::Schema)?;
    let Check { mut faults, .. } = check;
    faults.truncate(TOLD);
    if faults.is_empty() { Ok(()) } else { Err(Refusal::Config(faults.join("; "))) }
}

struct Check<'s> {
    root: &'s Value,
    steps: usize,
    faults: Vec<String>,
}

/// Err says what is wrong with the schema.
type Applied = Result<(), String>;

impl<'s> Check<'s> {
    fn apply(&mut self, schema: &'s Value, value: &Value, path: &str, depth: usize) -> Applied {
        self.steps += 1;
        if depth > DEPTH || self.steps > STEPS {
            return Err(format!("too deep, or too many alternatives, at `{path}`"));
        }
        let schema = match schema {
            Value::Bool(true) => return Ok(()),
            Value::Bool(false) => {
                self.fault(path, "is not allowed here");
                return Ok(());
            }
            Value::Object(schema) => schema,
            other => return Err(format!("{other} where a schema is expected")),
        };
        if let Some(target) = schema.get("$ref") {
            let target = target.as_str().and_then(|target| target.strip_prefix('#'));
            let found = target.and_then(|pointer| self.root.pointer(pointer));
            self.apply(
                found.ok_or_else(|| format!("`$ref` {} leads nowhere in the schema", schema["$ref"]))?,
                value,
                path,
                depth + 1,
            )?;
        }
        self.kind(schema, value, path)?;
        self.one_of_values(schema, value, path)?;
        self.numbers(schema, value, path)?;
        self.sizes(schema, value, path)?;
        self.object(schema, value, path, depth)?;
        if let (Some(items), Value::Array(list)) = (schema.get("items"), value) {
            for (index, item) in list.iter().enumerate() {
                self.apply(items, item, &join(path, &index.to_string()), depth + 1)?;
            }
        }
        self.alternatives(schema, value, path, depth)
    }

    fn kind(&mut self, schema: &Map<String, Value>, value: &Value, path: &str) -> Applied {
        let Some(expected) = schema.get("type") else { return Ok(()) };
        let names: Vec<&str> = match expected {
            Value::String(name) => vec![name],
            Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
            other => return Err(format!("{other} as `type`")),
        };
        let mut fits = false;
        for name in &names {
            fits |= match *name {
                "object" => value.is_object(),
                "array" => value.is_array(),
                "string" => value.is_string(),
                "boolean" => value.is_boolean(),
                "null" => value.is_null(),
                "number" => value.is_number(),
                "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
                other => return Err(format!("{other:?} as `type`")),
            };
        }
        if !fits {
            self.fault(path, &format!("is {value}, expected {}", names.join(" or ")));
        }
        Ok(())
    }

    fn one_of_values(&mut self, schema: &Map<String, Value>, value: &Value, path: &str) -> Applied {
        let allowed = match (schema.get("enum"), schema.get("const")) {
            (Some(Value::Array(allowed)), _) => allowed.as_slice(),
            (Some(other), _) => return Err(format!("{other} as `enum`")),
            (None, Some(only)) => std::slice::from_ref(only),
            (None, None) => return Ok(()),
        };
        self.steps += allowed.len();
        if !allowed.iter().any(|allowed| equal(allowed, value)) {
            let shown: Vec<String> = allowed.iter().take(VALUES_TOLD).map(Value::to_string).collect();
            let more = if allowed.len() > VALUES_TOLD { " or others" } else { "" };
            self.fault(path, &format!("is {value}, expected {}{more}", shown.join(" or ")));
        }
        Ok(())
    }

    fn numbers(&mut self, schema: &Map<String, Value>, value: &Value, path: &str) -> Applied {
        let Some(number) = value.as_f64() else { return Ok(()) };
        type Holds = fn(f64, f64) -> bool;
        let rules: [(&str, &str, Holds); 5] = [
            ("minimum", "at least", |number, bound| number >= bound),
            ("maximum", "at most", |number, bound| number <= bound),
            ("exclusiveMinimum", "above", |number, bound| number > bound),
            ("exclusiveMaximum", "below", |number, bound| number < bound),
            ("multipleOf", "a multiple of", |number, bound| (number / bound).fract() == 0.0),
        ];
        for (keyword, words, holds) in rules {
            let Some(bound) = schema.get(keyword) else { continue };
            let bound = bound.as_f64().ok_or_else(|| format!("{bound} as `{keyword}`"))?;
            if !holds(number, bound) {
                self.fault(path, &format!("is {value}, must be {words} {bound}"));
            }
        }
        Ok(())
    }

    fn sizes(&mut self, schema: &Map<String, Value>, value: &Value, path: &str) -> Applied {
        let (size, least, most, what) = match value {
            Value::String(text) => (text.chars().count(), "minLength", "maxLength", "characters"),
            Value::Array(list) => (list.len(), "minItems", "maxItems", "items"),
            Value::Object(map) => (map.len(), "minProperties", "maxProperties", "keys"),
            _ => return Ok(()),
        };
        for (keyword, words) in [(least, "at least"), (most, "at most")] {
            let Some(bound) = schema.get(keyword) else { continue };
            let bound = bound.as_u64().ok_or_else(|| format!("{bound} as `{keyword}`"))?;
            if (keyword == least && (size as u64) < bound) || (keyword == most && size as u64 > bound) {
                let keys = schema.get("properties").and_then(Value::as_object).filter(|_| value.is_object() && keyword == least);
                let known = keys.map_or_else(String::new, |keys| format!("; it has {}", named(keys)));
                self.fault(path, &format!("has {size} {what}, must have {words} {bound}{known}"));
            }
        }
        if schema.get("uniqueItems") == Some(&Value::Bool(true))
            && let Value::Array(list) = value
            && list.iter().enumerate().any(|(i, item)| list[..i].iter().any(|other| equal(other, item)))
        {
            self.fault(path, "has an item twice");
        }
        Ok(())
    }

    fn object(&mut self, schema: &'s Map<String, Value>, value: &Value, path: &str, depth: usize) -> Applied {
        let Value::Object(map) = value else { return Ok(()) };
        let properties = schema.get("properties").and_then(Value::as_object);
        for required in schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
            if !map.contains_key(required) {
                self.fault(path, &format!("lacks the key `{required}`"));
            }
        }
        for (key, item) in map {
            let inner = join(path, key);
            if let Some(property) = properties.and_then(|properties| properties.get(key)) {
                self.apply(property, item, &inner, depth + 1)?;
            } else if schema.get("additionalProperties") == Some(&Value::Bool(false)) && !schema.contains_key("patternProperties")
            {
                let known = properties.map_or_else(|| "none".to_owned(), named);
                self.fault(&inner, &format!("is no key of this configuration; it has {known}"));
            } else if let Some(others) = schema.get("additionalProperties") {
                self.apply(others, item, &inner, depth + 1)?;
            }
        }
        Ok(())
    }

    fn alternatives(&mut self, schema: &'s Map<String, Value>, value: &Value, path: &str, depth: usize) -> Applied {
        for keyword in ["allOf", "anyOf", "oneOf"] {
            let Some(list) = schema.get(keyword) else { continue };
            let list = list.as_array().ok_or_else(|| format!("{list} as `{keyword}`"))?;
            let before = self.faults.len();
            let mut fitting = 0;
            for alternative in list {
                let start = self.faults.len();
                self.apply(alternative, value, path, depth + 1)?;
                fitting += usize::from(self.faults.len() == start);
            }
            if keyword == "allOf" {
                continue;
            }
            // What is wrong with each alternative is told only if none fits.
            if fitting > 0 {
                self.faults.truncate(before);
            }
            if keyword == "oneOf" && fitting > 1 {
                self.fault(path, &format!("fits {fitting} alternatives, of which one is meant"));
            }
        }
        if let Some(not) = schema.get("not") {
            let before = self.faults.len();
            self.apply(not, value, path, depth + 1)?;
            if self.faults.len() == before {
                self.fault(path, &format!("is {value}, which is excluded"));
            } else {
                self.faults.truncate(before);
            }
        }
        Ok(())
    }

    fn fault(&mut self, path: &str, what: &str) {
        let place = if path.is_empty() { "the configuration".to_owned() } else { format!("`{path}`") };
        let mut fault = format!("{place} {what}");
        if fault.len() > FAULT_BYTES {
            fault.truncate(fault.floor_char_boundary(FAULT_BYTES));
            fault.push('…');
        }
        self.faults.push(fault);
    }
}

/// Keys, for a message.
fn named(keys: &Map<String, Value>) -> String {
    keys.keys().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ")
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// As JSON Schema compares: 1 is 1.0.
fn equal(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const SCHEMA: &str = r##"{"type": "object", "additionalProperties": false, "properties": {
        "mode": {"enum": ["whole", "contains"]},
        "limit": {"type": "integer", "minimum": 1},
        "scale": {"anyOf": [{"type": "null"}, {"type": "number", "exclusiveMinimum": 0}]},
        "inner": {"type": "object", "required": ["weights"], "properties": {"weights": {"type": "array", "items": {"$ref": "#/$defs/w"}}}}},
        "$defs": {"w": {"type": "number", "minimum": 0}}}"##;

    fn refusal(config: &Value) -> String {
        match check(SCHEMA, config) {
            Err(Refusal::Config(message)) => message,
            other => panic!("expected a refusal of the configuration, got {other:?}"),
        }
    }

    #[test]
    fn configuration_that_fits_passes() {
        for config in [json!({}), json!({ "mode": "whole", "limit": 2.0, "scale": null, "inner": { "weights": [0.5] } })] {
            assert_eq!(check(SCHEMA, &config), Ok(()));
        }
        assert_eq!(check("", &json!({ "any": 1 })), Ok(()));
    }

    #[test]
    fn configuration_is_refused_with_path_and_reason() {
        for (config, told) in [
            (json!({ "mode": "hole" }), "`mode` is \"hole\", expected \"whole\" or \"contains\""),
            (json!({ "limit": 0 }), "`limit` is 0, must be at least 1"),
            (json!({ "limit": 1.5 }), "`limit` is 1.5, expected integer"),
            (json!({ "inner": { "weights": [1, -2] } }), "`inner.weights.1` is -2, must be at least 0"),
            (json!({ "inner": {} }), "`inner` lacks the key `weights`"),
            (json!({ "scale": -1 }), "`scale` is -1, expected null; `scale` is -1, must be above 0"),
        ] {
            assert_eq!(refusal(&config), told);
        }
        let message = refusal(&json!({ "mood": 1, "mode": 2 }));
        assert!(message.contains("`mood` is no key") && message.contains("`mode` is 2"), "all faults at once: {message}");
    }

    #[test]
    fn configuration_without_keys_where_some_are_needed_is_told_which_there_are() {
        let schema = r#"{"type": "object", "minProperties": 1, "properties": {"json": {}, "regex": {}}}"#;
        let Err(Refusal::Config(message)) = check(schema, &json!({})) else { panic!("it has no key") };
        assert!(message.ends_with("has 0 keys, must have at least 1; it has `json`, `regex`"), "{message}");
    }

    #[test]
    fn schemas_that_are_none_are_the_authors_mistake() {
        for schema in ["{", "3", r#"{"type": "objekt"}"#, r#"{"$ref": "file:///etc/passwd"}"#, r##"{"$ref": "#/none"}"##] {
            assert!(matches!(check(schema, &json!({})), Err(Refusal::Schema(_))), "{schema}");
        }
    }

    #[test]
    fn schemas_cannot_loop_nor_multiply() {
        let looping = [r##"{"$ref": "#"}"##, r##"{"$ref": "#/$defs/a", "$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}]}}}"##];
        let twice = r##"{"anyOf": [{"$ref": "#/$defs/0"}, {"$ref": "#/$defs/0"}], "$defs": {"##.to_owned()
            + &(0..60)
                .map(|n| format!(r##""{n}": {{"anyOf": [{{"$ref": "#/$defs/{m}"}}, {{"$ref": "#/$defs/{m}"}}]}},"##, m = n + 1))
                .collect::<String>()
            + r#""60": {}}}"#;
        // Each of the references compares with every value.
        let values = (0..10_000).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
        let references = vec![r##"{"$ref": "#/$defs/v"}"##; 1000].join(",");
        let wide = format!(r#"{{"allOf": [{references}], "$defs": {{"v": {{"enum": [{values}]}}}}}}"#);
        for schema in looping.into_iter().chain([twice.as_str(), wide.as_str()]) {
            assert!(matches!(check(schema, &json!({})), Err(Refusal::Schema(_))), "{schema:.60}");
        }
    }
}
