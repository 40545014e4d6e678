//! A reward that asks as its configuration says, and returns what it was told as a number.

use plumb_sdk::models::{self, Ragged, Sampling, Texts};
use plumb_sdk::reward::{Batch, BatchReward, Descriptor, Fault, Rewards};
use plumb_sdk::tools;

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    mode: String,
    #[serde(default = "grader")]
    model: String,
    #[serde(default)]
    max_tokens: u32,
    #[serde(default)]
    tool: String,
}

fn grader() -> String {
    "grader".to_owned()
}

struct Asks {
    config: Config,
}

impl Asks {
    fn values(&self, batch: &Batch) -> Result<Vec<f64>, Fault> {
        let Config { mode, model, max_tokens, tool } = &self.config;
        let texts = batch.text("completion")?;
        let sums = |rows: Ragged<f32>| rows.iter().map(|row| row.iter().map(|&x| f64::from(x)).sum()).collect();
        let number = |text: &str| text.parse().unwrap_or(-1.0);
        Ok(match mode.as_str() {
            "generate" => {
                let answer = models::generate(model, texts, &Sampling::greedy(*max_tokens))?;
                answer.text.iter().map(number).collect()
            }
            "logprobs" => sums(models::logprobs(model, texts, texts)?),
            "token-logprobs" => {
                let tokens: Ragged<u32> = texts.iter().map(|text| vec![7; text.len()]).collect();
                sums(models::token_logprobs(model, texts, &tokens)?)
            }
            "choices" => {
                let choices = ["yes".to_owned(), "no".to_owned()];
                models::choice_logprobs(model, texts, &choices)?.chunks(2).map(|pair| pair[0] - pair[1]).collect()
            }
            "score" => models::score(model, texts, texts)?.remove(0).values,
            "embed" => {
                let vectors = models::embed(model, texts)?;
                (0..batch.rows()).map(|row| f64::from(vectors.row(row)[0])).collect()
            }
            "tool" => tools::call(tool, texts)?.into_iter().map(|answer| answer.map_or(-1.0, |text| number(&text))).collect(),
            "many-tools" => {
                for _ in 0..1000 {
                    tools::call(tool, texts)?;
                }
                vec![0.0; batch.rows()]
            }
            "broken-texts" => {
                let broken = Texts { bytes: vec![b'a'; 4], ends: vec![3, 1] };
                models::generate(model, &broken, &Sampling::greedy(1)).map(|_| Vec::new())?
            }
            "spin-after" => {
                models::generate(model, texts, &Sampling::greedy(*max_tokens))?;
                loop {
                    std::hint::black_box(0);
                }
            }
            other => return Err(Fault::new("mode", format!("no mode {other}"))),
        })
    }
}

impl BatchReward for Asks {
    type Config = Config;
    const DESCRIPTOR: Descriptor = plumb_sdk::descriptor!().needs_columns(&["completion"]);

    fn new(config: Config) -> Result<Self, Fault> {
        if config.mode == "in-init" {
            let prompts: Texts = ["a"].into_iter().collect();
            models::generate(&config.model, &prompts, &Sampling::greedy(1))?;
        }
        Ok(Asks { config })
    }

    fn score(&self, batch: &Batch) -> Result<Rewards, Fault> {
        Ok(self.values(batch)?.into())
    }
}

plumb_sdk::export_reward!(Asks);
