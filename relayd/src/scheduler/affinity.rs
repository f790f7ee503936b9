//! What binds the calls of a session to one account, so that the vendor's prompt cache stays warm.

use shared::domain::KeyId;

/// A session of one key. Its name is kept as a number, and names can be made up that have the same; the key beside it
/// sees to it that two keys never share a session, whatever names they send.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Session {
    key: KeyId,
    number: u64,
}

impl Session {
    /// Joins a key and the session's name as the client sent it.
    pub fn of(key: &KeyId, name: &str) -> Self {
        // FNV-1a: the number is also written to the ledger and must mean the same after a restart.
        let bytes = key.as_str().bytes().chain([0xff]).chain(name.bytes());
        let number = bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        Self { key: key.clone(), number }
    }

    /// The session as a number.
    pub const fn as_u64(&self) -> u64 {
        self.number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_belong_to_their_key() {
        let (alice, bob) = (KeyId::from("key_a"), KeyId::from("key_b"));
        assert_eq!(Session::of(&alice, "s"), Session::of(&alice, "s"));
        assert_ne!(Session::of(&alice, "s"), Session::of(&bob, "s"));
        assert_ne!(Session::of(&alice, "s"), Session::of(&alice, "t"));
    }

    #[test]
    fn names_with_the_same_number_are_no_session_of_another_key() {
        let session = |key: &str| Session { key: KeyId::from(key), number: 7 };
        assert_eq!(session("key_a"), session("key_a"));
        assert_ne!(session("key_a"), session("key_b"));
    }
}
