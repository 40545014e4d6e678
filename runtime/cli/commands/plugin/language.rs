//! Languages that plugins are written in: the one place that tells them apart.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::ValueEnum;
use plumb_host::Manifest;
use plumb_xtask::{c, javascript, python};

use super::new::Kind;
use super::source::{dependency_hint, sdk_tree, source_tree};
use crate::diagnostic::Diagnostic;
use crate::output::Output;

/// A language that plugins are built from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Language {
    /// A crate
    Rust,
    /// A package of node's, built with QuickJS
    #[value(alias = "javascript")]
    Js,
    /// The same with types
    #[value(alias = "typescript")]
    Ts,
    /// Modules and their packages of pure Python, with the interpreter
    Python,
    /// Sources against the interface itself, without an SDK and so without templates
    #[value(skip)]
    C,
}

/// All languages, in the order in which a folder is asked for their projects.
const LANGUAGES: [Language; 5] = [Language::Rust, Language::Js, Language::Ts, Language::Python, Language::C];

/// A file of a new plugin: its path in the folder, and its text with `{{placeholders}}`.
pub type Template = (&'static str, &'static str);

impl Language {
    /// Reads off a plugin's folder which language it is written in.
    pub fn detect(folder: &Path) -> Result<Self, Diagnostic> {
        LANGUAGES.into_iter().find(|language| folder.join(language.project_file()).is_file()).ok_or_else(|| {
            let files: Vec<_> = LANGUAGES.iter().map(|language| format!("`{}`", language.project_file())).collect();
            Diagnostic::usage("plugin.language", format!("cannot tell in which language `{}` is written", folder.display()))
                .because(format!("there is no {} in it", files.join(" and no ")))
                .hint("`plumb plugin new` starts a plugin with all the files it needs")
        })
    }

    /// The file that says that a folder is a project in this language.
    fn project_file(self) -> &'static str {
        match self {
            Language::Rust => "Cargo.toml",
            Language::Js | Language::Ts => "package.json",
            Language::Python => "pyproject.toml",
            Language::C => "plugin.c",
        }
    }

    /// What to tell before a build that may take long.
    pub fn build_note(self) -> &'static str {
        match self {
            Language::Rust => "the first build on a machine may prepare the WebAssembly target: a few minutes",
            Language::Js | Language::Ts => "the first build on a machine fetches esbuild and componentize-qjs with npm",
            Language::Python => "the first build on a machine fetches componentize-py: some 50 MB",
            Language::C => "with clang, or what `PLUMB_WASM_CC` names",
        }
    }

    /// Builds the plugin in `folder` into the component `file`.
    pub fn build(self, folder: &Path, manifest: &Manifest, file: &Path, output: Output) -> Result<(), Diagnostic> {
        let built = match self {
            Language::Rust => plumb_xtask::guest::build_crate(folder, file, &cargo_folder(folder)),
            Language::Js | Language::Ts => {
                let sdk = source_tree().as_deref().map(javascript::sdk_in);
                let setup = javascript::Setup { sdk: sdk.as_deref(), cache: &tools_folder(), say: &|what| output.note(what) };
                javascript::build_folder(folder, file, &setup).map(drop)
            }
            Language::Python => with_python(output, |setup| python::build_folder(folder, file, setup)).map(drop),
            Language::C => c::build_folder(folder, file),
        };
        built.map_err(|error| {
            let failure = build_failure(&manifest.name, &error);
            match dependency_hint(folder).filter(|_| self == Language::Rust) {
                Some(hint) => failure.hint(hint),
                None => failure,
            }
        })
    }

    /// The files of a new plugin besides `cases.jsonl`.
    pub fn templates(self, kind: Kind) -> Vec<Template> {
        match self {
            Language::Rust => vec![
                ("Cargo.toml", include_str!("template/Cargo.toml.txt")),
                ("plugin.toml", include_str!("template/plugin.toml.txt")),
                ("README.md", include_str!("template/README.md.txt")),
                (".gitignore", "target/\n"),
                ("src/lib.rs", include_str!("template/lib.rs.txt")),
                (
                    "src/logic.rs",
                    match kind {
                        Kind::Reward => include_str!("template/reward.rs.txt"),
                        Kind::Shaper => include_str!("template/shaper.rs.txt"),
                        Kind::Filter => include_str!("template/filter.rs.txt"),
                        Kind::Judge => include_str!("template/judge.rs.txt"),
                        Kind::Tool => include_str!("template/tool.rs.txt"),
                    },
                ),
            ],
            Language::Js => {
                let (logic, test) = javascript_sources(kind);
                vec![
                    ("package.json", include_str!("template/javascript/package.json.txt")),
                    ("plugin.toml", include_str!("template/plugin.toml.txt")),
                    ("README.md", include_str!("template/javascript/README.md.txt")),
                    (".gitignore", "node_modules/\ntarget/\n"),
                    ("src/plugin.js", logic),
                    ("test/plugin.test.js", test),
                ]
            }
            Language::Ts => {
                let (logic, test) = javascript_sources(kind);
                vec![
                    ("package.json", include_str!("template/javascript/package-ts.json.txt")),
                    ("tsconfig.json", include_str!("template/javascript/tsconfig.json.txt")),
                    ("plugin.toml", include_str!("template/plugin.toml.txt")),
                    ("README.md", include_str!("template/javascript/README.md.txt")),
                    (".gitignore", "node_modules/\ntarget/\n"),
                    ("src/plugin.ts", logic),
                    ("test/plugin.test.ts", test),
                ]
            }
            Language::Python => {
                let (logic, test) = match kind {
                    Kind::Reward => {
                        (include_str!("template/python/reward.py.txt"), include_str!("template/python/test_reward.py.txt"))
                    }
                    Kind::Shaper => {
                        (include_str!("template/python/shaper.py.txt"), include_str!("template/python/test_shaper.py.txt"))
                    }
                    Kind::Filter => {
                        (include_str!("template/python/filter.py.txt"), include_str!("template/python/test_filter.py.txt"))
                    }
                    Kind::Judge => {
                        (include_str!("template/python/judge.py.txt"), include_str!("template/python/test_judge.py.txt"))
                    }
                    Kind::Tool => (include_str!("template/python/tool.py.txt"), include_str!("template/python/test_tool.py.txt")),
                };
                vec![
                    ("pyproject.toml", include_str!("template/python/pyproject.toml.txt")),
                    ("plugin.toml", include_str!("template/python/plugin.toml.txt")),
                    ("README.md", include_str!("template/python/README.md.txt")),
                    (".gitignore", "target/\n__pycache__/\n"),
                    ("plugin.py", logic),
                    ("test_plugin.py", test),
                ]
            }
            // `sdk/c/examples` is to be copied.
            Language::C => Vec::new(),
        }
    }

    /// The file that the author writes.
    pub fn logic_file(self) -> &'static str {
        match self {
            Language::Rust => "src/logic.rs",
            Language::Js => "src/plugin.js",
            Language::Ts => "src/plugin.ts",
            Language::Python => "plugin.py",
            Language::C => "plugin.c",
        }
    }

    /// What stands for `{{sdk}}`: the SDK of that source tree, as the language's projects name it.
    pub fn sdk(self, tree: &Path) -> String {
        match self {
            Language::Rust => format!("{{ path = {:?} }}", tree.join("sdk/rust").display().to_string()),
            Language::Js | Language::Ts => format!("file:{}", javascript::sdk_in(tree).display()),
            Language::Python => format!("{:?}", python::sdk_in(tree).display().to_string()),
            Language::C => String::new(),
        }
    }
}

