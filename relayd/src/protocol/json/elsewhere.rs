//! Which members of a request name something elsewhere that the model will read, so that the body's size says nothing
//! of the prompt. In doubt they do: that only makes the worst case of a call worse.

use shared::domain::Protocol;

use super::cursor::Text;
use super::value::Member;

/// What was found among the keys below the top of a body. What it means depends on the protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// An address or a file, or a key that is written with escapes.
    names_elsewhere: bool,
    /// An `id` that is a string.
    has_id: bool,
    /// An `audio` that is an object.
    has_audio: bool,
}

impl Found {
    /// Looks at a key whose value begins with `first`. A schema of a tool has the names of fields as well, but says of
    /// them of what kind they are, in an object.
    pub(super) fn see(&mut self, key: &Text<'_>, first: Option<u8>) {
        if key.has_escapes {
            self.names_elsewhere = true;
            return;
        }
        // Few keys end like one of these, and every key of a body comes by.
        let last = key.inner.last().map_or(0, u8::to_ascii_lowercase);
        match (last, first) {
            (b'o', Some(b'{')) => self.has_audio |= key.inner.eq_ignore_ascii_case(b"audio"),
            (_, Some(b'{')) => {}
            (b'd', Some(b'"')) if key.inner.len() == 2 => {
                self.has_id |= key.inner.eq_ignore_ascii_case(b"id");
            }
            (b'l' | b'i' | b's' | b'd', _) => self.names_elsewhere |= is_address(key.inner),
            _ => {}
        }
    }

    /// Whether a body of this protocol refers to something elsewhere, by what was found in it. Items of Responses are
    /// named by their id alone, as are earlier answers in sound.
    pub(super) fn refers(self, protocol: Protocol) -> bool {
        self.names_elsewhere
            || match protocol {
                Protocol::Responses => self.has_id,
                Protocol::ChatCompletions => self.has_audio,
                Protocol::Messages | Protocol::GenerateContent => false,
            }
    }
}

/// `url`, `image_url`, `file_url`, `fileUri`, `file_uri`, `file_id`, `file_ids` and their like. Some servers do not
/// mind case.
fn is_address(key: &[u8]) -> bool {
    const ENDS: [&[u8]; 6] = [b"url", b"urls", b"uri", b"uris", b"file_id", b"file_ids"];
    ENDS.iter().any(|end| {
        let start = key.len().checked_sub(end.len());
        start.is_some_and(|start| key[start..].eq_ignore_ascii_case(end))
    })
}

/// Whether a member at the top of a body names what the prompt goes on from.
pub(super) fn is_reference(protocol: Protocol, member: &Member<'_>) -> bool {
    let names: &[&[u8]] = match protocol {
        Protocol::Messages => &[b"container"],
        Protocol::ChatCompletions => return false,
        Protocol::Responses => &[b"previous_response_id", b"conversation", b"prompt"],
        Protocol::GenerateContent => &[b"cachedContent", b"cached_content"],
    };
    names.iter().any(|name| member.key.eq_ignore_ascii_case(name)) && !member.value.is_nothing()
}
