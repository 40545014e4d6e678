//! Models and tools in native tests: closures of the test, per thread.

use std::cell::RefCell;
use std::rc::Rc;

use crate::batch::{Batch, Ragged, Texts};
use crate::descriptor::Part;
use crate::fault::Fault;
use crate::judge::{Judge, Question, Turn, Verdicts};
use crate::models::{Embeddings, Generated, Sampling};

/// Answers in the place of models. Each function gets the model's name; what is not set is a fault `unavailable`.
///
/// ```
/// use plumb_sdk::models::{self, Sampling};
/// use plumb_sdk::testing::{ScriptedModels, models as script};
///
/// script(ScriptedModels::new().generate(|_, prompt| Ok(format!("{prompt}!"))));
/// let prompts = ["a", "b"].into_iter().collect();
/// let answer = models::generate("policy", &prompts, &Sampling::greedy(8)).unwrap();
/// assert_eq!(answer.text.iter().collect::<Vec<_>>(), ["a!", "b!"]);
/// assert_eq!(models::embed("policy", &prompts).unwrap_err().code, "unavailable");
/// ```
#[derive(Clone, Default)]
pub struct ScriptedModels {
    generate: Option<Rc<dyn Fn(&str, &str) -> Result<String, Fault>>>,
    logprobs: Option<Rc<dyn Fn(&str, &str, &str) -> Result<Vec<f32>, Fault>>>,
    score: Option<Rc<dyn Fn(&str, &str, &str) -> Result<f64, Fault>>>,
    embed: Option<Rc<dyn Fn(&str, &str) -> Result<Vec<f32>, Fault>>>,
}

impl ScriptedModels {
    /// Models that answer nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Completes (model, prompt).
    #[must_use]
    pub fn generate(mut self, answer: impl Fn(&str, &str) -> Result<String, Fault> + 'static) -> Self {
        self.generate = Some(Rc::new(answer));
        self
    }

    /// Log-probabilities of the tokens of (model, prompt, continuation); sums of them for choices.
    #[must_use]
    pub fn logprobs(mut self, answer: impl Fn(&str, &str, &str) -> Result<Vec<f32>, Fault> + 'static) -> Self {
        self.logprobs = Some(Rc::new(answer));
        self
    }

    /// Value of the one head, `score`, for (model, prompt, continuation).
    #[must_use]
    pub fn score(mut self, answer: impl Fn(&str, &str, &str) -> Result<f64, Fault> + 'static) -> Self {
        self.score = Some(Rc::new(answer));
        self
    }

    /// Vector of (model, input).
    #[must_use]
    pub fn embed(mut self, answer: impl Fn(&str, &str) -> Result<Vec<f32>, Fault> + 'static) -> Self {
        self.embed = Some(Rc::new(answer));
        self
    }
}

/// Sets the models that plugins on this thread ask from now on.
pub fn models(models: ScriptedModels) {
    MODELS.set(models);
}

/// Sets the tools that plugins on this thread call from now on: a function of (tool, JSON arguments).
pub fn tools(answer: impl Fn(&str, &str) -> Result<String, Fault> + 'static) {
    TOOLS.set(Some(Rc::new(answer)));
}

/// Runs a judge to its verdicts, with `answer` in the place of the models: a function of (question, prompt). Every prompt of a
/// question gets as many completions as it asks for, all the same.
///
/// # Errors
/// The judge's own, and `too-many-turns` after 16, as in a run.
pub fn judge_with<J: Judge>(judge: &J, batch: &Batch, answer: impl Fn(&Question, &str) -> String) -> Result<Verdicts, Fault> {
    let mut turn = judge.begin(batch)?;
    for _ in 0..16 {
        match turn {
            Turn::Done(verdicts) => return Ok(verdicts),
            Turn::Ask(ask) => {
                let answers: Vec<Generated> = ask
                    .questions
                    .iter()
                    .map(|question| {
                        let texts = question.prompts.iter().map(|prompt| answer(question, prompt));
                        repeated(texts.collect(), question.sampling.count)
                    })
                    .collect();
                turn = judge.resume(batch, &ask.memo, &answers)?;
            }
        }
    }
    Err(Fault::new("too-many-turns", "the judge asked 16 times without a verdict"))
}

thread_local! {
    static MODELS: RefCell<ScriptedModels> = RefCell::default();
    static TOOLS: RefCell<Option<ToolScript>> = RefCell::default();
}

type ToolScript = Rc<dyn Fn(&str, &str) -> Result<String, Fault>>;

