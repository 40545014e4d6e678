//! `plumb plugin fuzz`: what a reward accepts that it should not.

mod attacks;

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::Args;
use plumb_core::seed::Stream;
use plumb_core::{Outcome, PluginKind, RewardFn};
use plumb_host::Host;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::cases::{self, Case};
use super::subject::{self, Subject};
use crate::diagnostic::{Diagnostic, did_you_mean};
use crate::exit::ExitStatus;
use crate::output::{Output, count};
use attacks::{ATTACKS, Attack, Target};

/// Attack a reward with completions that only look right, and report which it accepts.
///
/// The attacks are made around the right answers of the plugin's cases: rows that get the highest reward among the cases with the same
/// configuration. An attack is accepted when it gets as much. Exits with 1 when something was accepted, or made the plugin fail.
///
/// What is accepted is not always a mistake: a reward for a format does not care which answer stands in it. `--allow` says so.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  plumb plugin fuzz reward-brevity
  plumb plugin fuzz reward-exact-match --cases my-cases.jsonl --allow several-answers --allow repeated")]
pub struct FuzzArgs {
    /// A plugin's folder, a .wasm file, or the name of an installed plugin
    #[arg(default_value = ".")]
    plugin: String,
    /// JSONL file of cases [default: cases.jsonl in the folder]
    #[arg(long, value_name = "FILE")]
    cases: Option<PathBuf>,
    /// Text column with the reference answer
    #[arg(long, value_name = "NAME", default_value = "answer")]
    answer_column: String,
    /// Seed of the attacks' random choices
    #[arg(long, default_value_t)]
    seed: u64,
    /// Right answers that are attacked, per configuration
    #[arg(long, default_value_t = 16)]
    rows: usize,
    /// An attack that may be accepted; may be given several times
    #[arg(long, value_name = "ATTACK")]
    allow: Vec<String>,
}

/// Accepted texts that are shown of each attack and configuration.
const SHOWN: usize = 3;
/// Characters of a text that are shown.
const SHOWN_CHARS: usize = 100;
/// Share of a call's fuel beyond which an attack is a spike.
const SPIKE: f64 = 0.5;

/// What an attack came to, over all right answers.
#[derive(Debug, Serialize)]
struct Report {
    attack: &'static str,
    what: &'static str,
    texts: usize,
    accepted: usize,
    allowed: bool,
    /// Texts on which the plugin failed, by code.
    faults: Vec<String>,
    /// Most fuel of a call with one such text, and its share of the limit.
    fuel_most: u64,
    fuel_share: f64,
    examples: Vec<Example>,
}

#[derive(Debug, Serialize)]
struct Example {
    case: String,
    answer: String,
    text: String,
    value: f64,
    right: f64,
}

