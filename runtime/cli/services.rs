//! What a plugin may ask on the command line: each flag names a model or a tool, and grants it.
//!
//! [`ServiceArgs`] are the flags, [`Wanted`] is what they and a recipe come to, [`Services`] is that, loaded and served.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use plumb_core::PluginKind;
use plumb_core::recipe::{BuiltinTool, Grants, LimitsUse, ModelUse, PluginUse, Recipe, ToolUse};
use plumb_core::services::{Models, NoModels};
use plumb_host::{LoadedPlugin, Sink};
use plumb_train::models::{ModelServer, ModelSet, ModelStore, RecordedModels};
use plumb_train::run::AnswerRecord;
use serde_json::{Map, Value};

use crate::diagnostic::Diagnostic;
use crate::output;
use crate::plugins::{self, Plugins};
use crate::recipe_file::RecipeFile;
use crate::rows;
use crate::trust::Trust;

/// Name of a model that got none, and that the plugin's configuration does not name either.
const UNNAMED: &str = "judge";
/// Key by which configurations name the model that is asked, as those of the shipped judges do.
pub const MODEL_KEY: &str = "model";

/// What a plugin may ask.
#[derive(Clone, Debug, Args)]
pub struct ServiceArgs {
    /// A model that the plugin may ask, a Hugging Face folder or a .gguf file; or JSON as in a recipe's `[models]`. Without NAME it has
    /// the name that the configuration gives as `model`; where it gives none, `model` is set. May be given several times
    #[arg(long = "model", value_name = "[NAME=]PATH|JSON")]
    pub models: Vec<String>,
    /// A tool that the plugin may call: `calculator`, a tool plugin (`json=tool-json`), or JSON as in a recipe's `[tools]`. May be given
    /// several times
    #[arg(long = "tool", value_name = "NAME[=PLUGIN|JSON]")]
    pub tools: Vec<String>,
    /// Most tokens that models read and write for the plugin, by row [default: 4096]
    #[arg(long, value_name = "TOKENS")]
    pub tokens_per_row: Option<u64>,
    /// Most sequences decoded at once; answers do not depend on it
    #[arg(long, default_value_t = 64, value_name = "N")]
    pub max_batch: usize,
    /// Write what models answered to this file, for `--recorded`
    #[arg(long, value_name = "FILE", conflicts_with = "recorded")]
    pub record: Option<PathBuf>,
    /// Take the models' answers from this file and load no model; a question that is not there has the fault `not-recorded`
    #[arg(long, value_name = "FILE")]
    pub recorded: Option<PathBuf>,
    /// Load only plugins that this key signed; may be given several times
    #[arg(long, value_name = "KEY")]
    pub trust: Vec<String>,
}

/// A plugin, and what it may ask.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The plugin; its grants name models and tools.
    pub plugin: PluginUse,
    models: BTreeMap<String, ModelUse>,
    tools: BTreeMap<String, ToolUse>,
    folder: Option<PathBuf>,
    trust: Trust,
    /// Seed of random numbers, the models' included.
    pub seed: u64,
}

impl Wanted {
    /// A plugin by its name or file, with that configuration.
    pub fn new(plugin: &str, config: Map<String, Value>, seed: u64) -> Self {
        let plugin =
            PluginUse { plugin: plugin.into(), name: None, config, limits: LimitsUse::default(), grants: Grants::default() };
        Wanted { plugin, models: BTreeMap::new(), tools: BTreeMap::new(), folder: None, trust: Trust::default(), seed }
    }

    /// A plugin as a recipe uses it, with the models and tools that the recipe grants it.
    pub fn of_recipe(file: &RecipeFile, plugin: &PluginUse, config: Map<String, Value>, seed: u64) -> Result<Self, Diagnostic> {
        let Recipe { models, tools, trust, .. } = &file.recipe;
        let models = models.iter().filter(|(name, model)| plugin.grants.models.contains(name) && model.lagged.is_none());
        Ok(Wanted {
            plugin: PluginUse { config, ..plugin.clone() },
            models: models.map(|(name, model)| (name.clone(), model.clone())).collect(),
            tools: tools.clone(),
            folder: Some(file.folder.clone()),
            trust: Trust::new(trust)?,
            seed,
        })
    }

    /// What the flags say besides.
    pub fn with(mut self, args: &ServiceArgs) -> Result<Self, Diagnostic> {
        self.trust = self.trust.and(&args.trust)?;
        let nameless = args.recorded.is_some() && args.models.is_empty() && self.plugin.grants.models.is_empty();
        let unnamed = nameless.then(|| (None, ModelUse::default()));
        let mut given = BTreeSet::new();
        for (name, model) in args.models.iter().map(|flag| model(flag)).collect::<Result<Vec<_>, _>>()?.into_iter().chain(unnamed)
        {
            let name = name.unwrap_or_else(|| asked(&mut self.plugin.config).to_owned());
            if !given.insert(name.clone()) {
                return Err(Diagnostic::usage("usage.model", format!("two models are named `{name}`"))
                    .hint("give each its name: `--model NAME=PATH`"));
            }
            grant(&mut self.plugin.grants.models, &name);
            self.models.insert(name, model);
        }
        for flag in &args.tools {
            let (name, tool) = tool(flag)?;
            grant(&mut self.plugin.grants.tools, &name);
            self.tools.insert(name, tool);
        }
        self.plugin.grants.tokens_per_row = args.tokens_per_row.or(self.plugin.grants.tokens_per_row);
        if args.recorded.is_none()
            && let Some(missing) = self.plugin.grants.models.iter().find(|name| !self.models.contains_key(*name))
        {
            let message = format!("the recipe grants the model `{missing}`, which is there only while it trains");
            return Err(
                Diagnostic::usage("usage.model", message).hint(format!("say who stands for it: `--model {missing}=PATH`"))
            );
        }
        Ok(self)
    }
}

