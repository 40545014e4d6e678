//! A reward with state: a completion's value is the number of times that earlier steps held it. A completion `PANIC` breaks its
//! call; the configuration can break the merging of states.

use std::collections::BTreeMap;

use plumb_sdk::reward::{Batch, BatchReward, Descriptor, Fault, Rewards, Score, State, StatefulReward};

#[derive(serde::Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// How `merge` fails: `fault` or `trap`.
    merge: String,
}

struct Counts {
    config: Config,
    seen: BTreeMap<String, u64>,
}

fn read(bytes: &[u8]) -> Result<BTreeMap<String, u64>, Fault> {
    let text = std::str::from_utf8(bytes).map_err(|error| Fault::new("bad-state", error.to_string()))?;
    text.lines()
        .map(|line| line.split_once(' ').and_then(|(count, text)| Some((text.to_owned(), count.parse().ok()?))))
        .collect::<Option<_>>()
        .ok_or_else(|| Fault::new("bad-state", "a line is no count and text"))
}

impl BatchReward for Counts {
    type Config = Config;
    const DESCRIPTOR: Descriptor = plumb_sdk::descriptor!().needs_columns(&["completion"]).state_version(1);

    fn new(config: Config) -> Result<Self, Fault> {
        Ok(Counts { config, seen: BTreeMap::new() })
    }

    fn score(&self, batch: &Batch) -> Result<Rewards, Fault> {
        let mut rewards = Rewards::with_capacity(batch.rows());
        for row in batch.iter() {
            let completion = row.text("completion")?;
            assert_ne!(completion, "PANIC", "the test told it to panic");
            rewards.push(Ok(Score::new(self.seen.get(completion).copied().unwrap_or(0) as f64)));
        }
        Ok(rewards)
    }
}

impl State for Counts {
    fn save(&self) -> Result<Vec<u8>, Fault> {
        Ok(self.seen.iter().map(|(text, count)| format!("{count} {text}\n")).collect::<String>().into_bytes())
    }

    fn load(&mut self, _: u32, bytes: &[u8]) -> Result<(), Fault> {
        self.seen = read(bytes)?;
        Ok(())
    }
}

impl StatefulReward for Counts {
    fn observe(&mut self, batch: &Batch, _: &Rewards) -> Result<(), Fault> {
        for row in batch.iter() {
            *self.seen.entry(row.text("completion")?.to_owned()).or_default() += 1;
        }
        Ok(())
    }

    fn merge(&mut self, states: &[Vec<u8>]) -> Result<(), Fault> {
        match self.config.merge.as_str() {
            "fault" => return Err(Fault::new("told-to", "the test told it to fail")),
            "trap" => panic!("the test told it to panic"),
            _ => {}
        }
        let before = self.seen.clone();
        for state in states {
            for (text, count) in read(state)? {
                let new = count - before.get(&text).copied().unwrap_or(0);
                *self.seen.entry(text).or_default() += new;
            }
        }
        Ok(())
    }
}

plumb_sdk::export_stateful_reward!(Counts);
