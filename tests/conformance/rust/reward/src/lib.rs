//! See `tests/conformance/README.md`: the reward.

use plumb_sdk::reward::{Batch, BatchReward, Descriptor, Fault, Rewards, Row, Score, Spans, State, StatefulReward, Unit};
use plumb_sdk::{kv, log, metrics, random};

#[derive(serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    bonus: f64,
    marker: String,
}

impl Default for Config {
    fn default() -> Self {
        Config { bonus: 0.5, marker: "é".to_owned() }
    }
}

struct Conformance {
    config: Config,
    /// Rows that earlier steps gave a value, and its sum.
    scored: u64,
    sum: f64,
}

impl BatchReward for Conformance {
    type Config = Config;
    const DESCRIPTOR: Descriptor = plumb_sdk::descriptor!()
        .config_schema(r#"{"type":"object","properties":{"bonus":{"type":"number","default":0.5},"marker":{"type":"string","default":"é"}},"required":[],"additionalProperties":false}"#)
        .needs_columns(&["completion"])
        .outputs(&["bytes", "words", "x", "negated", "list", "tokens", "logprobs", "blob", "count", "seen", "learnt", "draw", "uniform"])
        .state_version(3);

    fn new(config: Config) -> Result<Self, Fault> {
        if config.marker.is_empty() {
            return Err(Fault::bad_config("`marker` must not be empty"));
        }
        Ok(Conformance { config, scored: 0, sum: 0.0 })
    }

    fn score(&self, batch: &Batch) -> Result<Rewards, Fault> {
        if batch.attr("fail").as_deref() == Some("fault") {
            return Err(Fault::new("told-to", format!("step {}", batch.step())));
        }
        let seen = match kv::get("seen") {
            Some(bytes) => u64::from_le_bytes(bytes.try_into().map_err(|_| Fault::new("bad-kv", "not 8 bytes"))?),
            None => 0,
        };
        kv::set("seen", &(seen + batch.rows() as u64).to_le_bytes())?;
        kv::set(&format!("step/{}", batch.step()), b"")?;
        if batch.step() > 0 {
            kv::delete(&format!("step/{}", batch.step() - 1));
        }
        let mut rewards = Rewards::default();
        let mut marks =
            Spans { name: "marks".into(), unit: Unit::Char, rows: vec![], starts: vec![], stops: vec![], values: vec![] };
        let mut tail = Spans { name: "tail".into(), unit: Unit::Token, ..marks.clone() };
        for row in batch.iter() {
            let score = self.score_row(&row, seen);
            if score.is_ok() {
                self.spans(&row, &mut marks, &mut tail)?;
            }
            rewards.push(score);
        }
        metrics::count("texts", batch.rows() as u64);
        metrics::observe("chars", &batch.text("completion")?.iter().map(|text| text.chars().count() as f64).collect::<Vec<_>>());
        let fields = [
            ("columns", batch.columns().join(",")),
            ("groups", batch.groups().map(|group| format!("{}-{}", group.start, group.end)).collect::<Vec<_>>().join(" ")),
            ("keys", kv::keys("s").join(",")),
            ("stage", batch.attr("recipe_stage").unwrap_or_else(|| "none".to_owned())),
        ];
        log::write(log::Level::Info, &format!("scored {} rows ✓", batch.rows()), &fields);
        rewards.spans = [marks, tail].into_iter().filter(|spans| !spans.rows.is_empty()).collect();
        Ok(rewards)
    }
}

impl Conformance {
    fn score_row(&self, row: &Row, seen: u64) -> Result<Score, Fault> {
        let (text, batch, at) = (row.text("completion")?, row.batch(), row.index());
        if text.is_empty() {
            return Err(Fault::abstain(format!("row {} is empty", row.id())));
        }
        if let Some(place) = text.find("FAIL") {
            let place = text[..place].chars().count();
            return Err(Fault::new("told-to", format!("the text says FAIL at {place}")).retryable());
        }
        assert!(!text.contains("PANIC"), "the text says PANIC");
        let x = batch.find_f64s("x").map_or(0.0, |x| x[at]);
        let words = text.split(' ').filter(|word| !word.is_empty()).count();
        let value = self.config.bonus * text.chars().count() as f64 + words as f64 / 3.0 + if x.is_nan() { 0.0 } else { x };
        let mut score = Score::new(value).part("bytes", text.len() as f64);
        if words > 1 {
            score = score.part("words", words as f64);
        }
        if let Some(x) = batch.find_f64s("x") {
            score = score.part("x", x[at]).part("negated", -x[at]);
        }
        if let Some(lists) = batch.find_f64_lists("list") {
            score = score.part("list", lists.get(at).iter().fold(0.0, |sum, x| sum + x * 0.1));
        }
        if let Some(tokens) = batch.find_tokens("completion_ids") {
            score = score.part("tokens", tokens.get(at).iter().fold(0.0, |sum, &id| sum * 0.5 + f64::from(id)));
        }
        if let Some(logprobs) = batch.find_token_f32s("old_logprobs") {
            score = score.part("logprobs", logprobs.get(at).iter().fold(0.0, |sum, &p| sum + f64::from(p)));
        }
        if let Some(blobs) = batch.find_bytes("blob") {
            score = score.part("blob", blobs.bytes_at(at).iter().fold(0.0, |sum, &byte| sum * 2.0 + f64::from(byte)));
        }
        if let Some(counts) = batch.find_u32s("count") {
            score = score.part("count", f64::from(counts[at]));
        }
        let draws = random::draw("noise", row.id(), 3);
        let mixed = draws.iter().fold(0, |mixed, draw| mixed ^ draw);
        Ok(score
            .part("seen", seen as f64)
            .part("learnt", self.scored as f64 + self.sum / 2.0)
            .part("draw", (mixed >> 32) as f64 * 0.5 + (mixed & 0xffff_ffff) as f64)
            .part("uniform", random::uniform("noise", row.id(), 1)[0]))
    }

