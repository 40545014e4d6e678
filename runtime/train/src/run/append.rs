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

/// Adds a line to a file, which is made with its folder if it is not there.
pub(crate) fn append_line(path: &Path, line: &str) -> Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).at("create", folder)?;
    }
    let mut file = OpenOptions::new().append(true).create(true).open(path).at("open", path)?;
    file.write_all(format!("{line}\n").as_bytes()).at("write", path)
}

/// Cuts a file of JSON objects, each with the `step` it belongs to, before the first that is of a later step than `step` or torn.
/// A file without a line left is removed. One that begins otherwise is not the run's, and stays as it is.
pub(crate) fn cut_after_step(path: &Path, step: u64) -> Result<()> {
    #[derive(serde::Deserialize)]
    struct Line {
        step: u64,
    }
    if !path.is_file() || path.extension().is_none_or(|extension| extension != "jsonl") {
        return Ok(());
    }
    let bytes = std::fs::read(path).at("read", path)?;
    let first = bytes.split_inclusive(|byte| *byte == b'\n').next().unwrap_or_default();
    let torn = |error: &serde_json::Error| error.is_eof() && !first.ends_with(b"\n");
    if serde_json::from_slice::<Line>(first).is_err_and(|error| !torn(&error)) {
        return Ok(());
    }
    let mut length = 0;
    for line in bytes.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n")) {
        match serde_json::from_slice::<Line>(line) {
            Ok(line) if line.step <= step => {}
            _ => break,
        }
        length += line.len();
    }
    if length == 0 {
        return std::fs::remove_file(path).at("remove", path);
    }
    let file = OpenOptions::new().write(true).open(path).at("open", path)?;
    file.set_len(length as u64).at("truncate", path)
}

/// Writes a file that is there whole or not at all.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut tmp = path.as_os_str().to_owned();
    tmp.push(".tmp");
    let tmp = PathBuf::from(tmp);
    let written = File::create(&tmp).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.at("write", &tmp)?;
    std::fs::rename(&tmp, path).at("rename", &tmp)?;
    sync_name(path)
}

/// Waits until the file's name is on the disk: that is a matter of its folder.
pub(crate) fn sync_name(path: &Path) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    sync(folder)
}

/// Waits until a file's bytes, or a folder's names, are on the disk.
pub(crate) fn sync(path: &Path) -> Result<()> {
    File::open(path).and_then(|file| file.sync_all()).at("write", path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_later_steps_and_torn_ones_are_cut_and_empty_files_go() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/file.jsonl");
        let lines = ["{\"step\":1,\"x\":2}", "{\"step\":3}", "{\"step\":4}"];
        lines.iter().for_each(|line| append_line(&path, line).unwrap());
        std::fs::write(&path, std::fs::read_to_string(&path).unwrap() + "{\"step\":4,").unwrap();
        cut_after_step(&path, 4).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), lines.map(|line| format!("{line}\n")).concat());
        cut_after_step(&path, 3).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().collect::<Vec<_>>(), lines[..2]);
        cut_after_step(&path, 0).unwrap();
        assert!(!path.exists());
        std::fs::write(&path, "{\"step\":").unwrap();
        cut_after_step(&path, 0).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn files_that_the_run_did_not_write_stay_as_they_are() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("notes.txt", "{\"step\":9}\n"),
            ("own.jsonl", "{\"name\":\"a\"}\n"),
            ("one.jsonl", "{\"name\":\"b\"}"),
            ("words.jsonl", "x\n"),
        ] {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            cut_after_step(&path, 3).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text, "{name}");
        }
        let inner = folder.path().join("kept.jsonl");
        std::fs::create_dir(&inner).unwrap();
        cut_after_step(&inner, 3).unwrap();
        assert!(inner.is_dir());
    }
}
