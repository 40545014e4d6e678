//! Files that are refused before anything of them runs.

use plumb_core::PluginKind;
use plumb_host::{Error, Host, HostOptions, inspect};
use serde_json::json;
use wasmparser::{Parser, Payload};

use crate::raw::GOOD;
use crate::support::{Neighbour, alone, bytes, guest, request};

fn refused(host: &Host, component: Vec<u8>) -> Error {
    host.load(bytes(component)).unwrap_err()
}

/// A component in text.
fn component(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap_or_else(|error| panic!("{error}"))
}

/// Ends of the sections of a component, of whatever depth, and that of its own last exports: what follows is for people.
fn section_ends(bytes: &[u8]) -> (Vec<usize>, usize) {
    let (mut ends, mut exported, mut depth) = (Vec::new(), 0, 0);
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.unwrap() {
            Payload::Version { .. } => depth += 1,
            Payload::End(at) => {
                depth -= 1;
                ends.push(at);
            }
            other => {
                let end = other.as_section().map(|(_, range)| range.end);
                if let (Payload::ComponentExportSection(_), 1, Some(end)) = (&other, depth, end) {
                    exported = end;
                }
                ends.extend(end);
            }
        }
    }
    (ends, exported)
}

#[test]
fn components_cut_at_any_section_are_refused() {
    let _alone = alone();
    let neighbour = Neighbour::new(1);
    for whole in [GOOD.component(), std::fs::read(guest("reward-hostile")).unwrap()] {
        let (ends, exported) = section_ends(&whole);
        assert!(ends.len() > 30);
        for end in ends.into_iter().filter(|end| *end < whole.len()).flat_map(|end| [end - 1, end, end + 1]) {
            let Err(error) = neighbour.host.load(bytes(whole[..end].to_vec())) else {
                assert!(end >= exported, "cut at {end} of {}", whole.len());
                continue;
            };
            let code = error.code();
            assert!(
                ["plugin.malformed", "plugin.not_a_plugin", "plugin.compile"].contains(&code.as_str()),
                "cut at {end}: {error}"
            );
        }
    }
    neighbour.is_well("cut components");
}

#[test]
fn components_with_flipped_bits_are_refused_or_run_within_bounds() {
    let _alone = alone();
    let neighbour = Neighbour::new(1);
    // Without a cache, which need not keep any of these.
    let host = Host::new(HostOptions::default()).unwrap();
    let whole = GOOD.component();
    for at in (8..whole.len()).step_by(23) {
        let mut bent = whole.clone();
        bent[at] ^= 1 << (at % 8);
        if let Ok(plugin) = host.load(bytes(bent)) {
            let answer = plugin.into_reward().unwrap().score(crate::support::batch(false)).unwrap();
            assert_eq!(answer.outcomes.len(), crate::support::ROWS, "bit {at}");
        }
    }
    neighbour.is_well("flipped bits");
}

#[test]
fn what_is_no_component_is_refused_by_what_it_is() {
    let _alone = alone();
    let neighbour = Neighbour::new(1);
    let engine = wasmtime::Engine::default();
    let compiled = engine.precompile_module(b"\0asm\x01\0\0\0").unwrap();
    for (what, file) in [
        ("magic number", b"#!/bin/sh".to_vec()),
        ("native or precompiled", b"\x7fELF\x02\x01\x01".to_vec()),
        ("native or precompiled", compiled),
        ("core module", wat::parse_str("(module)").unwrap()),
        ("empty", Vec::new()),
    ] {
        let error = refused(&neighbour.host, file);
        assert!(error.code() == "plugin.not_a_component" && error.to_string().contains(what), "{error}");
    }
}

