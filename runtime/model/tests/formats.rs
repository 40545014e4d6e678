//! Models go through files unharmed, whatever the format.

#[path = "support/fixtures.rs"]
mod fixtures;

use candle_core::quantized::GgmlDType;
use candle_core::quantized::gguf_file::Value;
use fixtures::{TOKENS, folder, params, write_gguf};
use half::{bf16, f16};
use plumb_model::config::{Architecture, Llama3Rope, ModelConfig};
use plumb_model::params::Params;
use plumb_model::{Message, load, random_from_config, save};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;

const ARCHITECTURES: [Architecture; 4] = [Architecture::Llama, Architecture::Mistral, Architecture::Qwen2, Architecture::Qwen3];

fn read_json(path: &std::path::Path) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn gguf_of_every_architecture_loads_the_weights_it_was_made_from() {
    let dir = tempfile::tempdir().unwrap();
    for architecture in ARCHITECTURES {
        let params = params(architecture);
        let path = dir.path().join("m.gguf");
        write_gguf(&path, &params, GgmlDType::F32, &[]);
        let model = load(&path).unwrap();
        // Mistral's files call themselves llama.
        let expected = if architecture == Architecture::Mistral { Architecture::Llama } else { architecture };
        assert_eq!(model.params.config, ModelConfig { architecture: expected, ..params.config });
        assert!(model.params.data == params.data, "{architecture:?}");
    }
}

#[test]
fn gguf_of_every_block_type_is_near_the_weights_it_was_made_from() {
    let dir = tempfile::tempdir().unwrap();
    let params = params(Architecture::Qwen2);
    // Root mean square error over root mean square, a little above what the number of bits allows.
    let types = [
        (GgmlDType::F16, 5e-4),
        (GgmlDType::BF16, 3e-3),
        (GgmlDType::Q8_0, 0.01),
        (GgmlDType::Q6K, 0.03),
        (GgmlDType::Q4_0, 0.12),
        (GgmlDType::Q4_1, 0.12),
        (GgmlDType::Q4K, 0.12),
    ];
    for (dtype, tolerance) in types {
        let path = dir.path().join("m.gguf");
        write_gguf(&path, &params, dtype, &[]);
        let loaded = load(&path).unwrap().params;
        for spec in params.layout.tensors() {
            let (a, b) = (params.tensor(&spec.name), loaded.tensor(&spec.name));
            let error: f32 = a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum();
            let size: f32 = a.iter().map(|a| a * a).sum();
            assert!((error / size).sqrt() < tolerance, "{dtype:?} {}: {}", spec.name, (error / size).sqrt());
        }
    }
}

