//! `tool-hostile`: attacks of a tool on whoever calls it, and on the host between them.

use std::collections::BTreeMap;
use std::path::Path;

use plumb_core::recipe::{Grants, ToolUse};
use plumb_core::services::{ServiceFault, ToolOutputs};
use plumb_core::{Batch, Column, Outcome, PluginKind, Texts};
use plumb_host::{Error, LoadRequest, PluginTool, Source, limits};
use serde_json::json;

use crate::support::{self, Neighbour, POISONED, Process, ROWS, alone, bytes, guest, request, roomy};

/// Attacks, and what becomes of the row that holds their name: a text, or a code.
const TOOLS: [(&str, Result<&str, &str>); 21] = [
    ("none", Ok("4")),
    ("spin", Err("out_of_fuel")),
    ("recurse", Err("trap")),
    ("trap", Err("trap")),
    ("grow-big", Err("out_of_memory")),
    ("grow-small", Ok("")),
    ("megabytes", Err("too-long")),
    ("huge", Err("bad_output")),
    ("no-json", Ok("{\"number\": 1, }]")),
    ("broken", Err("bad_output")),
    ("too-few", Err("wrong_count")),
    ("too-many", Err("wrong_count")),
    ("ends-beyond", Err("bad_output")),
    ("row-of-others", Err("bad_output")),
    ("two-faults", Err("bad_output")),
    ("long-code", Err("bad_output")),
    ("long-message", Err("long-message")),
    ("log-flood", Ok("")),
    ("metric-names", Err("bad_output")),
    ("kv-flood", Err("out_of_fuel")),
    ("remembers", Ok("0")),
];

pub fn tool(neighbour: &Neighbour, limits: plumb_core::recipe::LimitsUse) -> PluginTool {
    let request = LoadRequest { limits, ..request(PluginKind::Tool, "tool-hostile", json!({})) };
    neighbour.host.load(request).unwrap().into_tool().unwrap()
}

/// Calls a tool about all rows; one of them holds `attack`. The others must be answered whatever it does.
pub fn call(tool: &PluginTool, attack: &str) -> Result<String, ServiceFault> {
    let arguments: Texts = (0..ROWS).map(|row| if row == POISONED { attack.to_owned() } else { "x".repeat(row) }).collect();
    let mut outputs: ToolOutputs = tool.answer(&arguments);
    assert_eq!(outputs.len(), ROWS, "{attack}");
    for (row, output) in outputs.iter().enumerate().filter(|(row, _)| *row != POISONED) {
        assert_eq!(output.as_deref(), Ok(row.to_string().as_str()), "{attack}, row {row}");
    }
    outputs.swap_remove(POISONED)
}

#[test]
fn attacks_of_a_tool_cost_their_row_and_nothing_else() {
    let _alone = alone();
    let neighbour = Neighbour::new(1);
    let (narrow, wide) = (tool(&neighbour, support::limits()), tool(&neighbour, roomy()));
    let round = || {
        let mut others = Vec::new();
        for (name, expected) in TOOLS {
            let output = call(if name == "huge" { &wide } else { &narrow }, name);
            if let Err(fault) = &output {
                assert!(fault.message.len() <= limits::MESSAGE_BYTES + '…'.len_utf8(), "{name}");
            }
            let output = output.map_err(|fault| fault.code);
            let same = output.as_deref().map_err(String::as_str) == expected;
            others.extend((!same).then_some((name, output)));
            neighbour.lines.take_lines();
            neighbour.is_well(name);
        }
        assert!(others.is_empty(), "{others:?}");
    };
    round();
    let warm = Process::now();
    round();
    Process::now().has_not_grown_since(warm, 32 << 10);
}

#[test]
fn plugin_that_calls_a_hostile_tool_keeps_all_its_other_rows() {
    let _alone = alone();
    let mut neighbour = Neighbour::new(2);
    let hostile = ToolUse { plugin: Some("tool-hostile".into()), limits: support::limits(), ..ToolUse::default() };
    let tools = BTreeMap::from([("hostile".to_owned(), hostile)]);
    neighbour.host.load_tools(&tools, Path::new("/nowhere"), |name| Ok::<_, Error>(Source::Path(guest(name)))).unwrap();
    let mut caller = request(PluginKind::Reward, "reward-asks", json!({ "mode": "tool", "tool": "hostile" }));
    caller.grants = Grants { models: vec!["grader".into()], tools: vec!["hostile".into()], ..Grants::default() };
    let caller = neighbour.host.load(caller).unwrap().into_reward().unwrap();
    for (name, _) in TOOLS.iter().filter(|(name, _)| *name != "none") {
        let mut batch = Batch::new(0, (0..ROWS as u64).collect(), vec![ROWS as u32]);
        let text = |row| if row == POISONED { (*name).to_owned() } else { "x".repeat(row) };
        batch.insert("completion", Column::Text((0..ROWS).map(text).collect()));
        let outcomes = caller.score(batch).unwrap().outcomes;
        for (row, outcome) in outcomes.iter().enumerate() {
            // The caller has -1 for what is no number: a fault, an empty text, JSON that is none.
            let expected = if row != POISONED {
                row as f64
            } else if *name == "remembers" {
                0.0
            } else {
                -1.0
            };
            assert_eq!(*outcome, Outcome::Scored(expected), "{name}, row {row}");
        }
        neighbour.is_well(name);
    }
}

#[test]
fn tools_whose_schema_lies_are_refused_or_checked_against_what_they_say() {
    let _alone = alone();
    let neighbour = Neighbour::new(1);
    for (lie, code) in [
        ("schema-no-json", "plugin.schema"),
        ("schema-refers", "plugin.schema"),
        ("schema-long", "plugin.bad_output"),
        ("schema-deep", "plugin.schema"),
        ("schema-of-others", "plugin.config"),
    ] {
        let error = neighbour.host.load(request(PluginKind::Tool, "tool-hostile", json!({ "lie": lie }))).unwrap_err();
        assert_eq!(error.code(), code, "{lie}: {error}");
        assert!(error.to_string().len() < 2000, "{lie}: {} bytes", error.to_string().len());
        neighbour.is_well(lie);
    }
}

#[test]
fn tools_that_would_ask_models_or_tools_are_not_loaded() {
    let _alone = alone();
    let neighbour = Neighbour::new(1);
    for capability in ["models", "tools"] {
        let component = format!(
            r#"(component (import "plumb:align/{capability}@0.1.1" (instance))
                (core module $m (func (export "f"))) (core instance $i (instantiate $m)) (func $f (canon lift (core func $i "f")))
                (instance $tooling (export "call" (func $f))) (export "plumb:align/tooling@0.1.1" (instance $tooling)))"#
        );
        let request = LoadRequest { kind: PluginKind::Tool, ..bytes(wat::parse_str(component).unwrap()) };
        let error = neighbour.host.load(request).unwrap_err();
        assert_eq!(error.code(), "plugin.not_granted", "{error}");
    }
    neighbour.is_well("tools that ask");
}
