//! OCI image layouts of plugins: what `oras cp --from-oci-layout` and `wkg` push to any container registry.
//!
//! The artifact has the form that the CNCF's Wasm working group gives WebAssembly ("Wasm OCI Artifact Layout"): one layer
//! `application/wasm`, the component's own bytes, and a config `application/vnd.wasm.config.v0+json`. A signature travels as an
//! annotation, since tools expect exactly one layer. The same plugin gives the same bytes, hence the same digests, on any machine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use plumb_host::signature::Signature;
use plumb_host::{Inspection, limits};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::diagnostic::Diagnostic;
use crate::exit::ExitStatus;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.wasm.config.v0+json";
const LAYER: &str = "application/wasm";
/// Annotation of the manifest with the text of the signature file.
const SIGNATURE: &str = "plumb.plugin.signature";
/// A time is required; this one makes digests repeat.
const CREATED: &str = "1970-01-01T00:00:00Z";
/// Largest index, manifest or config that is read.
const JSON_BYTES: u64 = 4 << 20;

/// A blob: where it is, by what it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the blob is.
    pub media_type: String,
    /// `sha256:` and 64 hex digits.
    pub digest: String,
    /// Bytes.
    pub size: u64,
    /// Of a manifest: what the artifact is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Facts for people and tools.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    schema_version: u32,
    media_type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    artifact_type: Option<String>,
    config: Descriptor,
    layers: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    schema_version: u32,
    #[serde(default = "index_type")]
    media_type: String,
    manifests: Vec<Descriptor>,
}

fn index_type() -> String {
    INDEX.to_owned()
}

/// Writes a plugin as an image layout into `folder`, which must be empty or absent, and returns the manifest's descriptor.
pub fn export(
    folder: &Path,
    bytes: &[u8],
    inspection: &Inspection,
    signature: Option<&Signature>,
) -> Result<Descriptor, Diagnostic> {
    if std::fs::read_dir(folder).is_ok_and(|mut items| items.next().is_some()) {
        return Err(Diagnostic::usage("oci.exists", format!("`{}` is not empty", folder.display()))
            .hint("name a new folder; a layout holds one plugin"));
    }
    let blobs = folder.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).map_err(|e| Diagnostic::io("create", &blobs, &e))?;
    let write = |path: PathBuf, bytes: &[u8]| std::fs::write(&path, bytes).map_err(|e| Diagnostic::io("write", &path, &e));
    let blob = |media_type: &str, bytes: &[u8]| {
        let hex = hex(bytes);
        write(blobs.join(&hex), bytes)?;
        let (media_type, digest, size) = (media_type.to_owned(), format!("sha256:{hex}"), bytes.len() as u64);
        Ok::<_, Diagnostic>(Descriptor { media_type, digest, size, artifact_type: None, annotations: BTreeMap::new() })
    };
    let layer = blob(LAYER, bytes)?;
    let imports: Vec<&str> = inspection.imports.iter().map(|import| import.name.as_str()).collect();
    let config = json!({
        "created": CREATED,
        // What the format calls any component; a plugin has no WASI import.
        "architecture": "wasm", "os": "wasip2",
        "layerDigests": [layer.digest],
        "component": {"exports": inspection.exports, "imports": imports, "target": null},
    });
    let config = blob(CONFIG, config.to_string().as_bytes())?;
    let mut annotations = BTreeMap::from([("plumb.plugin.kind".to_owned(), inspection.kind.to_string())]);
    if let Some(manifest) = &inspection.manifest {
        let standard = [("title", &manifest.name), ("version", &manifest.version), ("description", &manifest.description)];
        let standard = standard.into_iter().filter(|(_, value)| !value.is_empty());
        annotations.extend(standard.map(|(key, value)| (format!("org.opencontainers.image.{key}"), value.clone())));
    }
    annotations.extend(signature.map(|signature| (SIGNATURE.to_owned(), signature.to_json())));
    let artifact_type = Some(CONFIG.to_owned());
    let manifest = Manifest {
        schema_version: 2,
        media_type: MANIFEST.into(),
        artifact_type: artifact_type.clone(),
        config,
        layers: vec![layer],
        annotations,
    };
    let mut manifest = blob(MANIFEST, json(&manifest).as_bytes())?;
    manifest.artifact_type = artifact_type;
    let version = inspection.manifest.as_ref().map_or("latest", |manifest| &manifest.version);
    manifest.annotations.insert("org.opencontainers.image.ref.name".into(), version.to_owned());
    let index = Index { schema_version: 2, media_type: INDEX.into(), manifests: vec![manifest.clone()] };
    write(folder.join("index.json"), json(&index).as_bytes())?;
    write(folder.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    Ok(manifest)
}

