//! Files that are missing, broken or of another kind give errors that name the thing and the place.

#[path = "support/fixtures.rs"]
mod fixtures;

use std::path::{Path, PathBuf};

use candle_core::quantized::GgmlDType;
use candle_core::quantized::gguf_file::Value;
use fixtures::{folder, params, write_gguf};
use plumb_model::config::Architecture;
use plumb_model::{Error, Message, load};
use serde_json::json;

/// A GGUF file with changed metadata.
fn gguf(dir: &Path, changes: &[(&str, Value)]) -> PathBuf {
    let path = dir.join("m.gguf");
    write_gguf(&path, &params(Architecture::Llama), GgmlDType::Q8_0, changes);
    path
}

/// A Hugging Face folder whose `config.json` has other values.
fn changed_folder(dir: &Path, changes: &[(&str, serde_json::Value)]) -> PathBuf {
    let path = dir.join("m");
    folder(&path, Architecture::Llama);
    let file = path.join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    for (key, value) in changes {
        config[*key] = value.clone();
    }
    std::fs::write(file, config.to_string()).unwrap();
    path
}

/// The error of loading, as the chain of its messages.
fn failure(path: &Path) -> String {
    load(path).expect_err("the model must be refused").to_string()
}

#[track_caller]
fn assert_says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "no `{part}` in: {message}");
    }
}

#[test]
fn missing_model_names_its_path() {
    let error = load(Path::new("no/such/model")).unwrap_err();
    assert!(matches!(&error, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound));
    assert_says(&error.to_string(), &["cannot read", "no/such/model"]);
}

#[test]
fn gguf_cut_anywhere_is_an_error_and_never_a_panic() {
    let dir = tempfile::tempdir().unwrap();
    let path = gguf(dir.path(), &[]);
    let bytes = std::fs::read(&path).unwrap();
    let steps = (0..2000).step_by(61).chain((2000..bytes.len()).step_by(30_011)).chain([bytes.len() - 40]);
    for len in steps {
        std::fs::write(&path, &bytes[..len]).unwrap();
        assert!(matches!(load(&path), Err(Error::Malformed { .. })), "cut at {len}");
    }
    assert_says(&failure(&path), &["m.gguf", "tensor `", "bytes at offset", "remaining"]);
}

#[test]
fn file_that_is_no_gguf_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    std::fs::write(&path, b"a text about models, not a model").unwrap();
    assert_says(&failure(&path), &["m.gguf", "unknown magic"]);
}

#[test]
fn unknown_architectures_are_refused_with_the_list_of_known_ones() {
    let dir = tempfile::tempdir().unwrap();
    let path = gguf(dir.path(), &[("general.architecture", Value::String("gemma3".into()))]);
    assert!(matches!(load(&path), Err(Error::Unsupported { .. })));
    assert_says(&failure(&path), &["gemma3", "llama, qwen2 and qwen3"]);
    let path = changed_folder(dir.path(), &[("architectures", json!(["Gemma3ForCausalLM"]))]);
    assert_says(&failure(&path), &["Gemma3ForCausalLM", "LlamaForCausalLM", "config.json"]);
}

#[test]
fn unknown_features_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let text = |text: &str| Value::String(text.into());
    for (key, value, word) in [
        ("tokenizer.ggml.pre", text("tekken"), "tekken"),
        ("tokenizer.ggml.model", text("t5"), "t5"),
        ("llama.rope.scaling.type", text("yarn"), "yarn"),
        ("llama.expert_count", Value::U32(8), "mixture"),
    ] {
        let path = gguf(dir.path(), &[(key, value)]);
        assert!(matches!(load(&path), Err(Error::Unsupported { reason, .. }) if reason.contains(word)), "{key}");
    }
    for (key, value, word) in [
        ("rope_parameters", json!({"rope_type": "yarn", "factor": 4.0}), "yarn"),
        ("hidden_act", json!("gelu"), "gelu"),
        ("mlp_bias", json!(true), "mlp_bias"),
        ("quantization_config", json!({"quant_method": "awq"}), "awq"),
    ] {
        let path = changed_folder(dir.path(), &[(key, value)]);
        assert!(matches!(load(&path), Err(Error::Unsupported { reason, .. }) if reason.contains(word)), "{key}");
    }
}

#[test]
fn gguf_without_a_pre_tokenizer_is_read_for_qwen_and_refused_for_llama() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    let load_without = |architecture| {
        write_gguf(&path, &params(architecture), GgmlDType::F32, &[]);
        let mut bytes = std::fs::read(&path).unwrap();
        let key = b"tokenizer.ggml.pre";
        let at = bytes.windows(key.len()).position(|window| window == key).unwrap();
        bytes[at + key.len() - 1] = b'x';
        std::fs::write(&path, bytes).unwrap();
        load(&path)
    };
    // Qwen takes digits one by one.
    assert_eq!(load_without(Architecture::Qwen2).unwrap().tokenizer.encode("123").unwrap(), [8, 9, 10]);
    let error = load_without(Architecture::Llama).unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }), "{error:?}");
    assert_says(&error.to_string(), &["tokenizer.ggml.pre", "Hugging Face folder"]);
}

