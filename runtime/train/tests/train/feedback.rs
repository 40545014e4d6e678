use std::collections::BTreeSet;
use std::sync::Arc;

use plumb_core::feedback::{PluginFault, Span};
use plumb_core::recipe::{FaultPolicy, FilterScope, FilterStage, ScaleRewards, ShapedValue, StepPolicy};
use plumb_core::rollout::{Completion, FinishReason, Group, Prompt};
use plumb_core::services::NoModels;
use plumb_core::{Batch, Column, Decision, Outcome, Plugin, PluginError, PluginKind, Ragged, Rewards, Shaped};
use plumb_methods::advantage::{Baseline, Scaling, TRL_DDOF, TRL_EPSILON};
use plumb_train::pipeline::rows::{Example, StepRows, batch};
use plumb_train::pipeline::{Assessed, Scoring, assess};
use plumb_train::plugins::{FilterSlot, RewardSlot, ShaperSlot, StagePlugins, Weight};
use plumb_train::{Error, data};

use crate::support::{Closure, Score, Select, Shape, fault, numbers};

fn reward(name: &str, weight: f64, on_fault: FaultPolicy, score: Score) -> RewardSlot {
    let plugin = Closure::new(PluginKind::Reward, name, score);
    RewardSlot { name: name.into(), plugin, weight, weights: Weight::from(weight), on_fault }
}

/// Rewards by completion text: a number is that score, `?` an abstention, `!` a failure.
fn by_number() -> Score {
    Arc::new(|batch| {
        let Some(Column::Text(texts)) = batch.column("completion") else { panic!() };
        let outcome = |text: &str| match text {
            "?" => Outcome::Abstained(fault("unparseable")),
            "!" => Outcome::Failed(fault("trap")),
            number => Outcome::Scored(number.parse().unwrap()),
        };
        Ok(Rewards { outcomes: (0..texts.len()).map(|row| outcome(texts.get(row).unwrap())).collect(), ..Rewards::default() })
    })
}

fn examples(n: usize) -> Vec<Example> {
    let folder = tempfile::tempdir().unwrap();
    let lines = (0..n).map(|i| format!("{{\"prompt\": \"p{i}\", \"answer\": {i}, \"tags\": [\"x\"]}}\n"));
    std::fs::write(folder.path().join("a.jsonl"), lines.collect::<String>()).unwrap();
    let rows = data::read(&["a.jsonl".into()], folder.path()).unwrap();
    let example =
        |(i, row)| Example { row, prompt_text: format!("<user>p{i}"), prompt: Prompt { id: i as u64, tokens: vec![7, 8] } };
    rows.into_iter().enumerate().map(example).collect()
}

fn group(example: &Example, texts: &[&str]) -> Group {
    let completion = |text: &&str| Completion {
        tokens: vec![1; text.len() + 1],
        logprobs: vec![-0.5; text.len() + 1],
        text: (*text).into(),
        finish: FinishReason::Stop,
    };
    Group { prompt: example.prompt.clone(), completions: texts.iter().map(completion).collect() }
}

/// Rewards less their group's mean.
fn centred() -> Scaling<f64> {
    Scaling { baseline: Baseline::Group, by: ScaleRewards::None, ddof: TRL_DDOF, epsilon: TRL_EPSILON }
}

/// Assesses groups of completions, group by group as training does, and calls `check` with what came out.
fn assessed(plugins: &StagePlugins, texts: &[&[&str]], check: impl FnOnce(&StepRows, &Assessed)) -> Result<(), Error> {
    let examples = examples(texts.len());
    let columns: BTreeSet<String> = ["prompt", "answer", "tags"].map(String::from).into();
    let groups: Vec<Group> = examples.iter().zip(texts).map(|(example, texts)| group(example, texts)).collect();
    let mut rows = StepRows::new(5, "rl", &columns, examples.iter().collect(), groups);
    let mut scoring = Scoring::new(plugins, texts.len());
    // The last group finishes first.
    for place in (0..texts.len()).rev() {
        let of_group: Vec<_> = rows.rows().into_iter().filter(|row| row.place == place).collect();
        scoring.submit(place, batch(5, "rl", &columns, &of_group));
    }
    let all = || batch(5, "rl", &columns, &rows.rows());
    rows.scores = scoring.collect(5, all, &mut NoModels)?.scores;
    let assessed = assess(&mut rows, plugins, centred(), &mut NoModels)?;
    check(&rows, &assessed);
    Ok(())
}

