//! Capabilities: what a guest may ask of models and tools, how much of it, and what happens in between.
//!
//! A question is checked, then counted, then asked; the answer is checked before the guest sees it. Tokens are counted as if every
//! answer were new: the tokens that a model reads, plus those it writes, whatever a cache spared. Before a model is asked to write,
//! the most that it may write must still be in the budget, so that a limit is never passed; afterwards only the real tokens count,
//! so that a generous `max-tokens` costs nothing. Both are functions of the question and its answer, hence repeat.

use std::sync::Arc;
use std::time::{Duration, Instant};

use plumb_core::PluginFault;
use plumb_core::recipe::Grants;
use plumb_core::services::{Models, Question, Sampling, ServiceFault, ToolOutputs, Tools};

use crate::bindings::types::{self, Fault};
use crate::bindings::{models, tools};
use crate::context::Context;
use crate::limits;
use crate::meter::Cost;

/// A tool's answers, one per row.
pub type ToolAnswers = ToolOutputs;

/// Who answers a plugin, and whom it may ask.
pub struct Services {
    models: Arc<dyn Models>,
    tools: Arc<dyn Tools>,
    grants: Grants,
}

impl Services {
    /// What `grants` names, of `models` and `tools`.
    pub fn new(models: Arc<dyn Models>, tools: Arc<dyn Tools>, grants: Grants) -> Self {
        Services { models, tools, grants }
    }

    /// Whether any model may be asked.
    pub fn grants_models(&self) -> bool {
        !self.grants.models.is_empty()
    }

    /// Whether any tool may be called.
    pub fn grants_tools(&self) -> bool {
        !self.grants.tools.is_empty()
    }

    /// Tokens of a call with that many rows.
    fn budget(&self, rows: usize) -> u64 {
        self.grants.tokens_per_row.unwrap_or(limits::TOKENS_PER_ROW).saturating_mul(rows as u64)
    }

    /// Bounds and grants of a judge's turn: the runtime asks in the judge's stead, and nobody but the host knows what it may ask.
    pub fn check_questions(&self, questions: &[Question], rows: usize) -> Result<(), ServiceFault> {
        let mut budget = Budget::new(self.budget(rows));
        for question in questions {
            self.check_model(&question.model)?;
            // Tokenizing costs far more than counting bytes does.
            budget.check(question.prompts.bytes.len() as u64 / limits::TOKEN_BYTES)?;
            budget.charge(self.most_tokens(question)?)?;
        }
        Ok(())
    }

    /// Tokens that a question takes at most. Where there are no models, answers come from a record: no prompt is read, and what was
    /// recorded has been within its budget.
    fn most_tokens(&self, question: &Question) -> Result<u64, ServiceFault> {
        let read = match self.models.count_tokens(&question.model, &question.prompts) {
            Err(fault) if fault.code == UNAVAILABLE => 0,
            counted => counted?,
        };
        Ok(read.saturating_add(written_at_most(question)))
    }

    fn check_model(&self, model: &str) -> Result<(), ServiceFault> {
        granted("model", model, &self.grants.models, "models")
    }

    fn check_tool(&self, tool: &str) -> Result<(), ServiceFault> {
        granted("tool", tool, &self.grants.tools, "tools")
    }
}

const UNAVAILABLE: &str = "unavailable";

fn granted(what: &str, name: &str, names: &[String], key: &str) -> Result<(), ServiceFault> {
    if names.iter().any(|granted| granted == name) {
        return Ok(());
    }
    let have = names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let have = if have.is_empty() { "none".to_owned() } else { have };
    // Whatever the guest made up is no longer than a name.
    let name: String = name.chars().take(limits::NAME_BYTES).collect();
    let message =
        format!("{what} `{name}` is not granted to this plugin (granted: {have}); add it to `grants.{key}` in the recipe");
    Err(ServiceFault::new("denied", message))
}

