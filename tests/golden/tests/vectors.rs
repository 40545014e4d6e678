//! Every case of `vectors/` whose operation is here passes.

use std::path::Path;

use plumb_golden::{Counts, Outcome, run};

#[test]
fn reference_numbers_of_published_methods_are_reproduced() {
    let lines = run(&Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors")).unwrap();
    let failed: Vec<String> = lines
        .iter()
        .filter_map(|line| match &line.outcome {
            Outcome::Failed(why) => Some(format!("{} {} (case {}): {why}", line.method, line.operation, line.index)),
            _ => None,
        })
        .collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    let counts = Counts::of(&lines);
    assert!(counts.passed > 0, "{counts}");
}
