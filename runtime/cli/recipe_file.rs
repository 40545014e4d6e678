//! Recipe files: TOML, then `--set`, then a check of every key against the schema, then what types cannot say.

use std::path::{Path, PathBuf};

use plumb_core::recipe::Recipe;
use serde_json::Value;

use crate::diagnostic::{Diagnostic, did_you_mean};
use crate::{schema, validate};

/// A recipe that was read, and where its relative paths start.
#[derive(Clone, Debug)]
pub struct RecipeFile {
    /// The recipe.
    pub recipe: Recipe,
    /// The file.
    pub path: PathBuf,
    /// The file's folder.
    pub folder: PathBuf,
}

/// Reads a recipe, applies `sets` (each `key=value`) and checks it.
pub fn load(path: &Path, sets: &[String]) -> Result<RecipeFile, Diagnostic> {
    let text = std::fs::read_to_string(path)
        .map_err(|e| Diagnostic::io("read", path, &e).hint("give the path of a recipe, a TOML file"))?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned();
    let recipe = parse(&text, sets).and_then(|recipe| validate::recipe(&recipe, &folder).map(|()| recipe));
    let recipe = recipe.map_err(|error| locate(error, path, &text))?;
    Ok(RecipeFile { recipe, path: path.to_owned(), folder })
}

/// Reads a recipe's text, without the checks that need its folder.
pub fn parse(text: &str, sets: &[String]) -> Result<Recipe, Diagnostic> {
    let mut value: Value = toml::from_str(text).map_err(|e| {
        let line = e.span().map(|span| text[..span.start].matches('\n').count() + 1);
        let error = Diagnostic::usage("recipe.syntax", "the recipe is not valid TOML").because(e.message());
        line.into_iter().fold(error, |error, line| error.at(format!("line {line}")))
    })?;
    for set in sets {
        apply(&mut value, set)?;
    }
    schema::check(&value)?;
    serde_json::from_value(value).map_err(|e| Diagnostic::usage("recipe.value", e.to_string()))
}

/// Puts the file's name, and the line where the key can be found, in front of the key.
fn locate(mut error: Diagnostic, path: &Path, text: &str) -> Diagnostic {
    let file = path.display();
    error.place = Some(match error.place {
        None => file.to_string(),
        Some(place) => match line_of(text, &place) {
            Some(line) => format!("{file}:{line}: {place}"),
            None => format!("{file}: {place}"),
        },
    });
    error
}

/// Line of the last part of a key path. Only when one line alone sets that key: with two stages, a guess could mislead.
fn line_of(text: &str, place: &str) -> Option<usize> {
    let key = place.rsplit('.').next()?;
    let sets_key = |line: &str| {
        let name = line.split('=').next().unwrap_or_default().trim();
        line.contains('=') && !name.starts_with('#') && name.rsplit('.').next().map(|n| n.trim().trim_matches('"')) == Some(key)
    };
    let mut lines = text.lines().enumerate().filter(|(_, line)| sets_key(line)).map(|(i, _)| i + 1);
    match (lines.next(), lines.next()) {
        (Some(line), None) => Some(line),
        _ => None,
    }
}

/// Applies one `--set key=value`. A value is TOML; what is no TOML is text.
///
/// Elements of lists are named by position, or by their `name` or `plugin`: `stages.grpo.grpo.beta=0.04`, `stages.1.seed=3`.
fn apply(root: &mut Value, set: &str) -> Result<(), Diagnostic> {
    let wrong = |reason: String| Diagnostic::usage("recipe.set", format!("`--set {set}`: {reason}"));
    let Some((key, text)) = set.split_once('=') else {
        return Err(wrong("there is no `=`".into()).hint("write `--set key=value`, as `--set stages.grpo.grpo.beta=0.04`"));
    };
    let parsed =
        toml::from_str::<Value>(&format!("value = {text}")).ok().and_then(|mut table| table.get_mut("value").map(Value::take));
    let new = parsed.unwrap_or_else(|| Value::String(text.to_owned()));

    let parts: Vec<&str> = key.trim().split('.').collect();
    let mut at = root;
    for (depth, part) in parts.iter().enumerate() {
        let so_far = parts[..depth].join(".");
        at = match at {
            Value::Object(table) => table.entry((*part).to_owned()).or_insert_with(|| Value::Object(serde_json::Map::new())),
            Value::Array(list) => {
                let names: Vec<String> = list.iter().map(element_name).collect();
                let index = names.iter().position(|name| name == part).or_else(|| part.parse().ok().filter(|i| *i < list.len()));
                let Some(index) = index else {
                    let error = wrong(format!("`{so_far}` has no element `{part}`; there are {}", quoted(&names)));
                    return Err(match did_you_mean(part, names.iter().map(String::as_str)) {
                        Some(hint) => error.hint(hint),
                        None => error,
                    });
                };
                &mut list[index]
            }
            _ => return Err(wrong(format!("`{so_far}` is a single value and has no `{part}`"))),
        };
    }
    *at = new;
    Ok(())
}

fn element_name(element: &Value) -> String {
    let field = |name| element.get(name).and_then(Value::as_str);
    field("name").or_else(|| field("plugin")).unwrap_or_default().to_owned()
}

fn quoted(names: &[String]) -> String {
    names
        .iter()
        .enumerate()
        .map(|(i, name)| if name.is_empty() { i.to_string() } else { format!("`{name}`") })
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECIPE: &str = r#"
name = "test"
model.path = "model"

[[stages]]
name = "sft"
algorithm = "sft"
max_steps = 1
data.train = ["a.jsonl"]

[[stages]]
name = "rl"
algorithm = "grpo"
max_steps = 5
data.train = ["b.jsonl"]
rewards = [{ plugin = "reward-exact-match", config = { field = "answer" } }]
"#;

    fn parsed(sets: &[&str]) -> Result<Recipe, Diagnostic> {
        parse(RECIPE, &sets.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn set_reaches_list_elements_by_name_and_by_position() {
        let recipe = parsed(&[
            "stages.rl.grpo.beta=0.04",
            "stages.0.max_steps=7",
            "stages.rl.rewards.reward-exact-match.weight=2",
            "seed=9",
        ]);
        let recipe = recipe.unwrap();
        assert_eq!((recipe.stages[1].grpo.beta, recipe.stages[0].max_steps, recipe.seed), (0.04, 7, 9));
        assert_eq!(recipe.stages[1].rewards[0].weight, 2.0);
    }

    #[test]
    fn set_takes_bare_text_and_lists() {
        let recipe = parsed(&["stages.rl.grpo.loss_type=dr_grpo", r#"stages.rl.data.train=["c.jsonl", "d.jsonl"]"#]).unwrap();
        assert_eq!(recipe.stages[1].grpo.loss_type, plumb_core::recipe::LossType::DrGrpo);
        assert_eq!(recipe.stages[1].data.train.len(), 2);
    }

    #[test]
    fn set_of_an_unknown_stage_names_those_there_are() {
        let error = parsed(&["stages.grpo.max_steps=1"]).unwrap_err();
        assert_eq!(error.code, "recipe.set");
        assert!(error.message.contains("`stages` has no element `grpo`; there are `sft`, `rl`"), "{}", error.message);
    }

    #[test]
    fn syntax_error_names_the_line() {
        let error = parse("name = \"x\"\nseed = = 3\n", &[]).unwrap_err();
        assert_eq!((error.code.as_str(), error.place.as_deref()), ("recipe.syntax", Some("line 2")));
    }
}
