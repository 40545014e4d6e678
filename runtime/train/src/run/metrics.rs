//! The numbers of a step, under the names that TRL and verl use where they have one.

use serde::de::Error as _;
use serde_json::{Map, Value};

/// The numbers of one step, in the order in which they were set.
///
/// One line of `metrics.jsonl` is one set: `{"stage": "grpo", "step": 12, "reward": 0.5, ...}`. A number that does not exist
/// for a step (the mean reward of a step without scores, say) is absent; it is never written as 0 or NaN.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MetricSet {
    /// Name of the stage in the recipe.
    pub stage: String,
    /// Optimizer step, counted over the whole run; 0 is before the first.
    pub step: u64,
    values: Vec<(String, f64)>,
}

impl MetricSet {
    /// A set without numbers.
    pub fn new(stage: impl Into<String>, step: u64) -> Self {
        MetricSet { stage: stage.into(), step, values: Vec::new() }
    }

    /// Sets a number; NaN and infinities leave it absent (and remove an earlier one).
    pub fn set(&mut self, name: impl Into<String>, value: f64) {
        let name = name.into();
        self.values.retain(|(have, _)| *have != name);
        if value.is_finite() {
            self.values.push((name, value));
        }
    }

    /// Sets a number that may not exist.
    pub fn set_some(&mut self, name: impl Into<String>, value: Option<f64>) {
        self.set(name, value.unwrap_or(f64::NAN));
    }

    /// The number of that name.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.values.iter().find(|(have, _)| have == name).map(|(_, value)| *value)
    }

    /// All numbers, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, f64)> {
        self.values.iter().map(|(name, value)| (name.as_str(), *value))
    }

    /// One JSON object without a newline. Numbers are written so that they read back exactly.
    pub fn to_json(&self) -> String {
        let mut object = Map::new();
        object.insert("stage".into(), self.stage.clone().into());
        object.insert("step".into(), self.step.into());
        for (name, value) in self.iter() {
            object.insert(name.into(), value.into());
        }
        Value::Object(object).to_string()
    }

    /// Reads what [`MetricSet::to_json`] wrote.
    pub fn from_json(line: &str) -> serde_json::Result<Self> {
        let object: Map<String, Value> = serde_json::from_str(line)?;
        let stage = object.get("stage").and_then(Value::as_str).ok_or_else(|| serde_json::Error::custom("`stage` is missing"))?;
        let step = object.get("step").and_then(Value::as_u64).ok_or_else(|| serde_json::Error::custom("`step` is missing"))?;
        let mut set = MetricSet::new(stage, step);
        for (name, value) in object.iter().filter(|(name, _)| *name != "stage" && *name != "step") {
            let value = value.as_f64().ok_or_else(|| serde_json::Error::custom(format!("`{name}` is not a number")))?;
            set.set(name, value);
        }
        Ok(set)
    }

    /// TensorBoard tags: TRL's (`train/reward`, `eval/accuracy`), and after them verl's for those it has.
    pub fn tensorboard_tags(&self) -> Vec<(String, f64)> {
        let mut tags = Vec::with_capacity(self.values.len() + VERL.len());
        for (name, value) in self.iter() {
            let prefixed = name.starts_with("eval/") || name.starts_with("time/") || name.starts_with("plugin/");
            tags.push((if prefixed { name.into() } else { format!("train/{name}") }, value));
        }
        for &(ours, verl) in VERL {
            tags.extend(self.get(ours).map(|value| (verl.into(), value)));
        }
        tags
    }
}

/// Our names, which are TRL's, and verl's for the same number.
const VERL: &[(&str, &str)] = &[
    ("reward", "critic/score/mean"),
    ("shaped_reward", "critic/rewards/mean"),
    ("kl", "actor/kl_loss"),
    ("entropy", "actor/entropy"),
    ("loss", "actor/pg_loss"),
    ("grad_norm", "actor/grad_norm"),
    ("learning_rate", "actor/lr"),
    ("completions/mean_length", "response_length/mean"),
    ("completions/clipped_ratio", "response_length/clip_ratio"),
    ("time/rollout_s", "timing_s/gen"),
    ("time/reward_s", "timing_s/reward"),
    ("time/train_s", "timing_s/update_actor"),
    ("eval/accuracy", "val-core/accuracy"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metric_line_keeps_order_and_every_bit() {
        let mut set = MetricSet::new("grpo", 7);
        set.set("reward", 0.1 + 0.2);
        set.set("kl", 1e-300);
        set.set("completions/mean_length", 12.0);
        let line = set.to_json();
        assert!(line.starts_with(r#"{"stage":"grpo","step":7,"reward":0.30000000000000004,"kl":1e-300,"#), "{line}");
        assert_eq!(MetricSet::from_json(&line).unwrap(), set);
    }

    #[test]
    fn missing_and_non_finite_numbers_are_absent() {
        let mut set = MetricSet::new("grpo", 1);
        set.set("reward", 1.0);
        set.set("reward", f64::NAN);
        set.set_some("kl", None);
        set.set("loss", f64::INFINITY);
        assert_eq!(set.to_json(), r#"{"stage":"grpo","step":1}"#);
    }

    #[test]
    fn tensorboard_has_the_names_of_trl_and_verl() {
        let mut set = MetricSet::new("grpo", 1);
        set.set("reward", 0.5);
        set.set("eval/accuracy", 0.9);
        let tags: Vec<String> = set.tensorboard_tags().into_iter().map(|(tag, _)| tag).collect();
        assert_eq!(tags, ["train/reward", "eval/accuracy", "critic/score/mean", "val-core/accuracy"]);
    }
}
