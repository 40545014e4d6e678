//! `config.json` to [`ModelConfig`] and back.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::malformed;
use crate::config::{Architecture, Llama3Rope, ModelConfig};
use crate::{Error, Result};

/// How names of sequence-classification models end, where those of language models have `ForCausalLM`.
const CLASSIFIER: &str = "ForSequenceClassification";

/// What a `config.json` says: the model, and how its weights are drawn when there are none.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct FolderConfig {
    pub model: ModelConfig,
    /// Standard deviation of new weights.
    pub initializer_range: f64,
    /// Names of the scores of a sequence-classification model.
    pub labels: Option<Vec<String>>,
}

/// Fields of one JSON object, with errors that name the file and the field.
struct Fields<'a> {
    object: &'a Map<String, Value>,
    path: &'a Path,
}

impl<'a> Fields<'a> {
    /// The field, unless it is missing or null.
    fn get(&self, key: &str) -> Option<&'a Value> {
        self.object.get(key).filter(|value| !value.is_null())
    }

    fn bad(&self, key: &str, expected: &str) -> Error {
        let got = self.get(key).map_or_else(|| "nothing".to_owned(), Value::to_string);
        malformed(self.path, format!("field `{key}` should be {expected}, got {got}"))
    }

    fn unsupported(&self, reason: String) -> Error {
        Error::Unsupported { path: self.path.to_owned(), reason }
    }

    /// A size: an integer above 0 that an index into a model can reach.
    fn size(&self, key: &str) -> Result<Option<usize>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let size = value.as_u64().filter(|&size| (1..=u64::from(u32::MAX)).contains(&size));
        size.map(|size| Some(size as usize)).ok_or_else(|| self.bad(key, "an integer from 1 to 2^32 - 1"))
    }

    fn required_size(&self, key: &str) -> Result<usize> {
        self.size(key)?.ok_or_else(|| self.bad(key, "an integer"))
    }

    fn number(&self, key: &str) -> Result<Option<f64>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let number = value.as_f64().filter(|number| number.is_finite() && *number > 0.0);
        number.map(Some).ok_or_else(|| self.bad(key, "a number above 0"))
    }

    fn required_number(&self, key: &str) -> Result<f64> {
        self.number(key)?.ok_or_else(|| self.bad(key, "a number above 0"))
    }

    fn flag(&self, key: &str) -> Result<bool> {
        self.get(key).map_or(Ok(false), |value| value.as_bool().ok_or_else(|| self.bad(key, "true or false")))
    }
}

