//! Walks over JSON text without recursion, leaping through strings.

use memchr::memchr2;

use super::super::ProtocolError;

/// A string of at least this many bytes may be binary data in base64.
const BINARY_MIN: usize = 512;
const SAMPLE: usize = 48;
/// Bytes that are compared at once: as many as `hits` has bits.
const BLOCK: usize = 32;

/// A place in JSON text. Control characters and invalid UTF-8 inside strings are passed over.
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    binary: u64,
    /// Up to where quotes and backslashes have been looked for: the last bit of `hits` is for the byte before.
    looked: usize,
    hits: u32,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, binary: 0, looked: 0, hits: 0 }
    }

    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Bytes passed so far that look like binary data in base64.
    pub(super) fn binary(&self) -> u64 {
        self.binary
    }

    pub(super) fn malformed<T>(&self) -> Result<T, ProtocolError> {
        Err(ProtocolError::Malformed { offset: self.at })
    }

    /// The next byte that is no white space.
    pub(super) fn peek(&mut self) -> Option<u8> {
        loop {
            match self.bytes.get(self.at) {
                Some(b' ' | b'\n' | b'\r' | b'\t') => self.at += 1,
                next => return next.copied(),
            }
        }
    }

    /// Passes `byte` if it is next after white space.
    pub(super) fn take(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    /// Passes one value of any kind and depth.
    pub(super) fn value(&mut self) -> Result<(), ProtocolError> {
        let mut nest = Nest::default();
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.string()?;
                }
                Some(b'{') => {
                    self.at += 1;
                    if !self.take(b'}') {
                        nest.push(true);
                        self.key()?;
                        continue;
                    }
                }
                Some(b'[') => {
                    self.at += 1;
                    if !self.take(b']') {
                        nest.push(false);
                        continue;
                    }
                }
                _ => self.scalar()?,
            }
            if self.leave(&mut nest)? {
                return Ok(());
            }
        }
    }

    /// Passes what may follow a value, up to the next value; true when the outermost value has ended.
    fn leave(&mut self, nest: &mut Nest) -> Result<bool, ProtocolError> {
        while nest.depth > 0 {
            let is_object = nest.is_object();
            match self.peek() {
                Some(b',') => {
                    self.at += 1;
                    if is_object {
                        self.key()?;
                    }
                    return Ok(false);
                }
                Some(b'}') if is_object => nest.pop(),
                Some(b']') if !is_object => nest.pop(),
                _ => return self.malformed(),
            }
            self.at += 1;
        }
        Ok(true)
    }

    /// Passes a key and its colon. True if the key has escapes.
    pub(super) fn key(&mut self) -> Result<bool, ProtocolError> {
        if self.peek() != Some(b'"') {
            return self.malformed();
        }
        let has_escapes = self.string()?;
        if self.take(b':') { Ok(has_escapes) } else { self.malformed() }
    }

    /// Passes a string whose opening quote is next. True if it has escapes.
    fn string(&mut self) -> Result<bool, ProtocolError> {
        let start = self.at + 1;
        let mut has_escapes = false;
        self.at = start;
        loop {
            self.leap();
            match self.bytes.get(self.at) {
                Some(b'"') => break,
                Some(b'\\') => self.escape()?,
                _ => return self.malformed(),
            }
            has_escapes = true;
        }
        if self.at - start >= BINARY_MIN {
            self.binary += binary_bytes(self.bytes.get(start..self.at).unwrap_or_default());
        }
        self.at += 1;
        Ok(has_escapes)
    }

    /// Passes everything before the next quote or backslash. Where they are dense, one comparison finds all of a
    /// block; where they are rare, the vector search is faster.
    fn leap(&mut self) {
        if let Some(known @ 1..=BLOCK) = self.looked.checked_sub(self.at) {
            let hits = self.hits >> (BLOCK - known);
            if hits != 0 {
                self.at += hits.trailing_zeros() as usize;
                return;
            }
            self.at = self.looked;
        }
        for _ in 0..2 {
            let Some(block) = self.bytes.get(self.at..).and_then(|rest| rest.first_chunk()) else { break };
            self.hits = special(block);
            self.looked = self.at + BLOCK;
            if self.hits != 0 {
                self.at += self.hits.trailing_zeros() as usize;
                return;
            }
            self.at = self.looked;
        }
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        self.at += memchr2(b'"', b'\\', rest).unwrap_or(rest.len());
    }

    fn escape(&mut self) -> Result<(), ProtocolError> {
        let length = match self.bytes.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => 2,
            Some(b'u') => {
                let digits = self.bytes.get(self.at + 2..self.at + 6);
                if !digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) {
                    return self.malformed();
                }
                6
            }
            _ => return self.malformed(),
        };
        self.at += length;
        Ok(())
    }

    /// Passes a number or a literal.
    fn scalar(&mut self) -> Result<(), ProtocolError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        for literal in [b"true".as_slice(), b"false", b"null"] {
            if rest.starts_with(literal) {
                self.at += literal.len();
                return Ok(());
            }
        }
        self.at += usize::from(rest.first() == Some(&b'-'));
        match self.bytes.get(self.at) {
            Some(b'0') => self.at += 1,
            _ => self.digits()?,
        }
        if self.bytes.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.bytes.get(self.at) {
            self.at += 1;
            if let Some(b'+' | b'-') = self.bytes.get(self.at) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), ProtocolError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        match rest.iter().take_while(|byte| byte.is_ascii_digit()).count() {
            0 => self.malformed(),
            count => {
                self.at += count;
                Ok(())
            }
        }
    }
}

/// The open brackets: one bit each, of which the innermost 64 need no memory.
#[derive(Default)]
struct Nest {
    depth: usize,
    bits: u64,
    outer: Vec<u64>,
}

impl Nest {
    fn push(&mut self, is_object: bool) {
        if self.depth > 0 && self.depth.is_multiple_of(64) {
            self.outer.push(self.bits);
        }
        self.bits = self.bits << 1 | u64::from(is_object);
        self.depth += 1;
    }

    fn pop(&mut self) {
        self.bits >>= 1;
        self.depth -= 1;
        if self.depth > 0 && self.depth.is_multiple_of(64) {
            self.bits = self.outer.pop().unwrap_or_default();
        }
    }

    fn is_object(&self) -> bool {
        self.bits & 1 == 1
    }
}

/// A bit for each byte that is a quote or a backslash; the compiler makes vector comparisons of it.
fn special(block: &[u8; BLOCK]) -> u32 {
    let mut hits = 0;
    for (index, &byte) in block.iter().enumerate() {
        hits |= u32::from(byte == b'"' || byte == b'\\') << index;
    }
    hits
}

/// The length of `text` if three samples of it look like base64 (bare, or as a `data:` URL), else 0. Opaque
/// text such as a reasoning signature counts as well: it is no text to the tokenizer either.
fn binary_bytes(text: &[u8]) -> u64 {
    let data = match text.strip_prefix(b"data:") {
        Some(url) => {
            let head = url.get(..url.len().min(128)).unwrap_or_default();
            head.iter()
                .position(|&byte| byte == b',')
                .and_then(|comma| url.get(comma + 1..))
                .unwrap_or_default()
        }
        None => text,
    };
    let middle = data.len() / 2;
    let last = data.len().saturating_sub(SAMPLE);
    // `\/` is how some encoders write the slash.
    let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/=-_\\".contains(byte);
    let samples = [0, middle, last].map(|start| data.get(start..start + SAMPLE));
    let is_binary = samples.iter().all(|sample| sample.is_some_and(|sample| sample.iter().all(is_base64)));
    if is_binary { data.len() as u64 } else { 0 }
}