fn written_at_most(question: &Question) -> u64 {
    let Sampling { max_tokens, count, .. } = question.sampling;
    (question.prompts.len() as u64).saturating_mul(u64::from(max_tokens)).saturating_mul(u64::from(count))
}

/// A service's fault as that of the plugin's whole call.
pub fn of_the_call(fault: ServiceFault) -> PluginFault {
    PluginFault::Fault { code: fault.code, message: fault.message }
}

impl From<ServiceFault> for Fault {
    fn from(fault: ServiceFault) -> Self {
        Fault { code: fault.code, message: fault.message, retryable: fault.retryable }
    }
}

/// Tokens of a call.
#[derive(Debug, Default)]
struct Budget {
    limit: u64,
    used: u64,
}

impl Budget {
    fn new(limit: u64) -> Self {
        Budget { limit, used: 0 }
    }

    /// Refuses what would pass the limit.
    fn check(&self, tokens: u64) -> Result<(), ServiceFault> {
        let left = self.limit - self.used;
        if tokens <= left {
            return Ok(());
        }
        let message = format!(
            "takes up to {tokens} tokens, {left} of the call's {} are left; ask less, or raise `grants.tokens_per_row` in the recipe",
            self.limit
        );
        Err(ServiceFault::new("budget", message))
    }

    fn charge(&mut self, tokens: u64) -> Result<(), ServiceFault> {
        self.check(tokens)?;
        self.used += tokens;
        Ok(())
    }
}

/// What the guest of one call asked so far.
#[derive(Debug, Default)]
pub struct Asking {
    /// None outside of calls with a batch: then there are no rows that questions could be about.
    open: Option<Open>,
    /// Time spent in models and tools, until the guest's deadline took it in.
    waited: Duration,
}

#[derive(Debug)]
struct Open {
    tokens: Budget,
    tool_calls_left: usize,
}

impl Asking {
    /// The time since it was last taken, if there was any.
    pub fn take_waited(&mut self) -> Option<Duration> {
        Some(std::mem::take(&mut self.waited)).filter(|waited| !waited.is_zero())
    }

    fn open(&mut self) -> Result<&mut Open, ServiceFault> {
        let closed =
            || ServiceFault::new("denied", "models and tools answer only in calls with a batch, not in `init` or `describe`");
        self.open.as_mut().ok_or_else(closed)
    }
}

impl Context {
    /// Lets the guest ask, as much as that many rows allow.
    pub fn open_services(&mut self, rows: usize) {
        let tokens = Budget::new(self.services.budget(rows));
        self.asking.open = Some(Open { tokens, tool_calls_left: rows.saturating_mul(limits::TOOL_CALLS_PER_ROW) });
    }

    /// Pays for a question of that many bytes, which a tokenizer reads even if the answer is that there are too many.
    fn pay_question(&mut self, model: &str, bytes: usize) -> wasmtime::Result<()> {
        self.meter.pay(bytes.saturating_mul(limits::TOKENIZER_FUEL).saturating_add(model.len()))
    }

    /// Ends what [`Context::open_services`] began.
    pub fn close_services(&mut self) {
        self.asking.open = None;
    }

    /// Asks a model something that it only reads: `tokens` counts what, `ask` asks. An answer is as long as its question at most,
    /// or refused by `check`.
    fn read<T>(
        &mut self,
        model: &str,
        tokens: impl FnOnce(&dyn Models) -> Result<u64, ServiceFault>,
        ask: impl FnOnce(&dyn Models) -> Result<T, ServiceFault>,
        check: impl FnOnce(&T) -> Result<(), ServiceFault>,
    ) -> Result<T, Fault> {
        self.services.check_model(model)?;
        let budget = &mut self.asking.open()?.tokens;
        let models = Arc::clone(&self.services.models);
        let begin = Instant::now();
        let answer = tokens(&*models).and_then(|tokens| budget.charge(tokens)).and_then(|()| ask(&*models));
        self.asking.waited += begin.elapsed();
        let answer = answer?;
        check(&answer)?;
        Ok(answer)
    }

