//! Builds guests from C: a folder with `plugin.c` and `plugin.toml` to a component.
//!
//! `wit-bindgen` writes `plugin.h` and the code behind it for the world of the plugin's kind and capabilities, clang compiles them
//! with the folder's sources and the few functions of a C library that they need (`sdk/c`), and `wit-component` wraps the module.
//! There is no C library below, so a plugin cannot import WASI even by accident. The same sources give the same bytes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use wit_bindgen_c::{Enabled, Opts};
use wit_bindgen_core::{Files, wit_parser::Resolve};

use crate::guest;
use crate::world::{Manifest, World};

/// What stands in for a C library.
const SUPPORT: [(&str, &str); 3] = [
    ("stdlib.h", include_str!("../../../sdk/c/include/stdlib.h")),
    ("string.h", include_str!("../../../sdk/c/include/string.h")),
    ("memory.c", include_str!("../../../sdk/c/src/memory.c")),
];
/// The compiler's command line, if it is not [`CLANG`]; parted by spaces.
const VARIABLE: &str = "PLUMB_WASM_CC";
/// The stack lies below all data, so that an overflow traps and does not overwrite them; other linkers do it unasked.
const CLANG: &str = "clang --target=wasm32-unknown-unknown -Wl,--stack-first";
/// No library and no built-in replacements of loops by its functions; memory is copied by single instructions.
const FLAGS: [&str; 11] = [
    "-std=c11",
    "-O2",
    "-g0",
    "-fno-builtin",
    "-mbulk-memory",
    "-nostdlib",
    "-nostdlibinc",
    "-Wall",
    "-Wl,--no-entry",
    "-Wl,-z,stack-size=1048576",
    "-Wl,--strip-debug",
];

/// Why a C plugin does not build.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no compiler, or none for WebAssembly.
    #[error("there is no C compiler for WebAssembly: `{command}` {reason}")]
    NoCompiler {
        /// The compiler's command line.
        command: String,
        /// What came of it.
        reason: String,
    },
    /// The compiler refused the sources.
    #[error("the sources do not compile: {said}")]
    Sources {
        /// What it said.
        said: String,
    },
}

impl Error {
    /// What to do about it.
    pub fn fix(&self) -> String {
        match self {
            Error::NoCompiler { .. } => format!(
                "install clang and lld (Debian: `apt-get install clang lld`), or name another compiler: \
                 `{VARIABLE}=\"python3 -m ziglang cc --target=wasm32-freestanding\"`"
            ),
            Error::Sources { .. } => {
                "`target/bindings/plugin.h` in the plugin's folder declares what it must define and what it may call".to_owned()
            }
        }
    }
}

/// A C compiler that makes modules of WebAssembly.
pub struct Compiler {
    words: Vec<String>,
}

impl Compiler {
    /// The compiler that `PLUMB_WASM_CC` names, else clang, once it has compiled and linked a module.
    ///
    /// # Errors
    /// [`Error::NoCompiler`].
    pub fn find() -> Result<Self, Error> {
        let line = std::env::var(VARIABLE).ok().filter(|line| !line.trim().is_empty()).unwrap_or_else(|| CLANG.to_owned());
        let compiler = Compiler { words: line.split_whitespace().map(str::to_owned).collect() };
        compiler.works()?;
        Ok(compiler)
    }

    fn works(&self) -> Result<(), Error> {
        let missing = |reason: String| Error::NoCompiler { command: self.words.join(" "), reason };
        let work = tempfile::tempdir().map_err(|error| missing(format!("has no temporary folder: {error}")))?;
        // Without `-c`: clang may be there without its linker.
        match self.command(&work.path().join("empty.wasm")).args(["-x", "c", "/dev/null"]).output() {
            Err(error) => Err(missing(format!("cannot be run: {error}"))),
            Ok(ran) if !ran.status.success() => Err(missing(format!("says: {}", text(&ran.stderr)))),
            Ok(_) => Ok(()),
        }
    }

    fn command(&self, output: &Path) -> Command {
        let mut command = Command::new(&self.words[0]);
        command.args(&self.words[1..]).args(FLAGS).arg("-o").arg(output).stdin(Stdio::null());
        command
    }
}