/// Understands a `config.json`.
///
/// Fields that are absent have transformers' defaults. `path` is for errors alone.
///
/// # Errors
/// [`Error::Unsupported`] for an architecture or feature outside the family, [`Error::Malformed`] for fields that are missing
/// or make no sense.
pub(crate) fn from_json(object: &Map<String, Value>, path: &Path) -> Result<FolderConfig> {
    let fields = Fields { object, path };
    let (architecture, classifies) = architecture(&fields)?;
    if let Some(activation) = fields.get("hidden_act").filter(|activation| *activation != "silu") {
        return Err(fields.unsupported(format!("`hidden_act` is {activation}, supported is \"silu\"")));
    }
    if fields.flag("mlp_bias")? {
        return Err(fields.unsupported("`mlp_bias` is true: feed-forward layers with biases".into()));
    }
    if let Some(quantization) = fields.get("quantization_config") {
        let method = quantization["quant_method"].as_str().unwrap_or("unknown");
        return Err(fields.unsupported(format!("its weights are quantized ({method}); use float weights or a GGUF file")));
    }
    let hidden_size = fields.required_size("hidden_size")?;
    let num_attention_heads = fields.required_size("num_attention_heads")?;
    let head_dim = match fields.size("head_dim")? {
        Some(head_dim) => head_dim,
        None if architecture == Architecture::Qwen3 => 128,
        None if hidden_size % num_attention_heads == 0 => hidden_size / num_attention_heads,
        None => {
            return Err(malformed(path, format!("`hidden_size` {hidden_size} is no multiple of {num_attention_heads} heads")));
        }
    };
    let (rope_theta, rope_scaling) = rope(&fields)?;
    let context = fields.required_size("max_position_embeddings")?;
    // A window makes a difference only to longer sequences; by refusing those, none is needed.
    let window = match architecture {
        Architecture::Mistral => fields.size("sliding_window")?,
        Architecture::Qwen2 | Architecture::Qwen3 if fields.flag("use_sliding_window")? => fields.size("sliding_window")?,
        _ => None,
    };
    let attention_bias = fields.flag("attention_bias")?;
    let model = ModelConfig {
        architecture,
        vocab_size: fields.required_size("vocab_size")?,
        hidden_size,
        intermediate_size: fields.required_size("intermediate_size")?,
        num_hidden_layers: fields.required_size("num_hidden_layers")?,
        num_attention_heads,
        num_key_value_heads: fields.size("num_key_value_heads")?.unwrap_or(num_attention_heads),
        head_dim,
        rms_norm_eps: fields.number("rms_norm_eps")?.unwrap_or(1e-6),
        rope_theta,
        rope_scaling,
        max_position_embeddings: window.map_or(context, |window| window.min(context)),
        // A classifier has no language head at all.
        tie_word_embeddings: classifies || fields.flag("tie_word_embeddings")?,
        qkv_bias: match architecture {
            Architecture::Llama | Architecture::Qwen3 => attention_bias,
            Architecture::Mistral => false,
            Architecture::Qwen2 => true,
        },
        output_bias: matches!(architecture, Architecture::Llama | Architecture::Qwen3) && attention_bias,
        qk_norm: architecture == Architecture::Qwen3,
        bos_token_id: token_ids(object, "bos_token_id", path)?.first().copied(),
        eos_token_ids: token_ids(object, "eos_token_id", path)?,
        pad_token_id: token_ids(object, "pad_token_id", path)?.first().copied(),
    };
    check(&model).map_err(|reason| malformed(path, reason))?;
    let labels = classifies.then(|| labels(&fields)).transpose()?;
    Ok(FolderConfig { model, initializer_range: fields.number("initializer_range")?.unwrap_or(0.02), labels })
}

/// Names of a classifier's scores: `id2label` in the order of its numbers; two by default, as in transformers.
fn labels(fields: &Fields) -> Result<Vec<String>> {
    let Some(value) = fields.get("id2label") else { return Ok(vec!["LABEL_0".into(), "LABEL_1".into()]) };
    let bad = || fields.bad("id2label", "an object from 0, 1, ... to names");
    let named = value.as_object().filter(|named| !named.is_empty()).ok_or_else(bad)?;
    let label = |id: usize| named.get(&id.to_string()).and_then(Value::as_str).map(str::to_owned).ok_or_else(bad);
    (0..named.len()).map(label).collect()
}

/// What no single field can say.
pub(crate) fn check(model: &ModelConfig) -> std::result::Result<(), String> {
    // Far beyond what fits a machine, and low enough that no product of sizes overflows.
    const MOST_LAYERS: usize = 1 << 12;
    const MOST_WEIGHTS: u128 = 1 << 44;
    let product = |factors: [usize; 3]| factors.into_iter().map(|factor| factor as u128).product::<u128>();
    let widest = model.query_size().max(model.intermediate_size);
    let weights =
        product([model.vocab_size, model.hidden_size, 1]).max(product([model.num_hidden_layers, model.hidden_size, widest]));
    if model.num_hidden_layers > MOST_LAYERS || weights > MOST_WEIGHTS {
        return Err(format!(
            "its sizes make no sense: {} layers of width {}, vocabulary {}",
            model.num_hidden_layers, model.hidden_size, model.vocab_size
        ));
    }
    let (heads, kv_heads) = (model.num_attention_heads, model.num_key_value_heads);
    if heads % kv_heads != 0 {
        return Err(format!("{heads} query heads are no multiple of {kv_heads} key and value heads"));
    }
    if !model.head_dim.is_multiple_of(2) {
        return Err(format!("heads have width {}, rotary positions need an even one", model.head_dim));
    }
    if let Some(id) = model.eos_token_ids.iter().find(|&&id| id as usize >= model.vocab_size) {
        return Err(format!("the end-of-text token {id} is outside the vocabulary of {} tokens", model.vocab_size));
    }
    Ok(())
}

