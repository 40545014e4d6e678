use std::sync::Arc;

use plumb_core::recipe::{EngineKind, RandomModel, Recipe};
use plumb_core::services::{Answer, Generated, Models, Question, Sampling};
use plumb_core::{Ragged, Texts};
use plumb_model::ScoreHead;
use plumb_model::engine::Precision;

use super::store::{Loaded, ModelStore};
use super::{ModelServer, ModelSet, RecordedModels};
use crate::policy::Policy;

fn policy(seed: u64) -> Policy {
    let spec = RandomModel {
        alphabet: "abcd?".into(),
        hidden_size: 16,
        intermediate_size: 32,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        num_key_value_heads: None,
        max_position_embeddings: 24,
        initializer_range: 0.4,
    };
    Policy::new(plumb_model::random(&spec, seed).unwrap(), EngineKind::Native, Precision::default())
}

fn texts(all: &[&str]) -> Texts {
    all.iter().collect()
}

fn sampling() -> Sampling {
    Sampling { max_tokens: 6, temperature: 1.0, top_p: 1.0, count: 3, seed: 5, stop: Vec::new(), extra: Vec::new() }
}

fn question(model: &str, prompts: &[&str]) -> Question {
    Question { model: model.into(), prompts: texts(prompts), sampling: sampling() }
}

/// Serves `work` with a policy of that seed and no other models.
fn served<T: Send>(policy: &mut Policy, store: &mut ModelStore, server: &ModelServer, work: impl FnOnce() -> T + Send) -> T {
    server.serve(&mut ModelSet { policy: Some(policy), store }, work)
}

/// What a question gives on fresh models that were asked nothing else.
fn alone(question: &Question) -> Answer {
    let (server, mut store) = (ModelServer::default(), ModelStore::without_models(7));
    served(&mut policy(1), &mut store, &server, || server.generate(std::slice::from_ref(question)).remove(0))
}

/// The completions of one prompt of an answer.
fn part(answer: &Generated, prompt: usize) -> Vec<(&[u32], &[f32], Option<&str>)> {
    (3 * prompt..3 * prompt + 3).map(|i| (answer.tokens.row(i), answer.logprobs.row(i), answer.text.get(i))).collect()
}

#[test]
fn answers_do_not_depend_on_what_else_is_asked_nor_on_the_cache() {
    let (a, b) = (alone(&question("policy", &["ab"])).unwrap(), alone(&question("policy", &["cd?"])).unwrap());
    assert_ne!(part(&a, 0), part(&b, 0));
    assert_eq!(a.finish.len(), 3);
    let (server, mut store, mut policy) = (ModelServer::default(), ModelStore::without_models(7), policy(1));
    for _ in 0..2 {
        let questions = [question("policy", &["cd?", "ab", "cd?"]), question("policy", &["ab"])];
        let answers = served(&mut policy, &mut store, &server, || server.generate(&questions));
        let [first, second] = answers.try_into().unwrap();
        let first = first.unwrap();
        assert_eq!((part(&first, 0), part(&first, 1), part(&first, 2)), (part(&b, 0), part(&a, 0), part(&b, 0)));
        assert_eq!(second.unwrap(), a);
    }
    // Another seed is another draw, of the same batch or not.
    let other = Question { sampling: Sampling { seed: 6, ..sampling() }, ..question("policy", &["ab"]) };
    let together = served(&mut policy, &mut store, &server, || server.generate(&[question("policy", &["ab"]), other.clone()]));
    assert_eq!(together[0].as_ref().unwrap(), &a);
    assert_eq!(together[1], alone(&other));
    assert_ne!(together[1].as_ref().unwrap(), &a);
}

#[test]
fn questions_of_many_threads_get_their_own_answers() {
    let prompts = ["a", "bb", "c?", "dab", "?"];
    let expected: Vec<Generated> = prompts.iter().map(|prompt| alone(&question("policy", &[prompt])).unwrap()).collect();
    let (server, mut store) = (ModelServer::default(), ModelStore::without_models(7));
    let answers = served(&mut policy(1), &mut store, &server, || {
        std::thread::scope(|scope| {
            let ask = |prompt: &'static str| server.generate(&[question("policy", &[prompt])]).remove(0);
            let askers: Vec<_> = prompts.map(|prompt| scope.spawn(move || ask(prompt))).into_iter().collect();
            askers.into_iter().map(|asker| asker.join().unwrap().unwrap()).collect::<Vec<_>>()
        })
    });
    assert_eq!(answers, expected);
}

