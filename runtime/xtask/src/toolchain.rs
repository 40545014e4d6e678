//! Finds a Rust toolchain that builds for `wasm32-unknown-unknown`, or makes one.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// The target of guests: no system interface, so a module's imports are its authority.
pub const TARGET: &str = "wasm32-unknown-unknown";

/// Debian's compiler for WebAssembly users of its archive, the standard library's source, and a linker.
const DEBIAN_PACKAGES: [&str; 4] = ["rustc-web", "cargo-web", "rust-web-src", "lld"];

/// A way to build for [`TARGET`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Toolchain {
    /// The toolchain on the path has the target's standard library.
    Installed,
    /// Debian's compiler, which builds the standard library from source: it ships none for this target.
    Debian,
}

impl Toolchain {
    /// The toolchain for builds in `target_dir`: the one chosen before if it is still there, else the first that works of the
    /// installed target, `rustup target add`, and Debian's packages.
    ///
    /// # Errors
    /// When none works; the error says what to install.
    pub fn find(target_dir: &Path) -> Result<Self> {
        let note = target_dir.join("toolchain");
        let remembered = fs::read_to_string(&note).ok().and_then(|name| Self::from_name(name.trim()));
        if let Some(toolchain) = remembered.filter(|toolchain| toolchain.works()) {
            return Ok(toolchain);
        }
        let toolchain = Self::search()?;
        // Trying `rustup target add` again in vain would cost seconds on each build.
        fs::create_dir_all(target_dir).with_context(|| format!("cannot create `{}`", target_dir.display()))?;
        fs::write(&note, toolchain.name()).with_context(|| format!("cannot write `{}`", note.display()))?;
        Ok(toolchain)
    }

    fn search() -> Result<Self> {
        if Self::Installed.works() {
            return Ok(Self::Installed);
        }
        let mut failures = Vec::new();
        let mut change = |command: &mut Command| announced(command).map_err(|failure| failures.push(failure)).is_ok();
        if change(Command::new("rustup").args(["target", "add", TARGET]).env("RUSTUP_MAX_RETRIES", "0"))
            && Self::Installed.works()
        {
            return Ok(Self::Installed);
        }
        // `cargo` may come from Debian or another package and know no rustup; then the fallback is the rule.
        let mut install = || {
            change(Command::new("apt-get").args(["update", "-q"]))
                && change(Command::new("apt-get").args(["install", "-qy", "--no-install-recommends"]).args(DEBIAN_PACKAGES))
        };
        if Self::Debian.works() || (install() && Self::Debian.works()) {
            return Ok(Self::Debian);
        }
        bail!(
            "no Rust toolchain here builds for {TARGET}: run `rustup target add {TARGET}`, or on Debian (as root) `apt-get install {}`; tried in vain: {}",
            DEBIAN_PACKAGES.join(" "),
            failures.join("; ")
        )
    }

    /// Whether its files are there.
    fn works(self) -> bool {
        match self {
            Self::Installed => output(Command::new("rustc").args(["--print", "target-libdir", "--target", TARGET]))
                .is_some_and(|folder| Path::new(folder.trim()).is_dir()),
            Self::Debian => {
                Path::new("/usr/bin/cargo").is_file()
                    && runs(Command::new("wasm-ld").arg("--version"))
                    && output(Command::new("/usr/bin/rustc").args(["--print", "sysroot"]))
                        .is_some_and(|root| Path::new(root.trim()).join("lib/rustlib/src/rust/library/std").is_dir())
            }
        }
    }

    /// A cargo command with this toolchain's environment.
    pub fn cargo(self) -> Command {
        let mut command = Command::new(match self {
            Self::Installed => "cargo",
            Self::Debian => "/usr/bin/cargo",
        });
        // `cargo xtask` hands down variables of its own build, which would turn this one's head.
        for (name, _) in std::env::vars_os() {
            let Some(text) = name.to_str() else { continue };
            let inherited = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"].iter().any(|prefix| text.starts_with(prefix));
            if inherited
                || ["CARGO", "CARGO_BUILD_TARGET", "RUSTFLAGS", "RUSTC", "RUSTDOC", "RUSTC_WORKSPACE_WRAPPER"].contains(&text)
            {
                command.env_remove(&name);
            }
        }
        if self == Self::Debian {
            command
                .env_remove("RUSTUP_TOOLCHAIN")
                .env("RUSTC", "/usr/bin/rustc")
                // `-Zbuild-std` is unstable, but the only way without a prebuilt standard library.
                .env("RUSTC_BOOTSTRAP", "1")
                .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", "wasm-ld");
        }
        command
    }

    /// Flags for `cargo build`.
    pub fn cargo_flags(self) -> &'static [&'static str] {
        match self {
            Self::Installed => &[],
            Self::Debian => &["-Zbuild-std=std,panic_abort"],
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Installed => "installed",
            Self::Debian => "debian",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        [Self::Installed, Self::Debian].into_iter().find(|toolchain| toolchain.name() == name)
    }
}

/// Runs a command that changes the system, and tells so first. The error is the command with the last line it wrote.
fn announced(command: &mut Command) -> Result<(), String> {
    let words: Vec<_> =
        [command.get_program()].into_iter().chain(command.get_args()).map(|word| word.to_string_lossy()).collect();
    let line = words.join(" ");
    eprintln!("running `{line}`");
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("`{line}`: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let last = stderr.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("no message");
    Err(format!("`{line}`: {} ({})", last.trim(), output.status))
}

/// Whether the command exists and succeeds.
fn runs(command: &mut Command) -> bool {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

fn output(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn failed_command_is_told_with_its_last_words() {
        let failure = announced(Command::new("sh").args(["-c", "echo first >&2; echo last >&2; exit 3"])).unwrap_err();
        assert!(failure.contains("`sh -c") && failure.contains("last (exit status: 3)"), "{failure}");
        assert!(announced(&mut Command::new("plumb-no-such-command")).is_err());
        assert_eq!(announced(&mut Command::new("true")), Ok(()));
    }

    #[test]
    fn toolchain_names_are_read_back() {
        for toolchain in [Toolchain::Installed, Toolchain::Debian] {
            assert_eq!(Toolchain::from_name(toolchain.name()), Some(toolchain));
        }
        assert_eq!(Toolchain::from_name("gcc"), None);
    }
}
