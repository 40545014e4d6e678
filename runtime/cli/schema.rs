//! Checks a recipe against its JSON schema, key by key.
//!
//! serde would find most of it too, but its messages do not say where, and `flatten` switches its check for unknown keys off.
//! So this walk is the check, and what passes it deserializes.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::diagnostic::{Diagnostic, nearest};

/// The recipe's JSON schema.
pub fn recipe_schema() -> Value {
    schemars::schema_for!(plumb_core::recipe::Recipe).to_value()
}

/// Checks every key, type and choice of a recipe.
pub fn check(recipe: &Value) -> Result<(), Diagnostic> {
    let root = recipe_schema();
    Walk { definitions: root.get("$defs").and_then(Value::as_object) }.check(recipe, &root, "")
}

struct Walk<'a> {
    definitions: Option<&'a Map<String, Value>>,
}

/// What a place in the schema allows, all its alternatives together.
#[derive(Default)]
struct Allowed<'a> {
    properties: BTreeMap<&'a str, &'a Value>,
    required: Vec<&'a str>,
    items: Option<&'a Value>,
    types: Vec<&'a str>,
    choices: Vec<&'a str>,
    minimum: Option<f64>,
}

impl<'a> Walk<'a> {
    fn check(&self, value: &Value, schema: &'a Value, path: &str) -> Result<(), Diagnostic> {
        let mut allowed = Allowed::default();
        self.collect(schema, true, &mut allowed);
        match value {
            Value::Object(table) if !allowed.properties.is_empty() => self.check_table(table, &allowed, path),
            Value::Array(list) if allowed.items.is_some() => {
                let items = allowed.items.expect("just checked");
                list.iter().enumerate().try_for_each(|(i, item)| self.check(item, items, &join(path, &element(i, item))))
            }
            _ => check_scalar(value, &allowed, path),
        }
    }

    fn check_table(&self, table: &Map<String, Value>, allowed: &Allowed<'a>, path: &str) -> Result<(), Diagnostic> {
        for (key, value) in table {
            let Some(schema) = allowed.properties.get(key.as_str()) else {
                let error = Diagnostic::usage("recipe.unknown_key", format!("unknown key `{key}`")).at(join(path, key));
                return Err(match nearest(key, allowed.properties.keys().copied()) {
                    Some(near) => error.hint(format!("did you mean `{near}`?")),
                    None => error.hint(format!("keys here: {}", list(allowed.properties.keys().copied()))),
                });
            };
            self.check(value, schema, &join(path, key))?;
        }
        match allowed.required.iter().find(|key| !table.contains_key(**key)) {
            Some(key) => Err(Diagnostic::usage("recipe.missing_key", format!("`{key}` is missing")).at(join(path, key))),
            None => Ok(()),
        }
    }

    /// Gathers what a schema allows, through references and alternatives. `certain` is false inside alternatives, where a
    /// required key of one is none of another.
    fn collect(&self, schema: &'a Value, certain: bool, allowed: &mut Allowed<'a>) {
        let target = schema.get("$ref").and_then(Value::as_str).and_then(|name| name.strip_prefix("#/$defs/"));
        if let Some(definition) = target.and_then(|name| self.definitions?.get(name)) {
            self.collect(definition, certain, allowed);
        }
        for part in ["allOf", "anyOf", "oneOf"] {
            for alternative in schema.get(part).and_then(Value::as_array).into_iter().flatten() {
                self.collect(alternative, certain && part == "allOf", allowed);
            }
        }
        let strings = |key: &str| -> Vec<&'a str> {
            match schema.get(key) {
                Some(Value::String(one)) => vec![one],
                Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).collect(),
                _ => Vec::new(),
            }
        };
        if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
            allowed.properties.extend(properties.iter().map(|(name, schema)| (name.as_str(), schema)));
        }
        if certain {
            allowed.required.extend(strings("required"));
        }
        allowed.items = allowed.items.or(schema.get("items"));
        allowed.types.extend(strings("type"));
        allowed.choices.extend(strings("enum"));
        allowed.choices.extend(strings("const"));
        allowed.minimum = allowed.minimum.or(schema.get("minimum").and_then(Value::as_f64));
    }
}

