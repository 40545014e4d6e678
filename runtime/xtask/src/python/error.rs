//! Why a Python plugin does not build, in words that help.

use std::path::PathBuf;

use super::project::package;

/// Why a Python plugin does not build.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no interpreter to install packages with.
    #[error("there is no Python from 3.10 on; tried `{tried}`")]
    NoPython {
        /// Names that were looked for.
        tried: String,
    },
    /// `pip` did not reach its index.
    #[error("pip cannot install {what}: it does not reach its index of packages ({last})")]
    Offline {
        /// What was to be installed.
        what: String,
        /// Its last words.
        last: String,
    },
    /// A package that only exists as native code, or not at all.
    #[error("`{package}` has no version of pure Python that fits, and native code cannot run in a component")]
    Native {
        /// Its name.
        package: String,
    },
    /// `pip` failed otherwise.
    #[error("pip cannot install {what}: {last}")]
    Pip {
        /// What was to be installed.
        what: String,
        /// Its last words.
        last: String,
    },
    /// A module cannot be imported in the sandbox.
    #[error("module `{module}` cannot be imported in the sandbox: {}", .reason.text())]
    Import {
        /// Its name.
        module: String,
        /// Why.
        reason: Reason,
        /// Who imports it: `file:line`, outermost first.
        chain: Vec<String>,
    },
    /// The plugin's modules raise, or `componentize-py` fails.
    #[error("{last}")]
    Raised {
        /// The exception's last line.
        last: String,
        /// Where: `file:line`, outermost first.
        chain: Vec<String>,
    },
}

/// Why a module cannot be imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A part of the standard library that needs what the sandbox has not.
    System,
    /// A package of native code.
    Native,
    /// It is not among the plugin's dependencies.
    Missing,
}

impl Reason {
    fn text(self) -> &'static str {
        match self {
            Reason::System => "it is a part of Python's standard library that needs the operating system or a C library",
            Reason::Native => "it is native code, made for one machine",
            Reason::Missing => "it is not among the plugin's files and dependencies",
        }
    }
}

/// Modules of the standard library that CPython for WASI does not have.
const SYSTEM: [&str; 22] = [
    "ssl",
    "bz2",
    "lzma",
    "mmap",
    "curses",
    "tkinter",
    "readline",
    "resource",
    "pwd",
    "grp",
    "fcntl",
    "termios",
    "syslog",
    "hashlib",
    "ctypes",
    "sqlite3",
    "multiprocessing",
    "posixsubprocess",
    "socket",
    "pty",
    "tty",
    "dbm",
];
/// Packages that people know and that are native code.
const NATIVE: [&str; 24] = [
    "numpy",
    "scipy",
    "torch",
    "jax",
    "jaxlib",
    "tensorflow",
    "pandas",
    "sklearn",
    "transformers",
    "tokenizers",
    "tiktoken",
    "datasets",
    "pyarrow",
    "pydantic_core",
    "pydantic",
    "regex",
    "lxml",
    "orjson",
    "rapidfuzz",
    "Levenshtein",
    "gmpy2",
    "numba",
    "spacy",
    "cv2",
];

impl Error {
    /// What to do about it.
    pub fn fix(&self) -> &'static str {
        match self {
            Error::NoPython { .. } => "install Python 3.10 or later, or put `componentize-py` on the path",
            Error::Offline { .. } => {
                "build once with access to the index (or set `PIP_INDEX_URL`): what is installed is kept for later builds"
            }
            Error::Native { .. } => {
                "look for a package of pure Python, write that part yourself, or write the plugin in Rust (`plumb plugin new --lang rust`)"
            }
            Error::Pip { .. } => "mend `dependencies` in pyproject.toml",
            Error::Import { reason, .. } => match reason {
                Reason::System => "do without it, or import it in a `try` if only other code paths need it",
                Reason::Native => "do without it, or write the plugin in Rust (`plumb plugin new --lang rust`)",
                Reason::Missing => "add it to `dependencies` in pyproject.toml (`plumb plugin wrap --dependency NAME`)",
            },
            Error::Raised { .. } => "mend it; `pytest` shows most of such errors natively",
        }
    }

    /// Who imports the module, or where the exception was raised.
    pub fn chain(&self) -> &[String] {
        match self {
            Error::Import { chain, .. } | Error::Raised { chain, .. } => chain,
            _ => &[],
        }
    }

    /// Reads what `pip` or `venv` wrote.
    pub(super) fn of_pip(said: &str, what: &str) -> Self {
        let last = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("no message").trim().to_owned();
        let what = what.to_owned();
        let unreachable =
            ["NewConnectionError", "Temporary failure in name resolution", "ConnectTimeout", "ProxyError", "SSLError"];
        if unreachable.iter().any(|sign| said.contains(sign)) {
            return Error::Offline { what, last };
        }
        let none = "No matching distribution found for ";
        if let Some(at) = said.find(none) {
            let requirement = said[at + none.len()..].lines().next().unwrap_or_default();
            return Error::Native { package: package(requirement) };
        }
        Error::Pip { what, last }
    }

    /// Reads the traceback that `componentize-py` wrote; `search` are the folders that it knows as `/0`, `/1`, ...
    pub(super) fn of_traceback(said: &str, search: &[PathBuf], dependencies: &[String]) -> Self {
        // The exception with its frames comes as the text of another, and then again with the frames of the program itself.
        let outer = "AssertionError: ";
        let start = said.find(outer).map_or(0, |at| at + outer.len());
        let own = said[start..].split("\nCaused by:").next().unwrap_or_default().trim();
        let chain: Vec<String> = own.lines().filter_map(|line| frame(line, search)).collect();
        let last = own.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("no message").trim().to_owned();
        let Some(module) = last.strip_prefix("ModuleNotFoundError: No module named ") else {
            return Error::Raised { last, chain };
        };
        let module = module.trim_matches(['\'', '"', ' ']).to_owned();
        let top = module.split('.').next().unwrap_or(&module);
        let reason = if SYSTEM.contains(&top.trim_start_matches('_')) {
            Reason::System
        } else if NATIVE.contains(&top) || dependencies.iter().any(|requirement| package(requirement) == package(top)) {
            Reason::Native
        } else {
            Reason::Missing
        };
        Error::Import { module, reason, chain }
    }
}