#[test]
fn nobody_waits_when_nobody_serves_or_serving_panics() {
    let server = Arc::new(ModelServer::default());
    let unavailable = |server: &ModelServer| {
        let fault = server.count_tokens("policy", &texts(&["ab"])).unwrap_err();
        fault.code == "unavailable" && fault.retryable
    };
    assert!(unavailable(&server));
    let (mut policy, mut store) = (policy(1), ModelStore::without_models(7));
    let seen = served(&mut policy, &mut store, &server, || server.count_tokens("policy", &texts(&["ab", "c"])));
    assert_eq!(seen, Ok(3));
    assert!(unavailable(&server));
    let panicking =
        std::panic::AssertUnwindSafe(|| served(&mut policy, &mut store, &server, || -> u8 { panic!("a plugin's closure") }));
    assert!(std::panic::catch_unwind(panicking).is_err());
    assert!(unavailable(&server));
}

#[test]
fn answers_follow_the_weights() {
    let (server, mut store, mut policy) = (ModelServer::default(), ModelStore::without_models(7), policy(1));
    let ask = |policy: &mut Policy, store: &mut ModelStore| {
        served(policy, store, &server, || server.logprobs("policy", &texts(&["ab"]), &texts(&["cd"])).unwrap())
    };
    let before = ask(&mut policy, &mut store);
    let data = policy.params.data.clone();
    policy.params.data.iter_mut().for_each(|x| *x *= 1.5);
    policy.weights_changed();
    assert_ne!(ask(&mut policy, &mut store), before);
    policy.params.data = data;
    policy.weights_changed();
    assert_eq!(ask(&mut policy, &mut store), before);
}

#[test]
fn log_probabilities_agree_however_they_are_asked_for() {
    let (server, mut store, mut policy) = (ModelServer::default(), ModelStore::without_models(7), policy(1));
    served(&mut policy, &mut store, &server, || {
        let generated = server.generate(&[question("policy", &["ab"])]).remove(0).unwrap();
        let prompts = texts(&["ab"; 3]);
        let read = server.token_logprobs("policy", &prompts, &generated.tokens).unwrap();
        assert_eq!(read.ends, generated.logprobs.ends);
        for (a, b) in read.values.iter().zip(&generated.logprobs.values) {
            assert!((a - b).abs() < 1e-4, "reading gives {a}, sampling {b}");
        }
        let continuations = texts(&["c", "", "dab"]);
        let by_text = server.logprobs("policy", &prompts, &continuations).unwrap();
        assert_eq!(by_text.ends, [1, 1, 4]);
        let choices: Vec<String> = ["c", "", "dab"].map(String::from).into();
        let sums = server.choice_logprobs("policy", &texts(&["ab", "d"]), &choices).unwrap();
        assert_eq!(sums.len(), 6);
        assert!((sums[0] - f64::from(by_text.row(0)[0])).abs() < 1e-5 && sums[1] == 0.0);
        let dab: f64 = by_text.row(2).iter().map(|&x| f64::from(x)).sum();
        assert!((sums[2] - dab).abs() < 1e-5);
    });
}

#[test]
fn embedding_is_the_mean_of_the_last_hidden_states() {
    let (server, mut store, mut policy) = (ModelServer::default(), ModelStore::without_models(7), policy(1));
    let (width, values) = served(&mut policy, &mut store, &server, || server.embed("policy", &texts(&["abd", "c"])).unwrap());
    assert_eq!((width, values.len()), (16, 32));
    let tokens = policy.tokenizer.encode("abd").unwrap();
    let hidden = policy.hidden(&tokens).unwrap();
    let mean = |j: usize| (0..3).map(|t| f64::from(hidden[t * 16 + j])).sum::<f64>() / 3.0;
    assert!((0..16).all(|j| (f64::from(values[j]) - mean(j)).abs() < 1e-6));
}

