use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use plumb_core::feedback::Ask;
use plumb_core::recipe::{FaultPolicy, Recipe};
use plumb_core::services::{Answer, Generated, Models, NoModels, Question, Sampling, ServiceFault};
use plumb_core::{Batch, Column, Outcome, PluginKind, Ragged, RowFault, Texts, Turn, Verdicts};
use plumb_train::models::RecordedModels;
use plumb_train::pipeline::judging::{self, MAX_TURNS};
use plumb_train::pipeline::record::RecordedStep;
use plumb_train::pipeline::rows::batch;
use plumb_train::plugins::{AnyPlugin, JudgeSlot, StagePlugins, TOKENS_PER_ROW, Weight};
use plumb_train::run::{OutcomeRecord, Record, Table, completions_file, ledger};
use plumb_train::{ModelServer, Observer, train};

use crate::support::{Closure, Closures, Sit, recipe, request, timeless_metrics};

const STAGES: &str = "
[models.old]
lagged = 3
[checkpoints]
save_steps = 2
[[stages]]
name = 'rl'
algorithm = 'grpo'
max_steps = 5
data = { train = ['data.jsonl'], prompt = { chat = false } }
rollout = { prompts_per_step = 3, num_generations = 4, max_completion_length = 3 }
optimizer = { learning_rate = 1e-2 }
rewards = [{ plugin = 'share-of-c', weight = 0.1 }]
judges = [{ plugin = 'asks', on_fault = 'drop-row', grants = { models = ['policy', 'old'] } }]
";

fn sampling(max_tokens: u32, count: u32) -> Sampling {
    Sampling { max_tokens, temperature: 1.0, top_p: 1.0, count, seed: 1, stop: Vec::new(), extra: Vec::new() }
}

fn completions(batch: &Batch) -> &Texts {
    let Some(Column::Text(texts)) = batch.column("completion") else { panic!("every batch has completions") };
    texts
}

/// Asks the policy to go on behind each completion, and then the lagged copy how likely its answers were: the mean of that is the
/// score, and an empty completion has none.
fn asks(models: Arc<dyn Models>) -> Sit {
    Arc::new(move |batch, resumed| {
        let rows = completions(batch);
        let prompts: Texts = (0..rows.len()).map(|row| format!("a{}", rows.get(row).unwrap())).collect();
        let Some((memo, answers)) = resumed else {
            let question = Question { model: "policy".into(), prompts, sampling: sampling(4, 2) };
            return Turn::Ask(Ask { questions: vec![question], memo: b"memo".to_vec() });
        };
        assert_eq!(memo, b"memo");
        let (mut doubled, mut tokens) = (Texts::default(), Ragged::default());
        for row in 0..2 * rows.len() {
            doubled.push(prompts.bytes_at(row / 2));
            tokens.push(answers[0].tokens.row(row));
        }
        let likely = models.token_logprobs("old", &doubled, &tokens).unwrap();
        let mean = |row: usize| {
            let both = [likely.row(2 * row), likely.row(2 * row + 1)].concat();
            both.iter().map(|&x| f64::from(x)).sum::<f64>() / both.len() as f64
        };
        let scores = (0..rows.len()).map(|row| if rows.bytes_at(row).is_empty() { f64::NAN } else { mean(row) });
        let rationales = Some((0..rows.len()).map(|row| answers[0].text.get(2 * row).unwrap().to_owned()).collect());
        Turn::Done(Verdicts { scores: Some(scores.collect()), rationales, ..Verdicts::default() })
    })
}

fn run(recipe: &Recipe, folder: &Path, name: &str, resume: bool, observer: &mut dyn Observer) -> Result<(), plumb_train::Error> {
    let mut request = request(recipe, folder, name, resume);
    request.models = Arc::new(ModelServer::default());
    let closures = Closures { sit: Some(asks(request.models.clone())), ..Closures::default() };
    train(&request, &closures, observer).map(|_| ())
}

struct StopAfter(u64, Arc<std::sync::atomic::AtomicBool>);

impl Observer for StopAfter {
    fn step(&mut self, metrics: &plumb_train::run::MetricSet) {
        self.1.store(metrics.step >= self.0, Ordering::Relaxed);
    }
}

fn slot(name: &str, sit: Sit) -> JudgeSlot {
    let (plugin, weights) = (Closure::new(PluginKind::Judge, name, sit), Weight::from(1.0));
    JudgeSlot { name: name.into(), plugin, weight: 1.0, weights, on_fault: FaultPolicy::DropRow, tokens_per_row: TOKENS_PER_ROW }
}

