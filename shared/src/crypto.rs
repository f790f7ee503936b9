//! Secrets at rest: values sealed with AES-256-GCM under keys derived from one sealing key, API keys kept
//! only as HMAC-SHA-256 under a pepper of its own.

use std::fmt;

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::redact::Secret;

const VERSION: &str = "v1";
const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 12;

/// What can go wrong with a secret. None of it says anything about the secret itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CryptoError {
    /// The sealing key's text is not 64 hex digits.
    #[error("the sealing key must be 64 hex digits")]
    KeyForm,
    /// The sealed value is not of the form this version writes.
    #[error("the sealed value is damaged or was written by a newer version")]
    SealedForm,
    /// The value was sealed with another key.
    #[error("the value was sealed with key {sealed_with}, but the key at hand is {at_hand}")]
    OtherKey {
        /// Id of the key that sealed the value.
        sealed_with: String,
        /// Id of the key that was asked to open it.
        at_hand: String,
    },
    /// The value was changed, or belongs to another record or field.
    #[error("the sealed value does not belong here or was changed")]
    Forged,
    /// The operating system gave no random bytes.
    #[error("the operating system gave no random bytes")]
    NoRandomness,
}

/// Fills an array from the operating system's random source.
pub fn random<const N: usize>() -> Result<[u8; N], CryptoError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| CryptoError::NoRandomness)?;
    Ok(bytes)
}

/// The one key that all others derive from: 32 random bytes, kept as 64 hex digits.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct SealingKey([u8; KEY_BYTES]);

impl SealingKey {
    /// Makes a new key.
    pub fn generate() -> Result<Self, CryptoError> {
        random().map(Self)
    }

    /// Reads 64 hex digits; white space around them does not count.
    pub fn from_hex(text: &str) -> Result<Self, CryptoError> {
        let text = text.trim().as_bytes();
        let mut key = [0; KEY_BYTES];
        if text.len() != 2 * KEY_BYTES {
            return Err(CryptoError::KeyForm);
        }
        for (byte, pair) in key.iter_mut().zip(text.chunks_exact(2)) {
            let digit = |digit: u8| char::from(digit).to_digit(16).ok_or(CryptoError::KeyForm);
            *byte = u8::try_from(digit(pair[0])? << 4 | digit(pair[1])?).map_err(|_| CryptoError::KeyForm)?;
        }
        Ok(Self(key))
    }

    /// The key as 64 hex digits, for its file.
    pub fn to_hex(&self) -> Secret {
        Secret::new(hex(&self.0))
    }

    /// Names the key without telling it: 16 hex digits.
    pub fn id(&self) -> String {
        hex(&self.derive("key id"))[..16].to_owned()
    }

    fn derive(&self, purpose: &str) -> [u8; KEY_BYTES] {
        let mut derived = [0; KEY_BYTES];
        let expanded = Hkdf::<Sha256>::new(Some(b"relayd"), &self.0)
            .expand(format!("relayd:{VERSION}:{purpose}").as_bytes(), &mut derived);
        debug_assert!(expanded.is_ok(), "32 bytes are a valid HKDF output length");
        derived
    }
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// A value as it is stored: `v1.<key id>.<base64 of nonce, ciphertext, tag>`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sealed(String);

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[sealed]")
    }
}

/// Seals and opens values. The place of a value (record and field) is part of what is authenticated, so a
/// sealed value copied elsewhere does not open.
#[derive(Clone)]
pub struct Sealer {
    key_id: String,
    cipher: Aes256Gcm,
}

impl Sealer {
    /// Derives the sealer from the sealing key.
    pub fn new(key: &SealingKey) -> Self {
        let mut derived = key.derive("seal");
        let cipher = Aes256Gcm::new(&derived.into());
        derived.zeroize();
        Self { key_id: key.id(), cipher }
    }

    /// Id of the key that this sealer uses.
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// Seals a value for one place, such as (`acc_12…`, `secret`).
    pub fn seal(&self, record: &str, field: &str, value: &Secret) -> Result<Sealed, CryptoError> {
        let nonce: [u8; NONCE_BYTES] = random()?;
        let aad = self.place(record, field);
        let payload = Payload { msg: value.expose().as_bytes(), aad: aad.as_bytes() };
        let ciphertext =
            self.cipher.encrypt(&Nonce::from(nonce), payload).map_err(|_| CryptoError::SealedForm)?;
        let blob = [nonce.as_slice(), &ciphertext].concat();
        Ok(Sealed(format!("{VERSION}.{}.{}", self.key_id, BASE64.encode(blob))))
    }

    /// Opens what [`Self::seal`] made for the same place.
    pub fn open(&self, record: &str, field: &str, sealed: &Sealed) -> Result<Secret, CryptoError> {
        let mut parts = sealed.0.splitn(3, '.');
        let (Some(VERSION), Some(key_id), Some(blob)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(CryptoError::SealedForm);
        };
        if key_id != self.key_id {
            return Err(CryptoError::OtherKey {
                sealed_with: key_id.to_owned(),
                at_hand: self.key_id.clone(),
            });
        }
        let blob = BASE64.decode(blob).map_err(|_| CryptoError::SealedForm)?;
        let (nonce, ciphertext) = blob.split_first_chunk::<NONCE_BYTES>().ok_or(CryptoError::SealedForm)?;
        let aad = self.place(record, field);
        let payload = Payload { msg: ciphertext, aad: aad.as_bytes() };
        let clear = self.cipher.decrypt(&Nonce::from(*nonce), payload).map_err(|_| CryptoError::Forged)?;
        String::from_utf8(clear).map(Secret::new).map_err(|_| CryptoError::SealedForm)
    }

