//! Languages that plugins are written in: the one place that tells them apart.

use std::path::Path;

use clap::ValueEnum;
use plumb_host::Manifest;

use super::new::{Kind, source_tree};
use crate::diagnostic::Diagnostic;

/// A language with an SDK of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Language {
    /// A crate
    Rust,
}

/// A file of a new plugin: its path in the folder, and its text with `{{placeholders}}`.
pub type Template = (&'static str, &'static str);

impl Language {
    /// Reads off a plugin's folder which language it is written in.
    pub fn detect(folder: &Path) -> Result<Self, Diagnostic> {
        let languages = Language::value_variants();
        languages.iter().copied().find(|language| folder.join(language.project_file()).is_file()).ok_or_else(|| {
            let files: Vec<_> = languages.iter().map(|language| format!("`{}`", language.project_file())).collect();
            Diagnostic::usage("plugin.language", format!("cannot tell in which language `{}` is written", folder.display()))
                .because(format!("there is no {} in it", files.join(" and no ")))
                .hint("`plumb plugin new` starts a plugin with all the files it needs")
        })
    }

    /// The file that says that a folder is a project in this language.
    fn project_file(self) -> &'static str {
        match self {
            Language::Rust => "Cargo.toml",
        }
    }

    /// What to tell before a build that may take long.
    pub fn build_note(self) -> &'static str {
        match self {
            Language::Rust => "the first build on a machine may prepare the WebAssembly target: a few minutes",
        }
    }

    /// Builds the plugin in `folder` into the component `file`.
    pub fn build(self, folder: &Path, manifest: &Manifest, file: &Path) -> Result<(), Diagnostic> {
        let built = match self {
            Language::Rust => plumb_xtask::guest::build_crate(folder, file, &cargo_folder(folder)),
        };
        built.map_err(|error| {
            let diagnostic = Diagnostic::usage("plugin.build", format!("plugin `{}` does not build", manifest.name));
            error.chain().map(ToString::to_string).fold(diagnostic, Diagnostic::because)
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
                    },
                ),
            ],
        }
    }

    /// The file that the author writes.
    pub fn logic_file(self) -> &'static str {
        match self {
            Language::Rust => "src/logic.rs",
        }
    }

    /// What stands for `{{sdk}}`: the source tree this program was built from, or the release of the same version.
    pub fn sdk(self) -> String {
        match (self, source_tree()) {
            (Language::Rust, Some(tree)) => format!("{{ path = {:?} }}", tree.join("sdk/rust").display().to_string()),
            (Language::Rust, None) => format!("{:?}", env!("CARGO_PKG_VERSION")),
        }
    }
}

/// Where cargo keeps its files: in this program's source tree if it is still there, so that plugins share what is built of the
/// SDK and of the standard library, else in the crate.
fn cargo_folder(folder: &Path) -> std::path::PathBuf {
    source_tree().map_or_else(|| folder.join("target/wasm"), |tree| tree.join("target/wasm"))
}
