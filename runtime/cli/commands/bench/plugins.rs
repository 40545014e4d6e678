//! Plugins as these commands take them, and a reward that needs no file.

use std::path::PathBuf;
use std::sync::Arc;

use plumb_core::recipe::{Grants, LimitsUse, PluginUse};
use plumb_core::{
    Batch, Column, Filter, Judge, Outcome, Pending, Plugin, PluginError, PluginId, PluginKind, RewardFn, Rewards, Shaper,
};
use plumb_train::control::Refusal;
use plumb_train::run::LockedPlugin;
use plumb_train::{LoadError, PluginFactory};
use serde_json::{Map, Value};

use crate::diagnostic::Diagnostic;
use crate::plugins::Plugins;

/// The name of [`OddBytes`].
pub const ODD_BYTES: &str = "odd-bytes";

/// Reads `NAME|PATH[=CONFIG]`; CONFIG is a JSON object.
pub fn plugin_use(flag: &str) -> Result<PluginUse, Diagnostic> {
    let (plugin, config) = match flag.find("={") {
        Some(at) => (&flag[..at], serde_json::from_str(&flag[at + 1..])),
        None => (flag, Ok(Map::new())),
    };
    let config: Map<String, Value> = config.map_err(|e| {
        Diagnostic::usage("usage.config", format!("the configuration of `{plugin}` is no JSON object"))
            .because(e.to_string())
            .at(format!("--plugin {flag}"))
            .hint("as in `--plugin 'reward-format={\"tags\": {\"names\": [\"think\"]}}'`")
    })?;
    // A recipe's paths start at its folder, those of a command line where it is typed.
    let is_path = PathBuf::from(plugin).components().count() > 1 || plugin.ends_with(".wasm");
    let absolute = if is_path { std::path::absolute(plugin).ok() } else { None };
    let plugin = absolute.map_or_else(|| plugin.to_owned(), |path| path.to_string_lossy().into_owned());
    Ok(PluginUse { plugin, name: None, config, limits: LimitsUse::default(), grants: Grants::default() })
}

/// The share of a completion's bytes that are odd: rows of a group get different rewards, so that each has an advantage and none is left out.
#[derive(Debug)]
pub struct OddBytes(PluginId);

impl OddBytes {
    /// The reward.
    pub fn new() -> Self {
        OddBytes(PluginId { name: ODD_BYTES.into(), kind: PluginKind::Reward, digest: "native".into() })
    }
}

impl Plugin for OddBytes {
    fn id(&self) -> &PluginId {
        &self.0
    }
}

impl RewardFn for OddBytes {
    fn submit(&self, batch: Batch) -> Pending<Result<Rewards, PluginError>> {
        let share = |text: &[u8]| text.iter().filter(|byte| *byte % 2 == 1).count() as f64 / text.len().max(1) as f64;
        let outcome = |row| match batch.column("completion") {
            Some(Column::Text(texts)) => Outcome::Scored(share(texts.bytes_at(row))),
            _ => Outcome::Scored(0.0),
        };
        let outcomes = (0..batch.rows()).map(outcome).collect();
        Pending::new(move || Ok(Rewards { outcomes, ..Rewards::default() }))
    }
}

/// Sandboxed plugins, and [`OddBytes`] under its name.
pub struct WithOddBytes(pub Plugins);

impl PluginFactory for WithOddBytes {
    fn reward(&self, plugin: &PluginUse) -> Result<Arc<dyn RewardFn>, LoadError> {
        if plugin.plugin == ODD_BYTES { Ok(Arc::new(OddBytes::new())) } else { self.0.reward(plugin) }
    }

    fn judge(&self, plugin: &PluginUse) -> Result<Arc<dyn Judge>, LoadError> {
        self.0.judge(plugin)
    }

    fn shaper(&self, plugin: &PluginUse) -> Result<Arc<dyn Shaper>, LoadError> {
        self.0.shaper(plugin)
    }

    fn filter(&self, plugin: &PluginUse) -> Result<Arc<dyn Filter>, LoadError> {
        self.0.filter(plugin)
    }

    fn file(&self, id: &PluginId) -> Option<PathBuf> {
        self.0.file(id)
    }

    fn explain(&self, error: plumb_train::Error) -> Refusal {
        self.0.explain(error)
    }

    fn locked(&self, id: &PluginId, plugin: &PluginUse) -> LockedPlugin {
        self.0.locked(id, plugin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plugins_are_named_with_or_without_a_configuration() {
        let plain = plugin_use("reward-exact-match").unwrap();
        assert_eq!((plain.plugin.as_str(), plain.config.len()), ("reward-exact-match", 0));
        let with = plugin_use(r#"reward-format={"tags": {"names": ["think"]}}"#).unwrap();
        assert_eq!((with.plugin.as_str(), with.config["tags"]["names"][0].as_str()), ("reward-format", Some("think")));
        assert!(PathBuf::from(plugin_use("a/b.wasm").unwrap().plugin).is_absolute());
        let error = plugin_use("x={tags}").unwrap_err();
        assert!(error.message.contains("`x`") && error.hint.is_some(), "{error:?}");
    }

    #[test]
    fn odd_bytes_tell_completions_apart() {
        let mut batch = Batch::new(0, vec![0, 1, 2], vec![3]);
        batch.insert("completion", Column::Text(["ab", "aaa", ""].into_iter().collect()));
        let rewards = OddBytes::new().score(batch).unwrap();
        assert_eq!(rewards.outcomes.iter().map(Outcome::value).collect::<Vec<_>>(), [Some(0.5), Some(1.0), Some(0.0)]);
    }
}