    fn place(&self, record: &str, field: &str) -> String {
        format!("{VERSION}|{}|{record}|{field}", self.key_id)
    }
}

/// A random secret of its own under which API keys are hashed. It is sealed like any other secret, so a new
/// sealing key does not end anyone's API key.
#[derive(Clone)]
pub struct Pepper(Hmac<Sha256>);

impl Pepper {
    /// Takes the pepper's text (64 hex digits as [`generate_pepper`] gives).
    pub fn new(secret: &Secret) -> Self {
        // HMAC pads a short key with zeros, so this is HMAC under the secret's SHA-256.
        let mut block = [0; 64];
        block[..32].copy_from_slice(&Sha256::digest(secret.expose().as_bytes()));
        let pepper = Self(Hmac::new(&block.into()));
        block.zeroize();
        pepper
    }

    /// The digest by which an API key is stored and looked up.
    pub fn digest(&self, api_key: &str) -> Digest {
        let mut mac = self.0.clone();
        mac.update(api_key.as_bytes());
        Digest(mac.finalize().into_bytes().into())
    }
}

/// The HMAC-SHA-256 of an API key; JSON has it as 64 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Digest([u8; 32]);

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex(&self.0))
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        // The same form as a sealing key: 64 hex digits.
        SealingKey::from_hex(&text).map(|bytes| Self(bytes.0)).map_err(serde::de::Error::custom)
    }
}

/// Makes a new pepper.
pub fn generate_pepper() -> Result<Secret, CryptoError> {
    random::<KEY_BYTES>().map(|bytes| Secret::new(hex(&bytes)))
}

/// Makes a new API key: the prefix and 64 hex digits.
pub fn generate_api_key(prefix: &str) -> Result<Secret, CryptoError> {
    random::<KEY_BYTES>().map(|bytes| Secret::new(format!("{prefix}{}", hex(&bytes))))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> SealingKey {
        SealingKey::from_hex(&hex(&[byte; 32])).unwrap()
    }

    #[test]
    fn a_sealed_value_opens_only_in_its_place() {
        let sealer = Sealer::new(&key(1));
        let sealed = sealer.seal("acc_1", "secret", &Secret::new("sk-1")).unwrap();
        assert_eq!(sealer.open("acc_1", "secret", &sealed).unwrap().expose(), "sk-1");
        assert_eq!(sealer.open("acc_2", "secret", &sealed).unwrap_err(), CryptoError::Forged);
        assert_eq!(sealer.open("acc_1", "other", &sealed).unwrap_err(), CryptoError::Forged);
        let other = Sealer::new(&key(2)).open("acc_1", "secret", &sealed).unwrap_err();
        assert!(matches!(other, CryptoError::OtherKey { .. }), "{other}");
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let sealer = Sealer::new(&key(1));
        let sealed = sealer.seal("acc_1", "secret", &Secret::new("sk-1")).unwrap();
        for at in 0..sealed.0.len() {
            let mut text = sealed.0.clone().into_bytes();
            text[at] = if text[at] == b'A' { b'B' } else { b'A' };
            let changed = Sealed(String::from_utf8(text).unwrap());
            assert!(sealer.open("acc_1", "secret", &changed).is_err(), "byte {at}");
        }
    }

    #[test]
    fn sealing_keys_are_read_strictly() {
        assert_eq!(key(7).id(), key(7).id());
        assert_ne!(key(7).id(), key(8).id());
        assert_eq!(SealingKey::from_hex(&format!(" {}\n", hex(&[7; 32]))).unwrap().id(), key(7).id());
        for bad in ["", "00", &"zz".repeat(32), &"00".repeat(33)] {
            assert_eq!(SealingKey::from_hex(bad).unwrap_err(), CryptoError::KeyForm);
        }
    }

    #[test]
    fn digests_depend_on_pepper_and_key_and_survive_json() {
        let pepper = Pepper::new(&Secret::new("p1"));
        let digest = pepper.digest("cr_1");
        assert_eq!(digest, pepper.digest("cr_1"));
        assert_ne!(digest, pepper.digest("cr_2"));
        assert_ne!(digest, Pepper::new(&Secret::new("p2")).digest("cr_1"));
        let json = serde_json::to_string(&digest).unwrap();
        assert_eq!(serde_json::from_str::<Digest>(&json).unwrap(), digest);
    }

    #[test]
    fn api_keys_have_the_prefix_and_64_digits() {
        let key = generate_api_key("cr_").unwrap();
        assert_eq!(key.expose().len(), 67);
        assert!(key.expose().starts_with("cr_"));
    }
}
