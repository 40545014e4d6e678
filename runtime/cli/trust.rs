//! Whose plugins a run accepts: the recipe's `[trust]`, and the signature files beside plugins.

use std::path::Path;

use plumb_core::recipe;
use plumb_host::signature::{PublicKey, Signature};

use crate::diagnostic::Diagnostic;
use crate::exit::ExitStatus;

/// The keys of a recipe, or of a command.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    keys: Vec<PublicKey>,
}

/// A plugin's bytes, as they were when they were checked: they are what is loaded, whatever happens to the file meanwhile.
pub struct Vouched {
    /// The component.
    pub bytes: Vec<u8>,
    /// Who signed them; None where there is no signature of these bytes.
    pub signer: Option<PublicKey>,
}

impl Trust {
    /// Reads a recipe's keys.
    pub fn new(trust: &recipe::Trust) -> Result<Self, Diagnostic> {
        let in_recipe = |e: Diagnostic| Diagnostic { code: "recipe.value".into(), ..e.at("trust.keys") };
        Trust::default().and(&trust.keys).map_err(in_recipe)
    }

    /// These keys too.
    pub fn and(mut self, keys: &[String]) -> Result<Self, Diagnostic> {
        for key in keys {
            self.keys.push(key.parse().map_err(|e: plumb_host::signature::Error| {
                Diagnostic::usage("usage.key", e.to_string())
                    .hint("`plumb plugin keygen` and `plumb plugin verify` print public keys")
            })?);
        }
        Ok(self)
    }

    /// Reads a plugin's file and refuses it unless one of the keys signed it. Without keys every file is accepted.
    pub fn open(&self, path: &Path) -> Result<Vouched, Diagnostic> {
        let bytes = std::fs::read(path).map_err(|e| Diagnostic::io("read", path, &e))?;
        let signed = read_signature(path)?.map(|signature| signature.verify(&bytes));
        if self.keys.is_empty() {
            return Ok(Vouched { bytes, signer: signed.and_then(Result::ok) });
        }
        let file = path.display();
        let refused = |code, message: String| Err(Diagnostic::new(code, ExitStatus::Plugin, message).at("trust.keys"));
        match signed {
            Some(Ok(signer)) if self.keys.contains(&signer) => Ok(Vouched { bytes, signer: Some(signer) }),
            Some(Ok(signer)) => {
                refused("plugin.foreign", format!("`{file}` is signed by {signer}, which is no trusted key"))
                    .map_err(|error| error.hint("if you trust that key, add it to `trust.keys` of the recipe; commands without a recipe take it as `--trust`"))
            }
            Some(Err(error)) => refused("plugin.signature", format!("the signature of `{file}` does not hold")).map_err(|d| {
                d.because(error.to_string())
                    .hint(format!("get the file and its signature again, or sign it: `plumb plugin sign {file} --key KEY`"))
            }),
            None => refused("plugin.unsigned", format!("`{file}` is not signed, and only plugins that a trusted key signed are accepted"))
                .map_err(|error| error.hint(format!("sign it: `plumb plugin sign {file} --key KEY`"))),
        }
    }
}

/// The signature file beside a plugin, if there is one.
pub fn read_signature(plugin: &Path) -> Result<Option<Signature>, Diagnostic> {
    let path = Signature::path(plugin);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Diagnostic::io("read", &path, &e)),
    };
    Signature::parse(&text).map(Some).map_err(|e| {
        Diagnostic::new("plugin.signature", ExitStatus::Plugin, format!("`{}` is no signature", path.display()))
            .because(e.to_string())
            .hint("delete it, or sign the plugin again")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use plumb_host::signature::PrivateKey;

    #[test]
    fn plugins_are_opened_if_a_trusted_key_signed_their_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("p.wasm");
        std::fs::write(&file, "component").unwrap();
        let (ours, theirs) = (PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap());
        let trust = Trust::new(&recipe::Trust { keys: vec![ours.public().to_string()] }).unwrap();
        let code = |trust: &Trust| trust.open(&file).map(|_| ()).unwrap_err().code;
        let sign = |key: &PrivateKey, bytes: &[u8]| std::fs::write(Signature::path(&file), key.sign(bytes).to_json()).unwrap();

        assert_eq!(code(&trust), "plugin.unsigned");
        assert_eq!(Trust::default().open(&file).unwrap().signer, None);
        sign(&theirs, b"component");
        assert_eq!(code(&trust), "plugin.foreign");
        sign(&ours, b"component");
        assert_eq!(trust.open(&file).unwrap().signer, Some(ours.public()));
        std::fs::write(&file, "componenT").unwrap();
        assert_eq!(code(&trust), "plugin.signature");
        // An old signature says nothing about a new file.
        assert_eq!(Trust::default().open(&file).unwrap().signer, None);
        std::fs::write(Signature::path(&file), "{}").unwrap();
        assert_eq!(code(&trust), "plugin.signature");
        let bad = Trust::new(&recipe::Trust { keys: vec!["12".into()] }).unwrap_err();
        assert_eq!((bad.code.as_str(), bad.place.as_deref()), ("recipe.value", Some("trust.keys")));
    }
}
