//! Signatures of plugins: who vouches for a file, in a file beside it.
//!
//! `NAME.wasm.sig` is JSON: algorithm, public key, SHA-256 of the component and an Ed25519 signature (RFC 8032). What is signed is
//! not the digest alone but [`DOMAIN`] before it, so that no signature over anything else can be passed off as one of a plugin.

use std::path::{Path, PathBuf};

use ed25519_dalek::pkcs8::spki::der::SecretDocument;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{ALGORITHM_OID, DecodePrivateKey, EncodePrivateKey, KeypairBytes, PrivateKeyInfo};
use ed25519_dalek::{SIGNATURE_LENGTH, Signer, SigningKey, VerifyingKey};
use sha2::{Digest, Sha256};

use crate::inspect::hex;

/// Name of the only algorithm.
pub const ALGORITHM: &str = "ed25519";
/// Stands before the digest in what is signed.
pub const DOMAIN: &[u8] = b"plumb:plugin-signature:v1\0";

/// Why a key or a signature is not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The text is no private key.
    #[error("not a private key (PKCS#8 PEM, Ed25519): {reason}")]
    PrivateKey {
        /// What is wrong with it.
        reason: String,
    },
    /// The text is no public key.
    #[error("`{text}` is not a public key: {reason}")]
    PublicKey {
        /// What was given.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The signature file is not of the form that `plumb plugin sign` writes.
    #[error("the signature is malformed: {reason}")]
    Malformed {
        /// Which field and why.
        reason: String,
    },
    /// The signature belongs to other bytes.
    #[error("the signature is for sha256 {signed}, the file has sha256 {found}")]
    OtherFile {
        /// Digest in the signature.
        signed: String,
        /// Digest of the file.
        found: String,
    },
    /// The numbers do not fit: the signature was not made with the private key of this public key.
    #[error("the signature was not made by {public_key}")]
    Forged {
        /// The key it names.
        public_key: PublicKey,
    },
    /// The system gives no random numbers.
    #[error("the system has no random numbers: {reason}")]
    Random {
        /// Its words.
        reason: String,
    },
}

/// A public key; 64 hex digits as text.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl std::fmt::Display for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex(self.0.as_bytes()))
    }
}

impl std::fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl std::str::FromStr for PublicKey {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = |reason| Error::PublicKey { text: text.to_owned(), reason };
        let bytes = unhex(text).ok_or_else(|| wrong("it must be 64 hex digits"))?;
        let key = VerifyingKey::from_bytes(&bytes).map_err(|_| wrong("it is no point of the curve"))?;
        // Anybody could make a signature that fits such a key.
        if key.is_weak() {
            return Err(wrong("it is one of the curve's weak points"));
        }
        Ok(PublicKey(key))
    }
}

/// A private key.
pub struct PrivateKey(SigningKey);

impl PrivateKey {
    /// A new one from the system's random numbers.
    pub fn generate() -> Result<Self, Error> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(|e| Error::Random { reason: e.to_string() })?;
        Ok(PrivateKey(SigningKey::from_bytes(&secret)))
    }

    /// Reads PKCS#8 PEM, as [`PrivateKey::to_pem`] and `openssl genpkey -algorithm ed25519` write it.
    pub fn from_pem(text: &str) -> Result<Self, Error> {
        SigningKey::from_pkcs8_pem(text).map(PrivateKey).map_err(|e| Error::PrivateKey {
            // The error itself names the algorithm that was expected as the one that was found.
            reason: other_algorithm(text).map_or_else(|| e.to_string(), |name| format!("it is one for {name}")),
        })
    }

    /// PKCS#8 PEM in version 1, that is without the public key: OpenSSL before 3.3 reads no other.
    pub fn to_pem(&self) -> Result<impl AsRef<str> + use<>, Error> {
        let private = KeypairBytes { secret_key: self.0.to_bytes(), public_key: None };
        private.to_pkcs8_pem(LineEnding::LF).map_err(|e| Error::PrivateKey { reason: e.to_string() })
    }

    /// The key that checks what this one signs.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    /// Signs a component's bytes.
    pub fn sign(&self, component: &[u8]) -> Signature {
        let digest = Sha256::digest(component);
        Signature {
            algorithm: ALGORITHM.to_owned(),
            public_key: self.public().to_string(),
            sha256: hex(&digest),
            signature: hex(&self.0.sign(&message(&digest)).to_bytes()),
        }
    }
}

