//! `plumb plugin export` and `import`: plugins to and from OCI image layouts.

use std::path::PathBuf;

use clap::Args;
use plumb_host::signature::Signature;
use serde_json::json;

use super::subject::Subject;
use crate::diagnostic::Diagnostic;
use crate::exit::ExitStatus;
use crate::output::Output;
use crate::{oci, trust};

/// Write a plugin as an OCI image layout, which `oras` and `wkg` push to a registry.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  plumb plugin export reward-exact-match --oci exact-match
  oras cp --from-oci-layout exact-match:0.1.0 registry.example/rewards/exact-match:0.1.0")]
pub struct ExportArgs {
    /// A .wasm file, the name of an installed plugin, or a plugin's crate
    plugin: String,
    /// The new folder
    #[arg(long, value_name = "DIR")]
    oci: PathBuf,
}

/// Read a plugin from an OCI image layout, checking every digest.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  oras cp --to-oci-layout registry.example/rewards/exact-match:0.1.0 exact-match:0.1.0
  plumb plugin import --oci exact-match --out plugins/reward-exact-match.wasm")]
pub struct ImportArgs {
    /// The layout's folder
    #[arg(long, value_name = "DIR")]
    oci: PathBuf,
    /// The plugin's file; a signature is written beside it
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Writes a layout.
pub fn export(args: &ExportArgs, output: Output) -> anyhow::Result<ExitStatus> {
    let subject = Subject::find(&args.plugin, output)?;
    let inspection = subject.inspect()?;
    // A signature of other bytes would travel for nothing.
    let signature = trust::read_signature(&subject.file)?.filter(|signature| signature.verify(subject.bytes()).is_ok());
    let manifest = oci::export(&args.oci, subject.bytes(), &inspection, signature.as_ref())?;
    if output.json {
        output.data(json!({"type": "oci", "v": 1, "data": {"folder": args.oci, "manifest": manifest}}).to_string())?;
    } else {
        output.data(&manifest.digest)?;
    }
    Ok(ExitStatus::Success)
}

/// Reads a layout.
pub fn import(args: &ImportArgs, output: Output) -> anyhow::Result<ExitStatus> {
    if args.out.exists() {
        let error = Diagnostic::usage("file.exists", format!("`{}` is there already", args.out.display()));
        return Err(error.hint("name a new file, or remove this one").into());
    }
    let (bytes, signature) = oci::import(&args.oci)?;
    let inspection = plumb_host::inspect(&args.oci.display().to_string(), &bytes)?;
    if let Some(signature) = &signature {
        signature.verify(&bytes).map_err(|e| {
            Diagnostic::new("plugin.signature", ExitStatus::Plugin, "the signature in the layout does not hold")
                .because(e.to_string())
        })?;
    }
    let write = |path: &PathBuf, bytes: &[u8]| std::fs::write(path, bytes).map_err(|e| Diagnostic::io("write", path, &e));
    write(&args.out, &bytes)?;
    if let Some(signature) = &signature {
        write(&Signature::path(&args.out), signature.to_json().as_bytes())?;
    }
    if output.json {
        let signer = signature.map(|signature| signature.public_key);
        let data = json!({"file": args.out, "kind": inspection.kind, "sha256": inspection.digest, "signer": signer});
        output.data(json!({"type": "plugin", "v": 1, "data": data}).to_string())?;
    } else {
        output.data(args.out.display().to_string())?;
    }
    Ok(ExitStatus::Success)
}