/// Runs the command.
pub fn run(args: &FuzzArgs, output: Output) -> anyhow::Result<ExitStatus> {
    let names: BTreeSet<&str> = ATTACKS.iter().map(|attack| attack.name).collect();
    if let Some(unknown) = args.allow.iter().find(|name| !names.contains(name.as_str())) {
        let error = Diagnostic::usage("usage", format!("there is no attack `{unknown}`"));
        let all = || format!("there are {}", names.iter().copied().collect::<Vec<_>>().join(", "));
        return Err(error.hint(did_you_mean(unknown, names.iter().copied()).unwrap_or_else(all)).into());
    }
    let subject = Subject::find(&args.plugin, output)?;
    let kind = subject.inspect()?.kind;
    if kind != PluginKind::Reward {
        return Err(Diagnostic::usage("plugin.kind", format!("a {kind} accepts nothing: fuzz is for rewards")).into());
    }
    let path = args.cases.clone().or_else(|| subject.folder.as_ref().map(|folder| folder.join("cases.jsonl")));
    let path = path.ok_or_else(|| {
        Diagnostic::usage("usage", "there are no right answers to attack").hint("name a file of cases: `--cases FILE`")
    })?;
    let mut targets = Vec::new();
    let cases = cases::read(&path)?;
    let mut configs: Vec<&Map<String, Value>> = Vec::new();
    for case in cases.iter().filter(|case| !case.rows.is_empty() && case.expect.is_array()) {
        if !configs.contains(&&case.config) {
            configs.push(&case.config);
        }
    }
    for config in configs {
        let of_config: Vec<&Case> = cases.iter().filter(|case| case.config == *config && case.expect.is_array()).collect();
        targets.extend(right_answers(&subject, &of_config, args)?);
    }
    if targets.is_empty() {
        return Err(Diagnostic::usage("case.none", format!("`{}` does not say what a right answer is", path.display()))
            .hint("add a case with two rows, one right and one wrong, and their rewards")
            .into());
    }
    let mut reports = Vec::new();
    for attack in ATTACKS {
        reports.push(try_attack(attack, &subject, &targets, args)?);
    }
    let suspicious = reports.iter().any(|report| !report.faults.is_empty() || (report.accepted > 0 && !report.allowed));
    for report in &reports {
        output.data(if output.json { json!({"type": "attack", "v": 1, "data": report}).to_string() } else { text(report) })?;
    }
    if !output.json {
        let accepted = reports.iter().filter(|report| report.accepted > 0 && !report.allowed).count();
        output.data(format!(
            "{} attacked; {accepted} of {} attacks were accepted",
            count(targets.len(), "right answer"),
            reports.iter().filter(|report| report.texts > 0).count()
        ))?;
    }
    Ok(if suspicious { ExitStatus::No } else { ExitStatus::Success })
}

/// A right answer in its case.
struct Attacked {
    case: Case,
    row: Map<String, Value>,
    target: Target,
    /// What the right answer gets.
    right: f64,
}

/// The rows with the highest reward among the cases of one configuration; none where all get the same, since then nothing is right.
fn right_answers(subject: &Subject, cases: &[&Case], args: &FuzzArgs) -> anyhow::Result<Vec<Attacked>> {
    let mut scored = Vec::new();
    for case in cases {
        let (host, _) = subject::host(1)?;
        let reward = load(subject, &host, case)?;
        let outcomes = reward.score(case.batch(1)?)?.outcomes;
        scored.extend(case.rows.iter().zip(outcomes).filter_map(|(row, outcome)| Some((*case, row, outcome.value()?))));
    }
    let most = scored.iter().map(|(.., value)| *value).fold(f64::NEG_INFINITY, f64::max);
    if !scored.iter().any(|(.., value)| *value < most) {
        return Ok(Vec::new());
    }
    let text = |row: &Map<String, Value>, column: &str| match row.get(column) {
        Some(Value::String(text)) => Some(text.clone()),
        Some(Value::Number(number)) => Some(number.to_string()),
        _ => None,
    };
    let right = scored.into_iter().filter(|(.., value)| *value == most);
    let attacked = right.filter_map(|(case, row, right)| {
        let completion = text(row, "completion")?;
        let answer = text(row, &args.answer_column).unwrap_or_else(|| completion.clone());
        let target = Target { answer, prompt: text(row, "prompt"), completion };
        Some(Attacked { case: case.clone(), row: row.clone(), target, right })
    });
    Ok(attacked.take(args.rows).collect())
}

fn load(subject: &Subject, host: &Host, case: &Case) -> anyhow::Result<std::sync::Arc<dyn RewardFn>> {
    Ok(subject.load(host, &case.config)?.into_reward()?)
}

