//! Plugins that `plumb plugin new` starts: those of each kind in each language build, give the answers that their cases expect, and
//! pass the tests that come with them.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::checks::plugin_test;
use crate::conformance::KINDS;
use crate::{say, sdk_python, target};

const LANGUAGES: [&str; 3] = ["rust", "js", "python"];

/// Starts and tests all of them; `fast` leaves out the lints.
pub fn check(plumb: &Path, fast: bool) -> Result<()> {
    let fresh = tempfile::tempdir()?;
    for language in LANGUAGES {
        say(&format!("tests: new plugins of every kind, --lang {language}"));
        for kind in KINDS {
            let folder = fresh.path().join(format!("{kind}-{language}"));
            let mut new = Command::new(plumb);
            new.args(["plugin", "new", "--quiet", "--kind", kind, "--lang", language]).arg(&folder);
            run(new.stdout(Stdio::null()))?;
            plugin_test(plumb, &[&folder])?;
            own_tests(language, &folder, fast).with_context(|| format!("the tests of a new {kind}, --lang {language}"))?;
        }
    }
    Ok(())
}

/// Runs the tests that the folder's README names.
fn own_tests(language: &str, folder: &Path, fast: bool) -> Result<()> {
    match language {
        "rust" => {
            let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
            // The new plugins' own: they share what is compiled of the SDK.
            let shared = target().join("templates");
            let command = |arguments: &[&str]| {
                let mut command = Command::new(&cargo);
                command.args(arguments).current_dir(folder).env("CARGO_TARGET_DIR", &shared).stdout(Stdio::null());
                run(&mut command)
            };
            command(&["test", "--quiet"])?;
            if fast { Ok(()) } else { command(&["clippy", "--quiet", "--all-targets", "--", "--deny", "warnings"]) }
        }
        "js" => {
            run(Command::new("npm").args(["install", "--silent", "--no-audit", "--no-fund"]).current_dir(folder))?;
            run(Command::new("npm").args(["test", "--silent"]).current_dir(folder).stdout(Stdio::null()))
        }
        _ => sdk_python::test(folder),
    }
}

fn run(command: &mut Command) -> Result<()> {
    let name = format!(
        "{} {}",
        command.get_program().display(),
        command.get_args().map(|a| a.to_string_lossy()).collect::<Vec<_>>().join(" ")
    );
    let status = command.status().with_context(|| format!("cannot start `{name}`"))?;
    ensure!(status.success(), "`{name}` failed ({status})");
    Ok(())
}
