//! See `tests/conformance/README.md`: the judge.

use plumb_sdk::RowFault;
use plumb_sdk::judge::{Ask, Batch, Descriptor, Fault, Generated, Judge, MatrixVerdicts, PairVerdicts, Part, Question, Sampling, Texts, Turn, Verdicts};

#[derive(serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    model: String,
}

impl Default for Config {
    fn default() -> Self {
        Config { model: "judge".to_owned() }
    }
}

struct Conformance(Config);

impl Judge for Conformance {
    type Config = Config;
    const DESCRIPTOR: Descriptor = plumb_sdk::descriptor!()
        .config_schema(r#"{"type":"object","properties":{"model":{"type":"string","default":"judge"}},"required":[],"additionalProperties":false}"#)
        .needs_columns(&["prompt", "completion"])
        .outputs(&["second"]);

    fn new(config: Config) -> Result<Self, Fault> {
        Ok(Conformance(config))
    }

    fn begin(&self, batch: &Batch) -> Result<Turn, Fault> {
        if batch.rows() == 0 {
            return Ok(Turn::Done(Verdicts { scores: Some(Vec::new()), ..Verdicts::default() }));
        }
        let (prompts, completions) = (batch.text("prompt")?, batch.text("completion")?);
        let ask = |row| format!("Grade „{}“ for {}: ", completions.get(row), prompts.get(row));
        let sampling = Sampling {
            max_tokens: 8,
            temperature: 0.75,
            top_p: 0.9,
            count: 2,
            seed: batch.step() + 7,
            stop: vec!["\n".into(), "。".into()],
            extra: vec![("style".into(), "brief".into())],
        };
        let question = Question { model: self.0.model.clone(), prompts: (0..batch.rows()).map(ask).collect(), sampling };
        Ok(Turn::Ask(Ask { questions: vec![question], memo: b"first".to_vec() }))
    }

    fn resume(&self, batch: &Batch, memo: &[u8], answers: &[Generated]) -> Result<Turn, Fault> {
        if memo == b"first" {
            // Two answers a row; rows whose first cannot be read are asked about again.
            let grades: Vec<f64> = (0..batch.rows()).map(|row| grade(answers[0].text.get(2 * row)).unwrap_or(-1.0)).collect();
            let again: Vec<usize> = (0..batch.rows()).filter(|&row| grades[row] < 0.0).collect();
            if !again.is_empty() {
                let prompts: Texts = again.iter().map(|row| format!("Row {row}, digits only: ")).collect();
                let question = Question { model: "critic".into(), prompts, sampling: Sampling::greedy(2) };
                return Ok(Turn::Ask(Ask { questions: vec![question], memo: grades.iter().flat_map(|g| g.to_le_bytes()).collect() }));
            }
            return Ok(Turn::Done(verdicts(batch, &grades, vec![0.0; grades.len()])));
        }
        let mut grades: Vec<f64> = memo.chunks_exact(8).map(|g| f64::from_le_bytes(g.try_into().unwrap())).collect();
        let again: Vec<usize> = (0..grades.len()).filter(|&row| grades[row] < 0.0).collect();
        let mut second = vec![0.0; grades.len()];
        for (place, &row) in again.iter().enumerate() {
            second[row] = 1.0;
            grades[row] = grade(answers[0].text.get(place)).unwrap_or(-1.0);
        }
        Ok(Turn::Done(verdicts(batch, &grades, second)))
    }
}

/// The digits that a text begins with, in tenths.
fn grade(text: &str) -> Option<f64> {
    let digits: String = text.trim_start_matches(' ').chars().take_while(char::is_ascii_digit).take(3).collect();
    digits.parse::<u32>().ok().map(|grade| f64::from(grade) / 10.0)
}

fn verdicts(batch: &Batch, grades: &[f64], second: Vec<f64>) -> Verdicts {
    let (mut pairs, mut matrices) = (PairVerdicts::default(), MatrixVerdicts::default());
    for group in batch.groups() {
        for i in group.clone() {
            for j in group.clone() {
                let readable = grades[i] >= 0.0 && grades[j] >= 0.0;
                let edge = if readable { grades[i] - grades[j] } else { 0.0 };
                matrices.values.push(edge);
                matrices.readable.push(readable);
                if readable && i < j {
                    pairs.first.push(i as u32);
                    pairs.second.push(j as u32);
                    pairs.probability.push(0.5 + edge / (2.0 * (1.0 + edge.abs())));
                }
            }
        }
    }
    let unreadable = (0..grades.len()).filter(|&row| grades[row] < 0.0);
    let fault = |row: usize| RowFault { row: row as u32, fault: Fault::unparseable(format!("row {row} has no grade")) };
    Verdicts {
        scores: Some(grades.iter().map(|&grade| if grade < 0.0 { f64::NAN } else { grade }).collect()),
        pairs: Some(pairs),
        matrices: Some(matrices),
        rationales: Some(grades.iter().map(|&grade| if grade < 0.0 { "–" } else { "ok" }).collect()),
        parts: vec![Part::new("second", second)],
        faults: unreadable.map(fault).collect(),
    }
}

plumb_sdk::export_judge!(Conformance);