#[test]
fn saved_model_loads_equal_and_saves_to_equal_bytes() {
    let dir = tempfile::tempdir().unwrap();
    for architecture in ARCHITECTURES {
        let first = dir.path().join(format!("{architecture:?}"));
        let mut model = folder(&first, architecture);
        model.params.config.architecture = architecture;
        model.params.config.eos_token_ids = vec![1, 16];
        model.params.config.rope_scaling =
            Some(Llama3Rope { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_context: 64 });
        save(&first, &model.params, &model.tokenizer).unwrap();
        let again = load(&first).unwrap();
        assert_eq!(again.params.config, model.params.config);
        assert!(again.params.data == model.params.data);
        let second = dir.path().join(format!("{architecture:?} again"));
        save(&second, &again.params, &again.tokenizer).unwrap();
        let names = |folder: &std::path::Path| {
            let mut names: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        let expected = [
            "chat_template.jinja",
            "config.json",
            "generation_config.json",
            "model.safetensors",
            "tokenizer.json",
            "tokenizer_config.json",
        ];
        assert_eq!(names(&first), expected);
        assert_eq!(names(&second), expected);
        for name in expected {
            assert!(std::fs::read(first.join(name)).unwrap() == std::fs::read(second.join(name)).unwrap(), "{name}");
        }
    }
}

/// Writes safetensors with the format's own library, so that reader and writer are not only true to each other.
fn write_safetensors(path: &std::path::Path, params: &Params, names: &[&str], dtype: Dtype) {
    let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = (params.layout.tensors().iter())
        .filter(|spec| names.contains(&spec.name.as_str()))
        .map(|spec| {
            let bytes = params.tensor(&spec.name).iter().flat_map(|&x| match dtype {
                Dtype::BF16 => bf16::from_f32(x).to_le_bytes().to_vec(),
                Dtype::F16 => f16::from_f32(x).to_le_bytes().to_vec(),
                _ => x.to_le_bytes().to_vec(),
            });
            (spec.name.clone(), spec.shape.clone(), bytes.collect())
        })
        .collect();
    let views = tensors.iter().map(|(name, shape, bytes)| (name, TensorView::new(dtype, shape.clone(), bytes).unwrap()));
    std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

#[test]
fn shards_of_every_float_type_load() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sharded");
    let model = folder(&path, Architecture::Qwen3);
    std::fs::remove_file(path.join("model.safetensors")).unwrap();
    let names: Vec<&str> = model.params.layout.tensors().iter().map(|spec| spec.name.as_str()).collect();
    let (head, tail) = names.split_at(3);
    let (middle, tail) = tail.split_at(4);
    for (file, part, dtype) in
        [("a.safetensors", head, Dtype::BF16), ("b.safetensors", middle, Dtype::F16), ("c.safetensors", tail, Dtype::F32)]
    {
        write_safetensors(&path.join(file), &model.params, part, dtype);
    }
    let home = |name: &&str| {
        if head.contains(name) {
            "a"
        } else if middle.contains(name) {
            "b"
        } else {
            "c"
        }
    };
    let map: serde_json::Map<_, _> =
        names.iter().map(|name| ((*name).to_owned(), json!(format!("{}.safetensors", home(name))))).collect();
    std::fs::write(path.join("model.safetensors.index.json"), json!({"weight_map": map}).to_string()).unwrap();
    let loaded = load(&path).unwrap().params;
    for name in &names {
        let round = |x: &f32| match home(name) {
            "a" => bf16::from_f32(*x).to_f32(),
            "b" => f16::from_f32(*x).to_f32(),
            _ => *x,
        };
        assert!(loaded.tensor(name).iter().copied().eq(model.params.tensor(name).iter().map(round)), "{name}");
    }
}

#[test]
fn configuration_of_transformers_4_and_5_mean_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m");
    folder(&path, Architecture::Llama);
    let file = path.join("config.json");
    let scaling = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64});
    let mut configs = Vec::new();
    for version in [4, 5] {
        let mut config = read_json(&file);
        let object = config.as_object_mut().unwrap();
        for key in ["rope_theta", "rope_scaling", "rope_parameters"] {
            object.remove(key);
        }
        if version == 4 {
            object.insert("rope_theta".into(), json!(7e5));
            object.insert("rope_scaling".into(), scaling.clone());
        } else {
            let mut parameters = scaling.clone();
            parameters["rope_theta"] = json!(7e5);
            object.insert("rope_parameters".into(), parameters);
        }
        std::fs::write(&file, config.to_string()).unwrap();
        configs.push(load(&path).unwrap().params.config);
    }
    assert_eq!(configs[0], configs[1]);
    assert_eq!((configs[0].rope_theta, configs[0].rope_scaling.unwrap().factor), (7e5, 8.0));
}

#[test]
fn sliding_window_limits_the_context() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m");
    let mut model = folder(&path, Architecture::Mistral);
    model.params.config.architecture = Architecture::Mistral;
    save(&path, &model.params, &model.tokenizer).unwrap();
    let mut config = read_json(&path.join("config.json"));
    config["sliding_window"] = json!(32);
    std::fs::write(path.join("config.json"), config.to_string()).unwrap();
    assert_eq!(load(&path).unwrap().params.config.max_position_embeddings, 32);
}

#[test]
fn folder_without_weights_gives_a_random_model() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m");
    let model = folder(&path, Architecture::Qwen3);
    std::fs::remove_file(path.join("model.safetensors")).unwrap();
    let new = random_from_config(&path, 1).unwrap();
    assert_eq!(new.params.config, model.params.config);
    assert!(new.params.data == random_from_config(&path, 1).unwrap().params.data);
    let embedding = new.params.tensor("model.embed_tokens.weight");
    let variance = embedding.iter().map(|x| x * x).sum::<f32>() / embedding.len() as f32;
    assert!((variance.sqrt() - 0.02).abs() < 1e-3, "{variance}");
}

/// Tokens of a text under a pre-tokenizer, spelled as in the vocabulary.
fn spelled(pre: &str, input: &str) -> Vec<&'static str> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    write_gguf(&path, &params(Architecture::Llama), GgmlDType::F32, &[("tokenizer.ggml.pre", Value::String(pre.into()))]);
    let tokenizer = load(&path).unwrap().tokenizer;
    let ids = tokenizer.encode(input).unwrap();
    assert_eq!(tokenizer.decode_raw(&ids), input);
    ids.iter().map(|&id| TOKENS[id as usize]).collect()
}

#[test]
fn numbers_are_split_as_the_pre_tokenizer_says() {
    assert_eq!(spelled("llama-bpe", "12345"), ["123", "4", "5"]);
    assert_eq!(spelled("llama-bpe", "1234123"), ["123", "4", "12", "3"]);
    assert_eq!(spelled("qwen2", "123"), ["1", "2", "3"]);
    assert_eq!(spelled("smollm", "123 1"), ["1", "2", "3", "Ġ", "1"]);
    assert_eq!(spelled("gpt-2", "4123"), ["4", "123"]);
}

