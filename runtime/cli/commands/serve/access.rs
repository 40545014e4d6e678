//! Who may ask: everyone who knows the token.
//!
//! Rewards decide what a model learns, so whoever can reach an open reward server can read training data and probe the reward.
//! Hence a token even on loopback, which all users of a machine share.

use std::net::SocketAddr;

use base64ct::{Base64, Encoding};
use sha2::{Digest, Sha256};

use crate::diagnostic::Diagnostic;

/// Random bytes of a generated token.
const TOKEN_BYTES: usize = 16;
/// Shortest token that is accepted from a user, in characters.
const TOKEN_CHARS_MIN: usize = 16;

/// Who may ask.
#[derive(Debug)]
pub enum Access {
    /// Who knows a token that was made up at start.
    Generated(String),
    /// Who knows the user's token.
    Given(String),
    /// Everyone on this machine.
    Open,
}

impl Access {
    /// Decides from the command line.
    ///
    /// # Errors
    /// When other machines could connect and no token was given: a generated one would have to travel there by hand anyway, and
    /// an open server would show them the data.
    pub fn new(listen: SocketAddr, token: Option<&str>, no_auth: bool) -> Result<Self, Diagnostic> {
        let local = listen.ip().is_loopback();
        match token {
            Some(token) => {
                let fit = |c: char| c.is_ascii_graphic() && c != ':' && c != '@' && c != '/';
                if token.len() < TOKEN_CHARS_MIN || !token.chars().all(fit) {
                    return Err(Diagnostic::usage(
                        "serve.token",
                        "the token is too short or has characters that a URL cannot carry",
                    )
                    .hint(format!("use {TOKEN_CHARS_MIN} or more letters and digits, as `openssl rand -hex 16` prints")));
                }
                Ok(Access::Given(token.to_owned()))
            }
            None if !local => {
                let what = if no_auth { "`--no-auth` would let" } else { "without a token," };
                let who = if no_auth { "other machines ask" } else { "other machines could ask" };
                Err(Diagnostic::usage("serve.open", format!("{what} {who}: {listen} is not a loopback address"))
                    .hint("give a token with `--token` or PLUMB_TOKEN, or listen on 127.0.0.1"))
            }
            None if no_auth => Ok(Access::Open),
            None => {
                let mut bytes = [0; TOKEN_BYTES];
                getrandom::fill(&mut bytes).map_err(|e| {
                    Diagnostic::resource("system.random", "the system has no random numbers").because(e.to_string())
                })?;
                Ok(Access::Generated(base64ct::Base64UrlUnpadded::encode_string(&bytes)))
            }
        }
    }

    /// Whether a request with this `Authorization` header may be answered.
    pub fn allows(&self, header: Option<&str>) -> bool {
        let expected = match self {
            Access::Open => return true,
            Access::Generated(token) | Access::Given(token) => token,
        };
        let Some(given) = header.and_then(token) else { return false };
        // Digests are compared, so that the time it takes says nothing about the token.
        Sha256::digest(given) == Sha256::digest(expected)
    }
}

/// The token of `Bearer TOKEN`, or the password of `Basic BASE64(user:TOKEN)`, which HTTP clients send for a URL with a password.
fn token(header: &str) -> Option<String> {
    let (scheme, rest) = header.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.trim().to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = String::from_utf8(Base64::decode_vec(rest.trim()).ok()?).ok()?;
    Some(pair.split_once(':')?.1.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef";

    fn access(listen: &str, token: Option<&str>, no_auth: bool) -> Result<Access, Diagnostic> {
        Access::new(listen.parse().unwrap(), token, no_auth)
    }

    #[test]
    fn addresses_of_other_machines_need_a_token() {
        assert_eq!(access("0.0.0.0:1", None, false).unwrap_err().code, "serve.open");
        assert_eq!(access("192.168.0.2:1", None, true).unwrap_err().code, "serve.open");
        assert!(access("0.0.0.0:1", Some(TOKEN), false).is_ok());
        assert_eq!(access("127.0.0.1:1", Some("short"), false).unwrap_err().code, "serve.token");
        assert!(matches!(access("[::1]:1", None, true).unwrap(), Access::Open));
    }

    #[test]
    fn token_is_taken_from_bearer_and_from_the_password_of_a_url() {
        let access = access("127.0.0.1:1", Some(TOKEN), false).unwrap();
        assert!(access.allows(Some(&format!("Bearer {TOKEN}"))));
        let basic = |pair: String| format!("Basic {}", Base64::encode_string(pair.as_bytes()));
        assert!(access.allows(Some(&basic(format!("anyone:{TOKEN}")))));
        for wrong in [None, Some("Bearer "), Some(TOKEN), Some("Basic %%"), Some("Digest x")] {
            assert!(!access.allows(wrong), "{wrong:?}");
        }
        assert!(!access.allows(Some(&basic(format!("{TOKEN}:anything")))));
    }

    #[test]
    fn generated_tokens_differ() {
        let token = || match access("127.0.0.1:1", None, false).unwrap() {
            Access::Generated(token) => token,
            other => panic!("{other:?}"),
        };
        assert_ne!(token(), token());
        assert!(token().len() >= TOKEN_CHARS_MIN);
    }
}
