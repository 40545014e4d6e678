//! A run's completions and preferences, row by row, for other programs.

use serde::Serialize;

use crate::archive::{Archive, Selection};
use crate::error::Result;
use crate::pipeline::record::RecordedStep;
use crate::run::ledger::PairRecord;

/// A completion and what was said about it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ScoredCompletion {
    /// Name of the stage.
    pub stage: String,
    /// Step of the run.
    pub step: u64,
    /// Id of the row, as in the file of completions.
    pub row_id: u64,
    /// Row of the data set.
    pub prompt_id: u64,
    /// What the model read.
    pub prompt: String,
    /// What it wrote.
    pub completion: String,
    /// By reward, where it scored the row.
    pub rewards: serde_json::Map<String, serde_json::Value>,
    /// Their weighted sum.
    pub raw: Option<f64>,
    /// After the shapers.
    pub shaped: Option<f64>,
    /// What the loss used.
    pub advantage: Option<f64>,
    /// Whether the loss saw it.
    pub kept: bool,
}

/// Of two completions of a prompt, the better and the worse one.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PreferencePair {
    /// Name of the stage.
    pub stage: String,
    /// Step of the run.
    pub step: u64,
    /// Row of the data set.
    pub prompt_id: u64,
    /// What the model read.
    pub prompt: String,
    /// The better completion.
    pub chosen: String,
    /// The worse one.
    pub rejected: String,
    /// Its id, as in the file of completions.
    pub chosen_row_id: u64,
    /// Its id.
    pub rejected_row_id: u64,
    /// By how much the better one is better: what the filter said that made the pair, else the difference of raw rewards.
    pub margin: f64,
}

/// The selected completions, in the order of the record.
///
/// # Errors
/// Those of [`Archive::steps`].
pub fn completions<'a>(
    archive: &'a Archive,
    selection: &'a Selection,
) -> Result<impl Iterator<Item = Result<Vec<ScoredCompletion>>> + 'a> {
    Ok(archive.steps(selection)?.map(|step| Ok(scored(&step?))))
}

fn scored(step: &RecordedStep) -> Vec<ScoredCompletion> {
    let rows = step.rewarded_rows();
    let scored = rows.rows().into_iter().enumerate().map(|(i, row)| ScoredCompletion {
        stage: step.record.stage.clone(),
        step: step.record.step,
        row_id: row.id,
        prompt_id: row.example.prompt.id,
        prompt: row.example.prompt_text.clone(),
        completion: row.completion.text.clone(),
        rewards: rows.scores.iter().filter_map(|s| Some((s.name.clone(), s.outcomes[i].value()?.into()))).collect(),
        raw: rows.raw[i],
        shaped: rows.shaped[i],
        advantage: rows.advantages[i],
        kept: step.record.completions[i].kept,
    });
    scored.collect()
}

/// The pairs that filters made in a step; of a step without any, a pair of each group: its best and its worst completion by raw
/// reward, the first of those that are equal and more than `margin` apart. A filter's pairs must have that margin too; those of two
/// equal texts are left out.
///
/// A filter's pair over two prompts is left out too: trainers read one prompt a pair. It is in the run's `pairs/`.
///
/// # Errors
/// Those of [`Archive::steps`].
pub fn pairs<'a>(
    archive: &'a Archive,
    selection: &'a Selection,
    margin: f64,
) -> Result<impl Iterator<Item = Result<Vec<PreferencePair>>> + 'a> {
    Ok(archive.steps(selection)?.map(move |step| {
        let step = step?;
        let mut rows = scored(&step);
        if step.record.pairs.is_empty() {
            return Ok(best_and_worst(&rows, margin));
        }
        // Rewards are of the texts that were sampled; filters that make pairs may have put others in their place.
        let texts = step.table.texts("completion").unwrap_or_default();
        rows.iter_mut().zip(texts).for_each(|(row, text)| text.clone_into(&mut row.completion));
        Ok(recorded(&rows, &step.record.pairs, margin))
    }))
}

fn recorded(rows: &[ScoredCompletion], pairs: &[PairRecord], margin: f64) -> Vec<PreferencePair> {
    let of = |pair: &PairRecord| rows.get(pair.chosen as usize).zip(rows.get(pair.rejected as usize));
    let made = pairs.iter().filter(|pair| pair.margin >= margin).filter_map(|pair| Some((of(pair)?, pair.margin)));
    made.filter(|((chosen, rejected), _)| chosen.prompt == rejected.prompt && chosen.completion != rejected.completion)
        .map(|((chosen, rejected), margin)| pair(chosen, rejected, margin))
        .collect()
}

fn pair(chosen: &ScoredCompletion, rejected: &ScoredCompletion, margin: f64) -> PreferencePair {
    PreferencePair {
        stage: chosen.stage.clone(),
        step: chosen.step,
        prompt_id: chosen.prompt_id,
        prompt: chosen.prompt.clone(),
        chosen: chosen.completion.clone(),
        rejected: rejected.completion.clone(),
        chosen_row_id: chosen.row_id,
        rejected_row_id: rejected.row_id,
        margin,
    }
}

fn best_and_worst(rows: &[ScoredCompletion], margin: f64) -> Vec<PreferencePair> {
    let of_group = |group: &[ScoredCompletion]| {
        let values = || group.iter().filter_map(|row| Some((row, row.raw?)));
        let (best, high) = values().reduce(|a, b| if b.1 > a.1 { b } else { a })?;
        let (worst, low) = values().reduce(|a, b| if b.1 < a.1 { b } else { a })?;
        (high - low > margin && best.completion != worst.completion).then(|| pair(best, worst, high - low))
    };
    // A prompt's completions are adjacent, and a step has no prompt twice in a row: the place is part of the id.
    rows.chunk_by(|a, b| a.row_id >> 12 == b.row_id >> 12).filter_map(of_group).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(row_id: u64, completion: &str, raw: Option<f64>) -> ScoredCompletion {
        ScoredCompletion {
            stage: "rl".into(),
            step: 3,
            row_id,
            prompt_id: 9,
            prompt: "p".into(),
            completion: completion.into(),
            rewards: serde_json::Map::new(),
            raw,
            shaped: None,
            advantage: None,
            kept: true,
        }
    }

    #[test]
    fn pair_of_a_group_is_its_best_and_worst_by_more_than_the_margin() {
        let group = |place: u64, rows: &[(&str, Option<f64>)]| -> Vec<ScoredCompletion> {
            rows.iter().enumerate().map(|(i, (text, raw))| row(place << 12 | i as u64, text, *raw)).collect()
        };
        let rows = [
            group(0, &[("a", Some(0.5)), ("b", None), ("c", Some(1.0)), ("d", Some(0.5)), ("e", Some(1.0))]),
            group(1, &[("a", Some(0.0)), ("b", Some(0.25))]),
            group(2, &[("a", Some(0.0)), ("a", Some(1.0))]),
            group(3, &[("a", None)]),
        ];
        let found = |margin| best_and_worst(&rows.concat(), margin);
        assert_eq!(found(0.0).iter().map(|pair| pair.chosen_row_id).collect::<Vec<_>>(), [2, 4097]);
        let pairs = found(0.25);
        assert_eq!(pairs.len(), 1);
        assert_eq!((pairs[0].chosen.as_str(), pairs[0].rejected.as_str(), pairs[0].margin), ("c", "a", 0.5));
    }
}