/// `file:line` of a traceback's line, if it tells of a module of the plugin or of its packages.
fn frame(line: &str, search: &[PathBuf]) -> Option<String> {
    let (file, rest) = line.trim().strip_prefix("File \"")?.split_once('"')?;
    let number = rest.strip_prefix(", line ")?.split(',').next()?;
    let (index, inside) = file.strip_prefix('/')?.split_once('/')?;
    search.get(index.parse::<usize>().ok()?)?;
    // The entry module and the SDK are not the author's.
    let own = ["plumb_entry.py", "plumb_wrapped.py"].contains(&inside) || inside.starts_with("plumb_sdk/");
    (!own).then(|| format!("{inside}:{number}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = r#"Traceback (most recent call last):
  File "/x/bin/componentize-py", line 8, in <module>
    sys.exit(script())
AssertionError: Traceback (most recent call last):
  File "/0/plumb_entry.py", line 7, in <module>
    plugin = importlib.import_module("rewards").Wrapped
  File "<frozen importlib._bootstrap>", line 1371, in _find_and_load
  File "/1/rewards.py", line 3, in <module>
    import helper
  File "/2/helper/__init__.py", line 1, in <module>
    import NAME
ModuleNotFoundError: No module named 'NAME'


Caused by:
    ModuleNotFoundError: No module named 'NAME'

Stack backtrace:
"#;

    fn of(name: &str) -> Error {
        let search = ["/e", "/p", "/d", "/s"].map(PathBuf::from);
        Error::of_traceback(&SAID.replace("NAME", name), &search, &["helper".into(), "fast-thing".into()])
    }

    #[test]
    fn failed_import_names_the_module_the_chain_and_the_reason() {
        for (name, expected) in [
            ("_ssl", Reason::System),
            ("numpy", Reason::Native),
            ("fast_thing", Reason::Native),
            ("fast_thing._speedups", Reason::Native),
            ("requests", Reason::Missing),
        ] {
            let Error::Import { module, reason, chain } = of(name) else { panic!("an import failed") };
            assert_eq!((module.as_str(), reason), (name, expected));
            assert_eq!(chain, ["rewards.py:3", "helper/__init__.py:1"]);
        }
    }

    #[test]
    fn other_exceptions_keep_their_last_line() {
        let said = SAID.replace("ModuleNotFoundError: No module named 'NAME'", "TypeError: `x` has no `score_row`: write it");
        let Error::Raised { last, chain } = Error::of_traceback(&said, &[], &[]) else { panic!("no import failed") };
        assert_eq!((last.as_str(), chain.len()), ("TypeError: `x` has no `score_row`: write it", 0));
    }

    #[test]
    fn pip_failures_are_told_apart() {
        let native = "ERROR: Could not find a version that satisfies the requirement numpy>=2 (from versions: none)\nERROR: No matching distribution found for numpy>=2\n";
        assert!(matches!(Error::of_pip(native, "numpy>=2"), Error::Native { package } if package == "numpy"));
        let offline = "WARNING: Retrying (...) after connection broken by 'NewConnectionError(...)'\nERROR: No matching distribution found for sympy\n";
        assert!(matches!(Error::of_pip(offline, "sympy"), Error::Offline { .. }));
        assert!(
            matches!(Error::of_pip("ERROR: Invalid requirement: '=='\n", "=="), Error::Pip { last, .. } if last.contains("Invalid"))
        );
    }
}
