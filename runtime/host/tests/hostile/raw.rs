//! Components written by hand, which do to the canonical ABI what no toolchain does. Each is the same small reward, with one function
//! replaced.

use std::path::Path;

use plumb_core::Outcome;
use plumb_host::Error;

use crate::support::{Neighbour, Process, ROWS, alone, batch, bytes};

/// A core module in WebAssembly text: a reward that scores every row 0, and what of it is replaced.
#[derive(Clone, Copy)]
pub struct Raw {
    /// Pages of memory at the beginning.
    pub memory: &'static str,
    /// Memories, tables, globals, data, further functions, a start function.
    pub items: &'static str,
    /// Body of `score`, with `$batch` a handle and `$n` its rows; what it leaves is the address of the answer.
    pub score: &'static str,
    /// Body of `describe`; leaves the address of a descriptor.
    pub describe: &'static str,
    /// Body of `init`; leaves the address of a result.
    pub init: &'static str,
    /// Body of `cabi_realloc`; leaves an address.
    pub realloc: &'static str,
    /// Body of what is called once the answer was read.
    pub post: &'static str,
}

/// Addresses: the descriptor at 64, the result of `init` at 128, that of `score` at 256, zeros from 4096 on.
pub const GOOD: Raw = Raw {
    memory: "4",
    items: "",
    score: "
        (call $drop (local.get $batch))
        (i32.store offset=260 (i32.const 0) (i32.const 4096))
        (i32.store offset=264 (i32.const 0) (local.get $n))
        (i32.const 256)",
    describe: "(i32.const 64)",
    init: "(i32.const 128)",
    realloc: "
        (global.set $heap (i32.and (i32.add (global.get $heap) (i32.const 15)) (i32.const -16)))
        (global.get $heap)
        (global.set $heap (i32.add (global.get $heap) (local.get $size)))",
    post: "",
};

impl Raw {
    /// The component.
    pub fn component(self) -> Vec<u8> {
        self.component_of(&[])
    }

    /// The component, for an interface in which some texts are replaced by others.
    pub fn component_of(self, replaced: &[(&str, &str)]) -> Vec<u8> {
        let Raw { memory, items, score, describe, init, realloc, post } = self;
        let text = format!(
            r#"(module
                (import "plumb:align/data@0.1.1" "[method]batch.rows" (func $rows (param i32) (result i32)))
                (import "plumb:align/data@0.1.1" "[method]batch.text" (func $text (param i32 i32 i32 i32)))
                (import "plumb:align/data@0.1.1" "[resource-drop]batch" (func $drop (param i32)))
                (import "plumb:align/kv@0.1.1" "get" (func $kv_get (param i32 i32 i32)))
                (import "plumb:align/log@0.1.1" "write" (func $log (param i32 i32 i32 i32 i32)))
                (memory (export "memory") {memory})
                (global $heap (mut i32) (i32.const 65536))
                (data (i32.const 16) "completion")
                {items}
                (func (export "cabi_realloc") (param $old i32) (param $old_size i32) (param $align i32) (param $size i32) (result i32)
                    {realloc})
                (func (export "plumb:align/lifecycle@0.1.1#describe") (result i32) {describe})
                (func (export "plumb:align/lifecycle@0.1.1#init") (result i32) {init})
                (func (export "plumb:align/rewarding@0.1.1#score") (param $batch i32) (result i32)
                    (local $n i32)
                    (local.set $n (call $rows (local.get $batch)))
                    {score})
                (func (export "cabi_post_plumb:align/rewarding@0.1.1#score") (param $answer i32) {post})
            )"#
        );
        let mut module = wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}"));
        let mut resolve = wit_parser::Resolve::default();
        let wit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../wit");
        // The file with the package's name first.
        let files = ["types", "host", "lifecycle", "reward"]
            .map(|name| std::fs::read_to_string(wit.join(format!("{name}.wit"))).unwrap());
        let text = replaced.iter().fold(files.concat(), |text, (from, to)| {
            assert!(text.contains(from), "{from}");
            text.replace(from, to)
        });
        let package = resolve.push_str("plumb.wit", &text).unwrap();
        let world = resolve.select_world(&[package], Some("reward")).unwrap();
        wit_component::embed_component_metadata(&mut module, &resolve, world, wit_component::StringEncoding::UTF8).unwrap();
        let encoder = wit_component::ComponentEncoder::default().module(&module).unwrap();
        encoder.validate(true).encode().unwrap_or_else(|error| panic!("{error:#}"))
    }
}

