//! The book and the other documents: what they include and link to is there.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The documents of the repository, by hand-written rule: the book's pages, and what stands beside it.
fn documents() -> Vec<PathBuf> {
    let in_folder = |folder: &str| {
        let items = std::fs::read_dir(root().join(folder)).unwrap().map(|item| item.unwrap().path());
        items.filter(|path| path.extension().is_some_and(|e| e == "md")).collect::<Vec<_>>()
    };
    [in_folder("."), in_folder("docs"), in_folder("docs/src"), in_folder("wit")].concat()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Targets of `[text](target)` outside of code.
fn links(text: &str) -> Vec<String> {
    let (mut found, mut fenced) = (Vec::new(), false);
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        // Odd pieces between backticks are code.
        let prose: String = line.split('`').step_by(2).collect::<Vec<_>>().join("code");
        let targets = prose.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
        found.extend(targets.map(|(target, _)| target.to_owned()));
    }
    found
}

#[test]
fn relative_links_lead_to_files() {
    for document in documents() {
        for link in links(&read(&document)) {
            let target = link.split('#').next().unwrap_or_default();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            let path = document.parent().unwrap().join(target);
            assert!(path.exists(), "{}: `{link}` leads nowhere", document.display());
        }
    }
}

#[test]
fn includes_find_their_files_and_anchors() {
    let mut count = 0;
    for document in documents() {
        let text = read(&document);
        for include in text.split("{{#include ").skip(1) {
            let (target, _) = include.split_once("}}").expect("an include ends");
            let (file, anchor) =
                target.trim().split_once(':').map_or((target.trim(), None), |(file, anchor)| (file, Some(anchor)));
            let included = read(&document.parent().unwrap().join(file));
            if let Some(anchor) = anchor {
                for mark in [format!("ANCHOR: {anchor}\n"), format!("ANCHOR_END: {anchor}\n")] {
                    assert!(included.contains(&mark), "{}: `{file}` has no `{}`", document.display(), mark.trim());
                }
            }
            count += 1;
        }
    }
    assert!(count > 5, "the book includes its code");
}

#[test]
fn every_page_stands_in_the_table_of_contents() {
    let folder = root().join("docs/src");
    let listed: BTreeSet<String> = links(&read(&folder.join("SUMMARY.md"))).into_iter().collect();
    let pages = std::fs::read_dir(&folder).unwrap().map(|item| item.unwrap().file_name().into_string().unwrap());
    let pages: BTreeSet<String> = pages.filter(|name| name.ends_with(".md") && name != "SUMMARY.md").collect();
    assert_eq!(pages, listed);
}

#[test]
fn commands_in_documents_are_commands() {
    let help = |args: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_plumb")).args(args).arg("--help").output().unwrap();
        assert!(output.status.success(), "{args:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let mut known: std::collections::BTreeMap<String, String> = std::collections::BTreeMap::new();
    for document in documents() {
        for line in read(&document).lines().filter(|line| line.starts_with("$ plumb ")) {
            let words: Vec<&str> = line.split('#').next().unwrap().split_whitespace().skip(2).collect();
            let depth = if matches!(words.first(), Some(&"plugin" | &"run" | &"config" | &"model" | &"bench")) { 2 } else { 1 };
            let command: Vec<&str> = words.iter().take(depth).copied().collect();
            let help = known.entry(command.join(" ")).or_insert_with(|| help(&command));
            for flag in words.iter().filter(|word| word.starts_with("--")) {
                let flag = flag.split('=').next().unwrap();
                assert!(help.contains(flag), "{}: `{line}`: there is no `{flag}`", document.display());
            }
        }
    }
    assert!(known.len() > 10, "{known:?}");
}
