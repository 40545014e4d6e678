//! Data rows to token ids.

use minijinja::{Environment, UndefinedBehavior};
use plumb_core::recipe::PromptFormat;
use plumb_core::rollout::Prompt;
use plumb_model::{Message, Tokenizer};
use serde_json::Value;

use crate::data::Row;
use crate::error::{Error, Result};

/// Makes prompts and completions of rows.
pub struct Prompter<'a> {
    format: &'a PromptFormat,
    tokenizer: &'a Tokenizer,
    templates: Environment<'a>,
    /// Ends the assistant's turn.
    end: u32,
}

impl<'a> Prompter<'a> {
    /// `eos_token_ids` are the model's; of several, the one that the chat template writes after an answer ends completions.
    ///
    /// # Errors
    /// [`Error::Recipe`] for a broken template, a chat format without a chat template, or a model without an end-of-text token.
    pub fn new(format: &'a PromptFormat, tokenizer: &'a Tokenizer, eos_token_ids: &[u32], stage: &str) -> Result<Self> {
        let recipe = |key: &str, reason: String| Error::Recipe { key: format!("stages.{stage}.data.prompt.{key}"), reason };
        let mut templates = Environment::new();
        templates.set_undefined_behavior(UndefinedBehavior::Strict);
        templates.add_template("prompt", &format.template).map_err(|e| recipe("template", e.to_string()))?;
        if format.chat && !tokenizer.has_chat_template() {
            return Err(recipe("chat", "the model's tokenizer has no chat template; set it to false".into()));
        }
        let mut end = eos_token_ids.first().copied();
        if format.chat {
            let turn = [message("user", ""), message("assistant", "")];
            let ids = tokenizer.encode(&tokenizer.render_chat(&turn, false)?)?;
            end = ids.iter().rev().find(|id| eos_token_ids.contains(id)).copied().or(end);
        }
        let end = end.ok_or_else(|| recipe("chat", "the model has no end-of-text token".into()))?;
        Ok(Prompter { format, tokenizer, templates, end })
    }

    /// The prompt's text and ids. `id` becomes part of its random streams' key.
    ///
    /// # Errors
    /// [`Error::Row`] when a column is missing or wrong, or the prompt is empty or longer than `max_tokens`.
    pub fn prompt(&self, row: &Row, id: u64, max_tokens: usize) -> Result<(String, Prompt)> {
        let (text, tokens) = if self.format.chat {
            let mut messages = self.messages(row)?;
            messages.pop_if(|last| last.role == "assistant");
            let text = self.tokenizer.render_chat(&messages, true)?;
            let tokens = self.tokenizer.encode(&text)?;
            (text, tokens)
        } else if self.conversational_prompt(row).is_some() {
            return Err(row.error("column `prompt` is a list of messages, which needs `data.prompt.chat = true`"));
        } else {
            let text = self.template(row)?;
            let tokens = self.tokenizer.encode_prompt(&text)?;
            (text, tokens)
        };
        if tokens.is_empty() {
            return Err(row.error("the prompt is empty"));
        }
        if tokens.len() > max_tokens {
            return Err(row.error(format!("the prompt has {} tokens, more than the {max_tokens} allowed", tokens.len())));
        }
        Ok((text, Prompt { id, tokens }))
    }

    /// Ids of the row's completion, the end-of-text token included.
    ///
    /// # Errors
    /// [`Error::Row`] when there is neither a `completion` nor a last message of the assistant's.
    pub fn completion(&self, row: &Row) -> Result<Vec<u32>> {
        let text = match (row.columns.get("completion"), row.columns.get("messages")) {
            (None, Some(_)) => match self.messages(row)?.pop() {
                Some(last) if last.role == "assistant" => last.content,
                _ => return Err(row.error("`messages` does not end with the assistant's")),
            },
            _ => answer(row, "completion")?,
        };
        self.finished(&text)
    }