fn rewards(all: Vec<RewardSlot>) -> StagePlugins {
    StagePlugins { rewards: all, ..StagePlugins::default() }
}

#[test]
fn raw_reward_is_the_weighted_sum_in_the_order_of_the_rows() {
    let lengths: Score = Arc::new(|batch| {
        let Some(Column::U32(tokens)) = batch.column("completion_tokens") else { panic!() };
        Ok(Rewards { outcomes: tokens.iter().map(|&n| Outcome::Scored(f64::from(n))).collect(), ..Rewards::default() })
    });
    let plugins = rewards(vec![
        reward("number", 1.0, FaultPolicy::DropGroup, by_number()),
        reward("length", 10.0, FaultPolicy::DropGroup, lengths),
    ]);
    assessed(&plugins, &[&["1", "22"], &["3", "4"]], |rows, _| {
        assert_eq!(rows.raw, [21.0, 52.0, 23.0, 24.0].map(Some));
        assert_eq!(rows.shaped, rows.raw);
        assert_eq!(rows.advantages, [-15.5, 15.5, -0.5, 0.5].map(Some));
    })
    .unwrap();
}

#[test]
fn missing_score_follows_the_rule_of_its_reward_and_never_becomes_zero() {
    let with = |on_fault| rewards(vec![reward("number", 1.0, on_fault, by_number())]);
    let texts: [&[&str]; 2] = [&["1", "?", "3"], &["5", "7"]];
    assessed(&with(FaultPolicy::DropRow), &texts, |rows, _| {
        assert_eq!(rows.raw, [Some(1.0), None, Some(3.0), Some(5.0), Some(7.0)]);
        assert_eq!(rows.advantages, [Some(-1.0), None, Some(1.0), Some(-1.0), Some(1.0)]);
        assert_eq!(rows.dropped[1].as_deref(), Some("number: unparseable"));
        assert_eq!(rows.live(), [0, 2, 3, 4]);
    })
    .unwrap();
    assessed(&with(FaultPolicy::DropGroup), &texts, |rows, _| {
        assert_eq!(rows.raw[0], Some(1.0), "what was scored stays on record");
        assert_eq!(rows.live(), [3, 4]);
        assert_eq!(rows.advantages[..3], [None; 3]);
    })
    .unwrap();
    assessed(&with(FaultPolicy::Value(-1.0)), &texts, |rows, _| {
        assert_eq!(rows.raw[1], Some(-1.0));
        assert_eq!(rows.scores[0].outcomes[1].value(), None, "the outcome itself stays missing");
        assert_eq!(rows.live().len(), 5);
    })
    .unwrap();
    let error = assessed(&with(FaultPolicy::Abort), &texts, |_, _| ()).unwrap_err();
    assert!(matches!(&error, Error::FaultAborts { step: 5, code, .. } if code == "unparseable"), "{error:?}");
}

#[test]
fn plugin_that_fails_as_a_whole_fails_its_rows_and_spares_other_groups() {
    let score: Score = Arc::new(|batch| {
        let Some(Column::Text(answers)) = batch.column("answer") else { panic!() };
        if answers.get(0) == Some("1") {
            let plugin = Closure::new(PluginKind::Reward, "picky", ()).id().clone();
            return Err(PluginError { plugin, export: "score", fault: PluginFault::OutOfFuel { limit_fuel: 9, rows: 1 } });
        }
        Ok(Rewards { outcomes: vec![Outcome::Scored(1.0); batch.rows()], ..Rewards::default() })
    });
    let plugins = rewards(vec![reward("picky", 1.0, FaultPolicy::DropRow, score)]);
    assessed(&plugins, &[&["1", "2"], &["3", "4"]], |rows, _| {
        assert_eq!(rows.live(), [0, 1]);
        assert!(matches!(&rows.scores[0].outcomes[3], Outcome::Failed(fault) if fault.code == "out_of_fuel"));
    })
    .unwrap();
}