#[test]
fn classifier_scores_the_last_token_and_has_no_words() {
    let (server, mut store, mut policy) = (ModelServer::default(), ModelStore::without_models(7), policy(1));
    let weights: Vec<f32> = (0..32).map(|i| i as f32 / 10.0 - 1.0).collect();
    let head = ScoreHead { labels: vec!["helpful".into(), "harmless".into()], weights: weights.clone() };
    store.loaded.insert("rm".into(), Loaded { model: self::policy(2), score: Some(head) });
    let scores = served(&mut policy, &mut store, &server, || {
        assert_eq!(server.generate(&[question("rm", &["ab"])])[0].as_ref().unwrap_err().code, "unsupported");
        assert_eq!(server.logprobs("rm", &texts(&["ab"]), &texts(&["c"])).unwrap_err().code, "unsupported");
        server.score("rm", &texts(&["ab", "d"]), &texts(&["c", ""])).unwrap()
    });
    assert_eq!(scores.iter().map(|(label, _)| label.as_str()).collect::<Vec<_>>(), ["helpful", "harmless"]);
    let mut model = self::policy(2);
    for (row, text) in ["abc", "d"].into_iter().enumerate() {
        let tokens = model.tokenizer.encode(text).unwrap();
        let hidden = model.hidden(&tokens).unwrap();
        for (label, (_, values)) in scores.iter().enumerate() {
            let last = hidden[hidden.len() - 16..].iter().zip(&weights[16 * label..]);
            let expected: f64 = last.map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
            assert!((values[row] - expected).abs() < 1e-9, "{text}, label {label}: {}, expected {expected}", values[row]);
        }
    }
}

#[test]
fn what_cannot_be_answered_is_a_fault_that_says_why() {
    let (server, mut store, mut policy) = (ModelServer::default(), ModelStore::without_models(7), policy(1));
    served(&mut policy, &mut store, &server, || {
        let fault = |question: Question| server.generate(&[question]).remove(0).unwrap_err();
        let unknown = fault(question("judge", &["a"]));
        assert_eq!((unknown.code.as_str(), unknown.retryable), ("unknown-model", false));
        assert!(unknown.message.contains("`judge`") && unknown.message.contains("policy"));
        let reference = fault(question("reference", &["a"]));
        assert!(reference.code == "unavailable" && reference.message.contains("grpo.log_kl"));
        let long = fault(question("policy", &["a", &"ab".repeat(10)]));
        assert_eq!(long.code, "too-long");
        let told =
            "prompt 2 of 2 to model `policy`: its 20 tokens and up to 6 after them need a context of 26, and the model has 24: ";
        assert!(long.message.starts_with(told), "{}", long.message);
        assert_eq!(fault(question("policy", &["x"])).code, "untokenizable");
        assert_eq!(fault(question("policy", &[""])).code, "empty-prompt");
        let with = |sampling| fault(Question { sampling, ..question("policy", &["a"]) });
        assert_eq!(with(Sampling { count: 0, ..sampling() }).code, "unsupported");
        assert_eq!(with(Sampling { top_p: 0.0, ..sampling() }).code, "unsupported");
        let extra = with(Sampling { extra: vec![("beams".into(), "4".into())], ..sampling() });
        assert!(extra.message.contains("`beams`") && extra.message.contains("`top_k`"));
        assert_eq!(server.score("policy", &texts(&["a"]), &texts(&["b"])).unwrap_err().code, "unsupported");
        assert_eq!(server.logprobs("policy", &texts(&["a"]), &texts(&[])).unwrap_err().code, "wrong-count");
        let tokens = Ragged { values: vec![99], ends: vec![1] };
        assert_eq!(server.token_logprobs("policy", &texts(&["a"]), &tokens).unwrap_err().code, "bad-token");
        // The others of a batch have their answers all the same.
        let answers = server.generate(&[question("policy", &["x"]), question("policy", &["ab"])]);
        assert_eq!(answers[1], alone(&question("policy", &["ab"])));
    });
}

