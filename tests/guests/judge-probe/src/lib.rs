//! A judge that takes the path its configuration names.

use plumb_sdk::judge::{
    Ask, Batch, Descriptor, Fault, Generated, Judge, MatrixVerdicts, PairVerdicts, Part, Question, RowFault, Sampling, Texts,
    Turn, Verdicts,
};

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    mode: String,
}

struct Probe {
    mode: String,
}

fn ask(model: &str, prompts: Texts, max_tokens: u32, memo: &[u8]) -> Turn {
    let question = Question { model: model.to_owned(), prompts, sampling: Sampling::greedy(max_tokens) };
    Turn::Ask(Ask { questions: vec![question], memo: memo.to_vec() })
}

fn scored(scores: Vec<f64>) -> Verdicts {
    Verdicts { scores: Some(scores), ..Verdicts::default() }
}

impl Judge for Probe {
    type Config = Config;
    const DESCRIPTOR: Descriptor = plumb_sdk::descriptor!().needs_columns(&["completion"]);

    fn new(config: Config) -> Result<Self, Fault> {
        Ok(Probe { mode: config.mode })
    }

    fn begin(&self, batch: &Batch) -> Result<Turn, Fault> {
        let completions = batch.text("completion")?;
        let rows = batch.rows();
        Ok(match self.mode.as_str() {
            "turns" => ask("grader", completions.iter().map(|text| format!("first {text}")).collect(), 8, b"1"),
            "all-forms" => Turn::Done(Verdicts {
                scores: Some((0..rows).map(|row| row as f64).collect()),
                pairs: Some(PairVerdicts { first: vec![0], second: vec![1], probability: vec![0.25] }),
                matrices: Some(MatrixVerdicts {
                    values: (0..rows * rows).map(|entry| (entry / rows) as f64 - (entry % rows) as f64).collect(),
                    readable: vec![true; rows * rows],
                }),
                rationales: Some(completions.clone()),
                parts: vec![Part::new("length", completions.iter().map(|text| text.len() as f64).collect())],
                faults: vec![RowFault { row: 1, fault: Fault::unparseable("no verdict") }],
            }),
            "nan" => Turn::Done(scored(vec![f64::NAN; rows])),
            "no-form" => Turn::Done(Verdicts::default()),
            "ungranted" => ask("policy", completions.clone(), 8, b""),
            "greedy" => ask("grader", completions.clone(), 1_000_000, b""),
            "memo-flood" => ask("grader", completions.clone(), 8, &vec![0; 5 << 20]),
            "trap" => panic!("the judge panics"),
            "passing-fault" => return Err(Fault::new("later", "not yet").retryable()),
            other => return Err(Fault::new("mode", format!("no mode {other}"))),
        })
    }

    fn resume(&self, batch: &Batch, memo: &[u8], answers: &[Generated]) -> Result<Turn, Fault> {
        let [answer] = answers else { return Err(Fault::new("answers", format!("{} answers", answers.len()))) };
        match memo {
            // The second turn sees what the first was answered, and remembers it.
            b"1" => {
                let prompts = answer.text.iter().map(|text| format!("second {text}")).collect();
                let mut memo = b"2".to_vec();
                memo.extend(answer.text.iter().map(|text| text.len() as u8));
                Ok(ask("grader", prompts, 8, &memo))
            }
            [b'2', lengths @ ..] => {
                if lengths.len() != batch.rows() || answer.tokens.len() != batch.rows() || answer.logprobs.len() != batch.rows() {
                    return Err(Fault::new("lost", "memo or answer lost something on the way"));
                }
                let scores = answer.text.iter().zip(lengths).map(|(text, &length)| text.len() as f64 - f64::from(length));
                Ok(Turn::Done(Verdicts { rationales: Some(answer.text.clone()), ..scored(scores.collect()) }))
            }
            _ => Err(Fault::new("memo", "an unknown memo")),
        }
    }
}

plumb_sdk::export_judge!(Probe);
