//! Where tests find the real model and the reference numbers.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use plumb_model::LoadedModel;
use serde::de::DeserializeOwned;

/// The model, or the wish to do without the tests that need it.
pub enum SkipOr {
    Skip,
    Model(&'static LoadedModel),
}

/// SmolLM2-135M-Instruct, loaded once.
///
/// # Panics
/// When the file is missing, unless `PLUMB_SKIP_REAL_MODEL=1`.
pub fn smollm2() -> SkipOr {
    static MODEL: OnceLock<Option<LoadedModel>> = OnceLock::new();
    let model = MODEL.get_or_init(|| {
        if std::env::var_os("PLUMB_SKIP_REAL_MODEL").is_some_and(|value| value == "1") {
            return None;
        }
        let path = repository().join("target/models/SmolLM2-135M-Instruct.Q4_1.gguf");
        assert!(path.is_file(), "`{}` is missing: run `cargo xtask model`", path.display());
        Some(plumb_model::load(&path).unwrap())
    });
    model.as_ref().map_or(SkipOr::Skip, SkipOr::Model)
}

/// The lines of a file in `PLUMB_REFERENCE_DIR`, by default `tests/reference`.
pub fn reference<T: DeserializeOwned>(name: &str) -> Vec<T> {
    let folder = std::env::var_os("PLUMB_REFERENCE_DIR").map_or_else(|| repository().join("tests/reference"), PathBuf::from);
    let text = std::fs::read_to_string(folder.join(name)).unwrap();
    let cases: Vec<T> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(!cases.is_empty(), "`{name}` has no cases");
    cases
}

fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}