    /// Ids of the row's `chosen` and `rejected` answers, end-of-text tokens included. Each is a text or a list of messages that ends with
    /// the assistant's; those before it are the prompt where the row has none of its own.
    ///
    /// # Errors
    /// [`Error::Row`] when an answer is missing, empty or of another form, or when the two go on from different prompts.
    pub fn pair(&self, row: &Row) -> Result<(Vec<u32>, Vec<u32>)> {
        let before = |column: &str| match row.columns.get(column) {
            Some(Value::Array(messages)) => messages.split_last().map(|(_, before)| before).unwrap_or_default(),
            _ => &[],
        };
        if before("chosen") != before("rejected") {
            return Err(
                row.error("the messages before the last one of `chosen` and of `rejected` differ: they answer different prompts")
            );
        }
        let ids = |column: &str| {
            let text = answer(row, column)?;
            if text.is_empty() { Err(row.error(format!("column `{column}` is empty"))) } else { self.finished(&text) }
        };
        Ok((ids("chosen")?, ids("rejected")?))
    }

    fn finished(&self, answer: &str) -> Result<Vec<u32>> {
        let mut tokens = self.tokenizer.encode(&(self.format.completion_prefix.clone() + answer))?;
        tokens.push(self.end);
        Ok(tokens)
    }

    /// The row's `messages`, or its `prompt` where that is a list of them (TRL's conversational form), or the conversation that `chosen`
    /// goes on where there is no `prompt`, or else the template as the user's message; in all cases after the recipe's system message.
    fn messages(&self, row: &Row) -> Result<Vec<Message>> {
        let conversation = self.conversational_prompt(row);
        let implicit = || {
            row.columns.get("chosen").filter(|chosen| self.plain() && has_prompt(chosen) && !row.columns.contains_key("prompt"))
        };
        let mut messages = match row.columns.get("messages").or(conversation).or_else(implicit) {
            Some(Value::Array(all)) => all.iter().map(|m| parse_message(row, m)).collect::<Result<Vec<_>>>()?,
            Some(_) => return Err(row.error("column `messages` is not a list")),
            None => vec![message("user", &self.template(row)?)],
        };
        if let Some(system) = &self.format.system {
            messages.retain(|m| m.role != "system");
            messages.insert(0, message("system", system));
        }
        Ok(messages)
    }

    /// The column `prompt` where it is a list, unless the recipe has a template of its own for it.
    fn conversational_prompt<'r>(&self, row: &'r Row) -> Option<&'r Value> {
        row.columns.get("prompt").filter(|prompt| self.plain() && prompt.is_array())
    }

    /// Whether the recipe has no template of its own.
    fn plain(&self) -> bool {
        self.format.template == PromptFormat::default().template
    }

    fn template(&self, row: &Row) -> Result<String> {
        let template = self.templates.get_template("prompt").expect("the template was added");
        template.render(minijinja::Value::from(minijinja::value::Serde(&row.columns))).map_err(|e| {
            let names: Vec<&str> = row.columns.keys().map(String::as_str).collect();
            row.error(format!("the prompt's template fails: {e}; columns: {}", names.join(", ")))
        })
    }
}

/// The text of an answer's column: a text, a number, or the last of a list of messages (TRL's conversational form).
fn answer(row: &Row, column: &str) -> Result<String> {
    match row.columns.get(column) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Number(number)) => Ok(number.to_string()),
        Some(Value::Array(messages)) if !messages.is_empty() => {
            let last = parse_message(row, &messages[messages.len() - 1])?;
            if last.role == "assistant" || messages.len() == 1 {
                Ok(last.content)
            } else {
                Err(row.error(format!("column `{column}` does not end with the assistant's message")))
            }
        }
        Some(_) => Err(row.error(format!("column `{column}` is not a string"))),
        None => {
            let names: Vec<&str> = row.columns.keys().map(String::as_str).collect();
            Err(row.error(format!("column `{column}` is missing; columns: {}", names.join(", "))))
        }
    }
}

/// Whether a list of messages has some before its last.
fn has_prompt(messages: &Value) -> bool {
    messages.as_array().is_some_and(|messages| messages.len() > 1)
}

fn parse_message(row: &Row, value: &Value) -> Result<Message> {
    let text = |key: &str| value.get(key).and_then(Value::as_str);
    match (text("role"), text("content")) {
        (Some(role), Some(content)) => Ok(message(role, content)),
        _ => Err(row.error("a message lacks `role` or `content`")),
    }
}

fn message(role: &str, content: &str) -> Message {
    Message { role: role.into(), content: content.into() }
}