#[test]
fn exports_with_the_right_names_and_wrong_types_are_refused_at_load() {
    let _alone = alone();
    let neighbour = Neighbour::new(1);
    // The whole interface but for one type in it: a reward is a count.
    let wrong = GOOD.component_of(&[(
        "score: func(rows: borrow<batch>) -> result<rewards, fault>;",
        "score: func(rows: borrow<batch>) -> result<u32, fault>;",
    )]);
    assert_eq!(inspect("wrong", &wrong).unwrap().kind, PluginKind::Reward);
    let error = refused(&neighbour.host, wrong);
    assert!(matches!(&error, Error::Start { source, .. } if source.export == "instantiate"), "{error:?}");
    assert_eq!(error.code(), "plugin.bad_output");
    // The interface's names without what belongs to them.
    let empty = component(
        r#"(component (instance $none) (export "plumb:align/lifecycle@0.1.1" (instance $none)) (export "plumb:align/rewarding@0.1.1" (instance $none)))"#,
    );
    assert_eq!(refused(&neighbour.host, empty).code(), "plugin.compile");
    neighbour.is_well("wrong types");
}

#[test]
fn components_within_components_without_end_are_refused_soon() {
    let _alone = alone();
    let neighbour = Neighbour::new(1);
    // Each level instantiates the one below it twice: 2^24 instances in a kilobyte.
    let levels: String = (1..=24)
        .map(|level| {
            let below = level - 1;
            format!("(component $c{level} (alias outer $top $c{below} (component $below)) (instance (instantiate $below)) (instance (instantiate $below)))\n")
        })
        .collect();
    let bomb = component(&format!(
        r#"(component $top
            (component $c0 (core module $m) (core instance (instantiate $m)))
            {levels}
            (instance (instantiate $c24))
            (core module $m (func (export "f")))
            (core instance $i (instantiate $m))
            (func $f (canon lift (core func $i "f")))
            (instance $rewarding (export "score" (func $f)))
            (export "plumb:align/rewarding@0.1.1" (instance $rewarding)))"#
    ));
    let error = refused(&neighbour.host, bomb);
    assert_eq!(error.code(), "plugin.too_many_instances", "{error}");
    let many = "(core instance (instantiate $m))".repeat(5000);
    let error = refused(&neighbour.host, component(&format!("(component (core module $m) {many})")));
    assert_eq!(error.code(), "plugin.too_many_instances", "{error}");
    neighbour.is_well("components within components");
}

#[test]
fn imports_beyond_the_interface_are_refused_whatever_they_import() {
    let _alone = alone();
    let neighbour = Neighbour::new(1);
    let export = r#"(core module $m (func (export "f"))) (core instance $i (instantiate $m)) (func $f (canon lift (core func $i "f")))
        (instance $rewarding (export "score" (func $f))) (export "plumb:align/rewarding@0.1.1" (instance $rewarding))"#;
    for (import, code) in [
        (r#"(import "wasi:filesystem/types@0.2.0" (instance))"#, "plugin.unknown_import"),
        (r#"(import "secret" (func))"#, "plugin.unknown_import"),
        (r#"(import "plumb:align/rewarding@0.1.1" (instance))"#, "plugin.unknown_import"),
        (r#"(import "plumb:align/data@0.9.0" (instance))"#, "plugin.wit_version"),
        (r#"(import "plumb:align/models@0.1.1" (instance))"#, "plugin.not_granted"),
        (r#"(import "plumb:align/tools@0.1.1" (instance))"#, "plugin.not_granted"),
    ] {
        let error = refused(&neighbour.host, component(&format!("(component {import} {export})")));
        assert_eq!(error.code(), code, "{import}: {error}");
    }
}

#[test]
fn configurations_that_nobody_would_write_end_in_an_error_of_the_plugin() {
    let _alone = alone();
    let neighbour = Neighbour::new(1);
    let deep = (0..100).fold(json!("end"), |inner, _| json!({ "deeper": inner }));
    let long = json!({ "attack": "x".repeat(10 << 20) });
    let many = json!((0..100_000).map(|i| (i.to_string(), json!(i))).collect::<serde_json::Map<_, _>>());
    for config in [json!({ "attack": deep }), long, many] {
        let error = neighbour.host.load(request(PluginKind::Reward, "reward-hostile", config)).unwrap_err();
        assert!(["plugin.config", "plugin.out_of_fuel"].contains(&error.code().as_str()), "{}", error.code());
        assert!(error.to_string().len() < 5000, "{} bytes of message", error.to_string().len());
    }
    neighbour.is_well("configurations");
}
