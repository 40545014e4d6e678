//! One step's feedback: from completions to the advantages and weights that the loss sees.
//!
//! ```text
//! rollouts ─► rewards, group by group while others are still being decoded ─► rewards and judges that ask models ─► combine
//!          ─► shapers (reward) ─► group-relative advantages ─► shapers (advantage) ─► filters, each reading the value it names ─► loss
//! ```
//! Group statistics are over all rows that have a reward. Filters come after them and choose what the loss sees, so keeping the
//! best of a group does not change what "best" is measured against.
//!
//! Reading order: [`rows`] (a step's values, each under its own name), [`scoring`] and [`judging`] (who says what about them),
//! [`combine`](combine()), [`shaping`], [`filtering`], [`spans`]; [`dataset`] is the filters' other scope.

pub mod combine;
pub mod dataset;
pub mod filtering;
pub mod judging;
pub mod record;
pub mod rows;
pub mod scoring;
pub mod shaping;
pub mod spans;
pub mod verdicts;

use std::collections::BTreeMap;
use std::sync::Arc;

use plumb_core::feedback::PluginFault;
use plumb_core::recipe::{FilterScope, ShapedValue, StepPolicy};
use plumb_core::rollout::{Completion, Group, Prompt};
use plumb_core::services::{Models, NoModels};
use plumb_core::{Batch, Outcome, Plugin, PluginError, PluginId, RowFault};
use plumb_methods::advantage::{self, Advantages, Scaling};

use crate::error::{Error, Result};
use crate::generations::observed::Observed;
use crate::plugins::StagePlugins;
use filtering::Pair;
use rows::StepRows;
pub use scoring::{Collected, Scoring};

/// The models behind a step's feedback: those of the run while it trains, recorded answers in a replay.
pub trait StepModels {
    /// Runs `work`, whose plugins may ask models.
    fn while_served<T: Send>(&mut self, work: impl FnOnce(&dyn Models) -> T + Send) -> T;

    /// A completion with another text: its ids end as those of the sampled one did, and the policy says how likely they are.
    fn rewrite(&mut self, prompt: &Prompt, sampled: &Completion, text: String) -> Result<Completion>;
}

/// No model can be asked, and no completion be rewritten.
impl StepModels for NoModels {
    fn while_served<T: Send>(&mut self, work: impl FnOnce(&dyn Models) -> T + Send) -> T {
        work(&NoModels)
    }

    fn rewrite(&mut self, _: &Prompt, _: &Completion, _: String) -> Result<Completion> {
        Err(plumb_model::Error::Request("there is no policy here that could read a new completion".into()).into())
    }
}

/// What [`assess`] learned besides the rows' values.
#[derive(Clone, Debug, Default)]
pub struct Assessed {
    /// Deviation of each group's shaped rewards; None for a group without any.
    pub group_std: Vec<Option<f64>>,
    /// Numbers for the metrics.
    pub metrics: Vec<(String, f64)>,
    /// Preference pairs, in the order of the filters.
    pub pairs: Vec<Pair>,
    /// Groups that a filter wants to be sampled again, and which filter.
    pub unwanted: BTreeMap<usize, String>,
    /// What shapers and filters were asked and what they said.
    pub observed: Vec<Observed>,
    /// What the user should know.
    pub notes: Vec<String>,
}

impl Assessed {
    fn observe(&mut self, plugin: &dyn Plugin, batch: Batch, answer: Result<Vec<Outcome>, &RowFault>) {
        let outcomes = answer.unwrap_or_else(|fault| vec![Outcome::Failed(fault.clone()); batch.rows()]);
        let PluginId { name, kind, .. } = plugin.id().clone();
        self.observed.push(Observed { name, kind, batch: Arc::new(batch), outcomes });
    }

    fn parts(&mut self, plugin: &str, parts: &[(String, Vec<f64>)]) {
        for (part, values) in parts {
            self.metrics.push((format!("plugin/{plugin}/{part}"), finite_mean(values.iter().copied()).unwrap_or(f64::NAN)));
        }
    }
}

/// Runs everything between scores and loss over `rows`, whose `scores` are in.
///
/// # Errors
/// As [`combine::combine`]; [`Error::Plugin`] and [`Error::Answer`] when a shaper or filter fails whose `on_failure` is `abort`.
pub fn assess(
    rows: &mut StepRows,
    plugins: &StagePlugins,
    scaling: Scaling<f64>,
    models: &mut impl StepModels,
) -> Result<Assessed> {
    let mut assessed = Assessed::default();
    combine::combine(rows, plugins)?;
    for shaper in plugins.shapers.iter().filter(|shaper| shaper.shapes == ShapedValue::Reward) {
        shaping::shape(rows, shaper, models, &mut assessed)?;
    }
    let live: Vec<Option<f64>> = (0..rows.len()).map(|i| rows.shaped[i].filter(|_| rows.dropped[i].is_none())).collect();
    let Advantages { values, group_std } = advantage::group_relative(&live, &rows.group_ends(), scaling);
    rows.advantages = values;
    assessed.group_std = group_std;
    for shaper in plugins.shapers.iter().filter(|shaper| shaper.shapes == ShapedValue::Advantage) {
        shaping::shape(rows, shaper, models, &mut assessed)?;
    }
    for filter in plugins.filters.iter().filter(|filter| filter.scope == FilterScope::Step) {
        filtering::select(rows, filter, models, &mut assessed)?;
    }
    Ok(assessed)
}