#[test]
fn words_are_merged_by_rank_and_never_across_a_border() {
    assert_eq!(spelled("qwen2", "abc ab\n a"), ["ab", "c", "Ġ", "ab", "Ċ", "Ġa"]);
    // A space before a newline is part of neither word.
    assert_eq!(spelled("llama-bpe", "é!\n é"), ["Ã©", "!", "Ċ", "Ġ", "Ã©"]);
    assert_eq!(spelled("gpt-2", "a<tool>b</s>"), ["a", "<tool>", "b", "</s>"]);
}

#[test]
fn raw_prompt_begins_once_with_the_token_that_the_model_was_trained_with() {
    let dir = tempfile::tempdir().unwrap();
    let (gguf, folder) = (dir.path().join("m.gguf"), dir.path().join("m"));
    let pre = |kind: &str| ("tokenizer.ggml.pre", Value::String(kind.into()));
    let adds = |yes| ("tokenizer.ggml.add_bos_token", Value::Bool(yes));
    // Llama 3 has it unless the file denies it, Qwen only if the file says so.
    for (changes, expected) in [
        (vec![pre("llama-bpe")], "<s>ab"),
        (vec![pre("llama-bpe"), adds(false)], "ab"),
        (vec![pre("qwen2")], "ab"),
        (vec![pre("qwen2"), adds(true)], "<s>ab"),
    ] {
        write_gguf(&gguf, &params(Architecture::Llama), GgmlDType::F32, &changes);
        let model = load(&gguf).unwrap();
        save(&folder, &model.params, &model.tokenizer).unwrap();
        for tokenizer in [model.tokenizer, load(&folder).unwrap().tokenizer] {
            let prompt = |text: &str| tokenizer.decode_raw(&tokenizer.encode_prompt(text).unwrap());
            assert_eq!([prompt("ab"), prompt("<s>ab")], [expected, "<s>ab"], "{changes:?}");
            assert_eq!(tokenizer.decode_raw(&tokenizer.encode("ab").unwrap()), "ab");
        }
    }
    // The flag of tokenizer_config.json wins over the post-processor, as in transformers.
    let file = folder.join("tokenizer_config.json");
    let mut config = read_json(&file);
    config["add_bos_token"] = json!(false);
    std::fs::write(&file, config.to_string()).unwrap();
    assert_eq!(load(&folder).unwrap().tokenizer.encode_prompt("a").unwrap(), [2]);
}

#[test]
fn special_tokens_are_left_out_of_decoded_text_and_user_tokens_stay() {
    let dir = tempfile::tempdir().unwrap();
    let tokenizer = folder(&dir.path().join("m"), Architecture::Llama).tokenizer;
    let ids = tokenizer.encode("<s>a<tool>b</s>").unwrap();
    assert_eq!(tokenizer.decode(&ids), "a<tool>b");
    assert_eq!(tokenizer.token_id("[PAD]"), None);
}

#[test]
fn sentence_piece_vocabulary_merges_by_score_and_falls_back_to_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    let tokens = [
        "<unk>", "<s>", "</s>", "▁", "a", "b", "c", "ab", "bc", "▁a", "▁abc", "abc", "<0xC3>", "<0xA9>", "▁ab", "d", "e", "f",
        "g", "h", "i", "j", "k", "l",
    ];
    let types = [2, 3, 3].into_iter().chain([1; 9]).chain([6, 6]).chain([1; 10]).map(Value::I32).collect();
    // `bc` merges before `ab`, `▁a` before both.
    let scores =
        [0., 0., 0., -9., -9., -9., -9., -3., -2., -1., -5., -4., 0., 0., -9., -9., -9., -9., -9., -9., -9., -9., -9., -9.];
    let changes = [
        ("tokenizer.ggml.model", Value::String("llama".into())),
        ("tokenizer.ggml.tokens", Value::Array(tokens.iter().map(|token| Value::String((*token).into())).collect())),
        ("tokenizer.ggml.token_type", Value::Array(types)),
        ("tokenizer.ggml.scores", Value::Array(scores.map(Value::F32).to_vec())),
    ];
    write_gguf(&path, &params(Architecture::Llama), GgmlDType::F32, &changes);
    let tokenizer = load(&path).unwrap().tokenizer;
    let spell = |text: &str| tokenizer.encode(text).unwrap().iter().map(|&id| tokens[id as usize]).collect::<Vec<_>>();
    assert_eq!(spell("abc"), ["▁abc"]);
    assert_eq!(spell("cabc"), ["▁", "c", "abc"]);
    assert_eq!(spell("c ab"), ["▁", "c", "▁ab"]);
    assert_eq!(spell("é"), ["▁", "<0xC3>", "<0xA9>"]);
    assert_eq!(tokenizer.decode(&tokenizer.encode("cé ab").unwrap()), "cé ab");
}

#[test]
fn chat_template_goes_through_files_with_its_tokens() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m");
    folder(&path, Architecture::Llama);
    let tokenizer = load(&path).unwrap().tokenizer;
    let messages = ["a", "b"].map(|content| Message { role: "user".into(), content: content.into() });
    assert_eq!(tokenizer.render_chat(&messages, true).unwrap(), "<s>ab");
}