/// `src/plugin` and its test; the same text is TypeScript.
fn javascript_sources(kind: Kind) -> (&'static str, &'static str) {
    match kind {
        Kind::Reward => {
            (include_str!("template/javascript/reward.js.txt"), include_str!("template/javascript/reward.test.js.txt"))
        }
        Kind::Shaper => {
            (include_str!("template/javascript/shaper.js.txt"), include_str!("template/javascript/shaper.test.js.txt"))
        }
        Kind::Filter => {
            (include_str!("template/javascript/filter.js.txt"), include_str!("template/javascript/filter.test.js.txt"))
        }
        Kind::Judge => (include_str!("template/javascript/judge.js.txt"), include_str!("template/javascript/judge.test.js.txt")),
        Kind::Tool => (include_str!("template/javascript/tool.js.txt"), include_str!("template/javascript/tool.test.js.txt")),
    }
}

/// Where tools of other languages are kept: in this user's cache, else with temporary files.
fn tools_folder() -> PathBuf {
    let components = plumb_host::default_cache_dir();
    let cache = components.as_deref().and_then(Path::parent).map_or_else(std::env::temp_dir, Path::to_owned);
    cache.join("tools")
}

/// Where cargo keeps its files: in this program's source tree if it is still there, so that plugins share what is built of the
/// SDK and of the standard library, else in the crate.
fn cargo_folder(folder: &Path) -> PathBuf {
    source_tree().map_or_else(|| folder.join("target/wasm"), |tree| tree.join("target/wasm"))
}

/// Does something with the Python SDK of the source tree, and says what takes long.
pub fn with_python<T>(output: Output, build: impl FnOnce(&python::Setup) -> anyhow::Result<T>) -> anyhow::Result<T> {
    let tree = sdk_tree()?;
    let cache = plumb_host::default_cache_dir().context("there is no folder for caches: set `HOME` or `XDG_CACHE_HOME`")?;
    let say = |what: &str| output.note(what);
    build(&python::Setup { sdk: &python::sdk_in(&tree), cache: &cache.with_file_name("python"), say: &say })
}

/// Why a plugin does not build, with what to do about it where that is known.
pub fn build_failure(name: &str, error: &anyhow::Error) -> Diagnostic {
    if let Some(told) = error.downcast_ref::<Diagnostic>() {
        return told.clone();
    }
    let diagnostic = Diagnostic::usage("plugin.build", format!("plugin `{name}` does not build"));
    let diagnostic = error.chain().map(ToString::to_string).fold(diagnostic, Diagnostic::because);
    if let Some(known) = error.downcast_ref::<javascript::Error>() {
        return diagnostic.hint(known.hint());
    }
    if let Some(known) = error.downcast_ref::<c::Error>() {
        return diagnostic.hint(known.fix());
    }
    let Some(known) = error.downcast_ref::<python::Error>() else { return diagnostic };
    let diagnostic = diagnostic.hint(known.fix());
    // Innermost last, as in a traceback.
    if known.chain().is_empty() { diagnostic } else { diagnostic.at(known.chain().join(" > ")) }
}
