//! `plumb plugin keygen`, `sign` and `verify`: who vouches for a plugin.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use plumb_host::signature::{PrivateKey, PublicKey, Signature};
use serde_json::json;

use crate::diagnostic::Diagnostic;
use crate::exit::ExitStatus;
use crate::output::Output;
use crate::{plugin_path, trust};

/// Make a key to sign plugins with; prints the public key.
#[derive(Debug, Args)]
#[command(
    after_help = "The file is PKCS#8 PEM, as `openssl genpkey -algorithm ed25519` writes it. Keep it to yourself; the public
key goes into recipes: `[trust] keys = [\"...\"]`.

Examples:
  plumb plugin keygen --out ~/.config/plumb/signing.pem"
)]
pub struct KeygenArgs {
    /// The new key's file
    #[arg(long, value_name = "KEY")]
    out: PathBuf,
}

/// Sign a plugin: writes FILE.wasm.sig beside it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  plumb plugin sign target/reward-brevity.wasm --key ~/.config/plumb/signing.pem")]
pub struct SignArgs {
    /// A .wasm file, or the name of an installed plugin
    plugin: String,
    /// The private key, PKCS#8 PEM
    #[arg(long, value_name = "KEY")]
    key: PathBuf,
}

/// Check a plugin's signature. Exits with 1 when it has none that holds, or one by another key.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  plumb plugin verify reward-brevity.wasm --key 3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")]
pub struct VerifyArgs {
    /// A .wasm file, or the name of an installed plugin
    plugin: String,
    /// The public key that must have signed it, 64 hex digits
    #[arg(long, value_name = "PUBLIC")]
    key: Option<String>,
}

/// Makes a key.
pub fn keygen(args: &KeygenArgs, output: Output) -> anyhow::Result<ExitStatus> {
    let key = PrivateKey::generate()?;
    write_secret(&args.out, key.to_pem()?.as_ref())?;
    let public = key.public().to_string();
    if output.json {
        output.data(json!({"type": "key", "v": 1, "data": {"file": args.out, "public_key": public}}).to_string())?;
    } else {
        output.data(&public)?;
        output.note(format!(
            "the private key is in `{}`; recipes that trust it have `[trust] keys = [\"{public}\"]`",
            args.out.display()
        ));
    }
    Ok(ExitStatus::Success)
}

/// Writes a file that only its owner can read; never over another one.
fn write_secret(path: &Path, text: &str) -> Result<(), Diagnostic> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = options.open(path).and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|e| Diagnostic::io("write", path, &e).hint("a key is never overwritten: choose another file"))
}

/// Signs a plugin.
pub fn sign(args: &SignArgs, output: Output) -> anyhow::Result<ExitStatus> {
    let file = plugin_path::resolve(&args.plugin, None)?;
    let bytes = std::fs::read(&file).map_err(|e| Diagnostic::io("read", &file, &e))?;
    // Nobody should vouch for something that is no plugin.
    plumb_host::inspect(&file.display().to_string(), &bytes)?;
    let pem = std::fs::read_to_string(&args.key)
        .map_err(|e| Diagnostic::io("read", &args.key, &e).hint("make a key: `plumb plugin keygen --out KEY`"))?;
    let key = PrivateKey::from_pem(&pem).map_err(|e| {
        Diagnostic::usage("key.malformed", format!("`{}` is no key to sign plugins with", args.key.display()))
            .because(e.to_string())
            .hint("make one: `plumb plugin keygen --out KEY`")
    })?;
    let signature = key.sign(&bytes);
    let path = Signature::path(&file);
    std::fs::write(&path, signature.to_json()).map_err(|e| Diagnostic::io("write", &path, &e))?;
    if output.json {
        let data = json!({"file": path, "sha256": signature.sha256, "public_key": signature.public_key});
        output.data(json!({"type": "signature", "v": 1, "data": data}).to_string())?;
    } else {
        output.data(path.display().to_string())?;
    }
    Ok(ExitStatus::Success)
}

/// Checks a signature.
pub fn verify(args: &VerifyArgs, output: Output) -> anyhow::Result<ExitStatus> {
    let wrong = |e: plumb_host::signature::Error| Diagnostic::usage("key.malformed", e.to_string());
    let wanted: Option<PublicKey> = args.key.as_deref().map(str::parse).transpose().map_err(wrong)?;
    let file = plugin_path::resolve(&args.plugin, None)?;
    let bytes = std::fs::read(&file).map_err(|e| Diagnostic::io("read", &file, &e))?;
    let found = match trust::read_signature(&file)? {
        None => Err(format!("`{}` is not there", Signature::path(&file).display())),
        Some(signature) => match signature.verify(&bytes) {
            Err(error) => Err(error.to_string()),
            Ok(signer) if wanted.is_some_and(|wanted| wanted != signer) => {
                Err(format!("it is signed by {signer}, not by the key asked for"))
            }
            Ok(signer) => Ok(signer.to_string()),
        },
    };
    let (signer, reason) = (found.as_ref().ok(), found.as_ref().err());
    output.data(if output.json {
        json!({"type": "signature", "v": 1, "data": {"holds": found.is_ok(), "signer": signer, "reason": reason}}).to_string()
    } else {
        found.as_ref().map_or_else(|reason| format!("no: {reason}"), |signer| format!("signed by {signer}"))
    })?;
    Ok(if found.is_ok() { ExitStatus::Success } else { ExitStatus::No })
}