/// What becomes of all rows of a raw guest, or why it is not loaded.
fn outcome(neighbour: &Neighbour, raw: Raw) -> Result<String, Error> {
    let plugin = neighbour.host.load(bytes(raw.component()))?.into_reward()?;
    let answer = plugin.score(batch(true)).unwrap();
    plugin.end_step();
    assert_eq!(answer.outcomes.len(), ROWS);
    let code = |outcome: &Outcome| match outcome {
        Outcome::Scored(value) => value.to_string(),
        Outcome::Abstained(fault) | Outcome::Failed(fault) => fault.code.clone(),
    };
    let first = code(&answer.outcomes[0]);
    assert!(answer.outcomes.iter().all(|outcome| code(outcome) == first));
    Ok(first)
}

#[test]
fn raw_guests_that_break_the_abi_fail_with_a_typed_fault() {
    let _alone = alone();
    let neighbour = Neighbour::new(1);
    let score = |score| Raw { score, ..GOOD };
    let cases = [
        ("nothing wrong", GOOD, "0"),
        ("keeps the handle of the batch", score("(i32.store offset=264 (i32.const 0) (i32.const 0)) (i32.const 256)"), "bad_output"),
        ("drops the handle twice", score("(call $drop (local.get $batch)) (call $drop (local.get $batch)) (i32.const 256)"), "bad_output"),
        ("uses the handle after dropping it", score("(call $drop (local.get $batch)) (call $rows (local.get $batch))"), "bad_output"),
        ("makes up a handle", score("(call $rows (i32.const 77))"), "bad_output"),
        ("an answer outside of memory", score("(call $drop (local.get $batch)) (i32.const -4)"), "bad_output"),
        ("an answer that is not aligned", score("(call $drop (local.get $batch)) (i32.const 257)"), "bad_output"),
        (
            "a list of four billion values",
            score(
                "(call $drop (local.get $batch)) (i32.store offset=260 (i32.const 0) (i32.const 4096))
                 (i32.store offset=264 (i32.const 0) (i32.const -1)) (i32.const 256)",
            ),
            "bad_output",
        ),
        ("neither ok nor error", score("(call $drop (local.get $batch)) (i32.store8 offset=256 (i32.const 0) (i32.const 7)) (i32.const 256)"), "bad_output"),
        (
            "a fault whose text lies outside of memory",
            score(
                "(call $drop (local.get $batch)) (i32.store8 offset=256 (i32.const 0) (i32.const 1))
                 (i32.store offset=260 (i32.const 0) (i32.const 1000000000)) (i32.store offset=264 (i32.const 0) (i32.const 9)) (i32.const 256)",
            ),
            "bad_output",
        ),
        ("traps when the answer was read", Raw { post: "(unreachable)", ..GOOD }, "trap"),
        ("spins when the answer was read", Raw { post: "(loop $again (br $again))", ..GOOD }, "out_of_fuel"),
        ("calls the host when the answer was read", Raw { post: "(call $log (i32.const 2) (i32.const 16) (i32.const 10) (i32.const 0) (i32.const 0))", ..GOOD }, "trap"),
        (
            "calls the host from within a host call",
            Raw {
                realloc: "(call $log (i32.const 2) (i32.const 16) (i32.const 10) (i32.const 0) (i32.const 0)) (i32.const 65536)",
                score: "(call $text (local.get $batch) (i32.const 16) (i32.const 10) (i32.const 512)) (i32.const 256)",
                ..GOOD
            },
            "trap",
        ),
        (
            "gives the host memory that is not there",
            Raw {
                realloc: "(i32.const -16)",
                score: "(call $text (local.get $batch) (i32.const 16) (i32.const 10) (i32.const 512)) (i32.const 256)",
                ..GOOD
            },
            "bad_output",
        ),
        (
            "traps when the host asks for memory",
            Raw {
                realloc: "(unreachable)",
                score: "(call $text (local.get $batch) (i32.const 16) (i32.const 10) (i32.const 512)) (i32.const 256)",
                ..GOOD
            },
            "trap",
        ),
        ("gives the host a name outside of memory", score("(call $text (local.get $batch) (i32.const -16) (i32.const 100) (i32.const 512)) (i32.const 256)"), "bad_output"),
        (
            "has columns copied to one place without end, eight instructions a copy",
            Raw {
                realloc: "(i32.const 131072)",
                score: "(loop $again (call $text (local.get $batch) (i32.const 16) (i32.const 10) (i32.const 512)) (br $again)) (i32.const 256)",
                ..GOOD
            },
            "out_of_fuel",
        ),
        (
            "writes log lines of its whole memory without end",
            score("(loop $again (call $log (i32.const 2) (i32.const 0) (i32.const 60000) (i32.const 0) (i32.const 0)) (br $again)) (i32.const 256)"),
            "out_of_fuel",
        ),
        ("a level of log lines that is none", score("(call $log (i32.const 9) (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 0)) (i32.const 256)"), "bad_output"),
        (
            "grows a table",
            Raw {
                items: "(table $t 1 funcref)",
                score: "(if (i32.eq (table.grow $t (ref.null func) (i32.const 200000)) (i32.const -1)) (then (unreachable))) (i32.const 256)",
                ..GOOD
            },
            "trap",
        ),
        (
            "runs other code from its second step on",
            Raw {
                init: "(call $kv_get (i32.const 16) (i32.const 10) (i32.const 600)) (if (i32.load8_u (i32.const 600)) (then (unreachable))) (i32.const 128)",
                ..GOOD
            },
            "0",
        ),
    ];
    let round = || {
        let mut others = Vec::new();
        for (name, raw, expected) in cases {
            let found = outcome(&neighbour, raw).unwrap();
            neighbour.is_well(name);
            others.extend((found != expected).then_some((name, found)));
        }
        assert_eq!(others, []);
    };
    round();
    let warm = Process::now();
    round();
    Process::now().has_not_grown_since(warm, 32 << 10);
}

