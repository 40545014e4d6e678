//! One plugin in every language: each case of `tests/conformance/cases.jsonl` must have one answer, bit for bit.
//!
//! `cargo xtask conformance` builds the guests; `tests/conformance/README.md` says what they do.

mod answer;
mod case;
mod turns;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use plumb_core::recipe::Grants;
use plumb_core::{Batch, Column, PluginFault, PluginKind};
use plumb_host::{Collector, Error, Host, HostOptions, LoadRequest, LoadedPlugin};

use case::{Case, Rows};

/// The languages; the first is what the others are held to.
const LANGUAGES: [&str; 3] = ["rust", "javascript", "python"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn guest(language: &str, kind: PluginKind) -> PathBuf {
    let path = root().join(format!("target/conformance/{language}/conformance-{kind}.wasm"));
    assert!(path.is_file(), "`{}` is missing, run `cargo xtask conformance`", path.display());
    path
}

fn host() -> (Host, Arc<Collector>) {
    let sink = Arc::new(Collector::default());
    let cache_dir = Some(PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("compiled-guests"));
    (Host::new(HostOptions { cache_dir, seed: 11, sink: Arc::clone(&sink) as _, ..HostOptions::default() }).unwrap(), sink)
}

fn load(host: &Host, language: &str, case: &Case) -> plumb_host::Result<LoadedPlugin> {
    let grants = Grants { models: ["judge", "critic"].map(str::to_owned).to_vec(), ..Grants::default() };
    let grants = if case.kind == PluginKind::Judge { grants } else { Grants::default() };
    host.load(LoadRequest { config: case.config.clone(), grants, ..LoadRequest::new(case.kind, guest(language, case.kind)) })
}

/// All that a case's calls answer and leave behind, line by line.
fn run(language: &str, case: &Case) -> Vec<String> {
    let (host, sink) = host();
    let plugin = match load(&host, language, case) {
        Ok(plugin) => plugin,
        // What each language says about it is its own, and whether its schema says it already or only `init` does.
        Err(Error::Config { code, .. }) if code == "schema" => return vec!["load: bad-config".to_owned()],
        Err(Error::Config { code, .. }) => return vec![format!("load: {code}")],
        Err(error) => panic!("{language}, case `{}`: {error:?}", case.name),
    };
    let mut lines = vec![answer::descriptor(plugin.descriptor())];
    if case.kind == PluginKind::Tool {
        let tool = plugin.into_tool().unwrap();
        for batch in &case.batches {
            let batch = batch.build();
            let Some(Column::Text(arguments)) = batch.column("arguments") else { panic!("case `{}`", case.name) };
            lines.extend(tool.answer(arguments).into_iter().enumerate().map(answer::output));
            lines.extend(sink.take_lines().iter().filter_map(answer::log));
        }
        return lines;
    }
    let plugin = Loaded::of(plugin);
    for batch in &case.batches {
        let answer = plugin.call(batch);
        let code = answer.as_ref().err().map(|fault| fault.code().to_owned());
        assert_eq!(code, batch.fails, "{language}, case `{}`, step {}: {answer:?}", case.name, batch.step);
        lines.extend(answer.unwrap_or_else(|fault| vec![answer::fault("batch", fault.code(), &fault.to_string())]));
        plugin.plugin().end_step();
        lines.extend(sink.take_lines().iter().filter_map(answer::log));
        lines.extend(plugin.plugin().take_metrics().iter().filter_map(|(name, value)| answer::metric(name, *value)));
    }
    let state = plugin.plugin().save_state().unwrap();
    lines.push(format!("state: {}", state.as_deref().map_or_else(|| "none".to_owned(), answer::hex)));
    // Whoever takes the state over goes on where it was left.
    if let (Some(state), Some(batch)) = (state, case.batches.last().filter(|batch| batch.fails.is_none())) {
        let other = Loaded::of(load(&host, language, case).unwrap());
        other.plugin().load_state(&state).unwrap();
        lines.extend(other.call(batch).unwrap());
    }
    lines
}

/// A plugin of any kind but a tool, which nobody but other plugins calls.
enum Loaded {
    Reward(Arc<dyn plumb_core::RewardFn>),
    Shaper(Arc<dyn plumb_core::Shaper>),
    Filter(Arc<dyn plumb_core::Filter>),
    Judge(Arc<dyn plumb_core::Judge>),
}

impl Loaded {
    fn of(plugin: LoadedPlugin) -> Self {
        match plugin.id().kind {
            PluginKind::Reward => Loaded::Reward(plugin.into_reward().unwrap()),
            PluginKind::Shaper => Loaded::Shaper(plugin.into_shaper().unwrap()),
            PluginKind::Filter => Loaded::Filter(plugin.into_filter().unwrap()),
            PluginKind::Judge => Loaded::Judge(plugin.into_judge().unwrap()),
            PluginKind::Tool => unreachable!("tools have no state and no step"),
        }
    }

    fn plugin(&self) -> &dyn plumb_core::feedback::Plugin {
        match self {
            Loaded::Reward(plugin) => &**plugin,
            Loaded::Shaper(plugin) => &**plugin,
            Loaded::Filter(plugin) => &**plugin,
            Loaded::Judge(plugin) => &**plugin,
        }
    }

    fn call(&self, rows: &Rows) -> Result<Vec<String>, PluginFault> {
        let batch = rows.build();
        match self {
            Loaded::Judge(plugin) => turns::judge(&**plugin, batch, &rows.answers),
            Loaded::Reward(plugin) => plugin.score(batch).map(|rewards| answer::rewards(&rewards)),
            Loaded::Shaper(plugin) => plugin.shape(&batch).map(|shaped| answer::shaped(&shaped)),
            Loaded::Filter(plugin) => plugin.select(&batch).map(|decision| answer::decision(&decision)),
        }
        .map_err(|error| error.fault)
    }
}

/// Runs the cases of a kind in all languages.
fn conform(kind: PluginKind) {
    let cases = case::read(&root().join("tests/conformance/cases.jsonl"));
    let cases: Vec<Case> = cases.into_iter().filter(|case| case.kind == kind).collect();
    assert!(!cases.is_empty(), "there are cases for a {kind}");
    for case in &cases {
        let expected = run(LANGUAGES[0], case);
        assert_eq!(case.fails_to_load, expected == ["load: bad-config"], "case `{}`: {expected:?}", case.name);
        for language in &LANGUAGES[1..] {
            let got = run(language, case);
            let differs = (0..expected.len().max(got.len())).find(|&line| expected.get(line) != got.get(line));
            if let Some(line) = differs {
                let (name, first) = (&case.name, LANGUAGES[0]);
                panic!("case `{name}`, line {line}\n{first:>10}: {:?}\n{language:>10}: {:?}", expected.get(line), got.get(line));
            }
        }
    }
}

#[test]
fn rewards_of_all_languages_have_one_answer() {
    conform(PluginKind::Reward);
}

#[test]
fn shapers_of_all_languages_have_one_answer_and_one_state() {
    conform(PluginKind::Shaper);
}

#[test]
fn filters_of_all_languages_have_one_answer() {
    conform(PluginKind::Filter);
}

#[test]
fn judges_of_all_languages_ask_the_same_and_have_one_verdict() {
    conform(PluginKind::Judge);
}

#[test]
fn tools_of_all_languages_have_one_answer() {
    conform(PluginKind::Tool);
}

/// Lines of the bundle that a component runs would tell its author nothing.
#[test]
fn bug_in_javascript_is_logged_with_the_lines_of_its_sources_and_without_the_sdk() {
    let source = std::fs::read_to_string(root().join("tests/conformance/javascript/reward/plugin.js")).unwrap();
    let line = |text: &str| 1 + source.lines().position(|line| line.contains(text)).unwrap();
    let (host, sink) = host();
    let request = LoadRequest::new(PluginKind::Reward, guest("javascript", PluginKind::Reward));
    let mut batch = Batch::new(0, vec![0], vec![1]);
    batch.insert("completion", Column::Text(["PANIC"].iter().collect()));
    host.load(request).unwrap().into_reward().unwrap().score(batch).unwrap();
    let (thrown, called) = (line("says PANIC"), line("rewards.push(scoreRow("));
    // The bundler may have renamed functions: two modules have a `scoreRow`.
    let places = format!(" (plugin.js:{thrown})\n    at score (plugin.js:{called})");
    let lines: Vec<_> = sink.take_lines().into_iter().map(|line| line.message).collect();
    let told = |line: &String| {
        let frames = line.strip_prefix("`score` failed: Error: the text says PANIC\n    at scoreRow");
        frames.and_then(|frames| frames.strip_suffix(&places)).is_some_and(|rest| rest.len() <= 1)
    };
    assert!(lines.iter().any(told), "{places:?} is not in {lines:?}");
}
