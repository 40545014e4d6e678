//! A judge that attacks the host in the way that its configuration names: in its first turn, in a later one, or with its verdicts.
//! The honest one asks about every row in three turns, and scores each by the length of its completion.

mod begin;
mod verdicts;

use plumb_sdk::judge::{Ask, Batch, Descriptor, Fault, Generated, Judge, Question, Sampling, Texts, Turn, Verdicts};

use begin::Attack as Asking;
use verdicts::Attack as Deciding;

/// Turns of the honest judge that ask.
const TURNS: u32 = 3;

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    attack: Attack,
    /// The model that it asks.
    #[serde(default = "grader")]
    model: String,
}

fn grader() -> String {
    "grader".into()
}

#[derive(serde::Deserialize, Clone, Copy)]
#[serde(rename_all = "kebab-case")]
enum Attack {
    /// None.
    Honest,
    /// In the first turn.
    #[serde(untagged)]
    Asking(Asking),
    /// In a turn after it.
    #[serde(untagged)]
    Resuming(Resuming),
    /// With what it says in the end.
    #[serde(untagged)]
    Deciding(Deciding),
}

#[derive(serde::Deserialize, Clone, Copy)]
#[serde(rename_all = "kebab-case")]
enum Resuming {
    /// Time: asks on, whatever it is told.
    Endless,
    /// Time: never comes back from its third turn.
    SpinLater,
    /// Time: works for two turns, then panics.
    TrapLater,
    /// Memory of the host: a memo four times as long in every turn.
    GrowingMemo,
    /// Memory: takes all it can get in every turn, and keeps it.
    GrowEveryTurn,
    /// The order of turns: says in the second turn that it cannot decide, and may be asked again.
    AskAgain,
    /// The order of turns: has decided in the first turn, and asks when it is resumed all the same.
    AskAfterwards,
}

struct Hostile {
    config: Config,
}

impl Hostile {
    /// Asks about each of `texts`, however short it is.
    fn ask(&self, texts: &Texts, memo: Vec<u8>) -> Ask {
        let prompts = texts.iter().map(|text| format!("0{text}")).collect();
        Ask { questions: vec![Question { model: self.config.model.clone(), prompts, sampling: Sampling::greedy(2) }], memo }
    }

    fn honest(batch: &Batch) -> Result<Verdicts, Fault> {
        let scores = batch.text("completion")?.iter().map(|text| text.len() as f64).collect();
        Ok(Verdicts { scores: Some(scores), ..Verdicts::default() })
    }
}

impl Judge for Hostile {
    type Config = Config;
    const DESCRIPTOR: Descriptor = plumb_sdk::descriptor!().needs_columns(&["completion"]);

    fn new(config: Config) -> Result<Self, Fault> {
        Ok(Hostile { config })
    }

    fn begin(&self, batch: &Batch) -> Result<Turn, Fault> {
        let mut ask = self.ask(batch.text("completion")?, 1u32.to_le_bytes().to_vec());
        match self.config.attack {
            Attack::Asking(attack) => attack.run(&mut ask)?,
            Attack::Resuming(Resuming::AskAfterwards) => return Ok(Turn::Done(Self::honest(batch)?)),
            Attack::Honest | Attack::Resuming(_) | Attack::Deciding(_) => {}
        }
        Ok(Turn::Ask(ask))
    }

    fn resume(&self, batch: &Batch, memo: &[u8], answers: &[Generated]) -> Result<Turn, Fault> {
        let (turn, rest) = memo.split_first_chunk().ok_or_else(|| Fault::new("memo", "the memo was cut"))?;
        let turn = u32::from_le_bytes(*turn) + 1;
        if answers.len() != 1 {
            return Err(Fault::new("answers", format!("{} answers to one question", answers.len())));
        }
        let mut memo = turn.to_le_bytes().to_vec();
        match self.config.attack {
            Attack::Resuming(Resuming::Endless | Resuming::AskAfterwards) => {
                return Ok(Turn::Ask(self.ask(&answers[0].text, memo)));
            }
            Attack::Resuming(Resuming::SpinLater) if turn == 3 => loop {
                std::hint::black_box(turn);
            },
            Attack::Resuming(Resuming::TrapLater) if turn == 3 => panic!("enough of it"),
            Attack::Resuming(Resuming::AskAgain) => return Err(Fault::new("again", "ask me again").retryable()),
            Attack::Resuming(Resuming::GrowingMemo) => memo.resize(4 * rest.len().max(64 << 10), 7),
            Attack::Resuming(Resuming::GrowEveryTurn) => begin::grow(),
            _ => {}
        }
        if turn <= TURNS || matches!(self.config.attack, Attack::Resuming(Resuming::GrowingMemo)) {
            return Ok(Turn::Ask(self.ask(&answers[0].text, memo)));
        }
        let mut verdicts = Self::honest(batch)?;
        if let Attack::Deciding(attack) = self.config.attack {
            attack.run(batch.rows(), &mut verdicts);
        }
        Ok(Turn::Done(verdicts))
    }
}

plumb_sdk::export_judge!(Hostile);
