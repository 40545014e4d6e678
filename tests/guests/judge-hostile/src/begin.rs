//! Attacks of a first turn: on whoever checks questions, counts their tokens and puts them.

use std::arch::wasm32::memory_grow;
use std::hint::black_box;

use plumb_sdk::judge::{Ask, Fault, Question, Sampling, Texts};
use plumb_sdk::{kv, log, metrics};

#[derive(serde::Deserialize, Clone, Copy)]
#[serde(rename_all = "kebab-case")]
pub enum Attack {
    /// The processor: never returns.
    Spin,
    /// The call: panics.
    Trap,
    /// Memory: asks for 4 GiB at once.
    GrowBig,
    /// The models: a hundred thousand questions.
    ManyQuestions,
    /// The models: a million prompts in one question.
    ManyPrompts,
    /// The order of turns: asks nothing.
    NoQuestion,
    /// Memory of the host: a memo of 5 MiB.
    LongMemo,
    /// The tokenizer: a prompt of 40 MiB.
    LongPrompt,
    /// The host's texts: a prompt that is not UTF-8.
    BrokenPrompt,
    /// The host's texts: prompts that end beyond their bytes.
    EndsBeyond,
    /// Authority: a model that the recipe does not grant.
    OtherModel,
    /// The records: a model with a name of a megabyte.
    LongModel,
    /// The budget: four billion tokens a prompt.
    ManyTokens,
    /// The budget: four billion completions a prompt.
    ManyCompletions,
    /// The sampler: a temperature that is no number.
    NanTemperature,
    /// The digests of questions, which hold how to sample: a text of 10 MiB to stop at.
    LongStop,
    /// The same: a setting of 10 MiB.
    LongSetting,
    /// The log: ten megabytes of lines.
    LogFlood,
    /// The metrics: a thousand names.
    MetricNames,
    /// Memory of the host: fills `kv`.
    KvFlood,
}

impl Attack {
    pub fn run(self, ask: &mut Ask) -> Result<(), Fault> {
        let question = &mut ask.questions[0];
        match self {
            Attack::Spin => loop {
                black_box(0);
            },
            Attack::Trap => panic!("no questions"),
            Attack::GrowBig => assert_ne!(memory_grow::<0>(65_535), usize::MAX, "no 4 GiB"),
            Attack::ManyQuestions => {
                let small = Question { model: "m".into(), prompts: texts(b"?".to_vec()), sampling: Sampling::greedy(1) };
                ask.questions = vec![small; 100_000];
            }
            Attack::ManyPrompts => question.prompts = Texts { bytes: Vec::new(), ends: vec![0; 1_000_000] },
            Attack::NoQuestion => ask.questions.clear(),
            Attack::LongMemo => ask.memo.resize(5 << 20, 0),
            Attack::LongPrompt => question.prompts = texts(vec![b'x'; 40 << 20]),
            Attack::BrokenPrompt => question.prompts = texts(vec![b'a', 0xff, 0xfe]),
            Attack::EndsBeyond => question.prompts.ends.fill(u32::MAX),
            Attack::OtherModel => question.model = "policy".into(),
            Attack::LongModel => question.model = "m".repeat(1 << 20),
            Attack::ManyTokens => question.sampling.max_tokens = u32::MAX,
            Attack::ManyCompletions => question.sampling.count = u32::MAX,
            Attack::NanTemperature => question.sampling.temperature = f32::NAN,
            Attack::LongStop => question.sampling.stop = vec!["s".repeat(10 << 20)],
            Attack::LongSetting => question.sampling.extra = vec![("top_k".into(), "1".repeat(10 << 20))],
            Attack::LogFlood => (0..1000).for_each(|_| log::warn(&"flood ".repeat(1700))),
            Attack::MetricNames => (0..1000).for_each(|i| metrics::count(&i.to_string(), 1)),
            Attack::KvFlood => (0..100).for_each(|i| drop(kv::set(&i.to_string(), &vec![0; 1 << 20]))),
        }
        Ok(())
    }
}

/// Takes memory page by page for as long as there is any.
pub fn grow() {
    while memory_grow::<0>(1) != usize::MAX {}
}

/// One text.
fn texts(bytes: Vec<u8>) -> Texts {
    Texts { ends: vec![bytes.len() as u32], bytes }
}
