//! Every case of `vectors/` passes, but for operations that plugins will do.

use std::collections::BTreeSet;
use std::path::Path;

use plumb_golden::{Outcome, run};

/// Operations on texts, judgements and running states that belong to plugins, by method: the only ones that may be missing.
const OF_PLUGINS: &[(&str, &str)] = &[
    ("06-reward-calibration-ppo-m-c", "parse_confidence"),
    ("09-domain-knowledge-reward", "rouge_l"),
    ("14-rewardmath", "parse_rating"),
    ("14-rewardmath", "parse_verdict"),
    ("15-tool-augmented-rm", "parse_tool_turn"),
    ("15-tool-augmented-rm", "tool_calculator"),
    ("15-tool-augmented-rm", "tool_calendar"),
    ("19-openrubrics", "parse_rubric"),
    ("19-openrubrics", "parse_winner"),
    ("20-rewardanything", "principle_format_reward"),
    ("20-rewardanything", "unmask_judgement"),
    ("23-think-rm", "verdict_rule_reward"),
    ("25-rm-r1", "chain_of_rubrics_parse"),
    ("25-rm-r1", "reasoning_verdict_reward"),
    ("26-polar", "polar_encode"),
    ("26-polar", "strip_thinking"),
    ("30-reward-shaping-par", "shape_clip_running"),
    ("30-reward-shaping-par", "shape_fitted_poly"),
    ("30-reward-shaping-par", "shape_lsc"),
    ("30-reward-shaping-par", "shape_meanstd_running"),
    ("30-reward-shaping-par", "shape_minmax_running"),
    ("30-reward-shaping-par", "shape_par"),
    ("30-reward-shaping-par", "shape_sigmoid"),
    ("30-reward-shaping-par", "shape_slow_then_fast"),
    ("30-reward-shaping-par", "shape_tanh_centered"),
    ("32-rewardbench-2", "parse_choice_verdict"),
    ("32-rewardbench-2", "parse_trailing_rating"),
    ("32-rewardbench-2", "shuffle_position"),
    ("34-branch-and-rethink-rm", "parse_branch_turn"),
    ("34-branch-and-rethink-rm", "parse_rethink_turn"),
    ("49-mapl", "instruction_flags"),
    ("50-logicllama", "fol_bleu"),
    ("50-logicllama", "fol_le_score"),
    ("50-logicllama", "fol_parse"),
    ("50-logicllama", "fol_reward"),
    ("50-logicllama", "fol_tokens"),
    ("51-spo-preference-degree", "degrade_response"),
    ("51-spo-preference-degree", "rake_keyphrases"),
    ("52-plug-and-play-judges", "judge_json_reward"),
    ("54-superhf", "meteor_exact"),
    ("54-superhf", "meteor_similarity"),
    ("55-health-text-simplification", "fkgl_counts"),
    ("55-health-text-simplification", "grade_gain"),
    ("55-health-text-simplification", "original_vs_simplified_reward"),
    ("55-health-text-simplification", "readability"),
    ("55-health-text-simplification", "relevance"),
    ("55-health-text-simplification", "sari"),
];

#[test]
fn reference_numbers_of_published_methods_are_reproduced() {
    let lines = run(&Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors")).unwrap();
    let mut missing = BTreeSet::new();
    let mut failed = Vec::new();
    for line in &lines {
        match &line.outcome {
            Outcome::Passed => {}
            Outcome::Failed(why) => failed.push(format!("{} {} (case {}): {why}", line.method, line.operation, line.index)),
            Outcome::Missing => {
                missing.insert((line.method.as_str(), line.operation.as_str()));
            }
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    assert_eq!(missing, OF_PLUGINS.iter().copied().collect(), "left: missing operations, right: those that may be");
}
