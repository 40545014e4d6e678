//! Rows to outcomes: every plugin's answer, and their weighted sum where all of them have one.

use std::collections::BTreeSet;
use std::str::FromStr;
use std::sync::Arc;

use plumb_core::feedback::{PluginFault, RowFault};
use plumb_core::{Outcome, PluginError, PluginKind, RewardFn, Rewards};
use plumb_host::{Host, LoadRequest, Sink};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::columns::Types;
use crate::diagnostic::Diagnostic;
use crate::{plugin_path, plugins, rows};

/// Code of a request with a value that does not fit its column's type.
pub const COLUMN_TYPE: &str = "column-type";

/// What a row without a score is worth.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum OnFault {
    /// Nothing: the request fails.
    Fail,
    /// This, by the user's word.
    Value(f64),
}

impl FromStr for OnFault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            None if text == "fail" => Ok(OnFault::Fail),
            Some(("value", number)) => match number.parse() {
                Ok(value) if f64::is_finite(value) => Ok(OnFault::Value(value)),
                _ => Err(format!("`{number}` is not a finite number")),
            },
            _ => Err("write `fail` or `value=X`".into()),
        }
    }
}

/// One plugin's answer to a row.
#[derive(Clone, Debug)]
pub struct Answer {
    /// With a value, or why there is none.
    pub outcome: Outcome,
    /// Named components; those that the row has.
    pub parts: Vec<(String, f64)>,
}

/// A row's outcome.
#[derive(Clone, Debug)]
pub struct Scored {
    /// Weighted sum; None where a plugin has no score and the user gave none.
    pub value: Option<f64>,
    /// Each plugin's answer, in the order of the plugins.
    pub answers: Vec<Answer>,
}

impl Scored {
    /// Positions of the plugins without a score, with their faults.
    pub fn faults(&self) -> impl Iterator<Item = (usize, &'static str, &RowFault)> {
        self.answers.iter().enumerate().filter_map(|(i, answer)| match &answer.outcome {
            Outcome::Scored(_) => None,
            Outcome::Abstained(fault) => Some((i, "abstained", fault)),
            Outcome::Failed(fault) => Some((i, "failed", fault)),
        })
    }
}

struct Weighted {
    reward: Arc<dyn RewardFn>,
    weight: f64,
    needs: BTreeSet<String>,
}

/// The plugins that are served.
pub struct Scorer {
    plugins: Vec<Weighted>,
    on_fault: OnFault,
}

impl Scorer {
    /// Loads the plugins. `configs` and `weights` are empty, or one for each.
    pub fn load(
        names: &[String],
        configs: &[String],
        weights: &[f64],
        on_fault: OnFault,
        seed: u64,
        sink: Arc<dyn Sink>,
    ) -> anyhow::Result<Self> {
        let all_or_none = |flag: &str, count: usize| {
            if count == 0 || count == names.len() {
                return Ok(());
            }
            let message = format!("there are {} plugins and {count} times `--{flag}`", names.len());
            Err(Diagnostic::usage("usage", message).hint(format!("give `--{flag}` once for each plugin, in their order")))
        };
        all_or_none("config", configs.len())?;
        all_or_none("weight", weights.len())?;
        let host: Host = plugins::host(seed, sink)?;
        let mut plugins: Vec<Weighted> = Vec::new();
        for (i, name) in names.iter().enumerate() {
            let mut request = LoadRequest::new(PluginKind::Reward, plugin_path::resolve(name, None)?);
            request.config = configs.get(i).map(|text| rows::json_object(text)).transpose()?.unwrap_or_default();
            let loaded = host.load(request)?;
            let id = loaded.id().clone();
            if plugins.iter().any(|other| other.reward.id().name == id.name) {
                return Err(Diagnostic::usage("usage", format!("two plugins are named `{}`", id.name)).into());
            }
            let needs = loaded.descriptor().needs_columns.iter().cloned().collect();
            let weight = weights.get(i).copied().unwrap_or(1.0);
            plugins.push(Weighted { reward: loaded.into_reward()?, weight, needs });
        }
        Ok(Scorer { plugins, on_fault })
    }