/// Calls a shaper or filter and checks its answer; one that is refused leaves nothing behind in the plugin. A fault when it failed and its `policy` lets the run
/// go on: with [`StepPolicy::SkipStep`] all live rows have left the step then.
///
/// # Errors
/// [`Error::Plugin`] when the host failed; with [`StepPolicy::Abort`] also when the plugin did, or [`Error::Answer`] for an answer
/// that means nothing here.
#[expect(clippy::too_many_arguments, reason = "the call, the check, and where each outcome goes")]
fn call<T: Send>(
    plugin: &dyn Plugin,
    policy: StepPolicy,
    models: &mut impl StepModels,
    work: impl Fn() -> Result<T, PluginError> + Send + Sync,
    accept: impl Fn(&T) -> Result<()>,
    rows: &mut StepRows,
    live: &[usize],
    assessed: &mut Assessed,
) -> Result<Result<T, RowFault>> {
    let step = rows.step;
    let answer = if plugin.asks_models() { models.while_served(|_| work()) } else { work() };
    let checked = answer.map_err(|source| Error::Plugin { step, source }).and_then(|answer| match accept(&answer) {
        Ok(()) => Ok(answer),
        Err(error) => {
            plugin.retract();
            Err(error)
        }
    });
    let error = match checked {
        Ok(answer) => return Ok(Ok(answer)),
        Err(error) => error,
    };
    let (code, message) = match &error {
        Error::Plugin { source: PluginError { fault: PluginFault::Host { .. }, .. }, .. } => return Err(error),
        _ if policy == StepPolicy::Abort => return Err(error),
        Error::Plugin { source, .. } => (source.fault.code().to_owned(), source.fault.to_string()),
        _ => ("bad_answer".to_owned(), error.to_string()),
    };
    let name = &plugin.id().name;
    assessed.metrics.push((format!("plugin/{name}/failed"), live.len() as f64));
    assessed.metrics.extend(fault_counts(name, live.iter().map(|_| code.as_str())));
    let consequence =
        if policy == StepPolicy::SkipStep { "nothing is learned from such a step" } else { "such a step goes on without it" };
    assessed.notes.push(format!("{} `{name}` failed as a whole ({code}); {consequence}", plugin.id().kind));
    if policy == StepPolicy::SkipStep {
        live.iter().for_each(|&row| rows.drop_row(row, || format!("{name}: {code}")));
    }
    Ok(Err(RowFault { code, message }))
}

fn expect_len(got: usize, expected: usize, what: &str, plugin: &(impl Plugin + ?Sized), step: u64) -> Result<()> {
    if got == expected { Ok(()) } else { Err(answer_error(plugin, step, format!("returned {got} {what}, expected {expected}"))) }
}

fn answer_error(plugin: &(impl Plugin + ?Sized), step: u64, reason: String) -> Error {
    Error::Answer { step, kind: plugin.id().kind, plugin: plugin.id().name.clone(), reason }
}

/// Takes the groups out that a filter still wants to be sampled again.
pub fn drop_unwanted(rows: &mut StepRows, unwanted: &BTreeMap<usize, String>) {
    let places: Vec<usize> = rows.rows().iter().map(|row| row.place).collect();
    for (row, place) in places.into_iter().enumerate() {
        if let Some(filter) = unwanted.get(&place) {
            rows.drop_row(row, || format!("{filter}: it wants another group instead"));
        }
    }
}

/// Mean of the finite values, if there are any.
pub fn finite_mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let values: Vec<f64> = values.filter(|value| value.is_finite()).collect();
    (!values.is_empty()).then(|| advantage::mean(&values))
}

/// Rows without a value by code, as `plugin/<name>/faults/<code>`. Codes are a plugin's own words, and each becomes a series in
/// the run's records: those that are no plain name of at most 64 letters, and those beyond [`FAULT_CODES`] in the alphabet's
/// order, are counted together as `other`.
pub fn fault_counts<'a>(plugin: &str, codes: impl Iterator<Item = &'a str>) -> Vec<(String, f64)> {
    let plain =
        |code: &str| (1..=64).contains(&code.len()) && code.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
    let mut counts = BTreeMap::<&str, f64>::new();
    for code in codes {
        *counts.entry(if plain(code) { code } else { OTHER_CODES }).or_default() += 1.0;
    }
    let mut other = counts.remove(OTHER_CODES).unwrap_or(0.0);
    while counts.len() > FAULT_CODES {
        other += counts.pop_last().map_or(0.0, |(_, rows)| rows);
    }
    if other > 0.0 {
        counts.insert(OTHER_CODES, other);
    }
    counts.into_iter().map(|(code, rows)| (format!("plugin/{plugin}/faults/{code}"), rows)).collect()
}

/// Codes of a plugin that are counted by themselves.
const FAULT_CODES: usize = 15;
const OTHER_CODES: &str = "other";

/// Groups as they come from sampling, in any order, put in the order of their prompts.
///
/// # Panics
/// When a group is missing.
pub fn in_order(groups: Vec<Option<Group>>) -> Vec<Group> {
    groups.into_iter().map(|group| group.expect("the rollout engine answers every prompt")).collect()
}
