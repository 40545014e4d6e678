//! Texts to token ids and back.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::chat::{ChatTemplate, Message};
use crate::config::ModelConfig;
use crate::{Error, Result};

/// A tokenizer and the chat template that belongs to it. Cheap to clone.
///
/// It keeps the text of its `tokenizer.json`, so that saving it changes nothing.
#[derive(Clone, Debug)]
pub struct Tokenizer(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    tokenizer: tokenizers::Tokenizer,
    json: String,
    config: Map<String, Value>,
    template: Option<ChatTemplate>,
    /// Put before texts that stand for themselves.
    bos: Option<u32>,
}

impl Tokenizer {
    /// A tokenizer from the text of a `tokenizer.json`, the object of a `tokenizer_config.json` and a chat template.
    pub(crate) fn new(json: String, mut config: Map<String, Value>, template: Option<String>) -> Result<Self> {
        let mut tokenizer =
            tokenizers::Tokenizer::from_bytes(json.as_bytes()).map_err(|error| Error::Tokenizer(error.to_string()))?;
        // A file may ask for cuts and padding at training length; token counts here are always the texts' own.
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|error| Error::Tokenizer(error.to_string()))?;
        config.remove("chat_template");
        let special = |key: &str| special_token(&config, key).map(str::to_owned);
        let template = template.map(|source| ChatTemplate::new(source, special("bos_token"), special("eos_token")));
        let bos = begin_of_text(&tokenizer, &config);
        Ok(Tokenizer(Arc::new(Inner { tokenizer, json, config, template, bos })))
    }

    /// Token ids of a text. No special tokens are added; those that stand in the text are recognized.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] when the text holds a character that the vocabulary cannot express.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        match self.0.tokenizer.encode_fast(text, false) {
            Ok(encoding) => Ok(encoding.get_ids().to_vec()),
            Err(error) => {
                // Each character once: texts repeat them, and may be long.
                let mut tried = BTreeSet::new();
                let mut first = text.char_indices().filter(|(_, c)| tried.insert(*c));
                let unknown = first.find(|(_, c)| self.0.tokenizer.encode_fast(c.to_string(), false).is_err());
                let reason = unknown.map_or_else(
                    || error.to_string(),
                    |(at, c)| format!("the vocabulary has no token for {c:?} (byte {at} of the text)"),
                );
                Err(Error::Tokenizer(reason))
            }
        }
    }

    /// Token ids of a prompt that no chat template made: those of [`Tokenizer::encode`], after the begin-of-text token where the
    /// model was trained with one (Llama, Mistral) and the text does not begin with it. As transformers encodes a text.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_prompt(&self, text: &str) -> Result<Vec<u32>> {
        let mut tokens = self.encode(text)?;
        if let Some(bos) = self.0.bos.filter(|bos| tokens.first() != Some(bos)) {
            tokens.insert(0, bos);
        }
        Ok(tokens)
    }

    /// Text of token ids; special tokens are left out.
    pub fn decode(&self, ids: &[u32]) -> String {
        self.decode_with(ids, true)
    }

    /// Text of token ids, special tokens included.
    pub fn decode_raw(&self, ids: &[u32]) -> String {
        self.decode_with(ids, false)
    }

    fn decode_with(&self, ids: &[u32], skip_special_tokens: bool) -> String {
        self.0
            .tokenizer
            .decode(ids, skip_special_tokens)
            .expect("decoders are total: unknown ids are left out, bad UTF-8 is replaced")
    }

    /// Id of a token by its spelling in the vocabulary.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.0.tokenizer.token_to_id(token)
    }

    /// The byte that a token stands for by itself: of tokenizers with byte fallback (Llama 2, Mistral), `<0x00>` to `<0xFF>`.
    pub fn fallback_byte(&self, id: u32) -> Option<u8> {
        let token = self.0.tokenizer.id_to_token(id)?;
        let digits = token.strip_prefix("<0x")?.strip_suffix('>').filter(|digits| digits.len() == 2)?;
        // Elsewhere such a token is the text that it is spelled with.
        u8::from_str_radix(digits, 16).ok().filter(|_| self.decode_raw(&[id]) != token)
    }

    /// Number of tokens, special ones included. The model's embedding may have more rows than that.
    pub fn vocab_size(&self) -> usize {
        self.0.tokenizer.get_vocab_size(true)
    }

    /// Whether messages can be rendered.
    pub fn has_chat_template(&self) -> bool {
        self.0.template.is_some()
    }

    /// The source of the chat template.
    pub fn chat_template(&self) -> Option<&str> {
        self.0.template.as_ref().map(ChatTemplate::source)
    }

    /// The text that the model sees for a conversation; `add_generation_prompt` opens the assistant's answer.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] when there is no template, or it is broken or refuses the conversation.
    pub fn render_chat(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        let missing =
            "the model has no chat template; use raw text prompts, or put a `chat_template.jinja` beside its `tokenizer.json`";
        let template = self.0.template.as_ref().ok_or_else(|| Error::Tokenizer(missing.into()))?;
        template.render(messages, add_generation_prompt)
    }

    /// Id of the end-of-text token, where `tokenizer_config.json` names one.
    pub(crate) fn eos_token_id(&self) -> Option<u32> {
        self.token_id(special_token(&self.0.config, "eos_token")?)
    }

    /// Text of the `tokenizer.json`.
    pub(crate) fn json(&self) -> &str {
        &self.0.json
    }

    /// Object of the `tokenizer_config.json`, without the chat template.
    pub(crate) fn config(&self) -> &Map<String, Value> {
        &self.0.config
    }

    /// Refuses a tokenizer whose ids the model's embedding does not have.
    pub(crate) fn check_ids(&self, model: &ModelConfig, path: &Path) -> Result<()> {
        let ids: BTreeSet<u32> = self.0.tokenizer.get_vocab(true).into_values().collect();
        match ids.last() {
            Some(&last) if last as usize >= model.vocab_size => Err(Error::Malformed {
                path: path.to_owned(),
                reason: format!("it has token id {last}, but the model's vocabulary ends at {}", model.vocab_size - 1),
            }),
            Some(_) => Ok(()),
            None => Err(Error::Malformed { path: path.to_owned(), reason: "it has no tokens".into() }),
        }
    }
}

/// The begin-of-text token, if the tokenizer puts it before texts: as `add_bos_token` says, or else as its post-processor does.
fn begin_of_text(tokenizer: &tokenizers::Tokenizer, config: &Map<String, Value>) -> Option<u32> {
    let bos = tokenizer.token_to_id(special_token(config, "bos_token")?)?;
    let processed = || tokenizer.encode_fast("a", true).is_ok_and(|encoding| encoding.get_ids().first() == Some(&bos));
    config.get("add_bos_token").and_then(Value::as_bool).unwrap_or_else(processed).then_some(bos)
}

/// A special token's spelling in `tokenizer_config.json`: a text, or an object with the text as `content`.
fn special_token<'a>(config: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    let token = config.get(key)?;
    token.get("content").unwrap_or(token).as_str()
}
