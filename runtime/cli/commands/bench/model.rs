//! Which model is measured: a file, or random weights of a shape.

use std::path::PathBuf;

use clap::Args;
use plumb_core::recipe::{ModelSource, RandomModel};
use plumb_core::rollout::Prompt;
use plumb_core::seed::Stream;
use plumb_model::LoadedModel;

use crate::diagnostic::{Diagnostic, did_you_mean};

/// Seed of random weights and random tokens: what is measured is the same work every time.
const SEED: u64 = 0;

/// What begins the name of a model without files.
const RANDOM: &str = "random:";

/// The model.
#[derive(Clone, Debug, Args)]
pub struct ModelArgs {
    /// A Hugging Face folder, a .gguf file, or random weights: `random:smollm2-135m`, `random:tiny`, or a shape with changes, as in
    /// `random:smollm2-135m,layers=8,vocab=32000` (`vocab`, `hidden`, `intermediate`, `layers`, `heads`, `kv-heads`, `context`)
    #[arg(long, default_value = "random:smollm2-135m", value_name = "PATH|random:SHAPE")]
    pub model: String,
}

/// A model that can be loaded, here or by the trainer.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelSpec {
    /// For people.
    pub name: String,
    /// As a recipe names it.
    pub source: ModelSource,
}

impl ModelArgs {
    /// What was asked for.
    pub fn spec(&self) -> Result<ModelSpec, Diagnostic> {
        let source = match self.model.strip_prefix(RANDOM) {
            Some(shape) => ModelSource { path: None, random: Some(random(shape)?) },
            None => {
                // The trainer reads paths relative to its recipe's folder, which is another one here.
                let path = std::path::absolute(PathBuf::from(&self.model));
                let path = path.map_err(|e| Diagnostic::io("find", self.model.as_ref(), &e))?;
                ModelSource { path: Some(path), random: None }
            }
        };
        Ok(ModelSpec { name: self.model.clone(), source })
    }
}

impl ModelSpec {
    /// Reads or makes the model.
    pub fn load(&self) -> anyhow::Result<LoadedModel> {
        Ok(match (&self.source.path, &self.source.random) {
            (Some(path), _) => plumb_model::load(path)?,
            (None, Some(spec)) => plumb_model::random(spec, SEED)?,
            (None, None) => unreachable!("a model has a path or a shape"),
        })
    }
}

/// A shape by name, with changes.
fn random(shape: &str) -> Result<RandomModel, Diagnostic> {
    const KEYS: [&str; 7] = ["vocab", "hidden", "intermediate", "layers", "heads", "kv-heads", "context"];
    let wrong = |message: String| Diagnostic::usage("usage.model", message).at(format!("--model {RANDOM}{shape}"));
    let mut parts = shape.split(',');
    let (mut vocab, mut model) = match parts.next().unwrap_or_default() {
        "smollm2-135m" => (49_152, sizes(576, 1536, 30, 9, 3, 8192)),
        "tiny" => (256, sizes(32, 64, 2, 4, 2, 512)),
        other => {
            return Err(wrong(format!("there is no shape `{other}`"))
                .because("there are `smollm2-135m` and `tiny`")
                .hint("begin with one and change its sizes: `random:smollm2-135m,layers=8`"));
        }
    };
    for part in parts {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        let value: usize = value
            .parse()
            .ok()
            .filter(|value| *value > 0)
            .ok_or_else(|| wrong(format!("`{part}` is no size")).hint("sizes are whole numbers above 0: `layers=8`"))?;
        match key {
            "vocab" => vocab = value,
            "hidden" => model.hidden_size = value,
            "intermediate" => model.intermediate_size = value,
            "layers" => model.num_hidden_layers = value,
            "heads" => model.num_attention_heads = value,
            "kv-heads" => model.num_key_value_heads = Some(value),
            "context" => model.max_position_embeddings = value,
            _ => {
                let hint = did_you_mean(key, KEYS).unwrap_or_else(|| format!("there are {}", KEYS.join(", ")));
                return Err(wrong(format!("there is no size `{key}`")).hint(hint));
            }
        }
    }
    model.alphabet = alphabet(vocab).ok_or_else(|| {
        wrong(format!("a vocabulary of {vocab} is out of range")).hint("possible are 128 to 1000000, as in `vocab=32000`")
    })?;
    Ok(model)
}

fn sizes(hidden: usize, intermediate: usize, layers: usize, heads: usize, kv_heads: usize, context: usize) -> RandomModel {
    RandomModel {
        alphabet: String::new(),
        hidden_size: hidden,
        intermediate_size: intermediate,
        num_hidden_layers: layers,
        num_attention_heads: heads,
        num_key_value_heads: Some(kv_heads),
        max_position_embeddings: context,
        initializer_range: 0.02,
    }
}

/// Characters for a vocabulary of `vocab` tokens, the end-of-text token among them; ASCII text can be read with all of them.
fn alphabet(vocab: usize) -> Option<String> {
    let characters = std::iter::once('\n').chain(' '..=char::MAX);
    (128..=1_000_000).contains(&vocab).then(|| characters.take(vocab - 1).collect())
}

/// A prompt of random tokens, the same for the same number.
pub fn random_prompt(number: u64, tokens: usize, vocab_size: usize) -> Prompt {
    let stream = Stream::new(SEED, "bench", &[number]);
    Prompt { id: number, tokens: (0..tokens as u64).map(|i| stream.below_at(i, vocab_size as u64) as u32).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_named_and_changed() {
        let model = random("tiny,layers=3,vocab=300,kv-heads=1").unwrap();
        assert_eq!((model.num_hidden_layers, model.hidden_size, model.num_key_value_heads), (3, 32, Some(1)));
        assert_eq!(model.alphabet.chars().count(), 299);
        let loaded = plumb_model::random(&model, SEED).unwrap();
        assert_eq!(loaded.params.config.vocab_size, 300);
        assert!(loaded.tokenizer.encode("What is 3 + 4?\n").is_ok(), "texts of the built-in prompts can be read");
    }

    #[test]
    fn shapes_that_do_not_exist_are_named_with_the_next_step() {
        for (shape, message, hint) in [
            ("huge", "no shape `huge`", "begin with one"),
            ("tiny,layer=3", "no size `layer`", "`layers`"),
            ("tiny,layers=0", "`layers=0` is no size", "whole numbers"),
            ("tiny,layers", "`layers` is no size", "whole numbers"),
            ("tiny,vocab=5", "a vocabulary of 5", "vocab=32000"),
        ] {
            let error = random(shape).unwrap_err();
            assert!(error.message.contains(message), "{}", error.message);
            assert!(error.hint.as_deref().unwrap_or_default().contains(hint), "{:?}", error.hint);
        }
    }

    #[test]
    fn random_prompts_repeat_and_differ_by_number() {
        let tokens = |number| random_prompt(number, 20, 100).tokens;
        assert_eq!(tokens(1), tokens(1));
        assert_ne!(tokens(1), tokens(2));
        assert!(tokens(1).iter().all(|token| *token < 100));
    }
}