/// Builds the plugin in `folder`, all of its `*.c`, into `out_file`. Its bindings are left in `target/bindings`, for editors.
///
/// # Errors
/// [`Error`] where the author or the machine can do something about it.
pub fn build_folder(folder: &Path, out_file: &Path) -> Result<()> {
    let (manifest, Manifest { kind, needs, .. }) = Manifest::read(folder)?;
    let compiler = Compiler::find()?;
    let bindings = folder.join("target/bindings");
    write_bindings(&World { kind: &kind, capabilities: &needs.capabilities, stateful: false }, &bindings)?;
    let mut sources = sources(folder)?;
    sources.extend(["plugin.c", "memory.c", "plugin_component_type.o"].map(|name| bindings.join(name)));
    let work = tempfile::tempdir().context("cannot create a temporary folder")?;
    let module = work.path().join("plugin.wasm");
    let ran = compiler.command(&module).arg("-I").arg(&bindings).args(&sources).output().context("cannot run the C compiler")?;
    if !ran.status.success() {
        return Err(Error::Sources { said: text(&ran.stderr) }.into());
    }
    // Warnings.
    eprint!("{}", String::from_utf8_lossy(&ran.stderr));
    let core = fs::read(&module).with_context(|| format!("cannot read `{}`", module.display()))?;
    let component = guest::componentize(&core, Some(&manifest))?;
    if let Some(parent) = out_file.parent() {
        fs::create_dir_all(parent).with_context(|| format!("cannot create `{}`", parent.display()))?;
    }
    guest::write_file(out_file, &component)
}

/// Writes `plugin.h`, `plugin.c`, the object file with the world's types, and what stands in for a C library.
fn write_bindings(world: &World, folder: &Path) -> Result<()> {
    let wit = tempfile::tempdir().context("cannot create a temporary folder")?;
    world.write(wit.path())?;
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_path(wit.path()).context("the world of the plugin is not valid")?;
    let world = resolve.select_world(&[package], None)?;
    let mut files = Files::default();
    // A call ends with its borrowed batch given back; the bindings see to it.
    let options = Opts { autodrop_borrows: Enabled::Yes, ..Opts::default() };
    options.build().generate(&mut resolve, world, &mut files)?;
    fs::create_dir_all(folder).with_context(|| format!("cannot create `{}`", folder.display()))?;
    let support = SUPPORT.iter().map(|&(name, text)| (name, text.as_bytes()));
    for (name, bytes) in files.iter().chain(support) {
        fs::write(folder.join(name), bytes).with_context(|| format!("cannot write `{}`", folder.join(name).display()))?;
    }
    Ok(())
}

/// The C files of a folder, in the order of their names.
fn sources(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for item in fs::read_dir(folder).with_context(|| format!("cannot read `{}`", folder.display()))? {
        let path = item?.path();
        if path.extension().is_some_and(|extension| extension == "c") {
            files.push(path);
        }
    }
    ensure!(!files.is_empty(), "`{}` has no C source", folder.display());
    files.sort();
    Ok(files)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bindings_declare_the_exports_of_the_kind_and_the_capabilities_that_are_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let header = |world: World| {
            write_bindings(&world, folder.path()).unwrap();
            fs::read_to_string(folder.path().join("plugin.h")).unwrap()
        };
        let tool = header(World { kind: "tool", capabilities: &[], stateful: false });
        assert!(tool.contains("exports_plumb_align_tooling_call(") && !tool.contains("plumb_align_models_"), "{tool}");
        let models = ["models".to_owned()];
        let reward = header(World { kind: "reward", capabilities: &models, stateful: false });
        assert!(
            reward.contains("exports_plumb_align_rewarding_score(") && reward.contains("plumb_align_models_generate("),
            "{reward}"
        );
    }

    #[test]
    fn compiler_that_is_not_there_is_named_with_what_to_install() {
        let error = Compiler { words: vec!["no-such-compiler".to_owned()] }.works().unwrap_err();
        assert!(error.to_string().contains("`no-such-compiler` cannot be run"), "{error}");
        assert!(error.fix().contains("apt-get install clang lld"), "{}", error.fix());
    }
}