#[test]
fn raw_guests_that_attack_while_they_start_are_not_loaded() {
    let _alone = alone();
    let neighbour = Neighbour::new(1);
    let cases = [
        ("traps in describe", Raw { describe: "(unreachable)", ..GOOD }, "plugin.trap"),
        ("spins in describe", Raw { describe: "(loop $again (br $again)) (i32.const 64)", ..GOOD }, "plugin.out_of_fuel"),
        ("describes itself outside of memory", Raw { describe: "(i32.const -64)", ..GOOD }, "plugin.bad_output"),
        (
            "has a name of a megabyte",
            Raw {
                describe: "(drop (memory.grow (i32.const 64))) (memory.fill (i32.const 1024) (i32.const 97) (i32.const 1100000))
                    (i32.store (i32.const 64) (i32.const 1024)) (i32.store offset=4 (i32.const 64) (i32.const 1000000)) (i32.const 64)",
                ..GOOD
            },
            "plugin.bad_output",
        ),
        (
            "has a name that is no name",
            Raw {
                items: r#"(data (i32.const 1024) "../up\n")"#,
                describe: "(i32.store (i32.const 64) (i32.const 1024)) (i32.store offset=4 (i32.const 64) (i32.const 6)) (i32.const 64)",
                ..GOOD
            },
            "plugin.bad_output",
        ),
        (
            "needs a hundred thousand columns",
            Raw {
                describe: "(drop (memory.grow (i32.const 64))) (i32.store offset=24 (i32.const 64) (i32.const 65536))
                    (i32.store offset=28 (i32.const 64) (i32.const 100000)) (i32.const 64)",
                ..GOOD
            },
            "plugin.bad_output",
        ),
        ("traps in init", Raw { init: "(unreachable)", ..GOOD }, "plugin.trap"),
        ("spins in init", Raw { init: "(loop $again (br $again)) (i32.const 128)", ..GOOD }, "plugin.out_of_fuel"),
        ("spins before it is asked anything", Raw { items: "(func $f (loop $again (br $again))) (start $f)", ..GOOD }, "plugin.out_of_fuel"),
        ("traps before it is asked anything", Raw { items: "(func $f (unreachable)) (start $f)", ..GOOD }, "plugin.trap"),
        (
            "writes a log line outside of memory before it is asked anything",
            Raw { items: "(func $f (call $log (i32.const 2) (i32.const -16) (i32.const 100) (i32.const 0) (i32.const 0))) (start $f)", ..GOOD },
            "plugin.trap",
        ),
        ("has data outside of memory", Raw { items: r#"(data (i32.const 10000000) "x")"#, ..GOOD }, "plugin.trap"),
        ("begins with more memory than it may have", Raw { memory: "30000", ..GOOD }, "plugin.out_of_memory"),
        ("begins with more memories than it may have", Raw { items: "(memory $more 1)", ..GOOD }, "plugin.compile"),
        ("begins with more tables than it may have", Raw { items: "(table 1000000 funcref)", ..GOOD }, "plugin.compile"),
    ];
    let round = || {
        let mut others = Vec::new();
        for (name, raw, expected) in cases {
            let error = outcome(&neighbour, raw).unwrap_err();
            neighbour.is_well(name);
            others.extend((error.code() != expected).then_some((name, error.code(), error)));
        }
        assert!(others.is_empty(), "{others:?}");
    };
    round();
    let warm = Process::now();
    round();
    Process::now().has_not_grown_since(warm, 32 << 10);
}