    /// A stretch for each marker, and one over all tokens.
    fn spans(&self, row: &Row, marks: &mut Spans, tail: &mut Spans) -> Result<(), Fault> {
        let text = row.text("completion")?;
        let width = self.config.marker.chars().count() as u32;
        for (place, _) in text.match_indices(&self.config.marker) {
            let start = text[..place].chars().count() as u32;
            push(marks, row.index(), start, start + width, f64::from(start) * 0.25);
        }
        if let Some(tokens) = row.batch().find_tokens("completion_ids") {
            let length = tokens.get(row.index()).len() as u32;
            if length > 0 {
                push(tail, row.index(), length - 1, length, -1.0);
            }
        }
        Ok(())
    }
}

impl State for Conformance {
    fn save(&self) -> Result<Vec<u8>, Fault> {
        Ok([self.scored.to_le_bytes(), self.sum.to_le_bytes()].concat())
    }

    fn load(&mut self, from_version: u32, bytes: &[u8]) -> Result<(), Fault> {
        (self.scored, self.sum) = read(from_version, bytes)?;
        Ok(())
    }
}

impl StatefulReward for Conformance {
    fn observe(&mut self, _: &Batch, rewards: &Rewards) -> Result<(), Fault> {
        for (row, value) in rewards.values.iter().enumerate() {
            if rewards.faults.iter().all(|fault| fault.row as usize != row) {
                self.scored += 1;
                self.sum += value;
            }
        }
        Ok(())
    }

    fn merge(&mut self, states: &[Vec<u8>]) -> Result<(), Fault> {
        let before = (self.scored, self.sum);
        for state in states {
            let (scored, sum) = read(3, state)?;
            self.scored += scored - before.0;
            self.sum += sum - before.1;
        }
        if self.scored > 1000 {
            return Err(Fault::new("told-to", format!("{} rows are more than 1000", self.scored)));
        }
        Ok(())
    }
}

fn read(version: u32, bytes: &[u8]) -> Result<(u64, f64), Fault> {
    match bytes.split_first_chunk::<8>() {
        Some((scored, sum)) if version == 3 && sum.len() == 8 => {
            Ok((u64::from_le_bytes(*scored), f64::from_le_bytes(sum.try_into().expect("8 bytes"))))
        }
        _ => Err(Fault::new("bad-state", format!("{} bytes of version {version}", bytes.len()))),
    }
}

fn push(spans: &mut Spans, row: usize, start: u32, stop: u32, value: f64) {
    spans.rows.push(row as u32);
    spans.starts.push(start);
    spans.stops.push(stop);
    spans.values.push(value);
}

plumb_sdk::export_stateful_reward!(Conformance);
