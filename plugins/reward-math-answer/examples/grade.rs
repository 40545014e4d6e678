//! Grades a JSONL of `reference`, `completion` and, if known, `equal`, natively: agreement, disagreements and items a second.
//!
//! `cargo run --release --example grade -- tests/math-answers.jsonl [REPEATS]`

use reward_math_answer::extract::extract;
use reward_math_answer::plugin::grade;
use std::error::Error;
use std::time::Instant;

#[derive(serde::Deserialize)]
struct Item {
    reference: String,
    completion: String,
    equal: Option<bool>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("usage: grade FILE [REPEATS]")?;
    let repeats: usize = arguments.next().map_or(Ok(1), |text| text.parse())?;
    let text = std::fs::read_to_string(path)?;
    let items: Vec<Item> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let started = Instant::now();
    let mut verdicts = Vec::new();
    for _ in 0..repeats {
        verdicts = items.iter().map(|item| grade(&extract(&item.reference), &item.completion)).collect();
    }
    let seconds = started.elapsed().as_secs_f64();
    let known: Vec<_> = items.iter().zip(&verdicts).filter(|(item, _)| item.equal.is_some()).collect();
    let (agreed, differing): (Vec<_>, Vec<_>) = known.iter().partition(|(item, verdict)| item.equal == Some(verdict.correct));
    for (item, verdict) in differing {
        println!("{}\t{:?}\t{:?}", verdict.correct, item.reference, item.completion);
    }
    println!("agreement {}/{}", agreed.len(), known.len());
    println!("{:.0} items/s", (items.len() * repeats) as f64 / seconds);
    Ok(())
}