    fn generate(&mut self, question: &Question) -> Result<types::Generated, Fault> {
        self.services.check_model(&question.model)?;
        let budget = &mut self.asking.open()?.tokens;
        let models = Arc::clone(&self.services.models);
        let begin = Instant::now();
        let answer = models.count_tokens(&question.model, &question.prompts).and_then(|read| {
            let read = read.max(question.prompts.len() as u64);
            budget.check(read.saturating_add(written_at_most(question)))?;
            let one = std::slice::from_ref(question);
            let answer = models.generate(one).pop().unwrap_or_else(|| Err(wrong_answer("no answer")))?;
            budget.charge(read + answer.tokens.values.len() as u64)?;
            Ok(answer)
        });
        self.asking.waited += begin.elapsed();
        let answer = answer?;
        let expected = question.prompts.len().saturating_mul(question.sampling.count as usize);
        let lists = [answer.text.len(), answer.tokens.len(), answer.logprobs.len(), answer.finish.len()];
        if lists.iter().any(|&len| len != expected) {
            return Err(wrong_answer(format!("{lists:?} completions, expected {expected}")).into());
        }
        Ok(to_guest(&answer))
    }

    fn call_tool(&mut self, tool: &str, arguments: &plumb_core::Texts) -> Result<tools::ToolResults, Fault> {
        self.services.check_tool(tool)?;
        let open = self.asking.open()?;
        open.tool_calls_left = open.tool_calls_left.checked_sub(arguments.len().max(1)).ok_or_else(|| {
            let message = format!("more than {} calls of tools per row", limits::TOOL_CALLS_PER_ROW);
            ServiceFault::new("budget", message)
        })?;
        let tools = Arc::clone(&self.services.tools);
        let begin = Instant::now();
        let outputs = tools.call(tool, arguments);
        self.asking.waited += begin.elapsed();
        let outputs = outputs?;
        if outputs.len() != arguments.len() {
            return Err(wrong_answer(format!("{} outputs, expected {}", outputs.len(), arguments.len())).into());
        }
        let mut results = tools::ToolResults { output: types::Texts { bytes: Vec::new(), ends: Vec::new() }, faults: Vec::new() };
        for (row, output) in outputs.into_iter().enumerate() {
            match output {
                Ok(text) => results.output.bytes.extend(text.into_bytes()),
                Err(fault) => results.faults.push(types::RowFault { row: row as u32, fault: fault.into() }),
            }
            check_bytes(results.output.bytes.len())?;
            results.output.ends.push(results.output.bytes.len() as u32);
        }
        Ok(results)
    }
}

/// The service broke its own interface.
fn wrong_answer(message: impl std::fmt::Display) -> ServiceFault {
    ServiceFault::new("bad-answer", format!("the model or tool answered with {message}"))
}

fn check_bytes(bytes: usize) -> Result<(), ServiceFault> {
    let too_long = || ServiceFault::new("too-long", format!("the answer has more than {} bytes", limits::ANSWER_BYTES));
    if bytes <= limits::ANSWER_BYTES { Ok(()) } else { Err(too_long()) }
}

fn check_rows(what: &str, got: usize, expected: usize) -> Result<(), ServiceFault> {
    if got == expected { Ok(()) } else { Err(wrong_answer(format!("{got} {what}, expected {expected}"))) }
}

/// Texts from a guest, if they are texts.
fn texts(what: &str, texts: types::Texts) -> Result<plumb_core::Texts, Fault> {
    let wrong = |reason: &str| Fault { code: INVALID.into(), message: format!("{what}: {reason}"), retryable: false };
    let types::Texts { bytes, ends } = texts;
    if ends.len() > limits::PROMPTS {
        return Err(wrong(&format!("{} rows, limit {}", ends.len(), limits::PROMPTS)));
    }
    if !ends.is_sorted() || ends.last().map_or(0, |&end| end as usize) != bytes.len() {
        return Err(wrong("ends that decrease, or do not end where the bytes do"));
    }
    let texts = plumb_core::Texts { bytes, ends };
    match (0..texts.len()).find(|&row| texts.get(row).is_none()) {
        Some(row) => Err(wrong(&format!("row {row} is not UTF-8"))),
        None => Ok(texts),
    }
}