/// Which member of the family, and whether it is the classifier made of it.
fn architecture(fields: &Fields) -> Result<(Architecture, bool)> {
    const SUPPORTED: &str = "LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM, and the same with \
                             ForSequenceClassification";
    let Some(names) = fields.get("architectures") else {
        return match fields.get("model_type").and_then(Value::as_str) {
            Some("llama") => Ok((Architecture::Llama, false)),
            Some("mistral") => Ok((Architecture::Mistral, false)),
            Some("qwen2") => Ok((Architecture::Qwen2, false)),
            Some("qwen3") => Ok((Architecture::Qwen3, false)),
            other => Err(fields
                .unsupported(format!("it has no `architectures` and its `model_type` is {other:?}; supported are {SUPPORTED}"))),
        };
    };
    let name = names.get(0).and_then(Value::as_str).unwrap_or_default();
    let classifies = name.ends_with(CLASSIFIER);
    let known = serde_json::from_value(name.replace(CLASSIFIER, "ForCausalLM").into()).ok();
    known
        .map(|architecture| (architecture, classifies))
        .ok_or_else(|| fields.unsupported(format!("architecture {names}; supported are {SUPPORTED}")))
}

/// The base and the scaling of rotary frequencies: top-level fields, or since transformers 5 the object `rope_parameters`.
fn rope(fields: &Fields) -> Result<(f64, Option<Llama3Rope>)> {
    let nested = |key: &str| match fields.get(key) {
        None => Ok(None),
        Some(Value::Object(object)) => Ok(Some(Fields { object, path: fields.path })),
        Some(_) => Err(fields.bad(key, "an object")),
    };
    let parameters = nested("rope_parameters")?;
    let scaling = nested("rope_scaling")?;
    let theta = match &parameters {
        Some(parameters) => parameters.number("rope_theta")?,
        None => None,
    };
    let theta = theta.or(fields.number("rope_theta")?).unwrap_or(10_000.0);
    let Some(scaling) = parameters.or(scaling) else { return Ok((theta, None)) };
    if scaling.number("partial_rotary_factor")?.is_some_and(|factor| factor != 1.0) {
        return Err(fields.unsupported("`partial_rotary_factor` is not 1".into()));
    }
    let kind = scaling.get("rope_type").or(scaling.get("type")).and_then(Value::as_str).unwrap_or("default");
    match kind {
        "default" => Ok((theta, None)),
        "llama3" => {
            let rope = Llama3Rope {
                factor: scaling.required_number("factor")?,
                low_freq_factor: scaling.required_number("low_freq_factor")?,
                high_freq_factor: scaling.required_number("high_freq_factor")?,
                original_context: scaling.required_size("original_max_position_embeddings")?,
            };
            if rope.low_freq_factor >= rope.high_freq_factor {
                return Err(malformed(fields.path, "`low_freq_factor` should be below `high_freq_factor`".into()));
            }
            Ok((theta, Some(rope)))
        }
        other => Err(fields.unsupported(format!("rotary scaling `{other}`; supported are `default` and `llama3`"))),
    }
}

/// A field that holds a token id, a list of them, null or nothing.
pub(crate) fn token_ids(object: &Map<String, Value>, key: &str, path: &Path) -> Result<Vec<u32>> {
    let fields = Fields { object, path };
    let id = |value: &Value| {
        let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
        id.ok_or_else(|| fields.bad(key, "a token id or a list of them"))
    };
    match fields.get(key) {
        None => Ok(Vec::new()),
        Some(Value::Array(ids)) => ids.iter().map(id).collect(),
        // Some configurations say "no such token" with -1.
        Some(value) if value.as_i64() == Some(-1) => Ok(Vec::new()),
        Some(value) => Ok(vec![id(value)?]),
    }
}

