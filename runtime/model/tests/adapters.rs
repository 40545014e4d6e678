//! LoRA adapters and score heads, written with the formats' own libraries as PEFT and transformers write them.

#[path = "support/fixtures.rs"]
mod fixtures;

use std::path::Path;

use fixtures::folder;
use plumb_model::config::Architecture;
use plumb_model::params::Params;
use plumb_model::{Error, load, merge_adapter};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};

const RANK: usize = 2;

fn write_tensors(path: &Path, tensors: &[(String, Vec<usize>, Vec<f32>)]) {
    let views = tensors.iter().map(|(name, shape, values)| {
        (name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytemuck::cast_slice(values)).unwrap())
    });
    std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

fn numbers(n: usize, seed: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 37 + seed * 11) % 17) as f32 / 17.0 - 0.5).collect()
}

/// An adapter of these modules in `path`, with `changes` to its configuration.
fn write_adapter(path: &Path, params: &Params, modules: &[&str], changes: &[(&str, Value)]) {
    std::fs::create_dir_all(path).unwrap();
    let mut config = json!({
        "peft_type": "LORA", "r": RANK, "lora_alpha": 8, "target_modules": modules, "use_rslora": false, "use_dora": false,
        "fan_in_fan_out": false, "bias": "none", "modules_to_save": null, "rank_pattern": {}, "alpha_pattern": {},
    });
    for (key, value) in changes {
        config[*key] = value.clone();
    }
    std::fs::write(path.join("adapter_config.json"), config.to_string()).unwrap();
    let mut tensors = Vec::new();
    for (seed, module) in modules.iter().enumerate() {
        let shape = params.layout.get(&format!("model.{module}.weight")).map_or(vec![4, 4], |spec| spec.shape.clone());
        let name = |which: &str| format!("base_model.model.model.{module}.lora_{which}.weight");
        tensors.push((name("A"), vec![RANK, shape[1]], numbers(RANK * shape[1], seed)));
        tensors.push((name("B"), vec![shape[0], RANK], numbers(RANK * shape[0], seed + 5)));
    }
    write_tensors(&path.join("adapter_model.safetensors"), &tensors);
}

#[test]
fn adapter_adds_its_scaled_product_to_the_matrices_it_names_and_to_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let model = folder(&dir.path().join("m"), Architecture::Qwen2);
    let modules = ["layers.0.self_attn.k_proj", "layers.0.mlp.down_proj"];
    for (rslora, scaling) in [(false, 4.0), (true, 8.0 / 2f64.sqrt())] {
        let path = dir.path().join("adapter");
        write_adapter(&path, &model.params, &modules, &[("use_rslora", rslora.into())]);
        let mut merged = model.params.clone();
        merge_adapter(&mut merged, &path).unwrap();
        for spec in model.params.layout.tensors() {
            let (before, after) = (model.params.tensor(&spec.name), merged.tensor(&spec.name));
            let Some(seed) = modules.iter().position(|module| spec.name == format!("model.{module}.weight")) else {
                assert!(before == after, "{}", spec.name);
                continue;
            };
            let (rows, width) = (spec.shape[0], spec.shape[1]);
            let (a, b) = (numbers(RANK * width, seed), numbers(RANK * rows, seed + 5));
            for (i, (before, after)) in before.iter().zip(after).enumerate() {
                let (row, column) = (i / width, i % width);
                let product: f64 = (0..RANK).map(|k| f64::from(b[row * RANK + k]) * f64::from(a[k * width + column])).sum();
                let expected = f64::from(*before) + scaling * product;
                assert!((f64::from(*after) - expected).abs() < 1e-5, "{} {i}: {after}, expected {expected}", spec.name);
            }
        }
    }
}

#[test]
fn adapter_that_cannot_be_merged_is_refused_by_name_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let model = folder(&dir.path().join("m"), Architecture::Llama);
    let fits: &[&str] = &["layers.0.self_attn.q_proj"];
    let cases: [(&[&str], &[(&str, Value)], &str); 7] = [
        (fits, &[("peft_type", "IA3".into())], "an adapter of type IA3; supported is LORA"),
        (fits, &[("use_dora", true.into())], "`use_dora` is true, supported is false"),
        (fits, &[("modules_to_save", json!(["lm_head"]))], "`modules_to_save` is [\"lm_head\"], supported is []"),
        (fits, &[("r", 0.into())], "field `r` should be a number above 0"),
        (&["embed_tokens"], &[], "tensor `base_model.model.model.embed_tokens.lora_A.weight`; supported are LoRA matrices of"),
        (
            &["layers.9.self_attn.q_proj"],
            &[],
            "it changes `model.layers.9.self_attn.q_proj.weight`, which the model does not have",
        ),
        (fits, &[("r", 3.into())], "lora_A.weight` in"),
    ];
    for (modules, changes, expected) in cases {
        let path = dir.path().join("adapter");
        write_adapter(&path, &model.params, modules, changes);
        let mut params = model.params.clone();
        let error = merge_adapter(&mut params, &path).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert!(params.data == model.params.data, "{expected}");
    }
}

#[test]
fn classifier_is_read_with_its_head_and_the_names_of_its_scores() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m");
    let model = folder(&path, Architecture::Llama);
    let mut config: Value = serde_json::from_slice(&std::fs::read(path.join("config.json")).unwrap()).unwrap();
    config["architectures"] = json!(["LlamaForSequenceClassification"]);
    config["tie_word_embeddings"] = false.into();
    config["id2label"] = json!({"1": "harmless", "0": "helpful"});
    std::fs::write(path.join("config.json"), config.to_string()).unwrap();
    let width = model.params.config.hidden_size;
    let tensors = |labels: usize| {
        let spec = model.params.layout.tensors().iter();
        let mut tensors: Vec<_> =
            spec.map(|spec| (spec.name.clone(), spec.shape.clone(), model.params.tensor(&spec.name).to_vec())).collect();
        tensors.push(("score.weight".into(), vec![labels, width], numbers(labels * width, 3)));
        write_tensors(&path.join("model.safetensors"), &tensors);
    };
    tensors(2);
    let loaded = load(&path).unwrap();
    assert!(loaded.params.data == model.params.data);
    let head = loaded.score.unwrap();
    assert_eq!(head.labels, ["helpful", "harmless"]);
    let mut hidden = vec![0.0; width];
    hidden[7] = 2.0;
    let weights = numbers(2 * width, 3);
    assert_eq!(head.scores(&hidden), [2.0 * f64::from(weights[7]), 2.0 * f64::from(weights[width + 7])]);
    tensors(3);
    assert!(matches!(load(&path), Err(Error::Shape { name, .. }) if name == "score.weight"));
}
