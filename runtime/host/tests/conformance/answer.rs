//! Answers as lines of text that are equal exactly when the answers are, to the last bit.

use plumb_core::feedback::{Ask, RowFault};
use plumb_core::services::ServiceFault;
use plumb_core::{Decision, Outcome, Rewards, Shaped, Verdicts};
use plumb_host::{Descriptor, LogLevel, LogLine};
use serde_json::Value;

/// A reward's answer.
pub fn rewards(rewards: &Rewards) -> Vec<String> {
    let outcome = |(row, outcome): (usize, &Outcome)| match outcome {
        Outcome::Scored(value) => format!("row {row}: {}", bits(*value)),
        Outcome::Abstained(fault) => row_fault(&format!("row {row} abstained"), fault),
        Outcome::Failed(fault) => row_fault(&format!("row {row} failed"), fault),
    };
    let mut lines: Vec<String> = rewards.outcomes.iter().enumerate().map(outcome).collect();
    lines.extend(rewards.parts.iter().map(part));
    lines.extend(rewards.spans.iter().map(|span| {
        let unit = if span.in_tokens { "tokens" } else { "chars" };
        format!("span {} of row {}: {unit} {}..{} {}", span.name, span.row, span.start, span.stop, bits(span.value))
    }));
    lines
}

/// A shaper's answer.
pub fn shaped(shaped: &Shaped) -> Vec<String> {
    let mut lines: Vec<String> = shaped.values.iter().map(|values| format!("values: {}", list(values))).collect();
    lines.extend(shaped.token_values.iter().map(|tokens| {
        let values: Vec<String> = tokens.values.iter().map(|value| format!("{value:?}={:08x}", value.to_bits())).collect();
        format!("token values: {} ends {:?}", values.join(" "), tokens.ends)
    }));
    lines.extend(shaped.parts.iter().map(part));
    lines.extend(shaped.faults.iter().map(|(row, fault)| row_fault(&format!("row {row}"), fault)));
    lines
}

/// A filter's answer.
pub fn decision(decision: &Decision) -> Vec<String> {
    let mut lines = vec![format!("keep: {:?}", decision.keep)];
    lines.extend(decision.weights.iter().map(|weights| format!("weights: {}", list(weights))));
    lines.extend(decision.pairs.iter().map(|pairs| {
        let (chosen, rejected, level) = (&pairs.chosen, &pairs.rejected, &pairs.level);
        let (probability, margin) = (list(&pairs.probability), list(&pairs.margin));
        format!("pairs: {chosen:?} {rejected:?} probability {probability} margin {margin} level {level:?}")
    }));
    lines.extend(decision.relabels.iter().map(|relabel| format!("relabel {}: {:?}", relabel.column, relabel.rows)));
    lines.push(format!("regenerate: {:?}", decision.regenerate));
    lines.extend(decision.parts.iter().map(part));
    lines.extend(decision.reasons.iter().map(|(row, reason)| format!("row {row}: {reason:?}")));
    lines
}

/// A judge's questions and its memo.
pub fn ask(ask: &Ask) -> Vec<String> {
    let mut lines = vec![format!("memo: {}", hex(&ask.memo))];
    for question in &ask.questions {
        lines.push(format!("asks {}: {:?}", question.model, question.sampling));
        lines.extend((0..question.prompts.len()).map(|row| format!("prompt: {:?}", question.prompts.get(row))));
    }
    lines
}

/// A judge's verdicts.
pub fn verdicts(verdicts: &Verdicts) -> Vec<String> {
    let mut lines: Vec<String> = verdicts.scores.iter().map(|scores| format!("scores: {}", list(scores))).collect();
    lines.extend(
        verdicts
            .pairs
            .iter()
            .map(|pairs| format!("pairs: {:?} {:?} probability {}", pairs.first, pairs.second, list(&pairs.probability))),
    );
    lines.extend(
        verdicts.matrices.iter().map(|matrices| format!("matrices: {} readable {:?}", list(&matrices.values), matrices.readable)),
    );
    lines.extend(
        verdicts.rationales.iter().flat_map(|texts| (0..texts.len()).map(|row| format!("rationale {row}: {:?}", texts.get(row)))),
    );
    lines.extend(verdicts.parts.iter().map(part));
    lines.extend(verdicts.faults.iter().map(|(row, fault)| row_fault(&format!("row {row}"), fault)));
    lines
}

/// A tool's answer to one row.
pub fn output((row, output): (usize, Result<String, ServiceFault>)) -> String {
    match output {
        Ok(text) => format!("row {row}: {text:?}"),
        Err(ServiceFault { code, message, retryable }) => fault(&format!("row {row}, again {retryable}"), &code, &message),
    }
}

/// What a plugin says about itself. A schema is held to its properties' types and defaults: languages word the rest differently.
pub fn descriptor(descriptor: &Descriptor) -> String {
    let schema: Value = serde_json::from_str(&descriptor.config_schema).unwrap();
    let mut properties: Vec<String> = schema["properties"].as_object().map_or_else(Vec::new, |properties| {
        properties.iter().map(|(name, schema)| format!("{name}: {} = {}", schema["type"], schema["default"])).collect()
    });
    properties.sort();
    let Descriptor { name, version, needs_columns, outputs, state_version, .. } = descriptor;
    format!("{name} {version}, needs {needs_columns:?}, gives {outputs:?}, state {state_version}, config {properties:?}")
}

/// A log line; none for those with which an SDK reports a bug of the plugin, in its language's words.
pub fn log(line: &LogLine) -> Option<String> {
    (line.level != LogLevel::Error)
        .then(|| format!("log {:?} at step {}: {:?} {:?}", line.level, line.step, line.message, line.fields))
}

/// A metric; none for the fuel, which languages spend differently.
pub fn metric(name: &str, value: f64) -> Option<String> {
    (!name.contains("fuel")).then(|| format!("metric {name}: {}", bits(value)))
}

/// A fault. The message of a trap, and that of arguments that are not what a tool expects, is the language's own.
pub fn fault(place: &str, code: &str, message: &str) -> String {
    if ["trap", "bad-arguments"].contains(&code) { format!("{place}: {code}") } else { format!("{place}: {code} {message:?}") }
}

fn row_fault(place: &str, RowFault { code, message }: &RowFault) -> String {
    fault(place, code, message)
}

fn part((name, values): &(String, Vec<f64>)) -> String {
    format!("part {name}: {}", list(values))
}

fn list(values: &[f64]) -> String {
    values.iter().map(|value| bits(*value)).collect::<Vec<_>>().join(" ")
}

/// A number for people, and its bits. NaN is "no value", whatever its bits.
fn bits(value: f64) -> String {
    if value.is_nan() { "NaN".to_owned() } else { format!("{value:?}={:016x}", value.to_bits()) }
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