/// The `config.json` of a model, for transformers 4 (rotary fields at the top) and 5 (`rope_parameters`) alike.
pub(crate) fn to_json(model: &ModelConfig, labels: Option<&[String]>) -> Value {
    let model_type = match model.architecture {
        Architecture::Llama => "llama",
        Architecture::Mistral => "mistral",
        Architecture::Qwen2 => "qwen2",
        Architecture::Qwen3 => "qwen3",
    };
    let mut rope = Map::new();
    rope.insert("rope_type".into(), if model.rope_scaling.is_some() { "llama3" } else { "default" }.into());
    if let Some(scaling) = model.rope_scaling {
        rope.insert("factor".into(), scaling.factor.into());
        rope.insert("low_freq_factor".into(), scaling.low_freq_factor.into());
        rope.insert("high_freq_factor".into(), scaling.high_freq_factor.into());
        rope.insert("original_max_position_embeddings".into(), scaling.original_context.into());
    }
    let scaling = if model.rope_scaling.is_some() { Value::Object(rope.clone()) } else { Value::Null };
    rope.insert("rope_theta".into(), model.rope_theta.into());
    let architecture = json!(model.architecture).as_str().unwrap_or_default().to_owned();
    let architecture = if labels.is_some() { architecture.replace("ForCausalLM", CLASSIFIER) } else { architecture };
    let mut object = json!({
        "architectures": [architecture],
        "model_type": model_type,
        "vocab_size": model.vocab_size,
        "hidden_size": model.hidden_size,
        "intermediate_size": model.intermediate_size,
        "num_hidden_layers": model.num_hidden_layers,
        "num_attention_heads": model.num_attention_heads,
        "num_key_value_heads": model.num_key_value_heads,
        "head_dim": model.head_dim,
        "hidden_act": "silu",
        "rms_norm_eps": model.rms_norm_eps,
        "rope_theta": model.rope_theta,
        "rope_scaling": scaling,
        "rope_parameters": rope,
        "max_position_embeddings": model.max_position_embeddings,
        "attention_dropout": 0.0,
        "tie_word_embeddings": model.tie_word_embeddings,
        "bos_token_id": model.bos_token_id,
        "eos_token_id": one_or_list(&model.eos_token_ids),
        "pad_token_id": model.pad_token_id,
        "torch_dtype": "float32",
        "dtype": "float32",
        "use_cache": true,
    });
    if let Some(labels) = labels {
        let by_id = |(id, label): (usize, &String)| (id.to_string(), json!(label));
        object["id2label"] = Value::Object(labels.iter().enumerate().map(by_id).collect());
        let by_label = |(id, label): (usize, &String)| (label.clone(), json!(id));
        object["label2id"] = Value::Object(labels.iter().enumerate().map(by_label).collect());
    }
    match model.architecture {
        Architecture::Llama => {
            object["attention_bias"] = model.qkv_bias.into();
            object["mlp_bias"] = false.into();
        }
        Architecture::Qwen3 => object["attention_bias"] = model.qkv_bias.into(),
        // The context is no longer than the window was, so there is nothing for a window to cut.
        Architecture::Mistral => object["sliding_window"] = Value::Null,
        Architecture::Qwen2 => {}
    }
    if matches!(model.architecture, Architecture::Qwen2 | Architecture::Qwen3) {
        object["use_sliding_window"] = false.into();
    }
    object
}

/// Hugging Face writes a single token id as a number.
pub(crate) fn one_or_list(ids: &[u32]) -> Value {
    match ids {
        [] => Value::Null,
        [id] => (*id).into(),
        ids => ids.into(),
    }
}