/// The name of the model that the configuration asks, which is set where there is none.
fn asked(config: &mut Map<String, Value>) -> &str {
    config.entry(MODEL_KEY).or_insert_with(|| UNNAMED.into()).as_str().unwrap_or(UNNAMED)
}

fn grant(names: &mut Vec<String>, name: &str) {
    if !names.iter().any(|granted| granted == name) {
        names.push(name.to_owned());
    }
}

/// `[NAME=]PATH|JSON`. What stands before `=` is a name unless it looks like a path.
fn model(flag: &str) -> Result<(Option<String>, ModelUse), Diagnostic> {
    let name_of = |name: &str| !name.is_empty() && !name.contains(['/', '\\', '.', '{']);
    let (name, rest) = match flag.split_once('=') {
        Some((name, rest)) if name_of(name) => (Some(name.to_owned()), rest),
        _ => (None, flag),
    };
    let model = if rest.starts_with('{') {
        let wrong = |reason: String| Diagnostic::usage("usage.model", format!("`--model {flag}`: {reason}"));
        let model: ModelUse = serde_json::from_str(rest).map_err(|e| wrong(e.to_string()))?;
        if model.path.is_none() || model.lagged.is_some() {
            return Err(wrong("nothing is trained here, so a model has a `path` and is no lagged copy".into()));
        }
        model
    } else {
        ModelUse { path: Some(rest.into()), ..ModelUse::default() }
    };
    // Flags are about this folder, whatever folder a recipe is in.
    let here = |path: PathBuf| std::path::absolute(&path).map_err(|e| Diagnostic::io("find", &path, &e));
    let model = ModelUse { path: model.path.map(here).transpose()?, adapter: model.adapter.map(here).transpose()?, ..model };
    Ok((name, model))
}

/// `NAME[=PLUGIN|JSON]`; a name alone is a tool of the host.
fn tool(flag: &str) -> Result<(String, ToolUse), Diagnostic> {
    let wrong = |reason: String| {
        Diagnostic::usage("usage.tool", format!("`--tool {flag}`: {reason}"))
            .hint("write `--tool calculator`, `--tool NAME=PLUGIN`, or `--tool 'search={\"builtin\": \"search\", \"config\": {\"corpus\": \"FILE.jsonl\"}}'`")
    };
    let (name, rest) = flag.split_once('=').unwrap_or((flag, ""));
    let tool = if rest.is_empty() {
        let builtin: BuiltinTool =
            serde_json::from_value(name.into()).map_err(|_| wrong(format!("the host has no tool `{name}`")))?;
        ToolUse { builtin: Some(builtin), ..ToolUse::default() }
    } else if rest.starts_with('{') {
        serde_json::from_str(rest).map_err(|e| wrong(e.to_string()))?
    } else {
        ToolUse { plugin: Some(rest.to_owned()), ..ToolUse::default() }
    };
    Ok((name.to_owned(), tool))
}

/// Who answers.
enum Source {
    /// Nobody.
    None,
    /// Models in memory.
    Served(Arc<ModelServer>, Box<ModelStore>),
    /// A file of answers.
    Recorded(Arc<RecordedModels>),
}

/// A plugin's models and tools, loaded.
pub struct Services {
    source: Source,
    plugins: Plugins,
    record: Option<PathBuf>,
}

impl Services {
    /// Reads the models, or the record of their answers, and sets the tools up.
    pub fn open(wanted: &Wanted, args: &ServiceArgs, sink: Arc<dyn Sink>) -> anyhow::Result<Self> {
        let Wanted { models, tools, folder, trust, seed, .. } = wanted;
        let source = if let Some(path) = &args.recorded {
            Source::Recorded(Arc::new(read_answers(path)?))
        } else if models.is_empty() {
            Source::None
        } else {
            if args.max_batch == 0 {
                return Err(Diagnostic::usage("usage", "`--max-batch` must be at least 1").into());
            }
            let store = ModelStore::open(models, folder.as_deref().unwrap_or(Path::new("")), *seed)?;
            Source::Served(Arc::default(), Box::new(store.with_max_batch(args.max_batch)))
        };
        let models: Arc<dyn Models> = match &source {
            Source::None => Arc::new(NoModels),
            Source::Served(server, _) => Arc::clone(server) as _,
            Source::Recorded(answers) => Arc::clone(answers) as _,
        };
        let host = plugins::host_with_models(*seed, sink, models)?;
        let mut plugins = Plugins::new(host, folder.clone(), trust.clone());
        plugins.load_tools(tools, &BTreeMap::new())?;
        Ok(Services { source, plugins, record: args.record.clone() })
    }

