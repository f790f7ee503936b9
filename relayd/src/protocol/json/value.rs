//! One value of JSON text, and the members of an object.

use std::borrow::Cow;
use std::ops::Range;

use super::super::ProtocolError;
use super::cursor::{Cursor, Text};
use super::elsewhere::Found;

/// A key longer than this is none of ours, however it is spelled.
const KEY_MAX: usize = 256;

/// The text of one value, without white space around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::protocol) struct Value<'a>(&'a [u8]);

impl<'a> Value<'a> {
    pub(in crate::protocol) fn new(text: &'a [u8]) -> Self {
        Self(text.trim_ascii())
    }

    pub(in crate::protocol) fn raw(self) -> &'a [u8] {
        self.0
    }

    /// Null, false, or an empty string, object or array: nothing is said.
    pub(in crate::protocol) fn is_nothing(self) -> bool {
        match self.0 {
            b"null" | b"false" | b"" | b"\"\"" => true,
            [b'{', inner @ .., b'}'] | [b'[', inner @ .., b']'] => inner.trim_ascii().is_empty(),
            _ => false,
        }
    }

    pub(in crate::protocol) fn is_string(self) -> bool {
        self.0.first() == Some(&b'"')
    }

    pub(in crate::protocol) fn is_object(self) -> bool {
        self.0.first() == Some(&b'{')
    }

    /// The string that this is; none if it is no string, or no Unicode.
    pub(in crate::protocol) fn text(self) -> Option<Cow<'a, str>> {
        let inner = self.0.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
        match unescape(inner)? {
            Cow::Borrowed(bytes) => std::str::from_utf8(bytes).ok().map(Cow::Borrowed),
            Cow::Owned(bytes) => String::from_utf8(bytes).ok().map(Cow::Owned),
        }
    }

    /// The amount that this is: a number, or digits in a string (proto3 writes 64-bit integers so). Fractions
    /// are cut off, what is negative is 0, what is too large is the largest. None if it is no amount.
    pub(in crate::protocol) fn count(self) -> Option<u64> {
        let inner = self.0.strip_prefix(b"\"").and_then(|text| text.strip_suffix(b"\"")).unwrap_or(self.0);
        let text = std::str::from_utf8(inner).ok()?;
        if !text.starts_with(|c: char| c.is_ascii_digit() || c == '-') {
            return None;
        }
        match text.parse::<u64>() {
            Ok(count) => Some(count),
            Err(_) => text.parse::<f64>().ok().map(whole),
        }
    }

    /// The elements of the array that this is; none if it is no array.
    pub(in crate::protocol) fn elements(self) -> impl Iterator<Item = Value<'a>> {
        let mut cursor = Cursor::new(self.0);
        let mut is_over = !cursor.take(b'[') || cursor.take(b']');
        std::iter::from_fn(move || {
            if is_over {
                return None;
            }
            cursor.peek();
            let start = cursor.at();
            cursor.value().ok()?;
            let element = cursor.bytes().get(start..cursor.at())?;
            is_over = !cursor.take(b',');
            Some(Value(element))
        })
    }

    /// The members of the object that this is; none if it is no object.
    pub(in crate::protocol) fn members(self) -> Members<'a> {
        Members::new(self.0)
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a cast from a float saturates, which is what is wanted"
)]
fn whole(number: f64) -> u64 {
    number as u64
}

/// A member of an object.
pub(in crate::protocol) struct Member<'a> {
    /// The key, without its escapes.
    pub key: Cow<'a, [u8]>,
    /// The value.
    pub value: Value<'a>,
    /// Where the value stands in the text that was walked.
    pub span: Range<usize>,
}

/// Walks over the members of one object.
pub(in crate::protocol) struct Members<'a> {
    cursor: Cursor<'a>,
    state: State,
}

enum State {
    Start,
    Inside,
    Over,
}