/// A signature file.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signature {
    /// [`ALGORITHM`].
    pub algorithm: String,
    /// Who signed, 64 hex digits.
    pub public_key: String,
    /// SHA-256 of the component, lower-case hex.
    pub sha256: String,
    /// Over [`DOMAIN`] and the digest's 32 bytes; 128 hex digits.
    pub signature: String,
}

impl Signature {
    /// Where the signature of a plugin file is: its name with `.sig` behind.
    pub fn path(plugin: &Path) -> PathBuf {
        let mut path = plugin.as_os_str().to_owned();
        path.push(".sig");
        path.into()
    }

    /// Reads a signature file's text.
    pub fn parse(text: &str) -> Result<Self, Error> {
        serde_json::from_str(text).map_err(|e| Error::Malformed { reason: e.to_string() })
    }

    /// A signature file's text.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("four strings are JSON") + "\n"
    }

    /// Checks that the signature is one of these bytes, and returns who signed. Whether that is anybody to trust is the caller's
    /// to say.
    pub fn verify(&self, component: &[u8]) -> Result<PublicKey, Error> {
        let malformed = |reason: &str| Error::Malformed { reason: reason.to_owned() };
        if self.algorithm != ALGORITHM {
            return Err(malformed(&format!("the algorithm is `{}`, known is `{ALGORITHM}`", self.algorithm)));
        }
        let public_key: PublicKey = self.public_key.parse()?;
        let bytes =
            unhex::<{ SIGNATURE_LENGTH }>(&self.signature).ok_or_else(|| malformed("`signature` is not 128 hex digits"))?;
        let digest = Sha256::digest(component);
        if self.sha256 != hex(&digest) {
            return Err(Error::OtherFile { signed: self.sha256.clone(), found: hex(&digest) });
        }
        let signature = ed25519_dalek::Signature::from_bytes(&bytes);
        public_key.0.verify_strict(&message(&digest), &signature).map_err(|_| Error::Forged { public_key })?;
        Ok(public_key)
    }
}

/// What a PKCS#8 PEM's private key is for, if that is not Ed25519; the object identifier where it is none of the usual ones.
fn other_algorithm(pem: &str) -> Option<String> {
    let (_, document) = SecretDocument::from_pem(pem).ok()?;
    let oid = document.decode_msg::<PrivateKeyInfo<'_>>().ok()?.algorithm.oid;
    let name = match oid.to_string().as_str() {
        "1.2.840.113549.1.1.1" => "RSA".to_owned(),
        "1.2.840.10045.2.1" => "ECDSA or ECDH".to_owned(),
        "1.3.101.110" => "X25519".to_owned(),
        "1.3.101.113" => "Ed448".to_owned(),
        other => format!("the algorithm {other}"),
    };
    (oid != ALGORITHM_OID).then_some(name)
}