#[test]
fn failing_host_and_wrong_counts_end_the_run() {
    let host: Score = Arc::new(|_| {
        let plugin = Closure::new(PluginKind::Reward, "r", ()).id().clone();
        Err(PluginError { plugin, export: "score", fault: PluginFault::Host { message: "no workers".into() } })
    });
    let short: Score = Arc::new(|_| {
        Ok(Rewards {
            spans: vec![Span { name: "s".into(), row: 0, start: 0, stop: 1, in_tokens: false, value: 1.0 }],
            ..Rewards::default()
        })
    });
    for (score, is_host) in [(host, true), (short, false)] {
        let error = assessed(&rewards(vec![reward("r", 1.0, FaultPolicy::DropRow, score)]), &[&["1"]], |_, _| ()).unwrap_err();
        assert_eq!(matches!(error, Error::Plugin { step: 5, .. }), is_host, "{error:?}");
    }
}

#[test]
fn batches_have_the_columns_that_plugins_are_promised() {
    let seen: Score = Arc::new(|batch: &Batch| {
        let names: Vec<&str> = batch.columns().map(|(name, _)| name).collect();
        let promised = [
            "answer",
            "completion",
            "completion_ids",
            "completion_tokens",
            "finish",
            "old_logprobs",
            "prompt",
            "prompt_ids",
            "tags",
        ];
        assert_eq!(names, promised);
        let Some(Column::Text(prompts)) = batch.column("prompt") else { panic!() };
        let Some(Column::Text(tags)) = batch.column("tags") else { panic!() };
        assert_eq!((prompts.get(0), tags.get(0)), (Some("p0"), Some("[\"x\"]")));
        assert_eq!(batch.row_ids, [5 << 32, 5 << 32 | 1]);
        assert_eq!((batch.step, batch.attrs["recipe_stage"].as_str()), (5, "rl"));
        Ok(Rewards {
            outcomes: vec![Outcome::Scored(0.0); 2],
            parts: vec![("part".into(), vec![1.0, f64::NAN])],
            ..Rewards::default()
        })
    });
    let plugins = rewards(vec![reward("seen", 1.0, FaultPolicy::DropRow, seen)]);
    assessed(&plugins, &[&["1", "2"]], |rows, _| assert_eq!(rows.scores[0].parts[0].1[0], 1.0)).unwrap();
}

fn shapes(plugin: Arc<Closure<Shape>>, shapes: ShapedValue) -> ShaperSlot {
    ShaperSlot { name: plugin.id().name.clone(), plugin, shapes, on_failure: StepPolicy::Abort }
}

fn reads(plugin: Arc<Closure<Select>>, reads: FilterStage) -> FilterSlot {
    let (scope, on_failure) = (FilterScope::Step, StepPolicy::Abort);
    FilterSlot { name: plugin.id().name.clone(), plugin, reads, scope, on_failure }
}

fn shaper(name: &str, shape: impl Fn(&Batch, &mut f64) -> Shaped + Send + Sync + 'static) -> Arc<Closure<Shape>> {
    let shape: Shape = Arc::new(shape);
    Closure::new(PluginKind::Shaper, name, shape)
}

fn filter(name: &str, select: impl Fn(&Batch) -> Decision + Send + Sync + 'static) -> Arc<Closure<Select>> {
    let select: Select = Arc::new(select);
    Closure::new(PluginKind::Filter, name, select)
}

