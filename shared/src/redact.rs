//! Text that must not be shown: it has no `Display`, and its `Debug` tells nothing.

use std::fmt;

use serde::{Deserialize, Serializer};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// A credential in clear. It is wiped from memory when dropped.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps a credential.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The credential itself: for the wire, the sealer and nothing else.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Serialises a secret in clear: only for the fields of admin calls that carry one over the Unix socket.
pub fn in_clear<S: Serializer>(secret: &Secret, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(secret.expose())
}

/// As [`in_clear`], for a secret that may be absent.
pub fn in_clear_or_none<S: Serializer>(secret: &Option<Secret>, serializer: S) -> Result<S::Ok, S::Error> {
    match secret {
        Some(secret) => serializer.serialize_some(secret.expose()),
        None => serializer.serialize_none(),
    }
}

/// The ends of a key, enough to recognise it by: `cr_12ab…9f`. Short texts give nothing away.
pub fn hint(key: &str) -> String {
    let chars: Vec<char> = key.chars().collect();
    if chars.len() < 20 {
        return "…".to_owned();
    }
    let head: String = chars[..7].iter().collect();
    let tail: String = chars[chars.len() - 2..].iter().collect();
    format!("{head}…{tail}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_tells_nothing() {
        assert_eq!(format!("{:?}", Secret::new("sk-ant-1234")), "[redacted]");
    }

    #[test]
    fn hints_show_only_the_ends() {
        assert_eq!(hint(&format!("cr_{}", "ab".repeat(32))), "cr_abab…ab");
        assert_eq!(hint("short"), "…");
    }
}
