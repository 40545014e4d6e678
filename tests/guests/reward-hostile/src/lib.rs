//! A reward that attacks the host in the way that its configuration names, as soon as a completion of the call is poisoned. All
//! other rows are worth the length of their completion, whatever the attack: the host must keep it so.

mod attack;
mod repeat;

use plumb_sdk::Batch;
use plumb_sdk::reward::{BatchReward, Descriptor, Fault, Rewards};

use attack::Attack;
use repeat::Probe;

/// Text in a completion that starts an attack, unless the configuration names another.
fn poison() -> String {
    "POISON".into()
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// What to do to the host.
    #[serde(default)]
    attack: Option<Attack>,
    /// What a poisoned completion holds.
    #[serde(default = "poison")]
    poison: String,
    /// What to look at that might differ from run to run; its bits become the reward of every row.
    #[serde(default)]
    probe: Option<Probe>,
}

struct Hostile {
    config: Config,
}

impl BatchReward for Hostile {
    type Config = Config;
    const DESCRIPTOR: Descriptor = plumb_sdk::descriptor!().needs_columns(&["completion"]);

    fn new(config: Config) -> Result<Self, Fault> {
        Ok(Hostile { config })
    }

    fn score(&self, batch: &Batch) -> Result<Rewards, Fault> {
        let completions = batch.text("completion")?;
        let mut rewards = Rewards::from(completions.iter().map(|text| text.len() as f64).collect::<Vec<_>>());
        if let Some(probe) = self.config.probe {
            // Folded, so that it is a value of a size that rewards may have.
            let seen = probe.look()?;
            rewards.values.fill(f64::from((seen ^ seen >> 32) as u32));
        }
        if let Some(attack) = self.config.attack {
            let poisoned = completions.iter().enumerate().filter(|(_, text)| text.contains(&self.config.poison));
            let poisoned: Vec<usize> = poisoned.map(|(row, _)| row).collect();
            if !poisoned.is_empty() {
                attack.run(batch, &poisoned, &mut rewards)?;
            }
        }
        Ok(rewards)
    }
}

plumb_sdk::export_reward!(Hostile);