const INVALID: &str = "invalid-question";

fn same_rows(prompts: usize, others: usize) -> Result<(), Fault> {
    if prompts == others {
        return Ok(());
    }
    let message = format!("{prompts} prompts, but {others} texts that continue them");
    Err(Fault { code: INVALID.into(), message, retryable: false })
}

/// How to sample, within its ranges.
pub fn sampling(params: types::Sampling) -> Result<Sampling, ServiceFault> {
    let types::Sampling { max_tokens, temperature, top_p, count, seed, stop, extra } = params;
    let wrong = |message: String| Err(ServiceFault::new(INVALID, message));
    if max_tokens == 0 || count == 0 || count > limits::COMPLETIONS {
        return wrong(format!(
            "`max-tokens` {max_tokens} and `count` {count}: both are at least 1, the latter at most {}",
            limits::COMPLETIONS
        ));
    }
    if !(temperature.is_finite() && temperature >= 0.0 && top_p > 0.0 && top_p <= 1.0) {
        return wrong(format!("`temperature` {temperature} must be 0 or more, `top-p` {top_p} above 0 and at most 1"));
    }
    if stop.len() > limits::STOPS || stop.iter().any(String::is_empty) {
        return wrong(format!("{} texts in `stop`: at most {}, none of them empty", stop.len(), limits::STOPS));
    }
    let settings = extra.iter().flat_map(|(name, value)| [name, value]);
    if extra.len() > limits::STOPS || stop.iter().chain(settings).any(|text| text.len() > limits::NAME_BYTES) {
        let (texts, bytes) = (limits::STOPS, limits::NAME_BYTES);
        return wrong(format!("`stop` and `extra` may hold {texts} texts and settings, each of at most {bytes} bytes"));
    }
    Ok(Sampling { max_tokens, temperature, top_p, count, seed, stop, extra })
}

/// Completions as a guest takes them.
pub fn to_guest(generated: &plumb_core::services::Generated) -> types::Generated {
    let plumb_core::services::Generated { text, tokens, logprobs, finish } = generated;
    types::Generated {
        text: types::Texts { bytes: text.bytes.clone(), ends: text.ends.clone() },
        tokens: types::RaggedU32 { values: tokens.values.clone(), ends: tokens.ends.clone() },
        logprobs: types::RaggedF32 { values: logprobs.values.clone(), ends: logprobs.ends.clone() },
        finish: finish.clone(),
    }
}

fn ragged(answer: plumb_core::Ragged<f32>) -> types::RaggedF32 {
    types::RaggedF32 { values: answer.values, ends: answer.ends }
}

/// What the rows of a question and their prompts cost: at least a token each.
fn at_least(rows: usize, tokens: u64) -> u64 {
    tokens.max(rows as u64)
}

type Asked<T> = wasmtime::Result<Result<T, Fault>>;

impl models::Host for Context {
    fn generate(&mut self, model: String, prompts: types::Texts, params: types::Sampling) -> Asked<types::Generated> {
        self.pay_question(&model, prompts.bytes())?;
        Ok((|| {
            let question = Question { model, prompts: texts("prompts", prompts)?, sampling: sampling(params)? };
            Context::generate(self, &question)
        })())
    }

