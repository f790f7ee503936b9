//! Identifiers: opaque text for records, a time-ordered number for requests.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use super::Timestamp;
use super::text::json_by_text;

macro_rules! record_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Makes an id from 80 random bits.
            pub fn from_random(random: [u8; 10]) -> Self {
                let digits: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
                Self(format!(concat!($prefix, "{}"), digits).into())
            }

            /// The id as it is printed and stored.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.into())
            }
        }

        impl<C> Encode<C> for $name {
            fn encode<W: minicbor::encode::Write>(
                &self,
                encoder: &mut minicbor::Encoder<W>,
                _: &mut C,
            ) -> Result<(), minicbor::encode::Error<W::Error>> {
                encoder.str(&self.0)?.ok()
            }
        }

        impl<'b, C> Decode<'b, C> for $name {
            fn decode(
                decoder: &mut minicbor::Decoder<'b>,
                _: &mut C,
            ) -> Result<Self, minicbor::decode::Error> {
                Ok(decoder.str()?.into())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

record_id!(
    /// Names an API key's record: `key_` and 20 hex digits. It is no secret.
    KeyId,
    "key_"
);
record_id!(
    /// Names an upstream account's record: `acc_` and 20 hex digits.
    AccountId,
    "acc_"
);

/// Names one client request; printed as `req_` and 32 hex digits, sent as `x-relay-request-id`.
///
/// The upper 48 bits are the time of opening in milliseconds, the rest is random, so ids sort by time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(u128);

impl RequestId {
    /// Joins a time and 80 random bits.
    pub fn new(now: Timestamp, random: [u8; 10]) -> Self {
        let mut bytes = [0; 16];
        bytes[..6].copy_from_slice(&now.as_millis().to_be_bytes()[2..]);
        bytes[6..].copy_from_slice(&random);
        Self(u128::from_be_bytes(bytes))
    }

    /// The id as a number; its order is the order of opening.
    pub const fn as_u128(self) -> u128 {
        self.0
    }

    /// Takes a number that [`Self::as_u128`] gave.
    pub const fn from_u128(number: u128) -> Self {
        Self(number)
    }
}

/// Sixteen bytes, most significant first.
impl<C> Encode<C> for RequestId {
    fn encode<W: minicbor::encode::Write>(
        &self,
        encoder: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        encoder.bytes(&self.0.to_be_bytes())?.ok()
    }
}

impl<'b, C> Decode<'b, C> for RequestId {
    fn decode(decoder: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        let bytes = decoder.bytes()?.try_into();
        bytes
            .map(|bytes| Self(u128::from_be_bytes(bytes)))
            .map_err(|_| minicbor::decode::Error::message("a request id has 16 bytes"))
    }
}

impl RequestId {
    /// The id as it is printed. Written digit by digit: every reply bears an id, and formatting machinery costs ten
    /// times as much.
    pub fn to_ascii(self) -> [u8; 36] {
        const DIGITS: [u8; 16] = *b"0123456789abcdef";
        let mut text = *b"req_00000000000000000000000000000000";
        for (pair, byte) in text[4..].chunks_exact_mut(2).zip(self.0.to_be_bytes()) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        text
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.to_ascii()).unwrap_or_default())
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not `req_` and 32 hex digits.
#[derive(Debug, thiserror::Error)]
#[error("a request id is \"req_\" and 32 hex digits")]
pub struct NoRequestId;

impl FromStr for RequestId {
    type Err = NoRequestId;

    fn from_str(text: &str) -> Result<Self, NoRequestId> {
        let digits = text.strip_prefix("req_").filter(|digits| digits.len() == 32).ok_or(NoRequestId)?;
        u128::from_str_radix(digits, 16).map(Self).map_err(|_| NoRequestId)
    }
}

json_by_text!(RequestId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_ids_print_parse_and_sort_by_time() {
        let early = RequestId::new(Timestamp::from_millis(1_000), [0xff; 10]);
        let late = RequestId::new(Timestamp::from_millis(1_001), [0; 10]);
        assert!(early < late);
        assert_eq!(early.to_string().parse::<RequestId>().unwrap(), early);
        for bad in ["", "req_", "req_12", "xyz_00000000000000000000000000000000"] {
            assert!(bad.parse::<RequestId>().is_err(), "{bad}");
        }
    }
}