#[test]
fn end_of_text_tokens_outside_the_vocabulary_are_refused_with_their_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = changed_folder(dir.path(), &[("eos_token_id", json!([1, 24]))]);
    assert_says(&failure(&path), &["config.json", "end-of-text token 24", "24 tokens"]);
    let path = changed_folder(dir.path(), &[]);
    std::fs::write(path.join("generation_config.json"), "{\"eos_token_id\": 128009}").unwrap();
    assert_says(&failure(&path), &["generation_config.json", "end-of-text token 128009"]);
}

#[test]
fn metadata_and_fields_of_the_wrong_kind_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = gguf(dir.path(), &[("llama.block_count", Value::String("two".into()))]);
    assert_says(&failure(&path), &["llama.block_count", "integer"]);
    for (key, value) in [
        ("hidden_size", json!("wide")),
        ("num_key_value_heads", json!(3)),
        ("eos_token_id", json!([1, "x"])),
        ("vocab_size", json!(0)),
    ] {
        let path = changed_folder(dir.path(), &[(key, value)]);
        assert!(matches!(load(&path), Err(Error::Malformed { .. })), "{key}");
    }
    let path = changed_folder(dir.path(), &[("hidden_size", json!("wide"))]);
    assert_says(&failure(&path), &["config.json", "`hidden_size`", "\"wide\""]);
}

#[test]
fn sizes_beyond_all_machines_are_refused_before_memory_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    for change in [
        ("num_hidden_layers", json!(4_000_000_000_u32)),
        ("vocab_size", json!(4_000_000_000_u32)),
        ("hidden_size", json!(1 << 30)),
    ] {
        let path = changed_folder(dir.path(), std::slice::from_ref(&change));
        assert!(load(&path).is_err(), "{change:?}");
    }
}

#[test]
fn tensors_of_another_shape_are_named_with_both_shapes() {
    let dir = tempfile::tempdir().unwrap();
    let path = gguf(dir.path(), &[("llama.feed_forward_length", Value::U32(300))]);
    assert_says(&failure(&path), &["blk.0.ffn_gate.weight", "[256, 256]", "[300, 256]"]);
    let path = changed_folder(dir.path(), &[("intermediate_size", json!(300))]);
    assert_says(&failure(&path), &["model.layers.0.mlp.gate_proj.weight", "[256, 256]", "[300, 256]", "model.safetensors"]);
}

#[test]
fn missing_and_surplus_tensors_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = changed_folder(dir.path(), &[("tie_word_embeddings", json!(false))]);
    assert!(matches!(load(&path), Err(Error::Shape { name, got, .. }) if name == "lm_head.weight" && got.is_empty()));
    let path = dir.path().join("q");
    folder(&path, Architecture::Qwen2);
    let file = path.join("config.json");
    let text = std::fs::read_to_string(&file).unwrap().replace("Qwen2ForCausalLM", "MistralForCausalLM");
    std::fs::write(&file, text).unwrap();
    assert_says(&failure(&path), &["self_attn.k_proj.bias", "no place"]);
}

#[test]
fn safetensors_cut_anywhere_is_an_error_and_never_a_panic() {
    let dir = tempfile::tempdir().unwrap();
    let path = changed_folder(dir.path(), &[]);
    let file = path.join("model.safetensors");
    let bytes = std::fs::read(&file).unwrap();
    for len in (0..1500).step_by(97).chain((1500..bytes.len()).step_by(50_021)).chain([bytes.len() - 1]) {
        std::fs::write(&file, &bytes[..len]).unwrap();
        assert!(matches!(load(&path), Err(Error::Malformed { .. })), "cut at {len}");
    }
    assert_says(
        &failure(&path),
        &["truncated", "model.norm.weight", &format!("{}", bytes.len()), &format!("{}", bytes.len() - 1)],
    );
}

#[test]
fn shards_that_are_missing_or_elsewhere_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = changed_folder(dir.path(), &[]);
    std::fs::remove_file(path.join("model.safetensors")).unwrap();
    assert_says(&failure(&path), &["cannot read", "model.safetensors"]);
    let index = path.join("model.safetensors.index.json");
    std::fs::write(&index, json!({"weight_map": {"x": "shard-1.safetensors"}}).to_string()).unwrap();
    assert_says(&failure(&path), &["cannot read", "shard-1.safetensors"]);
    std::fs::write(&index, json!({"weight_map": {"x": "../../secret.safetensors"}}).to_string()).unwrap();
    assert_says(&failure(&path), &["secret", "no file name"]);
}

#[test]
fn tokenizer_with_more_ids_than_the_model_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = changed_folder(dir.path(), &[("vocab_size", json!(20))]);
    assert_says(&failure(&path), &["tokenizer.json", "token id 23", "ends at 19"]);
}

#[test]
fn broken_tokenizer_is_an_error_that_names_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = changed_folder(dir.path(), &[]);
    std::fs::write(path.join("tokenizer.json"), "{\"version\": \"1.0\"}").unwrap();
    assert_says(&failure(&path), &["tokenizer.json"]);
    std::fs::remove_file(path.join("tokenizer.json")).unwrap();
    assert_says(&failure(&path), &["cannot read", "tokenizer.json"]);
}

#[test]
fn model_without_a_template_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let path = changed_folder(dir.path(), &[]);
    std::fs::remove_file(path.join("chat_template.jinja")).unwrap();
    let tokenizer = load(&path).unwrap().tokenizer;
    assert!(!tokenizer.has_chat_template());
    let error = tokenizer.render_chat(&[Message { role: "user".into(), content: "a".into() }], true).unwrap_err();
    assert_says(&error.to_string(), &["no chat template", "chat_template.jinja"]);
}