#[test]
fn recorded_answers_are_those_of_the_run_and_nothing_else() {
    let (server, mut store, mut policy) = (ModelServer::default(), ModelStore::without_models(7), policy(1));
    let ask = |models: &dyn Models| {
        let long = "ab".repeat(10);
        (
            models.generate(&[question("policy", &["ab", "c"]), question("policy", &["a", &long])]),
            models.logprobs("policy", &texts(&["ab"]), &texts(&["cd"])),
            models.choice_logprobs("policy", &texts(&["ab"]), &["c".into()]),
            models.embed("policy", &texts(&["ab"])),
            models.score("policy", &texts(&["ab"]), &texts(&["c"])),
            models.count_tokens("policy", &texts(&["ab"])),
        )
    };
    let live = served(&mut policy, &mut store, &server, || ask(&server));
    let records = server.take_answers();
    assert!(records.is_sorted_by(|a, b| a.key < b.key));
    assert!(server.take_answers().is_empty());
    let text = serde_json::to_string(&records).unwrap();
    let records: Vec<crate::run::AnswerRecord> = serde_json::from_str(&text).unwrap();
    let recorded = RecordedModels::new(&records).unwrap();
    assert_eq!(ask(&recorded), live);
    let other = Question { sampling: Sampling { seed: 9, ..sampling() }, ..question("policy", &["ab"]) };
    assert_eq!(recorded.generate(&[other]).remove(0).unwrap_err().code, "not-recorded");
    assert_eq!(recorded.count_tokens("policy", &texts(&["abc"])).unwrap_err().code, "not-recorded");
    let broken = crate::run::AnswerRecord { key: "k".into(), answer: serde_json::json!({"song": 1}) };
    assert_eq!(RecordedModels::new([&broken]).unwrap_err(), "k");
}

#[test]
fn lagged_copy_is_renewed_after_its_steps_and_survives_a_checkpoint() {
    let recipe = "name = 't'\nmodel.random = { alphabet = 'ab', hidden_size = 8, intermediate_size = 8, num_hidden_layers = 1, num_attention_heads = 1 }\n\
                  models = { old = { lagged = 2 }, idle = { lagged = 1 } }\n\
                  [[stages]]\nname = 'rl'\nalgorithm = 'grpo'\nmax_steps = 3\ndata.train = ['x']\n\
                  judges = [{ plugin = 'j', grants = { models = ['old'] } }]\n";
    let mut recipe: Recipe = toml::from_str(recipe).unwrap();
    let mut store = ModelStore::load(&recipe, std::path::Path::new(".")).unwrap();
    let mut policy = policy(1);
    store.begin_stage(&policy, &recipe.stages[0], true);
    let names = |store: &ModelStore| store.vectors().into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    assert_eq!(names(&store), ["reference", "lagged/old"], "a model that nobody is granted is not made");
    let server = ModelServer::default();
    let ask = |store: &mut ModelStore, policy: &mut Policy| {
        let answers = ["policy", "old", "reference"].map(|name| {
            served(policy, store, &server, || server.choice_logprobs(name, &texts(&["ab"]), &["c".into()]).unwrap()[0])
        });
        answers.map(f64::to_bits)
    };
    let begin = ask(&mut store, &mut policy);
    assert_eq!(begin, [begin[0]; 3]);
    for step in 1..=2 {
        policy.params.data.iter_mut().for_each(|x| *x *= 1.1);
        policy.weights_changed();
        store.end_step(&policy, step);
        let [now, old, reference] = ask(&mut store, &mut policy);
        assert_eq!((old == now, reference), (step == 2, begin[0]));
    }
    let saved: Vec<(String, Vec<f32>)> = store.vectors().into_iter().map(|(name, data)| (name, data.to_vec())).collect();
    policy.params.data.iter_mut().for_each(|x| *x *= 1.1);
    policy.weights_changed();
    let before = ask(&mut store, &mut policy);
    let mut again = ModelStore::load(&recipe, std::path::Path::new(".")).unwrap();
    again.begin_stage(&policy, &recipe.stages[0], true);
    again
        .restore(|name, into| {
            into.clone_from(&saved.iter().find(|(have, _)| have == name).unwrap().1);
            Ok(())
        })
        .unwrap();
    assert_eq!(ask(&mut again, &mut policy), before);

    recipe.stages[0].judges[0].plugin.grants.models.push("nobody".into());
    let error = ModelStore::load(&recipe, std::path::Path::new(".")).err().unwrap().to_string();
    assert!(error.contains("`nobody`") && error.contains("policy, reference, idle, old"), "{error}");
}
