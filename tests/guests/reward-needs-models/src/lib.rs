//! A reward that asks a model for its score: it imports `plumb:align/models`, which must be granted.

use plumb_sdk::reward::{Descriptor, Fault, Reward, Row, Score};

mod capability {
    wit_bindgen::generate!({
        path: "../../../wit",
        inline: "package plumb:guests; world asks-models { import plumb:align/models@0.1.1; }",
        world: "plumb:guests/asks-models",
        generate_all,
    });
}

use capability::plumb::align::models;
use capability::plumb::align::types::Texts;

#[derive(serde::Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct Config {}

struct AsksModels;

impl Reward for AsksModels {
    type Config = Config;
    const DESCRIPTOR: Descriptor = plumb_sdk::descriptor!().needs_columns(&["completion"]);

    fn new(_: Config) -> Result<Self, Fault> {
        Ok(AsksModels)
    }

    fn score_row(&self, row: &Row) -> Result<Score, Fault> {
        let text = row.text("completion")?;
        let one = |text: &str| Texts { bytes: text.as_bytes().to_vec(), ends: vec![text.len() as u32] };
        let scores =
            models::score("reward-model", &one(""), &one(text)).map_err(|fault| Fault::new(fault.code, fault.message))?;
        Ok(Score::new(scores[0].values[0]))
    }
}

plumb_sdk::export_reward!(AsksModels);