    /// Names of the plugins.
    pub fn names(&self) -> Vec<&str> {
        self.plugins.iter().map(|plugin| plugin.reward.id().name.as_str()).collect()
    }

    /// Whether rows without a score got one by the user's word.
    pub fn substitutes(&self) -> Option<f64> {
        match self.on_fault {
            OnFault::Fail => None,
            OnFault::Value(value) => Some(value),
        }
    }

    /// Scores rows on the plugin host's threads and waits for them. The result depends on the rows alone: ids, which are the keys
    /// of random numbers, are made of their content, and what calls leave behind (`kv`, metrics) is forgotten.
    pub fn score(&self, all: &[Map<String, Value>]) -> Result<Vec<Scored>, PluginError> {
        let mut pending = Vec::with_capacity(self.plugins.len());
        for plugin in &self.plugins {
            let whole: Vec<_> = all.iter().filter(|row| rows::missing(row, &plugin.needs).is_none()).collect();
            if whole.is_empty() {
                // Nothing to ask: no rows, or none that has what this plugin reads.
                pending.push(None);
                continue;
            }
            let ids = whole.iter().map(|row| id(row)).collect();
            let ends = (1..=whole.len() as u32).collect();
            let batch = rows::batch(ids, ends, whole.into_iter(), &Types::default()).map_err(|(column, misfit)| PluginError {
                plugin: plugin.reward.id().clone(),
                export: "score",
                fault: PluginFault::Fault {
                    code: COLUMN_TYPE.into(),
                    message: format!("row {}: {}", misfit.row, misfit.reason(&column)),
                },
            })?;
            pending.push(Some(plugin.reward.submit(batch)));
        }
        let mut scored = vec![Scored { value: Some(0.0), answers: Vec::new() }; all.len()];
        for (plugin, pending) in self.plugins.iter().zip(pending) {
            let rewards = match pending {
                None => Rewards::default(),
                Some(pending) => {
                    let rewards = pending.wait();
                    plugin.reward.retract();
                    rewards?
                }
            };
            let mut outcomes = rewards.outcomes.into_iter().enumerate();
            for (row, scored) in all.iter().zip(&mut scored) {
                let answer = if let Some(column) = rows::missing(row, &plugin.needs) {
                    let message = format!("the plugin needs `{column}`, the row has {}", rows::named(row));
                    Answer { outcome: Outcome::Failed(RowFault { code: "missing-column".into(), message }), parts: Vec::new() }
                } else {
                    let (i, outcome) = outcomes.next().expect("the host gives an outcome for each row");
                    let parts = rewards.parts.iter().filter(|(_, values)| values[i].is_finite());
                    Answer { outcome, parts: parts.map(|(name, values)| (name.clone(), values[i])).collect() }
                };
                let value = answer.outcome.value().or(self.substitutes());
                scored.value = scored.value.zip(value).map(|(sum, value)| sum + plugin.weight * value);
                scored.answers.push(answer);
            }
        }
        Ok(scored)
    }
}

/// First eight bytes of the SHA-256 of the row as JSON.
fn id(row: &Map<String, Value>) -> u64 {
    let digest = Sha256::digest(serde_json::to_vec(row).expect("a row is JSON"));
    u64::from_le_bytes(digest[..8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_fault_takes_fail_and_finite_values() {
        assert_eq!("fail".parse(), Ok(OnFault::Fail));
        assert_eq!("value=-0.5".parse(), Ok(OnFault::Value(-0.5)));
        for wrong in ["", "0", "value", "value=", "value=NaN", "value=inf", "drop"] {
            assert!(wrong.parse::<OnFault>().is_err(), "{wrong}");
        }
    }
}
