//! The corpora of the fuzz targets, without a fuzzer: what was found once stays found.

use std::path::Path;

#[path = "fuzz/targets.rs"]
mod targets;

#[test]
fn committed_corpora_pass_through_every_fuzz_target() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
    for (name, target) in targets::ALL {
        let files = targets::replay(&corpora, name, target);
        assert!(files >= 5, "the corpus of `{name}` has {files} files");
    }
}
