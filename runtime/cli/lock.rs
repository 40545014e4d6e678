//! Lock files of recipes: a recipe names plugins, its lock says which bytes those names mean.
//!
//! `plumb plugin lock recipes/x.toml` writes `recipes/x.plugins.lock`, of the same form as the `plugins.lock` in the folder of a
//! run. When it is there, `plumb train` runs nothing else.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use plumb_core::recipe::{Eval, Grants, PluginUse, Recipe, Stage};
use plumb_core::{PluginId, PluginKind};
use plumb_train::run::{LockedPlugin, read_lock};

use crate::diagnostic::Diagnostic;
use crate::exit::ExitStatus;
use crate::recipe_file::RecipeFile;
use crate::trust::{Trust, Vouched};
use crate::{plugin_path, plugins};

/// Where a recipe's lock is.
pub fn path(recipe: &Path) -> PathBuf {
    recipe.with_extension("plugins.lock")
}

/// Every plugin of a recipe as its file is now, each once. No plugin is run.
pub fn of_recipe(file: &RecipeFile) -> anyhow::Result<Vec<LockedPlugin>> {
    let trust = Trust::new(&file.recipe.trust)?;
    let mut locked: Vec<LockedPlugin> = Vec::new();
    for (name, plugin) in uses(&file.recipe) {
        let path = plugin_path::resolve(&plugin.plugin, Some(&file.folder))?;
        let Vouched { bytes, signer } = trust.open(&path)?;
        let inspection = plumb_host::inspect(&path.display().to_string(), &bytes)?;
        let manifest = inspection.manifest.as_ref();
        let stem = || path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default().to_owned();
        let id = PluginId {
            name: name.or_else(|| manifest.map(|manifest| manifest.name.clone())).unwrap_or_else(stem),
            kind: inspection.kind,
            digest: inspection.digest.clone(),
        };
        let mut entry = LockedPlugin::new(&id, &plugin.config);
        entry.version = manifest.map(|manifest| manifest.version.clone()).unwrap_or_default();
        entry.wit.clone_from(&inspection.wit_version);
        entry.grants = plugins::grants(&inspection, &plugin.grants);
        entry.signer = signer.map(|key| key.to_string());
        if !locked.contains(&entry) {
            locked.push(entry);
        }
    }
    Ok(locked)
}

/// A lock that the plugins of a run are held to when their bytes are read to be run: the files may have changed since they were
/// checked.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    locked: Vec<LockedPlugin>,
    /// The recipe's own files.
    files: BTreeSet<PathBuf>,
    /// Whether plugins that others bring, by `plumb run swap`, must be in it too.
    demanded: bool,
}

impl Lock {
    /// Refuses a plugin that is about to run and is not locked.
    pub fn admit(&self, file: &Path, kind: PluginKind, digest: &str) -> Result<(), Diagnostic> {
        let known = self.locked.iter().any(|locked| locked.kind == kind && locked.sha256 == digest);
        if known || !(self.demanded || self.files.contains(file)) {
            return Ok(());
        }
        let message = format!("{kind} `{}` is not in `{}`", file.display(), self.path.display());
        let error = Diagnostic::new("plugin.not_locked", ExitStatus::Plugin, message);
        let error = error.because(format!("its sha256 is {digest}"));
        Err(error.hint("a run with `--locked` takes only plugins of its lock: name it in the recipe (`swaps` plans a change), and lock it by `plumb plugin lock`"))
    }
}

/// Refuses a recipe whose plugins are not those of its lock, and gives the lock that what is loaded is held to. Without a lock every
/// plugin is accepted, unless it is `demanded`.
pub fn check(file: &RecipeFile, demanded: bool) -> anyhow::Result<Option<Lock>> {
    let path = path(&file.path);
    let accept = format!("`plumb plugin lock {}`", file.path.display());
    let Some(locked) = read_lock(&path)? else {
        if demanded {
            let message = format!("`--locked` needs a lock, and there is no `{}`", path.display());
            return Err(Diagnostic::usage("recipe.no_lock", message).hint(format!("write it: {accept}")).into());
        }
        return Ok(None);
    };
    for now in of_recipe(file)? {
        if let Err(causes) = accepted(&locked, &now) {
            let message = format!("{} `{}` is not the one in `{}`", now.kind, now.name, path.display());
            let error = Diagnostic::new("plugin.not_locked", ExitStatus::Plugin, message);
            let error = causes.into_iter().fold(error, Diagnostic::because);
            return Err(error.hint(format!("see what it is now: `plumb plugin inspect`; accept it: {accept}")).into());
        }
    }
    let files = uses(&file.recipe).into_iter().map(|(_, plugin)| plugin_path::resolve(&plugin.plugin, Some(&file.folder)));
    let files = files.collect::<Result<_, _>>()?;
    Ok(Some(Lock { path, locked, files, demanded }))
}

