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
            (Some(Value::String(text)), _) => text.clone(),
            (Some(Value::Number(number)), _) => number.to_string(),
            // TRL's conversational form: the answer as a list with one message.
            (Some(Value::Array(answer)), _) if answer.len() == 1 => parse_message(row, &answer[0])?.content,
            (None, Some(_)) => match self.messages(row)?.pop() {
                Some(last) if last.role == "assistant" => last.content,
                _ => return Err(row.error("`messages` does not end with the assistant's")),
            },
            (None, None) => return Err(row.error("column `completion` is missing")),
            (Some(_), _) => return Err(row.error("column `completion` is not a string")),
        };
        let mut tokens = self.tokenizer.encode(&(self.format.completion_prefix.clone() + &text))?;
        tokens.push(self.end);
        Ok(tokens)
    }

    /// The row's `messages`, or its `prompt` where that is a list of them (TRL's conversational form), or else the template as the
    /// user's message; in all cases after the recipe's system message.
    fn messages(&self, row: &Row) -> Result<Vec<Message>> {
        let conversation = self.conversational_prompt(row);
        let mut messages = match row.columns.get("messages").or(conversation) {
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
        let plain = self.format.template == PromptFormat::default().template;
        row.columns.get("prompt").filter(|prompt| plain && prompt.is_array())
    }

    fn template(&self, row: &Row) -> Result<String> {
        let template = self.templates.get_template("prompt").expect("the template was added");
        template.render(minijinja::Value::from(minijinja::value::Serde(&row.columns))).map_err(|e| {
            let names: Vec<&str> = row.columns.keys().map(String::as_str).collect();
            row.error(format!("the prompt's template fails: {e}; columns: {}", names.join(", ")))
        })
    }
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
