//! What an author or a machine can mend about a JavaScript build.

use serde::Deserialize;

/// A build that cannot work, and why.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no node, or it cannot be run.
    #[error("node is not there: {reason}")]
    NodeMissing {
        /// What was tried, and what came of it.
        reason: String,
    },
    /// node is too old for the tools.
    #[error("node is version {found}, and the tools need {needed} or later")]
    NodeOld {
        /// Its version.
        found: String,
        /// The least major version.
        needed: u32,
    },
    /// npm could not install something.
    #[error("npm could not install what stands in `{folder}/package.json`: {reason}")]
    Npm {
        /// Where it ran.
        folder: String,
        /// What it said.
        reason: String,
    },
    /// `package.json` does not say where the plugin is.
    #[error("`package.json` has no `main`, which names the module that exports the plugin")]
    NoMain,
    /// The module that `package.json` names is not there.
    #[error("`package.json` says `\"main\": \"{main}\"`, and there is no such file")]
    MainMissing {
        /// The file, as it stands there.
        main: String,
    },
    /// The module has no default export.
    #[error("the module that `main` names has no default export")]
    NoDefault {
        /// The plugin's kind.
        kind: String,
    },
    /// A module of node itself.
    #[error("{place} imports `{module}`, a module of node: a plugin has no system below it to ask")]
    Builtin {
        /// The module.
        module: String,
        /// `file:line:column` of the import.
        place: String,
    },
    /// A module that is nowhere to be found.
    #[error("{place} imports `{module}`, which cannot be found")]
    Unresolved {
        /// The module.
        module: String,
        /// `file:line:column` of the import.
        place: String,
    },
    /// The sources are not valid.
    #[error("{place}: {message}{line}")]
    Syntax {
        /// `file:line:column`.
        place: String,
        /// What is wrong.
        message: String,
        /// The line, if it is known.
        line: String,
    },
    /// The module throws while it loads.
    #[error("the plugin's module fails while it loads: {message}")]
    Evaluate {
        /// The exception, with its stack.
        message: String,
    },
}

/// What the script answers.
#[derive(Deserialize)]
pub(super) struct Report {
    pub error: Option<Problem>,
}

/// A problem as the script tells it.
#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum Problem {
    Builtin { module: String, place: Option<String> },
    Unresolved { module: String, place: Option<String> },
    Syntax { message: String, place: Option<String>, line: Option<String> },
    Evaluate { message: String },
    NoDefault,
}

impl Error {
    pub(super) fn of(problem: Problem, kind: &str) -> Self {
        let somewhere = |place: Option<String>| place.unwrap_or_else(|| "a module".to_owned());
        match problem {
            Problem::Builtin { module, place } => Error::Builtin { module, place: somewhere(place) },
            Problem::Unresolved { module, place } => Error::Unresolved { module, place: somewhere(place) },
            Problem::Syntax { message, place, line } => {
                let line = line.map_or_else(String::new, |line| format!("\n    {}", line.trim()));
                Error::Syntax { place: somewhere(place), message, line }
            }
            Problem::Evaluate { message } => {
                // The rest is about the tool: a chain of causes, and addresses in QuickJS.
                let message = message.rsplit("Failed to finish JavaScript module evaluation: ").next().unwrap_or(&message);
                Error::Evaluate { message: message.trim().to_owned() }
            }
            Problem::NoDefault => Error::NoDefault { kind: kind.to_owned() },
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Error::NodeMissing { .. } | Error::NodeOld { .. } => {
                "install node 18 or later (https://nodejs.org), with npm, so that both are on the PATH".into()
            }
            Error::Npm { .. } => "see npm's message; behind a proxy, npm's own settings say how to reach the registry".into(),
            Error::NoMain | Error::MainMissing { .. } => "name it in `package.json`: `\"main\": \"src/plugin.js\"`".into(),
            Error::NoDefault { kind } => {
                let mut letters = kind.chars();
                let kind = letters.next().map_or_else(String::new, |first| first.to_ascii_uppercase().to_string() + letters.as_str());
                format!("let it end in `export default define{kind}({{ ... }})`")
            }
            Error::Builtin { module, .. } => instead_of(module).into(),
            Error::Unresolved { module, .. } if module.starts_with('.') || module.starts_with('/') => {
                "check the path: it is relative to the file that imports it, and its ending belongs to it".into()
            }
            Error::Unresolved { module, .. } if module.split('/').next() == Some("plumb-sdk") => {
                "the SDK is in no registry yet: set `PLUMB_SOURCE` to a checkout of plumb, or `npm install` the checkout's `sdk/js`".into()
            }
            Error::Unresolved { module, .. } => format!("name it in `dependencies` of `package.json`: `npm install {module}`"),
            Error::Syntax { .. } => "mend that line".into(),
            Error::Evaluate { .. } => {
                "what asks the runtime (log, random, kv, models, ...) belongs into the plugin's functions, not at the top of a module".into()
            }
        }
    }
}

/// What a plugin does in place of using a module of node.
fn instead_of(module: &str) -> &'static str {
    match module.split('/').next().unwrap_or_default() {
        "fs" => {
            "there are no files: import JSON (`import words from \"./words.json\"`), or take data from a column or the configuration"
        }
        "crypto" => {
            "random numbers come from `random` of plumb-sdk, which repeats; for digests use a package in plain JavaScript (`@noble/hashes`)"
        }
        "http" | "https" | "net" | "tls" | "dns" | "http2" | "dgram" => {
            "there is no network: ask a model through `models`, or a tool through `tools`"
        }
        "child_process" | "worker_threads" | "cluster" => {
            "there are no processes and threads: a call works through its batch and returns"
        }
        "os" | "process" | "perf_hooks" | "timers" => {
            "there is no clock and no environment: what a plugin needs stands in its configuration and its batch"
        }
        _ => "use a package that works in browsers, or take an older one without that import",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_name_place_and_next_step() {
        let problem: Report =
            serde_json::from_str(r#"{"error": {"kind": "builtin", "module": "fs", "place": "src/x.js:3:22"}}"#).unwrap();
        let error = Error::of(problem.error.unwrap(), "reward");
        assert!(error.to_string().starts_with("src/x.js:3:22 imports `fs`"), "{error}");
        assert!(error.hint().contains("import JSON"), "{}", error.hint());
        let no_default = Error::of(Problem::NoDefault, "reward");
        assert!(no_default.hint().contains("export default defineReward("), "{}", no_default.hint());
    }

    #[test]
    fn evaluation_error_is_told_without_the_tools_own_words() {
        let message = ": Failed to evaluate user JavaScript module: Failed to finish JavaScript module evaluation: Error: boom\n    at x.js:1\n";
        let error = Error::of(Problem::Evaluate { message: message.into() }, "reward");
        assert_eq!(error.to_string(), "the plugin's module fails while it loads: Error: boom\n    at x.js:1");
    }
}