fn scripted<T: Clone>(part: impl Fn(&ScriptedModels) -> Option<T>) -> Result<T, Fault> {
    MODELS.with_borrow(part).ok_or_else(|| Fault::new("unavailable", "the test has no such model: see `testing::models`"))
}

/// Completions of the texts, each `count` times. A token is a byte, certain and without surprise.
fn repeated(texts: Vec<String>, count: u32) -> Generated {
    let mut generated = Generated::default();
    for text in texts {
        for _ in 0..count {
            let bytes: Vec<u32> = text.bytes().map(u32::from).collect();
            generated.tokens.push(&bytes);
            generated.logprobs.push(&vec![0.0; bytes.len()]);
            generated.text.push(&text);
            generated.finish.push("stop".to_owned());
        }
    }
    generated
}

pub fn generate(model: &str, prompts: &Texts, sampling: &Sampling) -> Result<Generated, Fault> {
    let answer = scripted(|models| models.generate.clone())?;
    let texts = prompts.iter().map(|prompt| answer(model, prompt)).collect::<Result<_, _>>()?;
    Ok(repeated(texts, sampling.count))
}

pub fn logprobs(model: &str, prompts: &Texts, continuations: &Texts) -> Result<Ragged<f32>, Fault> {
    let answer = scripted(|models| models.logprobs.clone())?;
    let rows: Vec<Vec<f32>> =
        prompts.iter().zip(continuations.iter()).map(|(p, c)| answer(model, p, c)).collect::<Result<_, _>>()?;
    Ok(rows.into_iter().collect())
}

/// Of ids, the test knows no texts: each is the text of its number.
pub fn token_logprobs(model: &str, prompts: &Texts, tokens: &Ragged<u32>) -> Result<Ragged<f32>, Fault> {
    let texts: Texts = tokens.iter().map(|ids| ids.iter().map(u32::to_string).collect::<Vec<_>>().join(" ")).collect();
    logprobs(model, prompts, &texts)
}

pub fn choice_logprobs(model: &str, prompts: &Texts, choices: &[String]) -> Result<Vec<f64>, Fault> {
    let answer = scripted(|models| models.logprobs.clone())?;
    let pairs = prompts.iter().flat_map(|prompt| choices.iter().map(move |choice| (prompt, choice)));
    pairs.map(|(prompt, choice)| Ok(answer(model, prompt, choice)?.iter().map(|&logprob| f64::from(logprob)).sum())).collect()
}

pub fn score(model: &str, prompts: &Texts, continuations: &Texts) -> Result<Vec<Part>, Fault> {
    let answer = scripted(|models| models.score.clone())?;
    let values = prompts.iter().zip(continuations.iter()).map(|(p, c)| answer(model, p, c)).collect::<Result<_, _>>()?;
    Ok(vec![Part::new("score", values)])
}

pub fn embed(model: &str, inputs: &Texts) -> Result<Embeddings, Fault> {
    let answer = scripted(|models| models.embed.clone())?;
    let rows: Vec<Vec<f32>> = inputs.iter().map(|input| answer(model, input)).collect::<Result<_, _>>()?;
    Ok(Embeddings { width: rows.first().map_or(0, Vec::len), values: rows.concat() })
}

pub fn call_tool(tool: &str, arguments: &Texts) -> Result<Vec<Result<String, Fault>>, Fault> {
    let answer = TOOLS.with_borrow(Clone::clone);
    let answer = answer.ok_or_else(|| Fault::new("unavailable", "the test has no tools: see `testing::tools`"))?;
    Ok(arguments.iter().map(|arguments| answer(tool, arguments)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripted_models_answer_by_row_and_choice() {
        models(ScriptedModels::new().logprobs(|_, prompt, text| Ok(vec![-1.0; prompt.len() * text.len()])));
        let prompts: Texts = ["a", "bb"].into_iter().collect();
        let choices = ["x".to_owned(), "yy".to_owned()];
        assert_eq!(crate::models::choice_logprobs("m", &prompts, &choices).unwrap(), [-1.0, -2.0, -2.0, -4.0]);
        assert_eq!(crate::models::score("m", &prompts, &prompts).unwrap_err().code, "unavailable");
    }

    #[test]
    fn scripted_tools_answer_each_row() {
        tools(|tool, arguments| if arguments == "1" { Ok(format!("{tool} one")) } else { Err(Fault::new("no", "not one")) });
        let answers = crate::tools::call("t", &["1", "2"].into_iter().collect()).unwrap();
        assert_eq!(answers[0].as_deref(), Ok("t one"));
        assert_eq!(answers[1].as_ref().unwrap_err().code, "no");
        assert_eq!(crate::tools::call_one("t", &serde_json::json!(1)).unwrap(), "t one");
    }
}