/// Reads the one plugin of an image layout, checking every digest and size on the way, and its signature if there is one.
/// Whether the bytes are a plugin is for the caller to see.
pub fn import(folder: &Path) -> Result<(Vec<u8>, Option<Signature>), Diagnostic> {
    let path = folder.join("index.json");
    let bytes = read(&path, JSON_BYTES)
        .map_err(|error| error.hint("give the folder of an OCI image layout, as `plumb plugin export` writes it"))?;
    let index: Index = parse(&path, &bytes)?;
    let [manifest] = &index.manifests[..] else {
        return Err(malformed(&path, &format!("it has {} manifests, a plugin's layout has one", index.manifests.len())));
    };
    let path = blob_path(folder, manifest)?;
    let manifest: Manifest = parse(&path, &blob(folder, manifest, JSON_BYTES)?)?;
    if manifest.config.media_type != CONFIG {
        return Err(malformed(&path, &format!("it is an artifact of type `{}`, not `{CONFIG}`", manifest.config.media_type)));
    }
    blob(folder, &manifest.config, JSON_BYTES)?;
    let [layer] = &manifest.layers[..] else {
        return Err(malformed(&path, &format!("it has {} layers, a component has one", manifest.layers.len())));
    };
    if layer.media_type != LAYER {
        return Err(malformed(&path, &format!("its layer is of type `{}`, not `{LAYER}`", layer.media_type)));
    }
    let bytes = blob(folder, layer, limits::COMPONENT_BYTES)?;
    let signature = manifest.annotations.get(SIGNATURE).map(|text| Signature::parse(text)).transpose();
    Ok((bytes, signature.map_err(|e| malformed(&path, &e.to_string()))?))
}

/// The blob's bytes, if they are those that the descriptor names.
fn blob(folder: &Path, descriptor: &Descriptor, limit: u64) -> Result<Vec<u8>, Diagnostic> {
    let path = blob_path(folder, descriptor)?;
    let bytes = read(&path, limit)?;
    let found = format!("sha256:{}", hex(&bytes));
    if found != descriptor.digest || bytes.len() as u64 != descriptor.size {
        let message = format!("`{}` is not what the layout says", path.display());
        return Err(Diagnostic::new("oci.digest", ExitStatus::Resource, message)
            .because(format!("expected {} of {} bytes", descriptor.digest, descriptor.size))
            .because(format!("found {found} of {} bytes", bytes.len()))
            .hint("fetch the artifact again"));
    }
    Ok(bytes)
}

/// Where a blob is. A digest comes from outside and becomes part of a path, so nothing but hex digits will do.
fn blob_path(folder: &Path, descriptor: &Descriptor) -> Result<PathBuf, Diagnostic> {
    let hex = descriptor
        .digest
        .strip_prefix("sha256:")
        .filter(|hex| hex.len() == 64 && hex.chars().all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c)));
    match hex {
        Some(hex) => Ok(folder.join("blobs/sha256").join(hex)),
        None => Err(malformed(folder, &format!("`{}` is no SHA-256 digest", descriptor.digest))),
    }
}

fn read(path: &Path, limit: u64) -> Result<Vec<u8>, Diagnostic> {
    use std::io::Read;
    let failed = |e| Diagnostic::io("read", path, &e);
    let mut bytes = Vec::new();
    std::fs::File::open(path).map_err(failed)?.take(limit + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > limit {
        return Err(malformed(path, &format!("it is larger than {limit} bytes")));
    }
    Ok(bytes)
}

fn parse<T: for<'de> Deserialize<'de>>(path: &Path, bytes: &[u8]) -> Result<T, Diagnostic> {
    serde_json::from_slice(bytes).map_err(|e| malformed(path, &e.to_string()))
}

fn malformed(path: &Path, reason: &str) -> Diagnostic {
    Diagnostic::new("oci.malformed", ExitStatus::Resource, format!("`{}` is not a plugin's image layout", path.display()))
        .because(reason)
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("manifests are JSON")
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
