//! Exit codes, as scripts rely on them.

use std::process::ExitCode;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// Done.
    Success,
    /// It ran, and the answer is no: a test case failed, a check found something.
    No,
    /// The command line, the recipe or a configuration is wrong.
    Usage,
    /// A plugin failed.
    Plugin,
    /// A device, a file, a model or a checkpoint.
    Resource,
    /// A bug in this program.
    Bug,
    /// Ctrl-C; a checkpoint was written where there was something to keep.
    Interrupted,
}

impl ExitStatus {
    /// The number that the shell sees.
    pub fn code(self) -> u8 {
        match self {
            ExitStatus::Success => 0,
            ExitStatus::No => 1,
            ExitStatus::Usage => 2,
            ExitStatus::Plugin => 3,
            ExitStatus::Resource => 4,
            ExitStatus::Bug => 70,
            ExitStatus::Interrupted => 130,
        }
    }
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        ExitCode::from(status.code())
    }
}
