//! Shadows: a second plugin of the same kind that is asked about every batch of the one in use, and used for nothing.
//!
//! Metrics, each step, as in [`crate::compare`] with the plugin in use as the old and the shadow as the new:
//! - `shadow/<name>/equal`: share of rows that both give the same value
//! - `shadow/<name>/agreement`: agreement in order, the share of pairs of rows of one group that both order alike
//! - `shadow/<name>/spearman`: rank correlation over the rows that both have a value for
//! - `shadow/<name>/mean_drift`: mean of the shadow's value minus that of the plugin in use
//! - `shadow/<name>/std_ratio`: the shadow's sample deviation over that of the plugin in use
//! - `shadow/<name>/failed`: rows that the shadow failed on
//!
//! `RUN/shadow/<name>.jsonl` has a line per step with the values of each row.

use std::collections::BTreeMap;
use std::path::Path;

use plumb_core::Outcome;
use serde_json::json;

use super::history::Source;
use super::observed::{Observed, ask};
use crate::compare::compare;
use crate::plugins::AnyPlugin;
use crate::run::append::append_line;
use crate::run::{Result, safe_name};

/// Folder of the shadows' values in a run.
pub const FOLDER: &str = "shadow";

/// A plugin that scores along.
pub struct Shadow {
    /// The plugin.
    pub plugin: AnyPlugin,
    /// What loads it again.
    pub source: Source,
}

/// A shadow's answers on their way.
pub struct Asked {
    observed: Observed,
    digest: String,
    answer: Box<dyn FnOnce() -> Vec<Outcome>>,
}

/// What shadows said in a step.
#[derive(Default)]
pub struct Said {
    /// For the metrics.
    pub metrics: Vec<(String, f64)>,
    /// Things to tell the user.
    pub messages: Vec<String>,
}

/// Asks the shadows about what the plugins in use were asked in a step.
pub fn ask_all(shadows: &BTreeMap<String, Shadow>, observed: &[Observed]) -> Vec<Asked> {
    let asked = shadows.iter().flat_map(|(name, shadow)| {
        let of_plugin = observed.iter().filter(move |observed| observed.name == *name);
        of_plugin.map(|observed| Asked {
            observed: observed.clone(),
            digest: shadow.source.digest.clone(),
            answer: ask(&shadow.plugin, &observed.batch),
        })
    });
    asked.collect()
}

/// Waits for the answers, and writes them down.
pub fn collect(run_dir: &Path, asked: Vec<Asked>) -> Result<Said> {
    let mut said = Said::default();
    for Asked { observed, digest, answer } in asked {
        let outcomes = answer();
        let (name, batch) = (&observed.name, &observed.batch);
        let values: Vec<Option<f64>> = outcomes.iter().map(Outcome::value).collect();
        let found = compare(&observed.values(), &values, &batch.group_ends);
        let failed = outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Failed(_))).count();
        let std_ratio = found.std_new.zip(found.std_old).filter(|(_, old)| *old > 0.0).map(|(new, old)| new / old);
        let numbers = [
            ("equal", found.equal),
            ("agreement", found.agreement),
            ("spearman", found.spearman),
            ("mean_drift", found.drift),
            ("std_ratio", std_ratio),
            ("failed", Some(failed as f64)),
        ];
        let numbers = numbers.into_iter().filter_map(|(metric, value)| Some((format!("shadow/{name}/{metric}"), value?)));
        said.metrics.extend(numbers);
        if let Some(Outcome::Failed(fault)) = outcomes.iter().find(|outcome| matches!(outcome, Outcome::Failed(_))) {
            said.messages.push(format!("the shadow of `{name}` failed on some rows ({}): the run is not affected", fault.code));
        }
        let line = json!({
            "step": batch.step, "digest": digest, "row_ids": batch.row_ids, "used": observed.values(), "shadow": values,
        });
        append_line(&run_dir.join(FOLDER).join(format!("{}.jsonl", safe_name(name))), &line.to_string())?;
    }
    Ok(said)
}
