//! `model.safetensors`, in one file or in shards.
//!
//! A file's header says where each tensor lies, so tensors are read one at a time: never more than one in the file's own type
//! is in memory beside the float32 weights.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde_json::Value;

use super::{malformed, read_object};
use crate::config::ModelConfig;
use crate::params::{Layout, Params};
use crate::{Error, Result};

/// Headers beyond this are refused before memory is taken for them, as the safetensors library does.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// A classifier's head, `[labels, d]`.
pub(crate) const SCORE: &str = "score.weight";

/// Reads all weights of a folder, and the head `[labels, d]` of a classifier with so many labels.
pub(super) fn read(folder: &Path, config: ModelConfig, labels: Option<usize>) -> Result<(Params, Option<Vec<f32>>)> {
    let files = files(folder)?;
    let mut shards = files.iter().map(|path| Shard::open(path)).collect::<Result<Vec<_>>>()?;
    let mut homes = BTreeMap::new();
    for (i, shard) in shards.iter().enumerate() {
        homes.extend(shard.header.tensors().into_keys().map(|name| (name, i)));
    }
    let layout = Layout::new(&config);
    let has_place = |name: &str| layout.get(name).is_some() || is_redundant(name) || (labels.is_some() && name == SCORE);
    if let Some((name, &i)) = homes.iter().find(|(name, _)| !has_place(name)) {
        let reason = format!("tensor `{name}` has no place in a {:?} model with this `config.json`", config.architecture);
        return Err(Error::Unsupported { path: shards[i].path.clone(), reason });
    }
    // All is checked before memory is taken for it: a configuration may ask for any size.
    let check = |name: &str, expected: &[usize]| {
        let info = homes.get(name).and_then(|&i| shards[i].header.info(name));
        let got = info.map_or(&[][..], |info| &info.shape);
        if got == expected {
            return Ok(());
        }
        let path = homes.get(name).map_or(&files[0], |&i| &shards[i].path).clone();
        Err(Error::Shape { path, name: name.to_owned(), expected: expected.to_vec(), got: got.to_vec() })
    };
    layout.tensors().iter().try_for_each(|spec| check(&spec.name, &spec.shape))?;
    let mut head = None;
    if let Some(labels) = labels {
        check(SCORE, &[labels, config.hidden_size])?;
        head = Some(vec![0.0; labels * config.hidden_size]);
    }
    let mut params = Params::zeros(config);
    for spec in layout.tensors() {
        shards[homes[&spec.name]].read(&spec.name, &mut params.data[spec.range.clone()])?;
    }
    if let Some(head) = &mut head {
        shards[homes[SCORE]].read(SCORE, head)?;
    }
    Ok((params, head))
}

/// Tensors that old exports hold though the model does without them: constants, and the output matrix of tied models.
fn is_redundant(name: &str) -> bool {
    name.ends_with("rotary_emb.inv_freq") || name == "lm_head.weight"
}

/// The files that hold the weights: those the index names, or the single one.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let index = folder.join("model.safetensors.index.json");
    let single = folder.join("model.safetensors");
    if single.is_file() || !index.is_file() {
        return Ok(vec![single]);
    }
    let object = read_object(&index)?;
    let map = object.get("weight_map").and_then(Value::as_object);
    let map = map.ok_or_else(|| malformed(&index, "it has no object `weight_map`".into()))?;
    let mut names = BTreeSet::new();
    for (tensor, file) in map {
        // A shard is a file of this folder; an index must not lead elsewhere.
        let name = file.as_str().filter(|name| Path::new(name).file_name().is_some_and(|last| last == *name));
        names.insert(name.ok_or_else(|| malformed(&index, format!("tensor `{tensor}` is in {file}, which is no file name")))?);
    }
    if names.is_empty() {
        return Err(malformed(&index, "`weight_map` is empty".into()));
    }
    Ok(names.into_iter().map(|name| folder.join(name)).collect())
}

/// One safetensors file: 8 bytes of header length, the header in JSON, the tensors' bytes.
pub(super) struct Shard {
    pub path: PathBuf,
    file: File,
    pub header: Metadata,
    data_start: u64,
    file_len: u64,
}

impl Shard {
    pub fn open(path: &Path) -> Result<Self> {
        let io = |source| Error::Io { action: "read", path: path.to_owned(), source };
        let mut file = File::open(path).map_err(io)?;
        let file_len = file.metadata().map_err(io)?.len();
        let truncated = |what: &str, needed: u64| {
            malformed(path, format!("it is truncated: {what} ends at byte {needed}, the file has {file_len}"))
        };
        let mut length = [0; 8];
        if file_len < 8 {
            return Err(truncated("the header's length", 8));
        }
        file.read_exact(&mut length).map_err(io)?;
        let length = u64::from_le_bytes(length);
        if length > MAX_HEADER_BYTES {
            return Err(malformed(path, format!("its header should have {length} bytes: this is no safetensors file")));
        }
        let data_start = 8 + length;
        if data_start > file_len {
            return Err(truncated("the header", data_start));
        }
        let mut header = vec![0; length as usize];
        file.read_exact(&mut header).map_err(io)?;
        let header =
            serde_json::from_slice(&header).map_err(|error| malformed(path, format!("its header is broken: {error}")))?;
        Ok(Shard { path: path.to_owned(), file, header, data_start, file_len })
    }

    /// Reads a tensor into `out`, converted to float32.
    pub fn read(&mut self, name: &str, out: &mut [f32]) -> Result<()> {
        let info: &TensorInfo = self.header.info(name).expect("tensors are looked up by the headers' names");
        let width = match info.dtype {
            Dtype::F32 => 4,
            Dtype::F16 | Dtype::BF16 => 2,
            other => {
                let reason = format!("tensor `{name}` has type {other:?}; supported are F32, F16 and BF16");
                return Err(Error::Unsupported { path: self.path.clone(), reason });
            }
        };
        let (start, stop) = info.data_offsets;
        if stop.checked_sub(start) != Some(out.len() * width) {
            let reason = format!("tensor `{name}` spans bytes {start}..{stop}, expected {} bytes", out.len() * width);
            return Err(malformed(&self.path, reason));
        }
        let end = self.data_start.saturating_add(stop as u64);
        if end > self.file_len {
            let reason = format!("it is truncated: tensor `{name}` ends at byte {end}, the file has {}", self.file_len);
            return Err(malformed(&self.path, reason));
        }
        let mut bytes = vec![0; stop - start];
        let read = self.file.seek(SeekFrom::Start(self.data_start + start as u64)).and_then(|_| self.file.read_exact(&mut bytes));
        read.map_err(|source| Error::Io { action: "read", path: self.path.clone(), source })?;
        match info.dtype {
            Dtype::F32 => {
                let (words, _) = bytes.as_chunks::<4>();
                out.iter_mut().zip(words).for_each(|(x, word)| *x = f32::from_le_bytes(*word));
            }
            Dtype::F16 => {
                let (words, _) = bytes.as_chunks::<2>();
                out.iter_mut().zip(words).for_each(|(x, word)| *x = f16::from_le_bytes(*word).to_f32());
            }
            _ => {
                let (words, _) = bytes.as_chunks::<2>();
                out.iter_mut().zip(words).for_each(|(x, word)| *x = bf16::from_le_bytes(*word).to_f32());
            }
        }
        Ok(())
    }
}
