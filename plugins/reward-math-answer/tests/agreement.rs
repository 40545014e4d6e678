//! Agreement with math-verify 0.9.0 on labelled pairs.

use reward_math_answer::extract::extract;
use reward_math_answer::plugin::grade;

#[derive(serde::Deserialize)]
struct Item {
    reference: String,
    completion: String,
    equal: bool,
}

#[test]
fn golden_verdicts_agree_with_math_verify_on_97_percent() {
    let items: Vec<Item> = include_str!("math-answers.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(items.len(), 400);
    let differing: Vec<_> = items
        .iter()
        .filter(|item| grade(&extract(&item.reference), &item.completion).correct != item.equal)
        .map(|item| format!("{:?} {:?} equal: {}", item.reference, item.completion, item.equal))
        .collect();
    let agreed = items.len() - differing.len();
    assert!(agreed * 100 >= items.len() * 97, "agreement {agreed}/{}:\n{}", items.len(), differing.join("\n"));
}