#[test]
fn judge_that_asks_models_resumes_exactly_and_replays_from_the_recorded_answers() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = recipe(folder.path(), STAGES);
    run(&recipe, folder.path(), "whole", false, &mut ()).unwrap();
    let whole = folder.path().join("whole");
    // The copy was renewed after step 3, so a checkpoint of step 4 holds neither the first policy nor the current one.
    for step in [2, 4] {
        let name = format!("stopped-{step}");
        let mut first = request(&recipe, folder.path(), &name, false);
        first.models = Arc::new(ModelServer::default());
        let closures = Closures { sit: Some(asks(first.models.clone())), ..Closures::default() };
        train(&first, &closures, &mut StopAfter(step, first.interrupt.clone())).unwrap_err();
        run(&recipe, folder.path(), &name, true, &mut ()).unwrap();
        let again = folder.path().join(&name);
        let bytes = |run: &Path, file: &str| std::fs::read(run.join(file)).unwrap();
        assert!(bytes(&whole, "ledger.jsonl") == bytes(&again, "ledger.jsonl"), "stopped after {step}");
        assert!(bytes(&whole, "model/model.safetensors") == bytes(&again, "model/model.safetensors"));
        assert_eq!(timeless_metrics(&whole), timeless_metrics(&again));
    }

    let metrics = timeless_metrics(&whole);
    assert_eq!(metrics[0].get("judge/asks/turns"), Some(2.0));
    assert_eq!(metrics[0].get("judge/asks/questions"), Some(12.0));
    assert!(metrics[0].get("judge/asks/tokens").unwrap() > 24.0);
    assert!(metrics[0].get("rewards/asks/mean").unwrap() < 0.0);

    let (mut recorded, mut steps) = (Arc::new(RecordedModels::default()), 0);
    for record in ledger::read(&whole.join("ledger.jsonl")).unwrap() {
        match record {
            Record::Answers { answers, .. } => recorded = Arc::new(RecordedModels::new(&answers).unwrap()),
            Record::Step(record) => {
                steps += 1;
                let path = completions_file(&whole, record.step);
                let table = Table::read(&path).unwrap();
                assert!(table.column("judge/asks/rationale").is_some());
                let step = RecordedStep::new(record.clone(), table, &path).unwrap();
                let rows = step.rows();
                let all = batch(record.step, "rl", rows.columns, &rows.rows());
                let models: Arc<dyn Models> = Arc::clone(&recorded) as _;
                let judges = [slot("asks", asks(models.clone()))];
                let (scores, _) = judging::judge(record.step, &judges, all, &*models).unwrap();
                let again: Vec<OutcomeRecord> = scores[0].outcomes.iter().map(Into::into).collect();
                let before: Vec<OutcomeRecord> = record.completions.iter().map(|one| one.outcomes[1].clone()).collect();
                assert_eq!(again, before, "step {}", record.step);
            }
            _ => {}
        }
    }
    assert_eq!(steps, 5);
}

/// Answers each prompt with its own text, and counts calls and questions. It cannot read a prompt with an `x`.
#[derive(Default)]
struct Echo {
    calls: AtomicUsize,
    questions: Mutex<Vec<usize>>,
}

impl Models for Echo {
    fn generate(&self, questions: &[Question]) -> Vec<Answer> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.questions.lock().unwrap().push(questions.len());
        let answer = |question: &Question| match question.model.as_str() {
            "policy" if question.prompts.bytes.contains(&b'x') => Err(ServiceFault::new("too-long", "")),
            "policy" => {
                let mut answer = Generated { text: question.prompts.clone(), ..Generated::default() };
                for _ in 0..question.prompts.len() {
                    answer.tokens.push(&[7]);
                    answer.logprobs.push(&[-0.5]);
                    answer.finish.push("stop".into());
                }
                Ok(answer)
            }
            _ => Err(ServiceFault::new("unknown-model", "")),
        };
        questions.iter().map(answer).collect()
    }
    fn count_tokens(&self, _: &str, texts: &Texts) -> Result<u64, ServiceFault> {
        Ok(texts.bytes.len() as u64)
    }
    fn logprobs(&self, model: &str, prompts: &Texts, more: &Texts) -> Result<Ragged<f32>, ServiceFault> {
        NoModels.logprobs(model, prompts, more)
    }
    fn token_logprobs(&self, model: &str, prompts: &Texts, tokens: &Ragged<u32>) -> Result<Ragged<f32>, ServiceFault> {
        NoModels.token_logprobs(model, prompts, tokens)
    }
    fn choice_logprobs(&self, model: &str, prompts: &Texts, choices: &[String]) -> Result<Vec<f64>, ServiceFault> {
        NoModels.choice_logprobs(model, prompts, choices)
    }
    fn score(&self, model: &str, prompts: &Texts, more: &Texts) -> Result<Vec<(String, Vec<f64>)>, ServiceFault> {
        NoModels.score(model, prompts, more)
    }
    fn embed(&self, model: &str, inputs: &Texts) -> Result<(u32, Vec<f32>), ServiceFault> {
        NoModels.embed(model, inputs)
    }
}

