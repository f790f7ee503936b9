//! Finds values at given paths in JSON that comes in pieces, keeping nothing else. What it finds does not depend on
//! where the pieces are cut. It is no validator: at the first breach that it notices it stops finding.

use memchr::memchr2;

use super::json::unescape;

/// A value longer than this is dropped.
pub const CAPTURE_BYTES_MAX: usize = 64 * 1024;
/// A key longer than this, as written, is none of ours.
const KEY_BYTES_MAX: usize = 128;
/// How many brackets may be open around a value that is looked for. Whatever lies deeper is passed over.
const OPEN_MAX: usize = 16;
/// Buffers that grew larger than this are given back after use.
const KEEP_BYTES: usize = 4 * 1024;

/// The keys that lead to a value, from the root. Arrays on the way do not count: every element is looked at.
pub type Path = &'static [&'static str];

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// The text of the value at `path`.
    Value {
        /// Where.
        path: Path,
        /// Its JSON text.
        text: &'a [u8],
    },
    /// There was a value at `path`, too long to be kept.
    Dropped {
        /// Where.
        path: Path,
    },
    /// A record has ended: the root value or, if that is an array, one of its elements.
    End,
}

/// Looks for the values of at most 32 paths, none of which leads through another. A value is told when it is
/// complete; where a path occurs more than once, every value is told, so that the last one stands.
pub struct Extractor {
    paths: &'static [Path],
    state: State,
    open: Vec<Bracket>,
    /// What the value that comes next is: paths still possible, and how many of their keys have been passed.
    next: Reach,
    key: Vec<u8>,
    capture: Option<Capture>,
    pending: Vec<u8>,
    roots: u64,
    dropped: u64,
}

#[derive(Clone, Copy)]
struct Bracket {
    is_object: bool,
    reach: Reach,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Reach {
    paths: u32,
    keys: usize,
}

struct Capture {
    path: Path,
    is_dropped: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// A value comes, or the end of an array that has none.
    Value,
    /// A key comes, or the end of an object that has none.
    Key,
    InKey(InString),
    Colon,
    /// A value has ended.
    After,
    /// In a string, number, literal or container that is not looked into.
    InText(InString),
    InScalar,
    Within {
        depth: u64,
    },
    WithinText {
        depth: u64,
        string: InString,
    },
    Broken,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum InString {
    Plain,
    Escape,
}

impl Extractor {
    /// Looks for `paths`.
    pub fn new(paths: &'static [Path]) -> Self {
        let mut extractor = Self {
            paths,
            state: State::Value,
            open: Vec::new(),
            next: Reach { paths: 0, keys: 0 },
            key: Vec::new(),
            capture: None,
            pending: Vec::new(),
            roots: 0,
            dropped: 0,
        };
        extractor.restart();
        extractor
    }

    /// Forgets what came so far: the next piece begins a new text.
    pub fn restart(&mut self) {
        self.state = State::Value;
        self.open.clear();
        self.next = self.root();
        self.key.clear();
        self.capture = None;
        self.pending.clear();
        self.pending.shrink_to(KEEP_BYTES);
        self.roots = 0;
    }

    /// Everything so far was whole JSON values, at least one.
    pub fn is_complete(&self) -> bool {
        self.roots > 0 && self.open.is_empty() && self.state == State::Value
    }

    /// How many values were too long to be kept.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    #[cfg(test)]
    pub(super) fn kept_bytes(&self) -> usize {
        self.pending.capacity() + self.key.capacity() + self.open.capacity() * size_of::<Bracket>()
    }

