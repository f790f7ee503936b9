//! Walks over JSON text without recursion, leaping through strings.

use memchr::memchr2;
use wide::u8x32;

use super::super::ProtocolError;

/// A string of at least this many bytes may be binary data in base64.
const BINARY_MIN: usize = 512;
const SAMPLE: usize = 48;
/// Bytes that are judged at once: as many as a mask has bits.
const BLOCK: usize = 32;
/// So many blocks without a quote or a backslash make it likely that more follow.
const PLAIN_BLOCKS_MAX: u32 = 2;

/// A place in JSON text. Control characters, invalid UTF-8 and unknown escapes inside strings are passed over.
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    binary: u64,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, binary: 0 }
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

    /// Passes a string whose opening quote is next. True if it has escapes. What follows a backslash is passed
    /// over whatever it is: where the string ends does not depend on it.
    fn string(&mut self) -> Result<bool, ProtocolError> {
        let start = self.at + 1;
        let Some(end) = find_end(self.bytes, start) else {
            self.at = self.bytes.len();
            return self.malformed();
        };
        if end.at - start >= BINARY_MIN {
            self.binary += binary_bytes(self.bytes.get(start..end.at).unwrap_or_default());
        }
        self.at = end.at + 1;
        Ok(end.has_escapes)
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

/// The closing quote of a string.
struct End {
    at: usize,
    has_escapes: bool,
}

/// Finds the closing quote of the string that begins at `start`. Where quotes and backslashes are dense, a block
/// is judged at once, however many escapes it has; where they are rare, the vector search is faster.
fn find_end(bytes: &[u8], start: usize) -> Option<End> {
    let mut at = start;
    let mut escapes = Escapes::default();
    let mut has_escapes = false;
    let mut plain_blocks = 0;
    let (quote, backslash) = (u8x32::splat(b'"'), u8x32::splat(b'\\'));
    while let Some(block) = bytes.get(at..).and_then(|rest| rest.first_chunk::<BLOCK>()) {
        let block = u8x32::new(*block);
        let quotes = block.simd_eq(quote).to_bitmask();
        let backslashes = block.simd_eq(backslash).to_bitmask();
        let ends = quotes & !escapes.escaped(backslashes);
        let within = if ends == 0 { backslashes } else { backslashes & (ends ^ (ends - 1)) };
        has_escapes |= within != 0;
        if ends != 0 {
            return Some(End { at: at + ends.trailing_zeros() as usize, has_escapes });
        }
        at += BLOCK;
        plain_blocks = if quotes | backslashes == 0 { plain_blocks + 1 } else { 0 };
        if plain_blocks == PLAIN_BLOCKS_MAX {
            plain_blocks = 0;
            let rest = bytes.get(at..).unwrap_or_default();
            at += memchr2(b'"', b'\\', rest).unwrap_or(rest.len());
        }
    }
    let mut is_escaped = escapes.carried;
    for (offset, &byte) in bytes.get(at..).unwrap_or_default().iter().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'"' => return Some(End { at: at + offset, has_escapes }),
            b'\\' => (is_escaped, has_escapes) = (true, true),
            _ => {}
        }
    }
    None
}

/// Tells escaped bytes from others, block by block.
#[derive(Default)]
struct Escapes {
    /// The last byte of the block before escapes the first of the next.
    carried: bool,
}

impl Escapes {
    /// A bit for each byte that a backslash escapes. In a run of backslashes every second one is escaped itself;
    /// subtracting the run from the alternating pattern finds which, by its carry (Langdale and Lemire,
    /// "Parsing Gigabytes of JSON per Second", section 3.1.1).
    fn escaped(&mut self, backslashes: u32) -> u32 {
        const ODD: u32 = 0xaaaa_aaaa;
        let carried = u32::from(self.carried);
        if backslashes == 0 {
            self.carried = false;
            return carried;
        }
        let escaping = backslashes & !carried;
        let alternating = (escaping << 1 | ODD).wrapping_sub(escaping) ^ ODD;
        self.carried = alternating & backslashes & 1 << 31 != 0;
        alternating ^ (backslashes | carried)
    }
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn byte_by_byte(bytes: &[u8], start: usize) -> Option<(usize, bool)> {
        let (mut at, mut has_escapes) = (start, false);
        loop {
            match bytes.get(at)? {
                b'"' => return Some((at, has_escapes)),
                b'\\' => (at, has_escapes) = (at + 2, true),
                _ => at += 1,
            }
        }
    }

    proptest! {
        #[test]
        fn strings_end_where_a_byte_by_byte_search_ends(
            bytes in prop::collection::vec(prop::sample::select(b"\\\\\\\"ab".to_vec()), 0..200),
            plain in 0..100_usize,
            start in 0..40_usize,
        ) {
            let bytes = [vec![b'x'; plain], bytes].concat();
            let found = find_end(&bytes, start).map(|end| (end.at, end.has_escapes));
            prop_assert_eq!(found, byte_by_byte(&bytes, start));
        }
    }
}
