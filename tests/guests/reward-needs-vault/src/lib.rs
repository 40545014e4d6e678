//! A reward that imports an interface of another package: no host of plugins has it.

use plumb_sdk::reward::{Descriptor, Fault, Reward, Row, Score};

mod vault {
    wit_bindgen::generate!({
        inline: "
            package example:vault@1.0.0;
            interface secrets { read: func(name: string) -> u64; }
            world reads { import secrets; }
        ",
        world: "example:vault/reads",
    });
}

#[derive(serde::Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct Config {}

struct ReadsSecrets;

impl Reward for ReadsSecrets {
    type Config = Config;
    const DESCRIPTOR: Descriptor = plumb_sdk::descriptor!();

    fn new(_: Config) -> Result<Self, Fault> {
        Ok(ReadsSecrets)
    }

    fn score_row(&self, _: &Row) -> Result<Score, Fault> {
        Ok(Score::new(vault::example::vault::secrets::read("key") as f64))
    }
}

plumb_sdk::export_reward!(ReadsSecrets);