impl<'a> Members<'a> {
    pub(in crate::protocol) fn new(text: &'a [u8]) -> Self {
        Self { cursor: Cursor::new(text), state: State::Start }
    }

    /// The next member; none at the end of the object, or if the text starts with something else.
    pub(in crate::protocol) fn step(&mut self) -> Result<Option<Member<'a>>, ProtocolError> {
        match self.state {
            State::Over => return Ok(None),
            State::Start if !self.cursor.take(b'{') || self.cursor.take(b'}') => return Ok(self.over()),
            State::Inside if self.cursor.take(b'}') => return Ok(self.over()),
            State::Inside if !self.cursor.take(b',') => return self.cursor.malformed(),
            State::Start | State::Inside => self.state = State::Inside,
        }
        self.member().map(Some)
    }

    fn member(&mut self) -> Result<Member<'a>, ProtocolError> {
        let key = match self.cursor.key()? {
            Text { inner, has_escapes: true } if inner.len() <= KEY_MAX => {
                unescape(inner).unwrap_or(Cow::Borrowed(inner))
            }
            Text { inner, .. } => Cow::Borrowed(inner),
        };
        self.cursor.peek();
        let start = self.cursor.at();
        self.cursor.value()?;
        let span = start..self.cursor.at();
        let value = Value(self.cursor.bytes().get(span.clone()).unwrap_or_default());
        Ok(Member { key, value, span })
    }

    fn over<T>(&mut self) -> Option<T> {
        self.state = State::Over;
        None
    }

    /// Nothing but white space follows the object.
    pub(super) fn finish(&mut self) -> Result<(), ProtocolError> {
        match self.cursor.peek() {
            None => Ok(()),
            Some(_) => self.cursor.malformed(),
        }
    }

    /// What keys within the members' values told so far.
    pub(super) fn found(&self) -> Found {
        self.cursor.found()
    }

    /// Bytes of binary data passed so far.
    pub(super) fn binary(&self) -> u64 {
        self.cursor.binary()
    }
}

/// A broken object ends where it breaks: for replies, where what can be read is read.
impl<'a> Iterator for Members<'a> {
    type Item = (Cow<'a, [u8]>, Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        if let Ok(Some(member)) = self.step() {
            return Some((member.key, member.value));
        }
        self.over()
    }
}

/// The text of a string's inside without its escapes; none if an escape is no character (a lone surrogate).
pub(in crate::protocol) fn unescape(inner: &[u8]) -> Option<Cow<'_, [u8]>> {
    let Some(first) = memchr::memchr(b'\\', inner) else { return Some(Cow::Borrowed(inner)) };
    let (plain, mut rest) = inner.split_at(first);
    let mut text = Vec::with_capacity(inner.len());
    text.extend_from_slice(plain);
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'\\' {
            text.push(byte);
            continue;
        }
        let (&letter, tail) = rest.split_first()?;
        rest = tail;
        let plain = match letter {
            b'u' => {
                let (character, tail) = unicode(rest)?;
                rest = tail;
                text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                continue;
            }
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'"' | b'\\' | b'/' => letter,
            _ => return None,
        };
        text.push(plain);
    }
    Some(Cow::Owned(text))
}

/// The character of a `\u` escape whose digits come first, and what follows it.
fn unicode(digits: &[u8]) -> Option<(char, &[u8])> {
    let unit = |digits: &[u8]| {
        let text = std::str::from_utf8(digits.get(..4)?).ok()?;
        text.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| u16::from_str_radix(text, 16).ok())?
    };
    let first = unit(digits)?;
    let rest = digits.get(4..)?;
    if !(0xd800..0xdc00).contains(&first) {
        return Some((char::from_u32(first.into())?, rest));
    }
    let second = unit(rest.strip_prefix(b"\\u")?)?;
    let character = char::decode_utf16([first, second]).next()?.ok()?;
    Some((character, rest.get(6..)?))
}
