//! A tool that attacks whoever calls it, and the host between them, in rows whose arguments hold the name of an attack. All other rows
//! are answered with the length of their arguments. It is written on the bare interface, since the SDK would keep it from most of it.

use std::arch::wasm32::memory_grow;
use std::hint::black_box;

mod bindings {
    wit_bindgen::generate!({ path: "../../../wit", world: "plumb:align/tool" });
}

use bindings::exports::plumb::align::{lifecycle, tooling};
use bindings::plumb::align::types::{Fault, RowFault, Texts};
use bindings::plumb::align::{kv, log, metrics};

struct Hostile;

bindings::export!(Hostile with_types_in bindings);

/// Every attack that there is, by the text that starts it.
const ATTACKS: [(&str, fn(&mut Answer)); 20] = [
    ("spin", |_| {
        loop {
            black_box(0);
        }
    }),
    ("recurse", |_| drop(black_box(recurse(0)))),
    ("trap", |_| panic!("no answer")),
    ("grow-big", |_| assert_ne!(memory_grow::<0>(65_535), usize::MAX, "no 4 GiB")),
    ("grow-small", |_| while memory_grow::<0>(1) != usize::MAX {}),
    // A row's answer is a part of somebody else's memory.
    ("megabytes", |answer| answer.text("m".repeat(2 << 20))),
    ("huge", |answer| answer.texts.bytes.resize(80 << 20, b'h')),
    ("no-json", |answer| answer.text("{\"number\": 1, }]".into())),
    ("broken", |answer| answer.texts.bytes.extend([b'a', 0xff])),
    ("too-few", |answer| drop(answer.texts.ends.pop())),
    ("too-many", |answer| answer.texts.ends.resize(1 << 20, answer.texts.bytes.len() as u32)),
    ("ends-beyond", |answer| answer.texts.ends.fill(u32::MAX)),
    ("row-of-others", |answer| answer.fault(1 << 20, "others".into(), String::new())),
    ("two-faults", |answer| (0..2).for_each(|_| answer.fault(answer.row, "two".into(), String::new()))),
    ("long-code", |answer| answer.fault(answer.row, "c".repeat(1 << 20), String::new())),
    ("long-message", |answer| answer.fault(answer.row, "long-message".into(), "m".repeat(1 << 20))),
    ("log-flood", |_| (0..1000).for_each(|_| log::write(log::Level::Warn, &"flood ".repeat(1700), &[]))),
    ("metric-names", |_| (0..1000).for_each(|i| metrics::count(&i.to_string(), 1))),
    ("kv-flood", |_| (0..100).for_each(|i| drop(kv::set(&i.to_string(), &vec![0; 1 << 20])))),
    // The next row's answer would be this one's memory of it.
    ("remembers", |answer| {
        let seen = kv::keys("").len();
        let _ = kv::set("seen", &[1]);
        answer.text(seen.to_string());
    }),
];

/// The answer to a call, as it grows.
struct Answer {
    row: u32,
    texts: Texts,
    faults: Vec<RowFault>,
}

impl Answer {
    /// Appends to the text of the row.
    fn text(&mut self, text: String) {
        self.texts.bytes.extend(text.into_bytes());
    }

    fn fault(&mut self, row: u32, code: String, message: String) {
        self.faults.push(RowFault { row, fault: Fault { code, message, retryable: false } });
    }
}

impl tooling::Guest for Hostile {
    fn call(arguments: Texts) -> Result<tooling::Outputs, Fault> {
        let mut answer = Answer { row: 0, texts: Texts { bytes: Vec::new(), ends: Vec::new() }, faults: Vec::new() };
        let mut after = None;
        let mut start = 0;
        for &end in &arguments.ends {
            let text = String::from_utf8_lossy(&arguments.bytes[start..end as usize]);
            match ATTACKS.iter().find(|(name, _)| text == *name) {
                // What bends the whole answer is done when it is there.
                Some((name, attack)) if ["too-few", "too-many", "ends-beyond"].contains(name) => after = Some(attack),
                Some((_, attack)) => attack(&mut answer),
                None => answer.text(text.len().to_string()),
            }
            answer.texts.ends.push(answer.texts.bytes.len() as u32);
            answer.row += 1;
            start = end as usize;
        }
        if let Some(attack) = after {
            attack(&mut answer);
        }
        Ok(tooling::Outputs { output: answer.texts, faults: answer.faults })
    }
}

/// What it says about itself is the configuration's choice, which a descriptor must not depend on.
impl lifecycle::Guest for Hostile {
    fn describe() -> lifecycle::Descriptor {
        let lie = bindings::plumb::align::config::json();
        let schema = if lie.contains("schema-no-json") {
            "{ \"type\": \"object\", ".to_owned()
        } else if lie.contains("schema-refers") {
            r#"{ "$ref": "file:///etc/passwd" }"#.to_owned()
        } else if lie.contains("schema-long") {
            format!("{{ \"title\": \"{}\" }}", "t".repeat(1 << 20))
        } else if lie.contains("schema-deep") {
            format!("{}{}", "{\"properties\":{\"lie\":".repeat(10_000), "}}".repeat(10_000))
        } else if lie.contains("schema-of-others") {
            r#"{ "type": "object", "required": ["secret"] }"#.to_owned()
        } else {
            String::new()
        };
        lifecycle::Descriptor {
            name: "tool-hostile".into(),
            version: "0.1.0".into(),
            config_schema: schema,
            needs_columns: Vec::new(),
            outputs: Vec::new(),
            state_version: 0,
            extra: Vec::new(),
        }
    }

    fn init() -> Result<(), Fault> {
        Ok(())
    }
}

fn recurse(depth: u64) -> u64 {
    let frame = black_box([depth; 64]);
    if depth == u64::MAX { 0 } else { recurse(depth + 1) + frame[(depth % 64) as usize] }
}
