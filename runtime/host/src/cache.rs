//! Compiled components on disk, so that a plugin is compiled once per machine.
//!
//! Compiled code is native code: whoever writes a cache file runs code in this process. The folder therefore belongs to the
//! user alone, files are written by this module only, and each carries a checksum against damage.

use std::fs;
use std::hash::{Hash, Hasher};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

/// First bytes of a cache file; the digit is the version of its layout: these bytes, SHA-256 of the rest, the rest.
const MAGIC: &[u8; 8] = b"plumbc1\n";
const HEADER: usize = MAGIC.len() + 32;

/// A folder of compiled components.
#[derive(Debug)]
pub struct Cache {
    dir: PathBuf,
}

impl Cache {
    /// Opens or creates the folder, readable and writable by its user alone.
    ///
    /// # Errors
    /// When the folder cannot be made private: it belongs to someone else, or is no folder.
    pub fn open(dir: &Path) -> io::Result<Self> {
        create_private(dir)?;
        Ok(Cache { dir: dir.to_owned() })
    }

    /// Loads the component's compiled code, or compiles and keeps it. A cache that cannot be written costs time, never a run.
    pub fn load(&self, engine: &Engine, digest: &str, component: &[u8]) -> wasmtime::Result<Component> {
        let path = self.dir.join(format!("{}.cwasm", key(engine, digest)));
        if let Some(compiled) = self.read(&path, engine) {
            return Ok(compiled);
        }
        let compiled = Component::from_binary(engine, component)?;
        if let Ok(code) = compiled.serialize() {
            // See above: the component is there either way.
            let _ = self.write(&path, &code);
        }
        Ok(compiled)
    }

    /// None where there is no file, or none to trust.
    fn read(&self, path: &Path, engine: &Engine) -> Option<Component> {
        let file = fs::symlink_metadata(path).ok().filter(fs::Metadata::is_file)?;
        if !same_owner(&file, &fs::metadata(&self.dir).ok()?) {
            return None;
        }
        let bytes = fs::read(path).ok()?;
        let (header, code) = bytes.split_at_checked(HEADER)?;
        if header[..MAGIC.len()] != *MAGIC || header[MAGIC.len()..] != *Sha256::digest(code) {
            return None;
        }
        // SAFETY: `deserialize` wants code that wasmtime made for such an engine, unmodified. The file lies in a folder that
        // `open` found or made private to this user, is a regular file of the same owner, and was written by `write`, which is
        // given nothing but `Component::serialize`; its name has the engine's compatibility hash and the checksum rules out
        // damage. Whoever could forge it can already run code as this user.
        #[expect(unsafe_code, reason = "native code cannot be loaded in any other way; see the comment above")]
        let component = unsafe { Component::deserialize(engine, code) };
        component.ok()
    }

    /// Writes beside the place and renames: a reader sees a whole file or none.
    fn write(&self, path: &Path, code: &[u8]) -> io::Result<()> {
        let partial = self.dir.join(format!("{}.tmp", unique()));
        let result = (|| {
            let mut file = fs::OpenOptions::new().write(true).create_new(true).open(&partial)?;
            file.write_all(MAGIC)?;
            file.write_all(&Sha256::digest(code))?;
            file.write_all(code)?;
            fs::rename(&partial, path)
        })();
        if result.is_err() {
            // The failure matters, not the left-over.
            let _ = fs::remove_file(&partial);
        }
        result
    }
}

/// Where compiled components go unless told otherwise: `$XDG_CACHE_HOME/plumb/components`, else `~/.cache/plumb/components`.
pub fn default_dir() -> Option<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")))?;
    Some(base.join("plumb").join("components"))
}

/// Name of the file: the component, and all of wasmtime's version, settings and processor features that compiled code depends
/// on. (wasmtime itself checks its major version only, which a security fix does not change.)
fn key(engine: &Engine, digest: &str) -> String {
    let mut hasher = HashBytes(Sha256::new());
    digest.hash(&mut hasher);
    engine.precompile_compatibility_hash().hash(&mut hasher);
    crate::inspect::hex(&hasher.0.finalize())
}

/// Feeds whatever is hashed to SHA-256, which unlike std's hashers is stable and has no collisions.
struct HashBytes(Sha256);

impl Hasher for HashBytes {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let digest = self.0.clone().finalize();
        u64::from_le_bytes(digest[..8].try_into().expect("a digest has 32 bytes"))
    }
}

fn unique() -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

#[cfg(unix)]
fn create_private(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
    if let Some(parent) = dir.parent() {
        fs::create_dir_all(parent)?;
    }
    match fs::DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let found = fs::symlink_metadata(dir)?;
    if !found.is_dir() {
        return Err(io::Error::new(io::ErrorKind::NotADirectory, format!("`{}` is no folder", dir.display())));
    }
    // Fails for a folder of another user, root aside, whose own folders are compared below.
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
    let probe = dir.join(format!("{}.tmp", unique()));
    let owner = fs::OpenOptions::new().write(true).create_new(true).open(&probe)?.metadata()?.uid();
    fs::remove_file(&probe)?;
    if owner != found.uid() {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("`{}` belongs to another user", dir.display())));
    }
    Ok(())
}

#[cfg(unix)]
fn same_owner(a: &fs::Metadata, b: &fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    a.uid() == b.uid()
}

/// Without Unix's permissions, the user's own cache folder is as private as the system makes it.
#[cfg(not(unix))]
fn create_private(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)
}

#[cfg(not(unix))]
fn same_owner(_: &fs::Metadata, _: &fs::Metadata) -> bool {
    true
}