/// Asks `turns` times, with its memo as the counter, and then gives every row the number of answers as its score.
fn asks_times(turns: u8, model: &str) -> Sit {
    let model = model.to_owned();
    Arc::new(move |batch, resumed| {
        let done = resumed.map_or(0, |(memo, _)| memo[0]);
        if done < turns {
            let prompts = (0..batch.rows()).map(|row| format!("{row}")).collect();
            let question = Question { model: model.clone(), prompts, sampling: sampling(2, 1) };
            return Turn::Ask(Ask { questions: vec![question], memo: vec![done + 1] });
        }
        let answers = resumed.map_or(0, |(_, answers)| answers[0].text.len());
        Turn::Done(Verdicts { scores: Some(vec![answers as f64; batch.rows()]), ..Verdicts::default() })
    })
}

fn code(outcome: &Outcome) -> &str {
    match outcome {
        Outcome::Scored(_) => "scored",
        Outcome::Abstained(RowFault { code, .. }) | Outcome::Failed(RowFault { code, .. }) => code,
    }
}

#[test]
fn judges_of_a_round_ask_together_and_one_that_fails_spares_the_others() {
    let rows = || Batch::new(1, vec![1, 2, 3], vec![2, 3]);
    let greedy = JudgeSlot { tokens_per_row: 4, ..slot("greedy", asks_times(2, "policy")) };
    let judges = [
        slot("none", asks_times(0, "policy")),
        slot("one", asks_times(1, "policy")),
        slot("three", asks_times(3, "policy")),
        slot("lost", asks_times(1, "nobody")),
        slot("endless", asks_times(200, "policy")),
        greedy,
    ];
    let echo = Echo::default();
    let (scores, metrics) = judging::judge(1, &judges, rows(), &echo).unwrap();
    let codes: Vec<&str> = scores.iter().map(|scores| code(&scores.outcomes[2])).collect();
    assert_eq!(codes, ["scored", "scored", "scored", "unknown-model", "too-many-turns", "budget"]);
    assert_eq!(scores[1].outcomes, vec![Outcome::Scored(3.0); 3]);
    // Each round is one call: `one`, `three`, `lost`, `endless` and `greedy` ask in the first.
    assert_eq!(echo.calls.load(Ordering::Relaxed) as u64, MAX_TURNS - 1);
    assert_eq!(echo.questions.lock().unwrap()[..4], [5, 2, 2, 1]);
    let metric = |name: &str| metrics.iter().find(|(have, _)| have == name).unwrap().1;
    assert_eq!((metric("judge/three/turns"), metric("judge/endless/turns")), (4.0, 16.0));
    assert_eq!((metric("judge/three/questions"), metric("judge/three/tokens")), (9.0, 18.0));
}

#[test]
fn judge_that_takes_anothers_place_has_its_own_budget() {
    let mut plugins = StagePlugins { judges: vec![slot("asks", asks_times(1, "policy"))], ..StagePlugins::default() };
    let next = AnyPlugin::Judge(slot("asks", asks_times(2, "policy")).plugin);
    let used =
        |grants: serde_json::Value| serde_json::from_value(serde_json::json!({ "plugin": "b", "grants": grants })).unwrap();
    plugins.set("asks", &next, &used(serde_json::json!({ "models": ["policy"], "tokens_per_row": 7 })));
    assert_eq!(plugins.judges[0].tokens_per_row, 7);
    plugins.set("asks", &next, &used(serde_json::json!({ "models": ["policy"] })));
    assert_eq!(plugins.judges[0].tokens_per_row, TOKENS_PER_ROW);
}

