//! Walks over JSON text without recursion, leaping through strings.

use memchr::memchr2;
use wide::u8x32;

use super::super::ProtocolError;
use super::elsewhere::Found;

/// A string of at least this many bytes may be binary data in base64.
const BINARY_MIN: usize = 512;
const SAMPLE: usize = 48;
/// A place in JSON text. Control characters, invalid UTF-8 and unknown escapes inside strings are passed over.
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    /// The last block in which strings were looked for; it holds the current place, or lies before it.
    block: Block,
    binary: u64,
    found: Found,
}

/// The inside of a string, as it is written.
pub(super) struct Text<'a> {
    pub(super) inner: &'a [u8],
    pub(super) has_escapes: bool,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, block: Block::read(bytes, 0, 0), binary: 0, found: Found::default() }
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

    /// What the keys within values told that were passed so far.
    pub(super) fn found(&self) -> Found {
        self.found
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
        match self.peek() {
            Some(b'"') => self.string().map(drop),
            Some(b'{' | b'[') => self.container(),
            _ => self.scalar(),
        }
    }

    /// Passes an object or an array, whatever its depth.
    fn container(&mut self) -> Result<(), ProtocolError> {
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
                        self.inner_key()?;
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
                        self.inner_key()?;
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

    /// Passes a key within a value, and looks whether it names something elsewhere.
    fn inner_key(&mut self) -> Result<(), ProtocolError> {
        let key = self.key()?;
        let first = self.peek();
        self.found.see(&key, first);
        Ok(())
    }

    /// Passes a key and its colon.
    pub(super) fn key(&mut self) -> Result<Text<'a>, ProtocolError> {
        if self.peek() != Some(b'"') {
            return self.malformed();
        }
        let key = self.string()?;
        if self.take(b':') { Ok(key) } else { self.malformed() }
    }

    /// Passes a string whose opening quote is next. What follows a backslash is passed over whatever it is: where
    /// the string ends does not depend on it.
    fn string(&mut self) -> Result<Text<'a>, ProtocolError> {
        let start = self.at + 1;
        let Block { start: block, quotes, backslashes, .. } = self.block;
        let inside = if start - block < BLOCK { !0 << (start - block) } else { 0 };
        let ends = quotes & inside;
        if ends == 0 {
            return self.long_string(start);
        }
        let end = block + ends.trailing_zeros() as usize;
        self.at = end + 1;
        let inner = self.bytes.get(start..end).unwrap_or_default();
        Ok(Text { inner, has_escapes: backslashes & inside & up_to_first(ends) != 0 })
    }

    /// Passes a string that begins at `start` and does not end in the block at hand.
    fn long_string(&mut self, start: usize) -> Result<Text<'a>, ProtocolError> {
        let mut block = self.block;
        if start - block.start >= BLOCK {
            block = Block::read(self.bytes, start, 0);
        }
        let mut inside = !0 << (start - block.start);
        let mut has_escapes = false;
        while block.quotes & inside == 0 {
            has_escapes |= block.backslashes & inside != 0;
            let Some(next) = block.next(self.bytes) else {
                self.at = self.bytes.len();
                return self.malformed();
            };
            (block, inside) = (next, !0);
        }
        self.block = block;
        let ends = block.quotes & inside;
        has_escapes |= block.backslashes & inside & up_to_first(ends) != 0;
        let end = block.start + ends.trailing_zeros() as usize;
        self.at = end + 1;
        let inner = self.bytes.get(start..end).unwrap_or_default();
        if inner.len() >= BINARY_MIN {
            self.binary += binary_bytes(inner);
        }
        Ok(Text { inner, has_escapes })
    }

    /// Passes a number or a literal.
    fn scalar(&mut self) -> Result<(), ProtocolError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let literal: &[u8] = match rest.first() {
            Some(b't') => b"true",
            Some(b'f') => b"false",
            Some(b'n') => b"null",
            _ => return self.number(rest),
        };
        if !rest.starts_with(literal) {
            return self.malformed();
        }
        self.at += literal.len();
        Ok(())
    }

    fn number(&mut self, rest: &[u8]) -> Result<(), ProtocolError> {
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

/// Bytes that are judged at once: as many as a mask has bits.
const BLOCK: usize = 64;

/// Where quotes and backslashes stand in a block of text: a bit for each byte. Strings are often shorter than a block,
/// so that one look at it finds the ends of several.
#[derive(Clone, Copy)]
struct Block {
    start: usize,
    /// Those that no backslash escapes.
    quotes: u64,
    backslashes: u64,
    /// Whether the last byte escapes the first of the next block: one bit.
    carries: u64,
}

impl Block {
    /// Looks at the block that begins at `start`, whose first byte is escaped if the block before carries that.
    fn read(bytes: &[u8], start: usize, carried: u64) -> Self {
        let rest = bytes.get(start..).unwrap_or_default();
        let (quotes, backslashes) = match rest.first_chunk() {
            Some(block) => masks(block),
            None => {
                let mut padded = [0; BLOCK];
                for (byte, &last) in padded.iter_mut().zip(rest) {
                    *byte = last;
                }
                masks(&padded)
            }
        };
        let (escaped, carries) = escaped(backslashes, carried);
        Self { start, quotes: quotes & !escaped, backslashes, carries }
    }

    /// The next block of a string that goes on after this one. Where quotes and backslashes are rare, the vector
    /// search is faster than block by block.
    fn next(self, bytes: &[u8]) -> Option<Self> {
        let mut start = self.start + BLOCK;
        if self.quotes | self.backslashes == 0 {
            start += memchr2(b'"', b'\\', bytes.get(start..)?)?;
        }
        (start < bytes.len()).then(|| Self::read(bytes, start, self.carries))
    }
}

/// All bits up to the first that is set, and that one.
const fn up_to_first(bits: u64) -> u64 {
    bits ^ (bits - 1)
}

/// Where a block has quotes, and where backslashes.
fn masks(block: &[u8; BLOCK]) -> (u64, u64) {
    let (quote, backslash) = (u8x32::splat(b'"'), u8x32::splat(b'\\'));
    let (mut quotes, mut backslashes) = (0, 0);
    for half in block.as_chunks().0.iter().rev() {
        let half = u8x32::new(*half);
        quotes = quotes << 32 | u64::from(half.simd_eq(quote).to_bitmask());
        backslashes = backslashes << 32 | u64::from(half.simd_eq(backslash).to_bitmask());
    }
    (quotes, backslashes)
}

/// A bit for each byte that a backslash escapes, and whether the last byte escapes the first of the next block. In a
/// run of backslashes every second one is escaped itself; subtracting the run from the alternating pattern finds
/// which, by its carry (Langdale and Lemire, "Parsing Gigabytes of JSON per Second", section 3.1.1).
const fn escaped(backslashes: u64, carried: u64) -> (u64, u64) {
    const ODD: u64 = 0xaaaa_aaaa_aaaa_aaaa;
    if backslashes == 0 {
        return (carried, 0);
    }
    let escaping = backslashes & !carried;
    let alternating = (escaping << 1 | ODD).wrapping_sub(escaping) ^ ODD;
    (alternating ^ (backslashes | carried), (alternating & backslashes) >> (BLOCK - 1))
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
            bytes in prop::collection::vec(prop::sample::select(b"\\\\\\\"ab".to_vec()), 0..300),
            plain in 0..150_usize,
            inner in 0..200_usize,
        ) {
            let (before, within) = (vec![b' '; plain], vec![b'x'; inner]);
            let bytes = [&before[..], b"\"", &within, &bytes].concat();
            let mut cursor = Cursor::new(&bytes);
            cursor.peek();
            let found = cursor.string().ok().map(|text| (cursor.at - 1, text.has_escapes));
            prop_assert_eq!(found, byte_by_byte(&bytes, plain + 1));
        }

        #[test]
        fn strings_are_told_apart_wherever_blocks_end(
            texts in prop::collection::vec("[\\\\\"ab]{0,90}", 0..20),
            blanks in 0..70_usize,
        ) {
            let written: Vec<String> = texts.iter().map(|text| serde_json::to_string(text).unwrap()).collect();
            let json = " ".repeat(blanks) + &written.join(&" ".repeat(blanks));
            let mut cursor = Cursor::new(json.as_bytes());
            for text in written {
                prop_assert_eq!(cursor.peek(), Some(b'"'));
                let found = cursor.string().unwrap();
                prop_assert_eq!(found.inner, &text.as_bytes()[1..text.len() - 1]);
                prop_assert_eq!(found.has_escapes, text.contains('\\'));
            }
            prop_assert_eq!(cursor.peek(), None);
        }
    }
}
