//! The exported interface of each kind, implemented by the plugin's trait.

use super::base::plumb::align::{data, types};
use super::{Component, Exported, HostBatch, each, filter, judge, merging, reward, shaper, state, tool, with_plugin};
use crate::batch::Batch;
use crate::{filter as f, judge as j, models as m, reward as r, shaper as s, tool as t};

use filter::exports::plumb::align::filtering;
use judge::exports::plumb::align::judging;
use reward::exports::plumb::align::rewarding;
use shaper::exports::plumb::align::shaping;
use tool::exports::plumb::align::tooling;

impl<T: Exported + r::BatchReward> rewarding::Guest for Component<T> {
    fn score(rows: &data::Batch) -> Result<rewarding::Rewards, types::Fault> {
        let rewards = with_plugin(|plugin: &mut T| {
            let source = HostBatch(rows);
            let batch = Batch::new(&source);
            let rewards = plugin.score(&batch)?;
            plugin.observe(&batch, &rewards)?;
            Ok(rewards)
        })?;
        Ok(rewarding::Rewards {
            values: rewards.values,
            parts: each(rewards.parts),
            spans: each(rewards.spans),
            faults: each(rewards.faults),
        })
    }
}

impl From<r::Spans> for types::NamedSpans {
    fn from(spans: r::Spans) -> Self {
        types::NamedSpans {
            name: spans.name,
            unit: match spans.unit {
                r::Unit::Char => "char".to_owned(),
                r::Unit::Token => "token".to_owned(),
            },
            rows: spans.rows,
            starts: spans.starts,
            stops: spans.stops,
            values: spans.values,
        }
    }
}

impl<T: Exported + s::Shaper> shaping::Guest for Component<T> {
    fn shape(rows: &data::Batch) -> Result<shaping::Shaped, types::Fault> {
        let shaped = with_plugin(|plugin: &mut T| plugin.shape(&Batch::new(&HostBatch(rows))))?;
        Ok(shaping::Shaped {
            values: shaped.values,
            token_values: shaped.token_values.map(Into::into),
            parts: each(shaped.parts),
            faults: each(shaped.faults),
        })
    }
}

impl<T: Exported + r::StatefulReward> merging::exports::plumb::align::merging::Guest for Component<T> {
    fn merge(states: Vec<Vec<u8>>) -> Result<(), types::Fault> {
        with_plugin(|plugin: &mut T| plugin.merge(&states))
    }
}

impl<T: Exported + crate::State> state::exports::plumb::align::state::Guest for Component<T> {
    fn save() -> Result<Vec<u8>, types::Fault> {
        with_plugin(|plugin: &mut T| plugin.save())
    }

    fn load(from_version: u32, bytes: Vec<u8>) -> Result<(), types::Fault> {
        with_plugin(|plugin: &mut T| plugin.load(from_version, &bytes))
    }
}

impl<T: Exported + f::Filter> filtering::Guest for Component<T> {
    fn select(rows: &data::Batch) -> Result<filtering::Decision, types::Fault> {
        let decision = with_plugin(|plugin: &mut T| plugin.select(&Batch::new(&HostBatch(rows))))?;
        Ok(filtering::Decision {
            keep: each(decision.keep),
            weights: decision.weights,
            pairs: decision.pairs.map(|pairs| filtering::Pairs {
                chosen: pairs.chosen,
                rejected: pairs.rejected,
                probability: pairs.probability,
                margin: pairs.margin,
                level: pairs.level,
            }),
            relabels: each(decision.relabels),
            regenerate: decision.regenerate,
            parts: each(decision.parts),
            reasons: decision.reasons,
        })
    }
}

impl From<f::Relabel> for filtering::Relabel {
    fn from(relabel: f::Relabel) -> Self {
        filtering::Relabel { column: relabel.column, rows: relabel.rows, texts: relabel.texts.into() }
    }
}

impl<T: Exported + j::Judge> judging::Guest for Component<T> {
    fn begin(rows: &data::Batch) -> Result<judging::Turn, types::Fault> {
        with_plugin(|plugin: &mut T| plugin.begin(&Batch::new(&HostBatch(rows)))).map(Into::into)
    }

    fn resume(rows: &data::Batch, memo: Vec<u8>, answers: Vec<types::Generated>) -> Result<judging::Turn, types::Fault> {
        let answers: Vec<j::Generated> = each(answers);
        with_plugin(|plugin: &mut T| plugin.resume(&Batch::new(&HostBatch(rows)), &memo, &answers)).map(Into::into)
    }
}

impl From<types::Generated> for m::Generated {
    fn from(generated: types::Generated) -> Self {
        m::Generated {
            text: generated.text.into(),
            tokens: generated.tokens.into(),
            logprobs: generated.logprobs.into(),
            finish: generated.finish,
        }
    }
}

impl From<j::Turn> for judging::Turn {
    fn from(turn: j::Turn) -> Self {
        match turn {
            j::Turn::Ask(ask) => judging::Turn::Ask(judging::Ask { questions: each(ask.questions), memo: ask.memo }),
            j::Turn::Done(verdicts) => judging::Turn::Done(verdicts.into()),
        }
    }
}

impl From<j::Question> for judging::Question {
    fn from(question: j::Question) -> Self {
        judging::Question { model: question.model, prompts: question.prompts.into(), params: question.sampling.into() }
    }
}

impl From<m::Sampling> for types::Sampling {
    fn from(sampling: m::Sampling) -> Self {
        types::Sampling {
            max_tokens: sampling.max_tokens,
            temperature: sampling.temperature,
            top_p: sampling.top_p,
            count: sampling.count,
            seed: sampling.seed,
            stop: sampling.stop,
            extra: sampling.extra,
        }
    }
}

impl<T: Exported + t::Tool> tooling::Guest for Component<T> {
    fn call(json_arguments: types::Texts) -> Result<tooling::Outputs, types::Fault> {
        let outputs = with_plugin(|plugin: &mut T| Ok(t::call_rows(plugin, &json_arguments.into())))?;
        Ok(tooling::Outputs { output: outputs.output.into(), faults: each(outputs.faults) })
    }
}

impl From<j::Verdicts> for judging::Verdicts {
    fn from(verdicts: j::Verdicts) -> Self {
        judging::Verdicts {
            scores: verdicts.scores,
            pairs: verdicts.pairs.map(|pairs| judging::PairVerdicts {
                first: pairs.first,
                second: pairs.second,
                probability: pairs.probability,
            }),
            matrices: verdicts
                .matrices
                .map(|matrices| judging::MatrixVerdicts { values: matrices.values, readable: each(matrices.readable) }),
            rationales: verdicts.rationales.map(Into::into),
            parts: each(verdicts.parts),
            faults: each(verdicts.faults),
        }
    }
}