/// Whether a lock has this plugin; else what is different. Configurations are the recipe's to change, so they are not compared.
fn accepted(locked: &[LockedPlugin], now: &LockedPlugin) -> Result<(), Vec<String>> {
    let key = |plugin: &LockedPlugin| (plugin.sha256.clone(), plugin.wit.clone(), plugin.grants.clone(), plugin.signer.clone());
    let mut namesakes = locked.iter().filter(|old| (&old.name, old.kind) == (&now.name, now.kind)).peekable();
    let Some(&old) = namesakes.peek() else { return Err(vec!["the lock has no plugin of that name and kind".into()]) };
    if namesakes.any(|old| key(old) == key(now)) {
        return Ok(());
    }
    let mut causes = Vec::new();
    if old.sha256 != now.sha256 {
        causes.push(format!("locked is version {} with sha256 {}", old.version, old.sha256));
        causes.push(format!("the file is version {} with sha256 {}", now.version, now.sha256));
    }
    if old.grants != now.grants {
        let more: Vec<&str> = now.grants.iter().filter(|grant| !old.grants.contains(grant)).map(String::as_str).collect();
        let less: Vec<&str> = old.grants.iter().filter(|grant| !now.grants.contains(grant)).map(String::as_str).collect();
        let list = |what: &str, names: &[&str]| (!names.is_empty()).then(|| format!("{what}: {}", names.join(", ")));
        causes.extend(list("it may call more than was locked", &more));
        causes.extend(list("it no longer calls", &less));
    }
    if old.signer != now.signer {
        let who = |signer: &Option<String>| signer.as_ref().map_or_else(|| "nobody".to_owned(), |key| format!("key {key}"));
        causes.push(format!("locked is a signature by {}, the file is signed by {}", who(&old.signer), who(&now.signer)));
    }
    if causes.is_empty() {
        causes.push(format!("locked is interface {}, the file has {}", old.wit, now.wit));
    }
    Err(causes)
}

/// Every plugin of a recipe with the name that the recipe gives it, in the recipe's order.
fn uses(recipe: &Recipe) -> Vec<(Option<String>, PluginUse)> {
    let of_stage = |stage: &Stage| {
        let own = stage.plugins().chain(stage.eval.iter().map(|Eval { reward, .. }| reward));
        let mut uses: Vec<_> = own.map(|plugin| (plugin.name.clone(), plugin.clone())).collect();
        uses.extend(stage.swaps.iter().map(|swap| (Some(swap.replace.clone()), swap.plugin.clone())));
        uses
    };
    let tools = recipe.tools.iter().filter_map(|(name, tool)| {
        let plugin = PluginUse {
            plugin: tool.plugin.clone()?,
            name: Some(name.clone()),
            config: tool.config.clone(),
            limits: tool.limits.clone(),
            grants: Grants::default(),
        };
        Some((Some(name.clone()), plugin))
    });
    recipe.stages.iter().flat_map(of_stage).chain(tools).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plugin(digest: &str) -> LockedPlugin {
        let id = PluginId { name: "exact".into(), kind: PluginKind::Reward, digest: digest.into() };
        LockedPlugin { grants: vec!["a".into()], ..LockedPlugin::new(&id, &serde_json::Map::new()) }
    }

    #[test]
    fn lock_accepts_the_same_bytes_with_another_configuration() {
        let mut other = plugin("11");
        other.config_sha256 = "different".into();
        assert_eq!(accepted(&[plugin("22"), plugin("11")], &other), Ok(()));
    }

    #[test]
    fn lock_names_what_changed() {
        let causes = accepted(&[plugin("11")], &plugin("22")).unwrap_err();
        assert!(causes[0].contains("sha256 11") && causes[1].contains("sha256 22"), "{causes:?}");
        let more = LockedPlugin { grants: vec!["a".into(), "model:policy".into()], ..plugin("11") };
        assert_eq!(accepted(&[plugin("11")], &more).unwrap_err(), ["it may call more than was locked: model:policy"]);
        let signed = LockedPlugin { signer: Some("k".into()), ..plugin("11") };
        assert!(accepted(&[signed], &plugin("11")).unwrap_err()[0].contains("signed by nobody"));
        assert!(accepted(&[], &plugin("11")).is_err());
    }

    #[test]
    fn file_that_changed_since_it_was_checked_is_not_run_and_neither_are_strangers_where_the_lock_is_demanded() {
        let lock = |demanded| Lock {
            path: "x.plugins.lock".into(),
            locked: vec![plugin("11")],
            files: BTreeSet::from([PathBuf::from("own.wasm")]),
            demanded,
        };
        let admitted = |demanded, file: &str, digest| lock(demanded).admit(Path::new(file), PluginKind::Reward, digest).is_ok();
        assert!(admitted(false, "own.wasm", "11") && !admitted(false, "own.wasm", "22"));
        assert!(admitted(false, "control/000001.wasm", "22"), "a swap, where nobody asked for locked plugins alone");
        assert!(!admitted(true, "control/000001.wasm", "22") && admitted(true, "control/000001.wasm", "11"));
        assert!(lock(true).admit(Path::new("own.wasm"), PluginKind::Shaper, "11").is_err(), "the lock has it as a reward");
    }

    #[test]
    fn every_kind_of_use_is_found() {
        let recipe = r#"
            name = "x"
            model.path = "m"
            tools.calc.plugin = "t.wasm"
            [[stages]]
            name = "s"
            algorithm = "grpo"
            max_steps = 1
            data.train = ["d"]
            rewards = [{ plugin = "r" }]
            judges = [{ plugin = "j" }]
            shapers = [{ plugin = "h" }]
            filters = [{ plugin = "f" }]
            swaps = [{ step = 2, replace = "r", plugin = "r2" }]
            eval.reward = { plugin = "e" }
        "#;
        let uses = uses(&toml::from_str(recipe).unwrap());
        let files: Vec<&str> = uses.iter().map(|(_, plugin)| plugin.plugin.as_str()).collect();
        assert_eq!(files, ["r", "j", "h", "f", "e", "r2", "t.wasm"]);
        assert_eq!((uses[5].0.as_deref(), uses[6].0.as_deref()), (Some("r"), Some("calc")));
    }
}
