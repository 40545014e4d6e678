//! Tools, built in and plugins, as plugins call them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use plumb_core::recipe::{BuiltinTool, Grants, LimitsUse, ToolUse};
use plumb_core::{Batch, Column, Outcome, PluginKind};
use plumb_host::{Error, Host, Source};
use serde_json::json;

use crate::{Counting, guest, host, names, request};

fn plugin(name: &str, config: serde_json::Value) -> ToolUse {
    let serde_json::Value::Object(config) = config else { panic!("a configuration is an object") };
    let limits = LimitsUse { fuel: Some(10_000_000), fuel_per_row: Some(0), ..LimitsUse::default() };
    ToolUse { plugin: Some(name.to_owned()), config, limits, ..ToolUse::default() }
}

fn with_tools(tools: &[(&str, ToolUse)]) -> Result<Host, Error> {
    let mut host = host(Arc::new(Counting::default()));
    let tools: BTreeMap<_, _> = tools.iter().map(|(name, tool)| ((*name).to_owned(), tool.clone())).collect();
    host.load_tools(&tools, Path::new("/nowhere"), |name| Ok::<Source, Error>(Source::Path(guest(name))))?;
    Ok(host)
}

/// What a plugin that calls `tool` with each of `arguments` gets; -1 for a fault of the row.
fn called(host: &Host, mode: &str, tool: &str, arguments: &[&str]) -> Result<Vec<f64>, String> {
    let grants = Grants { models: names(&["grader"]), tools: names(&["add", "calculator", "gone"]), ..Grants::default() };
    let mut request = request(PluginKind::Reward, "reward-asks", json!({ "mode": mode, "tool": tool }), grants);
    // Enough to pay for all calls of tools that a row may make.
    request.limits.fuel = Some(1_000_000_000);
    let mut batch = Batch::new(0, (0..arguments.len() as u64).collect(), vec![arguments.len() as u32]);
    batch.insert("completion", Column::Text(arguments.iter().collect()));
    let outcomes = host.load(request).unwrap().into_reward().unwrap().score(batch).unwrap().outcomes;
    outcomes
        .into_iter()
        .map(|outcome| match outcome {
            Outcome::Scored(value) => Ok(value),
            Outcome::Abstained(fault) | Outcome::Failed(fault) => Err(fault.code),
        })
        .collect()
}

#[test]
fn tool_plugins_and_built_in_tools_answer_row_by_row() {
    let calculator = ToolUse { builtin: Some(BuiltinTool::Calculator), ..ToolUse::default() };
    let host = with_tools(&[("add", plugin("tool-probe", json!({ "add": 10 }))), ("calculator", calculator)]).unwrap();
    assert_eq!(called(&host, "tool", "add", &["1", "2.5", "\"no\"", "{}"]), Ok(vec![11.0, 12.5, -1.0, -1.0]));
    assert_eq!(called(&host, "tool", "calculator", &[r#"{"expression": "6 * 7"}"#, "1"]), Ok(vec![42.0, -1.0]));
}

#[test]
fn a_row_that_breaks_a_tool_plugin_fails_alone() {
    let host = with_tools(&[("add", plugin("tool-probe", json!({})))]).unwrap();
    for breaks in ["\"panic\"", "\"spin\""] {
        assert_eq!(called(&host, "tool", "add", &["1", breaks, "3"]), Ok(vec![1.0, -1.0, 3.0]));
    }
}

#[test]
fn tool_that_breaks_on_every_row_is_given_up() {
    let host = with_tools(&[("add", plugin("tool-probe", json!({})))]).unwrap();
    assert_eq!(called(&host, "tool", "add", &["\"spin\""; 100]), Ok(vec![-1.0; 100]));
    let (_, stats) = &host.stats()[0];
    assert_eq!(stats.counts.calls, 17, "one call with all rows, and sixteen with one");
}

#[test]
fn tools_beyond_the_grants_are_denied_and_calls_are_counted() {
    let host = with_tools(&[("add", plugin("tool-probe", json!({})))]).unwrap();
    assert_eq!(called(&host, "tool", "search", &["1"]), Err("denied".to_owned()));
    assert_eq!(called(&host, "tool", "gone", &["1"]), Err("unknown-tool".to_owned()));
    assert_eq!(called(&host, "many-tools", "add", &["1"]), Err("budget".to_owned()));
}

#[test]
fn tools_that_cannot_be_set_up_are_refused_by_name() {
    let both = ToolUse { builtin: Some(BuiltinTool::Calculator), ..plugin("tool-probe", json!({})) };
    let settings = ToolUse { builtin: Some(BuiltinTool::Calculator), ..ToolUse::default() };
    let settings = ToolUse { config: plugin("x", json!({ "digits": 3 })).config, ..settings };
    let search = ToolUse { builtin: Some(BuiltinTool::Search), ..ToolUse::default() };
    for (tool, told) in
        [(both, "exactly one of"), (ToolUse::default(), "exactly one of"), (settings, "digits"), (search, "corpus")]
    {
        let error = with_tools(&[("mine", tool)]).err().unwrap();
        assert!(matches!(&error, Error::Tool { tool, message } if tool == "mine" && message.contains(told)), "{error}");
    }
    let error = with_tools(&[("mine", plugin("reward-asks", json!({})))]).err().unwrap();
    assert!(matches!(error, Error::WrongKind { expected: PluginKind::Tool, .. }));
}