/// What is signed.
fn message(digest: &[u8]) -> Vec<u8> {
    [DOMAIN, digest].concat()
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
        let digit = |c: u8| (c as char).to_digit(16);
        *byte = (digit(pair[0])? * 16 + digit(pair[1])?) as u8;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seed: u8) -> PrivateKey {
        PrivateKey(SigningKey::from_bytes(&[seed; 32]))
    }

    #[test]
    fn signature_is_of_these_bytes_and_this_key_alone() {
        let signature = key(1).sign(b"component");
        assert_eq!(signature.verify(b"component").unwrap(), key(1).public());
        assert!(matches!(signature.verify(b"componenT"), Err(Error::OtherFile { .. })));
        let other_digest = Signature { sha256: key(1).sign(b"componenT").sha256, ..signature.clone() };
        assert!(matches!(other_digest.verify(b"componenT"), Err(Error::Forged { .. })));
        let other_key = Signature { public_key: key(2).public().to_string(), ..signature.clone() };
        assert!(matches!(other_key.verify(b"component"), Err(Error::Forged { .. })));
        let read = Signature::parse(&signature.to_json()).unwrap();
        assert_eq!(read, signature);
    }

    #[test]
    fn signature_over_a_bare_digest_is_none_of_a_plugin() {
        let digest = Sha256::digest(b"component");
        let bare = Signature { signature: hex(&key(1).0.sign(&digest).to_bytes()), ..key(1).sign(b"component") };
        assert!(matches!(bare.verify(b"component"), Err(Error::Forged { .. })));
    }

    #[test]
    fn keys_read_back_and_bad_ones_say_why() {
        let pem = key(3).to_pem().unwrap();
        assert_eq!(PrivateKey::from_pem(pem.as_ref()).unwrap().public(), key(3).public());
        assert!(matches!(PrivateKey::from_pem("hello"), Err(Error::PrivateKey { .. })));
        assert_eq!(key(3).public().to_string().parse::<PublicKey>().unwrap(), key(3).public());
        for wrong in ["", "00", &"0".repeat(64), &"zz".repeat(32), &"01".repeat(33)] {
            assert!(matches!(wrong.parse::<PublicKey>(), Err(Error::PublicKey { .. })), "{wrong}");
        }
        assert_ne!(PrivateKey::generate().unwrap().public(), PrivateKey::generate().unwrap().public());
    }

    #[test]
    fn private_key_is_written_as_openssl_3_0_reads_it_and_one_of_another_algorithm_is_named() {
        // `openssl genpkey -algorithm x25519` and `-algorithm EC -pkeyopt ec_paramgen_curve:P-256`.
        let x25519 = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VuBCIEIAhIpeMw1VhaB5+EfjoeJBSzPT09axyhYZMIwIW23cZ1\n-----END PRIVATE KEY-----\n";
        let p256 = "-----BEGIN PRIVATE KEY-----\n\
            MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgI2RvtZB/RmSUtMxY\n\
            EIg5G2pTu5lMaF6SBp3nbga2eOihRANCAAQXf19LkiYpb/xIHFMYedSa13MFCEd2\n\
            bRPkRXbDX0ixfx1hSfuXN8pBpcU5Of+y9uQGRrgQAW2GJ+NoQDF8DnVM\n\
            -----END PRIVATE KEY-----\n";
        for (pem, name) in [(x25519, "X25519"), (p256, "ECDSA or ECDH")] {
            let Err(Error::PrivateKey { reason }) = PrivateKey::from_pem(pem) else { panic!("it is for {name}") };
            assert_eq!(reason, format!("it is one for {name}"));
        }
        // RFC 8410, section 10.3: version 0, no public key behind the seed.
        let pem = key(3).to_pem().unwrap();
        let (_, document) = SecretDocument::from_pem(pem.as_ref()).unwrap();
        let info = document.decode_msg::<PrivateKeyInfo<'_>>().unwrap();
        assert!(info.public_key.is_none() && document.as_bytes().len() == 48 && document.as_bytes()[4] == 0);
    }

    #[test]
    fn signature_files_of_another_form_are_refused() {
        let of = |change: fn(&mut Signature)| {
            let mut signature = key(1).sign(b"x");
            change(&mut signature);
            signature.verify(b"x").unwrap_err()
        };
        assert!(matches!(of(|s| s.algorithm = "rsa".into()), Error::Malformed { .. }));
        assert!(matches!(of(|s| s.signature = "00".into()), Error::Malformed { .. }));
        assert!(matches!(of(|s| s.public_key = "00".into()), Error::PublicKey { .. }));
        assert!(matches!(Signature::parse("{}"), Err(Error::Malformed { .. })));
    }
}