#[test]
fn raw_shaped_and_advantage_stay_apart_and_each_plugin_reads_what_it_names() {
    let mut plugins = rewards(vec![reward("number", 1.0, FaultPolicy::DropRow, by_number())]);
    let double = shaper("double", |batch, _| {
        assert_eq!(batch.attrs["stage"], "reward");
        assert_eq!(numbers(batch, "raw"), numbers(batch, "reward/number"));
        Shaped { values: Some(numbers(batch, "value").iter().map(|v| 2.0 * v).collect()), ..Shaped::default() }
    });
    let negate = shaper("negate", |batch, _| Shaped {
        values: Some(numbers(batch, "value").iter().map(|v| -v).collect()),
        ..Shaped::default()
    });
    plugins.shapers = vec![shapes(negate, ShapedValue::Advantage), shapes(double, ShapedValue::Reward)];
    for (reads, want) in
        [(FilterStage::Raw, [1.0, 3.0]), (FilterStage::Shaped, [2.0, 6.0]), (FilterStage::Advantage, [2.0, -2.0])]
    {
        let look = filter("look", move |batch| {
            assert_eq!(batch.attrs["stage"], format!("{reads:?}").to_lowercase());
            assert_eq!(numbers(batch, "value"), want);
            Decision { keep: vec![true; 2], weights: Some(vec![0.5, 2.0]), ..Decision::default() }
        });
        plugins.filters = vec![self::reads(look, reads)];
        assessed(&plugins, &[&["1", "3"]], |rows, _| {
            assert_eq!(rows.raw, [1.0, 3.0].map(Some));
            assert_eq!(rows.shaped, [2.0, 6.0].map(Some));
            assert_eq!(rows.advantages, [2.0, -2.0].map(Some));
            assert_eq!(rows.weights, [0.5, 2.0]);
        })
        .unwrap();
    }
}

#[test]
fn filters_see_only_rows_that_are_left_and_keep_the_groups_statistics() {
    let mut plugins = rewards(vec![reward("number", 1.0, FaultPolicy::DropRow, by_number())]);
    let best = filter("best", |batch| {
        let values = numbers(batch, "value");
        let keep = batch.groups().flat_map(|group| {
            let best = values[group.clone()].iter().copied().fold(f64::NEG_INFINITY, f64::max);
            group.map(move |row| (row, best))
        });
        let keep: Vec<bool> = keep.map(|(row, best)| values[row] == best).collect();
        Decision { reasons: vec![(0, "not the best".into())], keep, regenerate: vec![0], ..Decision::default() }
    });
    let rest = filter("rest", |batch| {
        assert_eq!(numbers(batch, "value"), [4.0, 9.0]);
        assert_eq!(batch.group_ends, [1, 2]);
        Decision { keep: vec![true, false], ..Decision::default() }
    });
    plugins.filters = vec![reads(best, FilterStage::Raw), reads(rest, FilterStage::Raw)];
    assessed(&plugins, &[&["0", "4"], &["9", "?"]], |rows, assessed| {
        assert_eq!(rows.live(), [1]);
        assert_eq!(rows.advantages[1], Some(2.0), "measured against the row that was dropped");
        let reasons: Vec<_> = rows.dropped.iter().map(|reason| reason.as_deref().unwrap_or("")).collect();
        assert_eq!(reasons, ["best: not the best", "", "rest: dropped", "number: unparseable"]);
        assert_eq!(assessed.unwanted.clone().into_iter().collect::<Vec<_>>(), [(0, "best".to_owned())]);
    })
    .unwrap();
}

#[test]
fn shapers_may_give_advantages_per_token_and_lose_rows() {
    let mut plugins = rewards(vec![reward("number", 1.0, FaultPolicy::DropRow, by_number())]);
    let per_token = shaper("per-token", |_, _| {
        let mut tokens = Ragged::default();
        tokens.push(&[1.0, 3.0]);
        tokens.push(&[0.0, 0.0]);
        Shaped { token_values: Some(tokens), faults: vec![(1, fault("odd"))], ..Shaped::default() }
    });
    plugins.shapers = vec![shapes(per_token.clone(), ShapedValue::Advantage)];
    assessed(&plugins, &[&["1", "2"]], |rows, _| {
        assert_eq!(rows.token_advantages.as_ref().unwrap()[0], [1.0, 3.0]);
        assert_eq!(rows.advantages[0], Some(2.0));
        assert_eq!(rows.dropped[1].as_deref(), Some("per-token: odd"));
    })
    .unwrap();
    plugins.shapers = vec![shapes(per_token, ShapedValue::Reward)];
    assert!(matches!(assessed(&plugins, &[&["1", "2"]], |_, _| ()), Err(Error::Answer { .. })));
    let nan = shaper("nan", |_, _| Shaped { values: Some(vec![f64::NAN; 2]), ..Shaped::default() });
    plugins.shapers = vec![shapes(nan, ShapedValue::Reward)];
    assert!(matches!(assessed(&plugins, &[&["1", "2"]], |_, _| ()), Err(Error::Answer { .. })));
}