    /// Takes the next bytes and tells what ends in them.
    pub fn feed(&mut self, piece: &[u8], found: &mut impl FnMut(Found<'_>)) {
        let mut at = 0;
        let mut from = 0;
        while let Some(&byte) = piece.get(at) {
            let rest = piece.get(at..).unwrap_or_default();
            match self.state {
                State::Broken => return,
                State::Value | State::Key | State::Colon | State::After => {
                    from = at;
                    self.structure(byte, found);
                    at += 1;
                }
                State::InKey(string) => {
                    let (passed, state) = in_string(string, rest);
                    let written = rest.get(..passed).unwrap_or_default();
                    at += passed;
                    match state {
                        Some(string) => {
                            self.keep_key(written);
                            self.state = State::InKey(string);
                        }
                        None => self.end_key(written),
                    }
                }
                State::InScalar if is_scalar(byte) => at += 1,
                State::InScalar => self.end_value(piece.get(from..at).unwrap_or_default(), found),
                State::InText(string) => {
                    let (passed, state) = in_string(string, rest);
                    at += passed;
                    match state {
                        Some(string) => self.state = State::InText(string),
                        None => self.end_value(piece.get(from..at).unwrap_or_default(), found),
                    }
                }
                State::WithinText { depth, string } => {
                    let (passed, state) = in_string(string, rest);
                    at += passed;
                    self.state = match state {
                        Some(string) => State::WithinText { depth, string },
                        None => State::Within { depth },
                    };
                }
                State::Within { depth } => {
                    at += self.within(depth, rest);
                    if self.state == (State::Within { depth: 0 }) {
                        self.end_value(piece.get(from..at).unwrap_or_default(), found);
                    }
                }
            }
        }
        self.keep(piece.get(from..).unwrap_or_default());
    }

    /// Takes a byte between values.
    fn structure(&mut self, byte: u8, found: &mut impl FnMut(Found<'_>)) {
        let inner = self.open.last().copied();
        self.state = match (self.state, byte) {
            (State::Key, b'"') => {
                self.key.clear();
                State::InKey(InString::Plain)
            }
            (State::Colon, b':') => State::Value,
            (State::After, b',') if inner.is_some_and(|inner| inner.is_object) => State::Key,
            (State::After, b',') => {
                self.next = inner.map_or(self.root(), |inner| inner.reach);
                State::Value
            }
            (State::Key | State::After, b'}') if inner.is_some_and(|inner| inner.is_object) => {
                return self.close(found);
            }
            // An array may end where its first element might begin, and after an element.
            (State::Value | State::After, b']') if inner.is_some_and(|inner| !inner.is_object) => {
                return self.close(found);
            }
            (State::Value, b'"' | b'{' | b'[' | b'-' | b't' | b'f' | b'n' | b'0'..=b'9') => self.begin(byte),
            _ if byte.is_ascii_whitespace() => return,
            _ => State::Broken,
        };
    }

    /// A value begins with `byte`.
    fn begin(&mut self, byte: u8) -> State {
        let reach = self.next;
        if reach.paths != 0 {
            let wanted = self.candidates(reach).find(|path| path.len() == reach.keys);
            if let Some(path) = wanted {
                self.capture = Some(Capture { path, is_dropped: false });
            } else if self.open.len() < OPEN_MAX && matches!(byte, b'{' | b'[') {
                let is_object = byte == b'{';
                self.open.push(Bracket { is_object, reach });
                return if is_object { State::Key } else { State::Value };
            }
        }
        match byte {
            b'"' => State::InText(InString::Plain),
            b'{' | b'[' => State::Within { depth: 1 },
            _ => State::InScalar,
        }
    }

    fn candidates(&self, reach: Reach) -> impl Iterator<Item = Path> + '_ {
        self.paths
            .iter()
            .enumerate()
            .filter(move |(index, _)| reach.paths >> index & 1 == 1)
            .map(|(_, path)| *path)
    }

    /// Passes bytes of a container that is not looked into, up to a string or the end of one.
    fn within(&mut self, mut depth: u64, bytes: &[u8]) -> usize {
        for (index, byte) in bytes.iter().enumerate() {
            match byte {
                b'"' => {
                    self.state = State::WithinText { depth, string: InString::Plain };
                    return index + 1;
                }
                b'{' | b'[' => depth = depth.saturating_add(1),
                b'}' | b']' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                self.state = State::Within { depth };
                return index + 1;
            }
        }
        self.state = State::Within { depth };
        bytes.len()
    }

    fn keep_key(&mut self, bytes: &[u8]) {
        let room = (KEY_BYTES_MAX + 1).saturating_sub(self.key.len());
        self.key.extend_from_slice(bytes.get(..bytes.len().min(room)).unwrap_or_default());
    }

    /// The key ends with `last`, closing quote included, of which earlier pieces and escapes are kept.
    fn end_key(&mut self, last: &[u8]) {
        self.state = State::Colon;
        if self.key.is_empty() {
            return self.match_key(last.strip_suffix(b"\""));
        }
        self.keep_key(last);
        let key = std::mem::take(&mut self.key);
        self.match_key(key.strip_suffix(b"\"").and_then(unescape).as_deref());
        self.key = key;
    }

    /// Which paths does the key lead on? One that is none of ours, or no text, leads nowhere.
    fn match_key(&mut self, key: Option<&[u8]>) {
        self.next = Reach { paths: 0, keys: 0 };
        let (Some(key), Some(Bracket { reach, .. })) = (key, self.open.last().copied()) else { return };
        for (index, path) in self.paths.iter().enumerate() {
            let is_possible = reach.paths >> index & 1 == 1;
            if is_possible && path.get(reach.keys).is_some_and(|step| step.as_bytes() == key) {
                self.next.paths |= 1 << index;
            }
        }
        self.next.keys = reach.keys + 1;
    }

    fn close(&mut self, found: &mut impl FnMut(Found<'_>)) {
        let is_array = self.open.pop().is_some_and(|bracket| !bracket.is_object);
        self.after_value(is_array, found);
    }

    /// The value that is not looked into ends with `last`, of which earlier pieces are pending.
    fn end_value(&mut self, last: &[u8], found: &mut impl FnMut(Found<'_>)) {
        match self.capture {
            None => {}
            Some(Capture { path, is_dropped: false })
                if self.pending.is_empty() && last.len() <= CAPTURE_BYTES_MAX =>
            {
                found(Found::Value { path, text: last });
            }
            Some(_) => self.end_kept(last, found),
        }
        self.capture = None;
        self.after_value(false, found);
    }

    /// The value of which there are earlier pieces ends, or is too long to be kept.
    fn end_kept(&mut self, last: &[u8], found: &mut impl FnMut(Found<'_>)) {
        self.keep(last);
        match self.capture {
            Some(Capture { path, is_dropped: true }) => {
                self.dropped = self.dropped.saturating_add(1);
                found(Found::Dropped { path });
            }
            Some(Capture { path, is_dropped: false }) => found(Found::Value { path, text: &self.pending }),
            None => {}
        }
        self.pending.clear();
        self.pending.shrink_to(KEEP_BYTES);
    }

    fn after_value(&mut self, is_array: bool, found: &mut impl FnMut(Found<'_>)) {
        self.state = State::After;
        let is_element = self.open.len() == 1 && self.open.first().is_some_and(|root| !root.is_object);
        if self.open.is_empty() {
            self.roots = self.roots.saturating_add(1);
            self.state = State::Value;
            self.next = self.root();
        }
        if is_element || (self.open.is_empty() && !is_array) {
            found(Found::End);
        }
    }

    /// Keeps what this piece has of the value that is being captured.
    fn keep(&mut self, bytes: &[u8]) {
        let Some(capture) = &mut self.capture else { return };
        if self.pending.len() + bytes.len() > CAPTURE_BYTES_MAX {
            capture.is_dropped = true;
            self.pending.clear();
        }
        if !capture.is_dropped {
            self.pending.extend_from_slice(bytes);
        }
    }

    fn root(&self) -> Reach {
        Reach { paths: u32::MAX >> 32_usize.saturating_sub(self.paths.len()).min(31), keys: 0 }
    }
}

/// Passes the inside of a string: how many bytes, and none once its closing quote has been passed.
fn in_string(string: InString, bytes: &[u8]) -> (usize, Option<InString>) {
    if string == InString::Escape {
        return (1, Some(InString::Plain));
    }
    match memchr2(b'"', b'\\', bytes) {
        None => (bytes.len(), Some(InString::Plain)),
        Some(index) if bytes.get(index) == Some(&b'"') => (index + 1, None),
        Some(index) => (index + 1, Some(InString::Escape)),
    }
}

fn is_scalar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PATHS: &[Path] =
        &[&["usage"], &["response", "usage"], &["choices", "finish_reason"], &["type"], &["error"]];

    fn fed<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<String>, bool) {
        let mut extractor = Extractor::new(PATHS);
        let mut seen = Vec::new();
        for piece in pieces {
            extractor.feed(piece, &mut |found| {
                seen.push(match found {
                    Found::Value { path, text } => {
                        format!("{}={}", path.join("."), String::from_utf8_lossy(text))
                    }
                    Found::Dropped { path } => format!("{} dropped", path.join(".")),
                    Found::End => "end".to_owned(),
                });
            });
        }
        (seen, extractor.is_complete())
    }

    fn at_every_cut(text: &[u8]) -> (Vec<String>, bool) {
        let whole = fed([text]);
        assert_eq!(fed(text.chunks(1)), whole, "byte by byte");
        for cut in 0..=text.len() {
            let (first, second) = text.split_at(cut);
            assert_eq!(fed([first, second]), whole, "cut at {cut}");
        }
        whole
    }

    #[test]
    fn finds_values_wherever_the_text_is_cut() {
        for (text, expected, is_complete) in [
            (r#"{"usage":{"a":[1,"}"]},"x":1}"#, &[r#"usage={"a":[1,"}"]}"#, "end"][..], true),
            (
                r#" { "x" : {"usage":1} , "usage" : 12 , "type":"a\"\\" } "#,
                &["usage=12", r#"type="a\"\\""#, "end"],
                true,
            ),
            (
                r#"{"response":{"output":[{"usage":3}],"usage":null},"usage":[]}"#,
                &["response.usage=null", "usage=[]", "end"],
                true,
            ),
            (
                r#"{"choices":[{"finish_reason":null},{"finish_reason":"stop"}]}"#,
                &["choices.finish_reason=null", r#"choices.finish_reason="stop""#, "end"],
                true,
            ),
            (r#"[{"usage":1},{"usage":2}]"#, &["usage=1", "end", "usage=2", "end"], true),
            (r#"[[{"usage":1}],[]]"#, &["usage=1", "end", "end"], true),
            ("[]", &[], true),
            (r#"{"us\u0061ge":1e5}"#, &["usage=1e5", "end"], true),
            (r#"{"usage":1}{"usage":2} "#, &["usage=1", "end", "usage=2", "end"], true),
            (r#"{"usage":1,"usage":2}"#, &["usage=1", "usage=2", "end"], true),
            (r#"{"usage":{"a":1}"#, &[r#"usage={"a":1}"#], false),
            (r#"{"usage":1 "type":2}"#, &["usage=1"], false),
            (r#"{"usage":1]"#, &["usage=1"], false),
            (r#"{"a" 1,"usage":1}"#, &[], false),
            ("hello", &[], false),
            ("[DONE]", &[], false),
            ("", &[], false),
            ("}", &[], false),
            (r#"{"a":{"b":[[["usage"]]]},"error":"ü\u2028"}"#, &[r#"error="ü\u2028""#, "end"], true),
        ] {
            let (seen, complete) = at_every_cut(text.as_bytes());
            assert_eq!(
                (seen, complete),
                (expected.iter().map(ToString::to_string).collect(), is_complete),
                "{text}"
            );
        }
    }

    #[test]
    fn a_value_that_is_too_long_is_dropped_and_counted() {
        let fits = format!(r#"{{"type":"{}","usage":1}}"#, "x".repeat(CAPTURE_BYTES_MAX - 2));
        let (seen, _) = fed([fits.as_bytes()]);
        assert_eq!((seen.len(), seen[1].as_str()), (3, "usage=1"));
        let long = format!(r#"{{"type":"{}","usage":1}}"#, "x".repeat(CAPTURE_BYTES_MAX - 1));
        for size in [1, 7, 4096, CAPTURE_BYTES_MAX, 1 << 20] {
            assert_eq!(fed(long.as_bytes().chunks(size)).0, ["type dropped", "usage=1", "end"], "{size}");
            assert_eq!(fed(fits.as_bytes().chunks(size)).0, seen, "{size}");
        }
    }

    #[test]
    fn depth_costs_no_memory() {
        for bracket in ["[", r#"{"a":"#, r#"{"choices":"#, r#"{"choices":["#] {
            let mut extractor = Extractor::new(PATHS);
            for _ in 0..100_000 {
                extractor.feed(bracket.as_bytes(), &mut |found| panic!("{found:?}"));
            }
            assert!(extractor.open.len() <= OPEN_MAX && extractor.pending.is_empty());
        }
        let mut deep = "[".repeat(1000) + &"]".repeat(1000);
        deep = format!(r#"{{"a":{deep},"usage":5}}"#);
        assert_eq!(fed([deep.as_bytes()]).0, ["usage=5", "end"]);
    }

    proptest! {
        #[test]
        fn cuts_change_nothing(text in r#"([\[\]{},:" ]|"usage"|"error":|"x":|"a\\"|1|null|\\){0,24}"#) {
            at_every_cut(text.as_bytes());
        }
    }
}