fn check_scalar(value: &Value, allowed: &Allowed<'_>, path: &str) -> Result<(), Diagnostic> {
    let wrong = |message: String| Diagnostic::usage("recipe.value", message).at(path);
    // TOML has no null; `inf` and `nan` become one in JSON.
    if value.is_null() {
        return Err(wrong("must be finite".into()));
    }
    if let (Value::String(text), false) = (value, allowed.choices.is_empty()) {
        if allowed.choices.contains(&text.as_str()) {
            return Ok(());
        }
        // `on_fault = { value = 0 }` beside `on_fault = "drop-row"`.
        let table: Vec<String> = allowed.properties.keys().map(|key| format!("{{ {key} = ... }}")).collect();
        let table = if table.is_empty() { String::new() } else { format!(", nor {}", table.join(", ")) };
        let error = wrong(format!("`{text}` is none of {}{table}", list(allowed.choices.iter().copied())));
        return Err(match nearest(text, allowed.choices.iter().copied()) {
            Some(near) => error.hint(format!("did you mean `{near}`?")),
            None => error,
        });
    }
    let fits = |kind: &&str| match (value, *kind) {
        (Value::Bool(_), "boolean")
        | (Value::String(_), "string")
        | (Value::Number(_), "number")
        | (Value::Array(_), "array")
        | (Value::Object(_), "object") => true,
        (Value::Number(number), "integer") => number.is_i64() || number.is_u64(),
        _ => false,
    };
    if !allowed.types.is_empty() && !allowed.types.iter().any(fits) {
        let expected =
            allowed.types.iter().filter(|kind| **kind != "null").map(|kind| type_name(kind)).collect::<Vec<_>>().join(" or ");
        return Err(wrong(format!("expected {expected}, got {}", describe(value))));
    }
    match (value.as_f64(), allowed.minimum) {
        (Some(number), Some(minimum)) if number < minimum => Err(wrong(format!("{value} is below {minimum}"))),
        _ => Ok(()),
    }
}

fn type_name(kind: &str) -> &str {
    match kind {
        "boolean" => "true or false",
        "string" => "text",
        "array" => "a list",
        "object" => "a table",
        "integer" => "an integer",
        _ => "a number",
    }
}

fn describe(value: &Value) -> String {
    match value {
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "a table".into(),
        Value::String(text) => format!("the text \"{text}\""),
        other => other.to_string(),
    }
}

/// How a list's element is called in a path: by its name where it has one.
fn element(index: usize, item: &Value) -> String {
    item.get("name").or_else(|| item.get("plugin")).and_then(Value::as_str).map_or_else(|| index.to_string(), ToOwned::to_owned)
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A recipe with `line` in its only stage.
    fn checked(line: &str) -> Result<(), Diagnostic> {
        let text = format!(
            "name = 'x'\nmodel.path = 'm'\n[[stages]]\nname = 'rl'\nalgorithm = 'grpo'\nmax_steps = 1\ndata.train = ['a']\n{line}\n"
        );
        check(&toml::from_str(&text).unwrap())
    }

    fn error(line: &str) -> (String, String, String, String) {
        let e = checked(line).unwrap_err();
        (e.code, e.place.unwrap_or_default(), e.message, e.hint.unwrap_or_default())
    }

    #[test]
    fn unknown_keys_are_refused_with_the_nearest_at_every_depth() {
        let (code, place, message, hint) = error("grpo.epsilon_hi = 0.3");
        assert_eq!((code.as_str(), place.as_str()), ("recipe.unknown_key", "stages.rl.grpo.epsilon_hi"));
        assert_eq!((message.as_str(), hint.as_str()), ("unknown key `epsilon_hi`", "did you mean `epsilon_high`?"));
        // Flattened structs, where serde would let it pass.
        assert_eq!(error("rewards = [{ plugin = 'p', wieght = 2 }]").3, "did you mean `weight`?");
        assert_eq!(error("rewards = [{ plugin = 'p', limits = { feul = 2 } }]").1, "stages.rl.rewards.p.limits.feul");
        assert!(error("zzz = 1").3.starts_with("keys here: `algorithm`, `cpo`, `data`"));
    }

    #[test]
    fn plugin_configuration_is_the_plugins_own_business() {
        checked("rewards = [{ plugin = 'p', config = { anything = [1, { goes = true }] } }]").unwrap();
    }

    #[test]
    fn types_choices_and_signs_are_checked_with_their_place() {
        let value = |line| (error(line).1, error(line).2);
        assert_eq!(
            value("grpo.beta = 'much'"),
            ("stages.rl.grpo.beta".into(), "expected a number, got the text \"much\"".into())
        );
        assert_eq!(value("rollout.top_k = -1").1, "-1 is below 0");
        assert_eq!(value("rollout.num_generations = 2.5").1, "expected an integer, got 2.5");
        assert_eq!(value("grpo.loss_type = 'gpro'").1, "`gpro` is none of `grpo`, `dr_grpo`, `dapo`, `bnpo`, `cispo`");
        assert_eq!(error("grpo.loss_type = 'gpro'").3, "did you mean `grpo`?");
        let told = value("rewards = [{ plugin = 'p', on_fault = 'zero' }]").1;
        assert!(told.starts_with("`zero` is none of `drop-group`") && told.ends_with(", nor { value = ... }"), "{told}");
        checked("rewards = [{ plugin = 'p', on_fault = { value = 0 } }, { plugin = 'q', on_fault = 'drop-row' }]").unwrap();
        checked("grpo.beta = 1").unwrap();
        assert_eq!(value("grpo.epsilon_high = nan"), ("stages.rl.grpo.epsilon_high".into(), "must be finite".into()));
    }

    #[test]
    fn missing_keys_are_named() {
        let missing = check(&toml::from_str("name = 'x'\nstages = []").unwrap()).unwrap_err();
        assert_eq!((missing.code.as_str(), missing.message.as_str()), ("recipe.missing_key", "`model` is missing"));
    }
}