    fn logprobs(&mut self, model: String, prompts: types::Texts, continuations: types::Texts) -> Asked<types::RaggedF32> {
        self.pay_question(&model, prompts.bytes() + continuations.bytes())?;
        Ok((|| {
            let (prompts, continuations) = (texts("prompts", prompts)?, texts("continuations", continuations)?);
            same_rows(prompts.len(), continuations.len())?;
            let rows = prompts.len();
            let answer = self.read(
                &model,
                |models| {
                    Ok(at_least(rows, models.count_tokens(&model, &prompts)? + models.count_tokens(&model, &continuations)?))
                },
                |models| models.logprobs(&model, &prompts, &continuations),
                |answer| check_rows("rows", answer.len(), rows),
            )?;
            Ok(ragged(answer))
        })())
    }

    fn token_logprobs(&mut self, model: String, prompts: types::Texts, tokens: types::RaggedU32) -> Asked<types::RaggedF32> {
        self.pay_question(&model, prompts.bytes() + tokens.bytes())?;
        Ok((|| {
            let prompts = texts("prompts", prompts)?;
            same_rows(prompts.len(), tokens.ends.len())?;
            if !tokens.ends.is_sorted() || tokens.ends.last().map_or(0, |&end| end as usize) != tokens.values.len() {
                let message = "tokens: ends that decrease, or do not end where the values do".into();
                return Err(Fault { code: INVALID.into(), message, retryable: false });
            }
            let rows = prompts.len();
            let tokens = plumb_core::Ragged { values: tokens.values, ends: tokens.ends };
            let answer = self.read(
                &model,
                |models| Ok(at_least(rows, models.count_tokens(&model, &prompts)? + tokens.values.len() as u64)),
                |models| models.token_logprobs(&model, &prompts, &tokens),
                |answer| check_rows("rows", answer.len(), rows),
            )?;
            Ok(ragged(answer))
        })())
    }

    fn choice_logprobs(&mut self, model: String, prompts: types::Texts, choices: Vec<String>) -> Asked<Vec<f64>> {
        self.pay_question(&model, prompts.bytes() + choices.bytes())?;
        Ok((|| {
            let prompts = texts("prompts", prompts)?;
            let rows = prompts.len();
            let all = choices.iter().collect();
            self.read(
                &model,
                |models| {
                    // An empty choice has no tokens, but an answer.
                    let choices = at_least(choices.len(), models.count_tokens(&model, &all)?).saturating_mul(rows as u64);
                    Ok(at_least(rows, models.count_tokens(&model, &prompts)?.saturating_add(choices)))
                },
                |models| models.choice_logprobs(&model, &prompts, &choices),
                |answer| check_rows("values", answer.len(), rows.saturating_mul(choices.len())),
            )
        })())
    }

    fn score(&mut self, model: String, prompts: types::Texts, continuations: types::Texts) -> Asked<Vec<types::NamedF64>> {
        self.pay_question(&model, prompts.bytes() + continuations.bytes())?;
        Ok((|| {
            let (prompts, continuations) = (texts("prompts", prompts)?, texts("continuations", continuations)?);
            same_rows(prompts.len(), continuations.len())?;
            let rows = prompts.len();
            let heads = self.read(
                &model,
                |models| {
                    Ok(at_least(rows, models.count_tokens(&model, &prompts)? + models.count_tokens(&model, &continuations)?))
                },
                |models| models.score(&model, &prompts, &continuations),
                |heads| {
                    heads
                        .iter()
                        .try_for_each(|(name, values)| check_rows(&format!("values of head `{name}`"), values.len(), rows))
                },
            )?;
            Ok(heads.into_iter().map(|(name, values)| types::NamedF64 { name, values }).collect())
        })())
    }

    fn embed(&mut self, model: String, inputs: types::Texts) -> Asked<(u32, Vec<f32>)> {
        self.pay_question(&model, inputs.bytes())?;
        Ok((|| {
            let inputs = texts("inputs", inputs)?;
            let rows = inputs.len();
            self.read(
                &model,
                |models| Ok(at_least(rows, models.count_tokens(&model, &inputs)?)),
                |models| models.embed(&model, &inputs),
                |(width, values)| {
                    check_rows("values", values.len(), rows.saturating_mul(*width as usize))?;
                    check_bytes(size_of_val(values.as_slice()))
                },
            )
        })())
    }
}