#[test]
fn judge_without_weight_only_informs_and_counts_once_a_batch() {
    let folder = tempfile::tempdir().unwrap();
    let silent = STAGES
        .replace("on_fault = 'drop-row'", "weight = 0.0")
        .replace("max_steps = 5", "max_steps = 4\ngrpo.num_iterations = 2");
    let recipe = recipe(folder.path(), &silent);
    let sit: Sit =
        Arc::new(|batch, _| Turn::Done(Verdicts { scores: Some(vec![f64::NAN; batch.rows()]), ..Verdicts::default() }));
    let closures = Closures { sit: Some(sit), ..Closures::default() };
    train(&request(&recipe, folder.path(), "run", false), &closures, &mut ()).unwrap();
    let run = folder.path().join("run");
    let records = ledger::read(&run.join("ledger.jsonl")).unwrap();
    let steps = records.iter().filter_map(|record| if let Record::Step(step) = record { Some(step) } else { None });
    let completions: Vec<_> = steps.flat_map(|step| &step.completions).collect();
    assert_eq!(completions.len(), 24);
    assert!(completions.iter().all(|one| one.kept && matches!(one.outcomes[1], OutcomeRecord::Failed { .. })));
    let turns: Vec<_> = timeless_metrics(&run).iter().map(|set| set.get("judge/asks/turns")).collect();
    assert_eq!(turns, [Some(1.0), None, Some(1.0), None]);
}

#[test]
fn prompt_that_a_model_cannot_read_is_its_rows_matter_alone() {
    // Asks about each row in one question, and scores those whose answer has a text.
    let sit = |texts: [&'static str; 3]| -> Sit {
        Arc::new(move |_, resumed| {
            let Some((_, answers)) = resumed else {
                let question = Question { model: "policy".into(), prompts: texts.iter().collect(), sampling: sampling(1, 1) };
                return Turn::Ask(Ask { questions: vec![question], memo: Vec::new() });
            };
            assert_eq!((answers[0].text.len(), answers[0].finish.len()), (3, 3));
            let score = |row: usize| if answers[0].finish[row] == "stop" { row as f64 } else { f64::NAN };
            assert!((0..3).all(|row| (answers[0].finish[row] == "too-long") == answers[0].text.bytes_at(row).is_empty()));
            Turn::Done(Verdicts { scores: Some((0..3).map(score).collect()), ..Verdicts::default() })
        })
    };
    let judges = [slot("one", sit(["a", "x", "b"])), slot("all", sit(["x", "x", "x"]))];
    let batch = Batch::new(1, vec![1, 2, 3], vec![2, 3]);
    let (scores, _) = judging::judge(1, &judges, batch, &Echo::default()).unwrap();
    assert_eq!(scores[0].outcomes.iter().map(code).collect::<Vec<_>>(), ["scored", "no-verdict", "scored"]);
    assert_eq!(scores[1].outcomes.iter().map(code).collect::<Vec<_>>(), ["too-long"; 3]);
}

#[test]
fn batches_of_a_judge_ask_together_and_one_that_fails_spares_the_others() {
    let asks = |model: &str| asks_times(1, model);
    let (known, unknown) = (asks("policy"), asks("nobody"));
    let sit: Sit =
        Arc::new(move |batch, resumed| if batch.row_ids[0] == 9 { unknown(batch, resumed) } else { known(batch, resumed) });
    let batches = vec![Batch::new(0, vec![1, 2], vec![2]), Batch::new(0, vec![9], vec![1]), Batch::new(0, vec![3], vec![1])];
    let (echo, slot) = (Echo::default(), slot("j", sit));
    let all = judging::judge_each(&slot, batches.clone(), &echo).unwrap();
    assert_eq!((echo.calls.load(Ordering::Relaxed), echo.questions.lock().unwrap().clone()), (1, vec![3]));
    let codes: Vec<Vec<&str>> = all.iter().map(|judged| judged.scores.outcomes.iter().map(code).collect()).collect();
    assert_eq!(codes, [vec!["scored", "scored"], vec!["unknown-model"], vec!["scored"]]);
    // Two prompts of one token, and an answer of one to each.
    assert_eq!(all[0].spent, judging::Spent { turns: 2, questions: 2, tokens: 4 });
    let Outcome::Failed(fault) = &all[1].scores.outcomes[0] else { panic!("nobody answers") };
    assert!(fault.message.starts_with("a question of judge `j` has no answer"), "{}", fault.message);
    for (batch, together) in batches.into_iter().zip(&all) {
        let alone = judging::judge_each(&slot, vec![batch], &echo).unwrap().remove(0);
        assert_eq!((alone.scores.outcomes, alone.spent), (together.scores.outcomes.clone(), together.spent));
    }
}
