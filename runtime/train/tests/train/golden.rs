//! Losses over preferences against reference numbers in float64 (`tests/golden/README.md`).

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use plumb_core::recipe::{Dpo, DpoLoss};
use plumb_train::loss::differentiate;
use plumb_train::loss::dpo::{PairLogps, PairStats, dpo, sequence_logps};
use plumb_train::loss::reward::{RewardStats, bradley_terry};
use serde_json::Value;

/// What an operation gives: names and numbers, flat.
type Answer = BTreeMap<String, Vec<f64>>;

/// A case whose answer is computed by the functions that training calls; None for operations of other parts.
fn answer(method: &str, operation: &str, params: &Value, inputs: &Value) -> Option<Answer> {
    match (method, operation) {
        ("27-dpo", "sequence_logprob") => Some(sequence_logprob(params, inputs)),
        ("27-dpo", "dpo_loss_tokens") => Some(over_tokens(params, inputs)),
        ("01-online-iterative-rlhf", "dpo_loss") if inputs.get("chosen_mask").is_some() => Some(over_tokens(params, inputs)),
        ("27-dpo" | "01-online-iterative-rlhf", "dpo_loss") => Some(over_sums(params, inputs)),
        // The other cases are of forms that are not offered: IPO with beta inside the square, a margin by length.
        ("13-daa-overoptimisation", "daa_loss") if params["length_alpha"] == 0.0 && params["ipo_form"] != "gpo" => {
            Some(over_sums(params, inputs))
        }
        (_, "bradley_terry_loss" | "bt_ranking_loss" | "bt_reward_model_loss" | "bradley_terry") => Some(over_rewards(inputs)),
        _ => None,
    }
}

fn flat(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(values) => values.iter().flat_map(flat).collect(),
        other => vec![other.as_f64().unwrap()],
    }
}

fn tensor(values: &[f64]) -> Tensor {
    Tensor::new(values, &Device::Cpu).unwrap()
}

fn lengths(rows: &Value) -> Vec<usize> {
    rows.as_array().unwrap().iter().map(|row| row.as_array().unwrap().len()).collect()
}

fn settings(params: &Value) -> Dpo {
    let name = params.get("variant").or(params.get("loss")).and_then(Value::as_str);
    let loss_type = match name {
        None | Some("sigmoid" | "dpo") => DpoLoss::Sigmoid,
        Some("slic") => DpoLoss::Hinge,
        Some("ipo") => DpoLoss::Ipo,
        Some(other) => panic!("no loss is named {other}"),
    };
    Dpo {
        loss_type,
        beta: params["beta"].as_f64().unwrap(),
        label_smoothing: params.get("label_smoothing").map_or(0.0, |e| e.as_f64().unwrap()),
        reference_free: params.get("reference_free").is_some_and(|free| free == true),
        ..Dpo::default()
    }
}

fn sequence_logprob(params: &Value, inputs: &Value) -> Answer {
    let rows = inputs["mask"].as_array().unwrap();
    let weights = rows.iter().flat_map(|row| {
        let mask = flat(row);
        let count = if params["reduction"] == "mean" { mask.iter().sum::<f64>().max(1.0) } else { 1.0 };
        mask.into_iter().map(move |m| m / count)
    });
    let (logps, weights) = (flat(&inputs["policy_logps"]), weights.collect::<Vec<_>>());
    let sums = sequence_logps(&tensor(&logps), &tensor(&weights), &lengths(&inputs["mask"])).unwrap();
    BTreeMap::from([("policy_logps_sum".into(), sums.to_vec1().unwrap())])
}