impl tools::Host for Context {
    fn call(&mut self, tool: String, json_arguments: types::Texts) -> Asked<tools::ToolResults> {
        let calls = json_arguments.ends.len().max(1).saturating_mul(limits::TOOL_CALL_FUEL);
        self.meter.pay(calls.saturating_add(tool.len() + json_arguments.bytes()))?;
        let results = texts("json-arguments", json_arguments).and_then(|arguments| self.call_tool(&tool, &arguments));
        if let Ok(results) = &results {
            self.meter.pay(results.output.bytes())?;
        }
        Ok(results)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_refuses_what_would_pass_it_and_says_how_much_is_left() {
        let mut budget = Budget::new(100);
        budget.charge(60).unwrap();
        let fault = budget.charge(41).unwrap_err();
        assert_eq!(fault.code, "budget");
        assert!(fault.message.contains("41 tokens, 40 of the call's 100"), "{}", fault.message);
        budget.charge(40).unwrap();
    }

    #[test]
    fn names_beyond_the_grants_are_denied_with_those_there_are() {
        let names = ["reference".to_owned()];
        granted("model", "reference", &names, "models").unwrap();
        let fault = granted("model", "policy", &names, "models").unwrap_err();
        assert_eq!(fault.code, "denied");
        assert!(fault.message.contains("`policy`") && fault.message.contains("granted: `reference`"), "{}", fault.message);
        let fault = granted("model", &"m".repeat(1 << 20), &names, "models").unwrap_err();
        assert!(fault.message.len() < 1000, "{} bytes", fault.message.len());
    }

    #[test]
    fn waited_time_is_taken_once() {
        let mut asking = Asking { waited: Duration::from_millis(3), ..Asking::default() };
        assert_eq!(asking.take_waited(), Some(Duration::from_millis(3)));
        assert_eq!(asking.take_waited(), None);
    }

    #[test]
    fn texts_of_guests_are_checked_before_they_are_read() {
        let one = |bytes: &[u8], ends: &[u32]| texts("prompts", types::Texts { bytes: bytes.to_vec(), ends: ends.to_vec() });
        assert!(one(b"ab", &[1, 2]).is_ok());
        for (bytes, ends) in [(&b"ab"[..], &[2, 1][..]), (b"ab", &[1]), (b"ab", &[3]), (b"\xff", &[1])] {
            assert_eq!(one(bytes, ends).unwrap_err().code, INVALID);
        }
    }

    #[test]
    fn sampling_out_of_its_ranges_is_refused() {
        let params = |max_tokens, temperature, top_p, count| types::Sampling {
            max_tokens,
            temperature,
            top_p,
            count,
            seed: 0,
            stop: Vec::new(),
            extra: Vec::new(),
        };
        assert!(sampling(params(1, 0.0, 1.0, 1)).is_ok());
        for wrong in [
            params(0, 0.0, 1.0, 1),
            params(1, f32::NAN, 1.0, 1),
            params(1, -1.0, 1.0, 1),
            params(1, 1.0, 0.0, 1),
            params(1, 1.0, 1.0, 0),
        ] {
            assert!(sampling(wrong).is_err());
        }
        // They are part of the digest of every prompt.
        let long = || "l".repeat(limits::NAME_BYTES + 1);
        let stop = types::Sampling { stop: vec![long()], ..params(1, 0.0, 1.0, 1) };
        let setting = types::Sampling { extra: vec![("top_k".into(), long())], ..params(1, 0.0, 1.0, 1) };
        let many = types::Sampling { extra: vec![("top_k".into(), "1".into()); limits::STOPS + 1], ..params(1, 0.0, 1.0, 1) };
        assert!([stop, setting, many].into_iter().all(|wrong| sampling(wrong).is_err()));
    }
}
