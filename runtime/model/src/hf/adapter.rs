//! PEFT adapters: low-rank changes of a model's matrices (LoRA, Hu et al. 2022), merged into its weights.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Map, Value};

use super::weights::Shard;
use super::{malformed, read_object};
use crate::params::Params;
use crate::{Error, Result};

/// Matrices that an adapter may change.
const TARGETS: [&str; 7] = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];

/// Features of PEFT that change what is merged, and the values of `adapter_config.json` that mean "not used".
const UNUSED: [(&str, &[&str]); 7] = [
    ("use_dora", &["false"]),
    ("fan_in_fan_out", &["false"]),
    ("lora_bias", &["false"]),
    ("bias", &["\"none\""]),
    ("modules_to_save", &["[]"]),
    ("rank_pattern", &["{}"]),
    ("alpha_pattern", &["{}"]),
];

/// Adds a PEFT LoRA adapter (`adapter_config.json`, `adapter_model.safetensors`) to a model's weights:
/// `W += scaling · B A` with `A` `[r, in]`, `B` `[out, r]` and `scaling = lora_alpha / r`, or `lora_alpha / √r` with `use_rslora`
/// (Kalajdzievski 2023).
///
/// # Errors
/// [`Error::Unsupported`] names what it cannot merge: another kind of adapter, DoRA, biases, ranks by pattern, modules besides the
/// seven projections of a block. [`Error::Shape`] when a matrix does not fit the model, [`Error::Malformed`] when half of a pair is
/// missing. The weights are as before then.
pub fn merge_adapter(params: &mut Params, folder: &Path) -> Result<()> {
    let path = folder.join("adapter_config.json");
    let config = read_object(&path)?;
    let unsupported = |reason: String| Error::Unsupported { path: path.clone(), reason };
    let kind = config.get("peft_type").and_then(Value::as_str).unwrap_or("nothing");
    if kind != "LORA" {
        return Err(unsupported(format!("an adapter of type {kind}; supported is LORA")));
    }
    for (key, unused) in UNUSED {
        let value = config.get(key).filter(|value| !value.is_null()).map(Value::to_string);
        if let Some(value) = value.filter(|value| !unused.contains(&value.as_str())) {
            return Err(unsupported(format!("`{key}` is {value}, supported is {}", unused[0])));
        }
    }
    let number = |key: &str| {
        let value = config.get(key).and_then(Value::as_f64).filter(|value| *value > 0.0 && value.is_finite());
        value.ok_or_else(|| malformed(&path, format!("field `{key}` should be a number above 0")))
    };
    let (rank, alpha) = (number("r")?, number("lora_alpha")?);
    let rslora = config.get("use_rslora").and_then(Value::as_bool).unwrap_or(false);
    let scaling = alpha / if rslora { rank.sqrt() } else { rank };
    merge(params, &config, &folder.join("adapter_model.safetensors"), rank as usize, scaling as f32)
}

/// One module's pair of matrices, by their names in the file.
#[derive(Default)]
struct Pair {
    a: Option<String>,
    b: Option<String>,
}

fn merge(params: &mut Params, config: &Map<String, Value>, path: &Path, rank: usize, scaling: f32) -> Result<()> {
    let mut file = Shard::open(path)?;
    let mut pairs = BTreeMap::<String, Pair>::new();
    // In the order of their names, so that the same one is told of whenever there are several.
    for name in file.header.tensors().into_keys().collect::<BTreeSet<_>>() {
        let (module, is_a) = parse(&name).ok_or_else(|| Error::Unsupported {
            path: path.to_owned(),
            reason: format!("tensor `{name}`; supported are LoRA matrices of {}", TARGETS.join(", ")),
        })?;
        let pair = pairs.entry(format!("{module}.weight")).or_default();
        *(if is_a { &mut pair.a } else { &mut pair.b }) = Some(name);
    }
    if pairs.is_empty() {
        let targets = config.get("target_modules").map_or_else(|| "none".to_owned(), Value::to_string);
        return Err(malformed(path, format!("it has no matrices, though its `target_modules` are {targets}")));
    }
    let mut changes = Vec::with_capacity(pairs.len());
    for (target, Pair { a, b }) in pairs {
        let (Some(a), Some(b)) = (a, b) else {
            return Err(malformed(path, format!("`{target}` has only one of `lora_A` and `lora_B`")));
        };
        let spec = params.layout.get(&target).ok_or_else(|| Error::Unsupported {
            path: path.to_owned(),
            reason: format!("it changes `{target}`, which the model does not have"),
        })?;
        let mut read = |name: &str, expected: [usize; 2]| {
            let got = &file.header.info(name).expect("names come from the header").shape;
            if *got != expected {
                let (path, name, expected, got) = (path.to_owned(), name.to_owned(), expected.to_vec(), got.clone());
                return Err(Error::Shape { path, name, expected, got });
            }
            let mut values = vec![0.0; expected[0] * expected[1]];
            file.read(name, &mut values).map(|()| values)
        };
        let (a, b) = (read(&a, [rank, spec.shape[1]])?, read(&b, [spec.shape[0], rank])?);
        changes.push((spec.range.clone(), spec.shape[1], a, b));
    }
    for (range, width, a, b) in changes {
        for (row, b) in params.data[range].chunks_exact_mut(width).zip(b.chunks_exact(rank)) {
            let mut change = vec![0.0; width];
            for (&b, a) in b.iter().zip(a.chunks_exact(width)) {
                change.iter_mut().zip(a).for_each(|(sum, a)| *sum += b * a);
            }
            row.iter_mut().zip(change).for_each(|(w, change)| *w += scaling * change);
        }
    }
    Ok(())
}

/// `base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight`: the module `model.layers.0.self_attn.q_proj`, and whether it
/// is A.
fn parse(name: &str) -> Option<(&str, bool)> {
    let module = name.strip_prefix("base_model.model.")?;
    let (module, is_a) = match module.strip_suffix(".lora_A.weight") {
        Some(module) => (module, true),
        None => (module.strip_suffix(".lora_B.weight")?, false),
    };
    TARGETS.contains(&module.rsplit('.').next()?).then_some((module, is_a))
}