/// Losses of pairs, their mean with its gradients by all policy log-probabilities, and what is reported of them. `sides` makes a chosen
/// or a rejected answer's sequence log-probabilities of what the policy or the reference gave for its tokens.
fn pair_losses(params: &Value, inputs: [Vec<f64>; 4], side: &dyn Fn(&Tensor, usize) -> Tensor) -> (Answer, [Vec<f64>; 2]) {
    let settings = settings(params);
    let [chosen, rejected, ref_chosen, ref_rejected] = inputs;
    let split = chosen.len();
    let halves = |all: &Tensor| PairLogps {
        chosen: side(&all.narrow(0, 0, split).unwrap(), 0),
        rejected: side(&all.narrow(0, split, all.dim(0).unwrap() - split).unwrap(), 1),
    };
    let (policy, reference) = ([chosen, rejected].concat(), [ref_chosen, ref_rejected].concat());
    let reference = halves(&tensor(&reference));
    let losses = dpo(&halves(&tensor(&policy)), Some(&reference), &settings).unwrap().to_vec1::<f64>().unwrap();
    let (loss, mut gradient) =
        differentiate(&policy, |policy| dpo(&halves(policy), Some(&reference), &settings)?.mean_all()).unwrap();
    let of_rejected = gradient.split_off(split);

    let numbers = |tensor: &Tensor| tensor.to_vec1::<f64>().unwrap();
    let policy = halves(&tensor(&policy));
    let values = [&policy.chosen, &policy.rejected, &reference.chosen, &reference.rejected].map(numbers);
    let mut stats = PairStats::default();
    (0..losses.len()).for_each(|i| stats.add(settings.beta, [0, 1].map(|s| values[s][i]), [2, 3].map(|s| values[s][i])));
    let rewards =
        [0, 1].map(|s| (0..losses.len()).map(|i| settings.beta * (values[s][i] - values[s + 2][i])).collect::<Vec<_>>());
    let margins: Vec<f64> = rewards[0].iter().zip(&rewards[1]).map(|(c, r)| c - r).collect();
    let accuracy = stats.means().into_iter().find(|(name, _)| *name == "rewards/accuracies").unwrap().1;
    let [chosen_rewards, rejected_rewards] = rewards;
    let answer = [
        ("loss", vec![loss]),
        ("losses", losses.clone()),
        ("per_pair", losses),
        ("chosen_rewards", chosen_rewards),
        ("rejected_rewards", rejected_rewards),
        ("margins", margins.clone()),
        ("implicit_margin", margins),
        ("accuracy", vec![accuracy]),
        ("implicit_accuracy", vec![accuracy]),
    ];
    (answer.map(|(name, values)| (name.to_owned(), values)).into(), [gradient, of_rejected])
}

/// Gradients under the names that cases use.
fn with_gradients(mut answer: Answer, gradients: [Vec<f64>; 2], suffix: &str) -> Answer {
    for (side, gradient) in ["chosen", "rejected"].into_iter().zip(gradients) {
        for prefix in ["d_loss_d", "grad"] {
            answer.insert(format!("{prefix}_{side}_policy_logps{suffix}"), gradient.clone());
        }
    }
    answer
}

fn over_sums(params: &Value, inputs: &Value) -> Answer {
    let sums = ["chosen_policy", "rejected_policy", "chosen_ref", "rejected_ref"];
    let sums = sums.map(|name| flat(&inputs[format!("{name}_logps_sum")]));
    // Cases give sums over tokens, which is what `ipo` takes in them too.
    let (answer, gradients) = pair_losses(params, sums, &|sums, _| sums.clone());
    with_gradients(answer, gradients, "_sum")
}

fn over_tokens(params: &Value, inputs: &Value) -> Answer {
    let tokens = ["chosen_policy", "rejected_policy", "chosen_ref", "rejected_ref"];
    let tokens = tokens.map(|name| flat(&inputs[format!("{name}_logps")]));
    let masks = ["chosen_mask", "rejected_mask"].map(|name| &inputs[name]);
    let side = |tokens: &Tensor, side: usize| sequence_logps(tokens, &tensor(&flat(masks[side])), &lengths(masks[side])).unwrap();
    let (answer, gradients) = pair_losses(params, tokens, &side);
    with_gradients(answer, gradients, "")
}