/// Every text of an attack on every right answer, each in a call of its own, so that fuel and faults are its own too.
fn try_attack(attack: &Attack, subject: &Subject, targets: &[Attacked], args: &FuzzArgs) -> anyhow::Result<Report> {
    let mut report = Report {
        attack: attack.name,
        what: attack.what,
        texts: 0,
        accepted: 0,
        allowed: args.allow.iter().any(|name| name == attack.name),
        faults: Vec::new(),
        fuel_most: 0,
        fuel_share: 0.0,
        examples: Vec::new(),
    };
    for (i, attacked) in targets.iter().enumerate() {
        let (host, _) = subject::host(1)?;
        let limits = subject.load(&host, &attacked.case.config)?.limits();
        let reward = load(subject, &host, &attacked.case)?;
        let mut spent: u64 = host.stats().iter().map(|(_, stats)| stats.counts.fuel).sum();
        for text in (attack.texts)(&attacked.target, Stream::new(args.seed, attack.name, &[i as u64])) {
            report.texts += 1;
            let mut row = attacked.row.clone();
            row.insert("completion".into(), text.clone().into());
            let outcome = reward.score(attacked.case.with_rows(vec![row]).batch(1)?)?.outcomes.remove(0);
            let now: u64 = host.stats().iter().map(|(_, stats)| stats.counts.fuel).sum();
            let fuel = now - spent;
            spent = now;
            report.fuel_most = report.fuel_most.max(fuel);
            report.fuel_share = report.fuel_share.max(fuel as f64 / limits.call_fuel(1) as f64);
            match outcome {
                Outcome::Scored(value) if value >= attacked.right => {
                    report.accepted += 1;
                    let (case, answer) = (attacked.case.name.clone(), attacked.target.answer.clone());
                    if report.examples.iter().filter(|example| example.case == case).count() < SHOWN {
                        report.examples.push(Example { case, answer, text, value, right: attacked.right });
                    }
                }
                // A plugin's own fault for a row is an answer; a trap or a limit is what an attacker wants.
                Outcome::Failed(fault) if is_of_the_host(&fault.code) && !report.faults.contains(&fault.code) => {
                    report.faults.push(fault.code);
                }
                _ => {}
            }
        }
    }
    Ok(report)
}

/// Whether a code is of a call that broke down, not of the plugin's own words.
fn is_of_the_host(code: &str) -> bool {
    ["trap", "out_of_fuel", "out_of_memory", "deadline", "wrong_count", "non_finite", "bad_output"].contains(&code)
}

fn text(report: &Report) -> String {
    let Report { attack, what, texts, accepted, allowed, faults, fuel_most, fuel_share, examples } = report;
    let verdict = match (texts, accepted, allowed) {
        // It needs what these answers do not have, such as a prompt.
        (0, ..) => "not tried",
        (_, 0, _) => "refused",
        (_, _, true) => "allowed",
        (_, _, false) => "ACCEPTED",
    };
    let mut lines = vec![format!("{verdict:<9} {attack:<16} {accepted:>3} of {texts:<3}  {what}")];
    for Example { case, answer, text, value, right } in examples.iter().filter(|_| !allowed) {
        lines.push(format!("    {value} (the right answer gets {right})  {}", shown(text)));
        lines.push(format!("      case `{case}`, answer {}", shown(answer)));
    }
    if !faults.is_empty() {
        lines.push(format!("    FAILS: {}", faults.join(", ")));
    }
    if *fuel_share > SPIKE {
        lines.push(format!("    fuel: {fuel_most}, {:.0} % of what a call with one row has", 100.0 * fuel_share));
    }
    lines.join("\n")
}

/// The beginning of a text with its invisible characters made visible.
fn shown(text: &str) -> String {
    let start: String = text.chars().take(SHOWN_CHARS).collect();
    let visible: String = start
        .chars()
        .flat_map(|c| {
            if c.is_ascii() {
                c.escape_debug().collect::<Vec<_>>()
            } else if c.is_alphanumeric() {
                vec![c]
            } else {
                c.escape_unicode().collect()
            }
        })
        .collect();
    let more = text.chars().count().saturating_sub(SHOWN_CHARS);
    if more > 0 { format!("\"{visible}\" and {more} more characters") } else { format!("\"{visible}\"") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shown_texts_hide_nothing() {
        assert_eq!(shown("4\u{200b}2\n"), "\"4\\u{200b}2\\n\"");
        assert_eq!(shown(&"x".repeat(103)), format!("\"{}\" and 3 more characters", "x".repeat(100)));
    }
}
