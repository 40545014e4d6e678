//! `plumb plugin new`: a folder that builds at once.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde_json::json;

use super::language::Language;
use super::source::sdk_tree;
use crate::diagnostic::Diagnostic;
use crate::exit::ExitStatus;
use crate::output::Output;

/// Start a plugin: a folder that builds at once, with a test and example cases.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  plumb plugin new reward-brevity
  plumb plugin new plugins/damp --kind shaper --lang python

It depends on the SDK in the source tree that this program was built from, or in the checkout that PLUMB_SOURCE names.")]
pub struct NewArgs {
    /// The new folder; its last part is the plugin's name
    folder: PathBuf,
    /// What the plugin is for [default: the name's first word if it is a kind, else reward]
    #[arg(long)]
    kind: Option<Kind>,
    /// Language to write it in
    #[arg(long, default_value = "rust")]
    lang: Language,
}

/// Kinds that this host runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Completions to rewards
    Reward,
    /// Rewards to shaped ones
    Shaper,
    /// Which rows the loss sees
    Filter,
    /// Candidates to verdicts, by asking models
    Judge,
    /// What other plugins call
    Tool,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Reward => "reward",
            Kind::Shaper => "shaper",
            Kind::Filter => "filter",
            Kind::Judge => "judge",
            Kind::Tool => "tool",
        }
    }

    fn of_name(name: &str) -> Self {
        let first = name.split(['-', '_']).next().unwrap_or_default();
        Kind::value_variants().iter().copied().find(|kind| kind.name() == first).unwrap_or(Kind::Reward)
    }

    /// What its manifest asks for: a judge is nothing without models.
    fn needs(self) -> &'static str {
        if self == Kind::Judge { "\n[needs]\ncapabilities = [\"models\"]     # the recipe grants them by name\n" } else { "" }
    }

    /// Cases for `plumb plugin test`.
    fn cases(self) -> &'static str {
        match self {
            Kind::Reward => include_str!("template/reward.jsonl"),
            Kind::Shaper => include_str!("template/shaper.jsonl"),
            Kind::Filter => include_str!("template/filter.jsonl"),
            Kind::Judge => include_str!("template/judge.jsonl"),
            Kind::Tool => include_str!("template/tool.jsonl"),
        }
    }
}

/// Runs the command.
pub fn run(args: &NewArgs, output: Output) -> anyhow::Result<ExitStatus> {
    let name = args.folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if !is_plugin_name(name) {
        return Err(Diagnostic::usage("plugin.name", format!("`{name}` is no name for a plugin"))
            .hint("use lower-case letters, digits and `-`, beginning with a letter: `reward-brevity`")
            .into());
    }
    if args.folder.exists() {
        return Err(Diagnostic::usage("plugin.exists", format!("`{}` is there already", args.folder.display())).into());
    }
    let kind = args.kind.unwrap_or_else(|| Kind::of_name(name));
    for (path, text) in files(name, kind, args.lang, &sdk_tree()?) {
        let path = args.folder.join(path);
        let written = path.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| std::fs::write(&path, text));
        written.map_err(|e| Diagnostic::io("write", &path, &e))?;
    }
    if output.json {
        let data = json!({"name": name, "kind": kind.name(), "folder": args.folder});
        output.data(json!({"type": "plugin", "v": 1, "data": data}).to_string())?;
    } else {
        output.data(args.folder.display().to_string())?;
        let (kind, logic, folder) = (kind.name(), args.lang.logic_file(), args.folder.display());
        output.note(format!("write {kind} in {logic}; then `plumb plugin test {folder}`"));
    }
    Ok(ExitStatus::Success)
}

/// Whether a plugin may be called that.
pub fn is_plugin_name(name: &str) -> bool {
    let lower = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(lower) && !name.ends_with('-')
}

/// The new plugin's files.
fn files(name: &str, kind: Kind, language: Language, tree: &Path) -> Vec<(&'static str, String)> {
    let sdk = language.sdk(tree);
    let fill = |text: &str| {
        text.replace("{{name}}", name)
            .replace("{{kind}}", kind.name())
            .replace("{{needs}}", kind.needs())
            .replace("{{Type}}", &camel_case(name))
            .replace("{{crate}}", &name.replace('-', "_"))
            .replace("{{sdk}}", &sdk)
    };
    let mut files: Vec<_> = language.templates(kind).into_iter().map(|(path, text)| (path, fill(text))).collect();
    files.push(("cases.jsonl", kind.cases().to_owned()));
    files
}

fn camel_case(name: &str) -> String {
    let word = |word: &str| {
        let mut letters = word.chars();
        letters.next().map_or_else(String::new, |first| first.to_ascii_uppercase().to_string() + letters.as_str())
    };
    name.split('-').map(word).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_read_off_the_name() {
        assert_eq!(Kind::of_name("shaper-damp"), Kind::Shaper);
        assert_eq!(Kind::of_name("filter-x"), Kind::Filter);
        assert_eq!(Kind::of_name("brevity"), Kind::Reward);
    }

    #[test]
    fn new_files_have_no_placeholder_left() {
        for &language in Language::value_variants() {
            for &kind in Kind::value_variants() {
                for (path, text) in files("reward-two-words", kind, language, Path::new("/plumb")) {
                    assert!(!text.contains("{{"), "{path}: {text}");
                }
            }
        }
        assert_eq!(camel_case("reward-two-words"), "RewardTwoWords");
    }
}