fn over_rewards(inputs: &Value) -> Answer {
    let rewards = [flat(&inputs["chosen_rewards"]), flat(&inputs["rejected_rewards"])];
    let pairs = rewards[0].len();
    let losses = |both: &Tensor| {
        let margins = both.narrow(0, 0, pairs)?.zeros_like()?;
        bradley_terry(&both.narrow(0, 0, pairs)?, &both.narrow(0, pairs, pairs)?, &margins, 0.0)
    };
    let (loss, mut of_chosen) = differentiate(&rewards.concat(), |both| losses(both)?.mean_all()).unwrap();
    let of_rejected = of_chosen.split_off(pairs);
    let mut stats = RewardStats::default();
    rewards[0].iter().zip(&rewards[1]).for_each(|(&chosen, &rejected)| stats.add(chosen, rejected));
    let mut answer: Answer = BTreeMap::from([
        ("loss".into(), vec![loss]),
        ("losses".into(), losses(&tensor(&rewards.concat())).unwrap().to_vec1().unwrap()),
        ("accuracy".into(), vec![stats.metrics()[0].1]),
    ]);
    for (side, gradient) in [("chosen", of_chosen), ("rejected", of_rejected)] {
        for prefix in ["d_loss_d", "grad", "d"] {
            answer.insert(format!("{prefix}_{side}_rewards"), gradient.clone());
        }
    }
    answer
}

#[test]
fn golden_cases_of_preference_losses_pass() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().join("tests/golden");
    let mut covered: BTreeMap<(String, String), usize> = BTreeMap::new();
    for method in [
        "01-online-iterative-rlhf",
        "13-daa-overoptimisation",
        "15-tool-augmented-rm",
        "21-reward-consistency",
        "22-dpo-implicit-rm",
        "27-dpo",
        "37-skywork-reward-v2",
    ] {
        let text = std::fs::read_to_string(folder.join(format!("{method}.json"))).unwrap();
        let file: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(file["method"], method);
        for case in file["cases"].as_array().unwrap() {
            let operation = case["operation"].as_str().unwrap();
            let Some(got) = answer(method, operation, &case["params"], &case["inputs"]) else { continue };
            *covered.entry((method.into(), operation.into())).or_default() += 1;
            let tolerance = case["tolerance"].as_f64().unwrap();
            for (name, want) in case["expected"].as_object().unwrap() {
                let got = got.get(name).unwrap_or_else(|| panic!("{method}, {operation}: nothing computes `{name}`"));
                let want = flat(want);
                assert_eq!(got.len(), want.len(), "{method}, {operation}: {name}");
                for (got, want) in got.iter().zip(want) {
                    let close = (got - want).abs() <= tolerance * want.abs().max(1.0);
                    assert!(close, "{method}, {operation}, {}: {name} is {got}, not {want}", case["params"]);
                }
            }
        }
    }
    let count = |method: &str, operation: &str| covered[&(method.to_owned(), operation.to_owned())];
    assert_eq!(count("01-online-iterative-rlhf", "dpo_loss"), 2);
    assert_eq!(count("13-daa-overoptimisation", "daa_loss"), 3);
    assert_eq!(count("27-dpo", "dpo_loss"), 5);
    assert_eq!(count("27-dpo", "dpo_loss_tokens"), 1);
    assert_eq!(count("27-dpo", "sequence_logprob"), 2);
    for (method, operation) in [
        ("01-online-iterative-rlhf", "bradley_terry_loss"),
        ("15-tool-augmented-rm", "bt_ranking_loss"),
        ("21-reward-consistency", "bt_reward_model_loss"),
        ("22-dpo-implicit-rm", "bt_reward_model_loss"),
        ("37-skywork-reward-v2", "bradley_terry"),
    ] {
        assert_eq!(count(method, operation), 1, "{method}");
    }
}