    /// Loads the plugin.
    pub fn load(&self, kind: PluginKind, wanted: &Wanted) -> anyhow::Result<LoadedPlugin> {
        self.plugins.load(kind, &wanted.plugin).map_err(|error| {
            let error = plugins::unboxed(error);
            if matches!(error.downcast_ref(), Some(plumb_host::Error::NotGranted { .. })) {
                return Diagnostic::from(error)
                    .hint("here a flag that names it grants it: `--model NAME=PATH`, `--tool NAME`")
                    .into();
            }
            error
        })
    }

    /// Runs `work`, whose plugins may ask.
    pub fn while_served<T: Send>(&mut self, work: impl FnOnce(&dyn Models) -> T + Send) -> T {
        match &mut self.source {
            Source::None => work(&NoModels),
            Source::Recorded(answers) => work(&**answers),
            Source::Served(server, store) => {
                let server = &**server;
                let done = server.serve(&mut ModelSet { policy: None, store }, || work(server));
                if self.record.is_none() {
                    // The server remembers what was said until somebody writes it down.
                    drop(server.take_answers());
                }
                done
            }
        }
    }

    /// Writes the answers down, if that is wanted. Each is a line, in the order of the questions' digests.
    pub fn finish(self) -> anyhow::Result<()> {
        let Some(path) = self.record else { return Ok(()) };
        let answers = if let Source::Served(server, _) = self.source { server.take_answers() } else { Vec::new() };
        let mut out = output::Sink::open(Some(&path))?;
        for answer in answers {
            out.line(&serde_json::to_string(&answer)?)?;
        }
        Ok(out.finish()?)
    }
}

fn read_answers(path: &Path) -> Result<RecordedModels, Diagnostic> {
    let wrong = |line: usize, reason: &str| {
        Diagnostic::resource("input.broken_line", format!("`{}`, line {line}: {reason}", path.display()))
            .hint("`--record FILE` writes such files")
    };
    let rows = rows::read(path)?;
    let read = |row: &rows::Row| -> Result<AnswerRecord, Diagnostic> {
        serde_json::from_value(Value::Object(row.columns.clone())).map_err(|e| wrong(row.line, &e.to_string()))
    };
    let answers = rows.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    RecordedModels::new(&answers).map_err(|key| {
        let line = rows.iter().zip(&answers).find(|(_, answer)| answer.key == key).map_or(0, |(row, _)| row.line);
        wrong(line, "it holds no answer")
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn args(models: &[&str], tools: &[&str]) -> ServiceArgs {
        let own = |flags: &[&str]| flags.iter().map(|flag| (*flag).to_owned()).collect();
        ServiceArgs {
            models: own(models),
            tools: own(tools),
            tokens_per_row: Some(7),
            max_batch: 1,
            record: None,
            recorded: None,
            trust: Vec::new(),
        }
    }

    fn wanted(config: Value, models: &[&str], tools: &[&str]) -> Result<Wanted, Diagnostic> {
        let Value::Object(config) = config else { panic!("an object") };
        Wanted::new("p", config, 0).with(&args(models, tools))
    }

    #[test]
    fn model_without_a_name_is_the_one_that_the_configuration_asks() {
        let found = wanted(json!({"model": "big"}), &["a/b=c"], &[]).unwrap();
        assert_eq!((&found.plugin.grants.models, found.plugin.grants.tokens_per_row), (&vec!["big".to_owned()], Some(7)));
        assert!(found.models["big"].path.as_ref().unwrap().ends_with("a/b=c"), "a path may have `=`");
        let found = wanted(json!({}), &["m.gguf", "other=n"], &[]).unwrap();
        assert_eq!(found.plugin.grants.models, ["judge", "other"]);
        assert_eq!(Value::Object(found.plugin.config), json!({"model": "judge"}));
    }

    #[test]
    fn tools_are_the_hosts_plugins_or_spelled_out_and_mistakes_show_the_forms() {
        let json = r#"find={"builtin": "search", "config": {"corpus": "c.jsonl"}}"#;
        let found = wanted(json!({}), &[], &["calculator", "json=tool-json", json]).unwrap();
        assert_eq!(found.plugin.grants.tools, ["calculator", "json", "find"]);
        assert_eq!(found.tools["calculator"].builtin, Some(BuiltinTool::Calculator));
        assert_eq!(found.tools["json"].plugin.as_deref(), Some("tool-json"));
        assert_eq!(found.tools["find"].config["corpus"], "c.jsonl");
        let error = wanted(json!({}), &[], &["calculater"]).unwrap_err();
        assert!(
            error.message.contains("no tool `calculater`") && error.hint.unwrap().contains("NAME=PLUGIN"),
            "{}",
            error.message
        );
        let error = wanted(json!({}), &["x={\"lagged\": 3}"], &[]).unwrap_err();
        assert!(error.message.contains("no lagged copy"), "{}", error.message);
    }
}
