//! Files that only grow, and that a resumed run cuts back to where its checkpoint was.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::error::{Error, IoContext, Result};

/// A file that only grows, record by record. Each [`AppendFile::append`] is one write, so a killed run leaves whole records and at
/// most one torn one.
///
/// Checkpoints remember how many records there were, not how many bytes: clock times take more or fewer digits from run to run,
/// and a checkpoint's bytes must not depend on them.
#[derive(Debug)]
pub(crate) struct AppendFile {
    path: PathBuf,
    file: File,
    records: u64,
}

impl AppendFile {
    /// Opens the file, made if it is not there, and cuts it after its first `records` records; `end(bytes, n)` is where the
    /// n-th record of a file ends.
    pub fn open(path: &Path, records: u64, end: impl Fn(&[u8], u64) -> Option<usize>) -> Result<Self> {
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).at("open", path)?;
        let mut length = 0;
        if records > 0 {
            let bytes = std::fs::read(path).at("read", path)?;
            let reason = || format!("it ends before its record {records}, which the checkpoint knows of");
            length = end(&bytes, records).ok_or_else(|| Error::Malformed { path: path.to_owned(), reason: reason() })?;
        }
        file.set_len(length as u64).at("truncate", path)?;
        file.seek(SeekFrom::End(0)).at("seek in", path)?;
        Ok(AppendFile { path: path.to_owned(), file, records })
    }

    /// Adds one record at the end.
    pub fn append(&mut self, record: &[u8]) -> Result<()> {
        self.file.write_all(record).at("write", &self.path)?;
        self.records += 1;
        Ok(())
    }

    /// Waits until everything is on the disk and returns the number of records.
    pub fn sync(&mut self) -> Result<u64> {
        self.file.sync_data().at("write", &self.path)?;
        Ok(self.records)
    }
}

/// Where the `n`-th line of a text ends, its newline included.
pub(crate) fn line_end(bytes: &[u8], n: u64) -> Option<usize> {
    let mut newlines = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    newlines.nth(usize::try_from(n - 1).ok()?).map(|(at, _)| at + 1)
}
