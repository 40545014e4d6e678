//! Where things go: data to stdout, everything else to stderr.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressStyle};

use crate::diagnostic::Diagnostic;

/// What the user asked for that concerns all output.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "switches of the command line, independent of each other")]
pub struct Output {
    /// JSON Lines in place of text, errors included.
    pub json: bool,
    /// No progress, no remarks; results and errors only.
    pub quiet: bool,
    /// Progress bars: on a terminal, unless switched off.
    pub bars: bool,
    /// Colors on stderr: on a terminal, unless `NO_COLOR` is set.
    pub color: bool,
}

impl Output {
    /// Decides from flags, terminal and environment.
    pub fn new(json: bool, quiet: bool, no_progress: bool) -> Self {
        let terminal = io::stderr().is_terminal();
        let color = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Output { json, quiet, bars: terminal && !quiet && !no_progress && !json, color }
    }

    /// A remark for people.
    pub fn note(self, text: impl AsRef<str>) {
        if !self.quiet {
            stderr_line(text.as_ref());
        }
    }

    /// Something the user should know although the command goes on.
    pub fn warn(self, text: impl AsRef<str>) {
        let (on, off) = if self.color { ("\x1b[33m", "\x1b[0m") } else { ("", "") };
        stderr_line(&format!("{on}warning{off}: {}", text.as_ref()));
    }

    /// A progress bar over `total` things, which shows nothing where bars are off.
    pub fn bar(self, total: u64, what: &'static str) -> ProgressBar {
        if !self.bars {
            return ProgressBar::hidden();
        }
        let style = ProgressStyle::with_template("{bar:32} {pos}/{len} {msg}  {elapsed} of about {duration}");
        ProgressBar::new(total).with_style(style.expect("the template is well formed")).with_message(what)
    }

    /// Writes data to stdout. A reader that went away (`| head`) is no error: the command ends as if it were done.
    pub fn data(self, text: impl AsRef<str>) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(text.as_ref().as_bytes())?;
        out.write_all(b"\n")?;
        out.flush()
    }
}

/// `1 step`, `2 steps`.
pub fn count(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

/// Writes a line to stderr. Nobody may be reading it any more (`2>&1 | head`), which must not end a run.
pub fn stderr_line(text: &str) {
    drop(io::stderr().lock().write_all([text, "\n"].concat().as_bytes()));
}

/// An output file, or stdout. A file gets its name only when all is written, so a failed command leaves none cut in half.
pub struct Sink {
    writer: Box<dyn Write>,
    rename: Option<(tempfile::TempPath, PathBuf)>,
}

impl Sink {
    /// Opens `path`, or stdout when there is none or it is `-`.
    pub fn open(path: Option<&Path>) -> Result<Self, Diagnostic> {
        let Some(path) = path.filter(|path| *path != Path::new("-")) else {
            return Ok(Sink { writer: Box::new(BufWriter::new(io::stdout().lock())), rename: None });
        };
        // Devices and pipes (`/dev/stdout`) cannot be replaced by a rename.
        if path.exists() && !path.is_file() {
            let file = File::options().write(true).open(path).map_err(|e| Diagnostic::io("open", path, &e))?;
            return Ok(Sink { writer: Box::new(BufWriter::new(file)), rename: None });
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let temporary =
            tempfile::Builder::new().prefix(".plumb-").tempfile_in(folder).map_err(|e| Diagnostic::io("create", path, &e))?;
        let (file, temporary) = temporary.into_parts();
        Ok(Sink { writer: Box::new(BufWriter::new(file)), rename: Some((temporary, path.to_owned())) })
    }

    /// Adds a line.
    pub fn line(&mut self, text: &str) -> io::Result<()> {
        self.writer.write_all(text.as_bytes())?;
        self.writer.write_all(b"\n")
    }

    /// Writes what is buffered and gives the file its name.
    pub fn finish(mut self) -> io::Result<()> {
        self.writer.flush()?;
        drop(self.writer);
        let Some((temporary, path)) = self.rename else { return Ok(()) };
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            // Temporary files are private; a result is as readable as any other file.
            std::fs::set_permissions(&temporary, std::fs::Permissions::from_mode(0o644))?;
        }
        temporary.persist(path).map_err(|e| e.error)
    }
}
