//! Splits an event stream into lines, wherever its pieces are cut, and lines into fields. What the fields say is not
//! its business. Lines are split on bytes: LF, CRLF and lone CR, nothing else.

use memchr::memchr2;

/// A line that comes in several pieces is kept up to this length; beyond it, its bytes are only passed on.
pub const LINE_BYTES_MAX: usize = 64 * 1024;
/// Buffers that grew larger than this are given back after use.
const KEEP_BYTES: usize = 4 * 1024;
const BOM: &[u8] = b"\xef\xbb\xbf";

/// A line of the stream, without its ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// A whole line.
    Line(&'a [u8]),
    /// The beginning of a line that is too long to be kept.
    LongStart(&'a [u8]),
    /// More of it.
    LongPart(&'a [u8]),
    /// Its end.
    LongEnd,
}

/// Splits a stream into lines. A line within one piece is handed on without being copied.
#[derive(Default)]
pub struct Lines {
    partial: Vec<u8>,
    phase: Phase,
    is_partial_told: bool,
    is_after_cr: bool,
    is_after_start: bool,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Short,
    Long,
    LongEnded,
}

impl Lines {
    /// The next step within `piece`, which has been read up to `at`; none when more bytes are needed.
    pub fn step<'a>(&'a mut self, piece: &'a [u8], at: &mut usize) -> Option<Step<'a>> {
        self.forget_told();
        if self.phase == Phase::LongEnded {
            self.phase = Phase::Short;
            return Some(Step::LongEnd);
        }
        if self.is_after_cr && *at < piece.len() {
            self.is_after_cr = false;
            *at += usize::from(piece.get(*at) == Some(&b'\n'));
        }
        let rest = piece.get(*at..).filter(|rest| !rest.is_empty())?;
        match memchr2(b'\n', b'\r', rest) {
            Some(end) => {
                self.is_after_cr = rest.get(end) == Some(&b'\r');
                *at += end + 1;
                Some(self.whole(rest.get(..end)?))
            }
            None => {
                *at = piece.len();
                self.part(rest)
            }
        }
    }

    /// The last line, if the stream ended without ending it. To be called until it returns none.
    pub fn finish(&mut self) -> Option<Step<'_>> {
        self.forget_told();
        match self.phase {
            Phase::Short if self.partial.is_empty() => None,
            Phase::Short => {
                self.is_partial_told = true;
                Some(Step::Line(strip_bom(&mut self.is_after_start, &self.partial)))
            }
            Phase::Long | Phase::LongEnded => {
                self.phase = Phase::Short;
                Some(Step::LongEnd)
            }
        }
    }

    #[cfg(test)]
    pub(super) fn kept_bytes(&self) -> usize {
        self.partial.capacity()
    }

    /// `end` ends the line.
    fn whole<'a>(&'a mut self, end: &'a [u8]) -> Step<'a> {
        if self.phase == Phase::Long {
            self.phase = Phase::LongEnded;
            return Step::LongPart(end);
        }
        if self.partial.is_empty() {
            return Step::Line(strip_bom(&mut self.is_after_start, end));
        }
        self.partial.extend_from_slice(end);
        self.is_partial_told = true;
        Step::Line(strip_bom(&mut self.is_after_start, &self.partial))
    }

    /// `part` goes on with the line.
    fn part<'a>(&'a mut self, part: &'a [u8]) -> Option<Step<'a>> {
        if self.phase == Phase::Long {
            return Some(Step::LongPart(part));
        }
        self.partial.extend_from_slice(part);
        if self.partial.len() <= LINE_BYTES_MAX {
            return None;
        }
        self.phase = Phase::Long;
        self.is_partial_told = true;
        Some(Step::LongStart(strip_bom(&mut self.is_after_start, &self.partial)))
    }

    fn forget_told(&mut self) {
        if self.is_partial_told {
            self.is_partial_told = false;
            self.partial.clear();
            self.partial.shrink_to(KEEP_BYTES);
        }
    }
}

/// The stream's first line may begin with a byte order mark.
fn strip_bom<'a>(is_after_start: &mut bool, line: &'a [u8]) -> &'a [u8] {
    if std::mem::replace(is_after_start, true) {
        return line;
    }
    line.strip_prefix(BOM).unwrap_or(line)
}

/// What a line of an event stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field<'a> {
    /// The empty line, which ends an event.
    End,
    /// A line that says nothing.
    Comment,
    /// A line of the event's data.
    Data(&'a [u8]),
    /// The event's name.
    Event(&'a [u8]),
    /// A field that means nothing to us, or no field at all: the whole line.
    Other(&'a [u8]),
}

impl<'a> Field<'a> {
    /// Reads a line. One blank after the colon is no part of the value.
    pub fn of(line: &'a [u8]) -> Self {
        let value = |name: &[u8]| match line.strip_prefix(name)? {
            [] => Some(line.get(line.len()..).unwrap_or_default()),
            [b':', b' ', value @ ..] | [b':', value @ ..] => Some(value),
            _ => None,
        };
        match line.first() {
            None => Self::End,
            Some(b':') => Self::Comment,
            Some(b'd') => value(b"data").map_or(Self::Other(line), Self::Data),
            Some(b'e') => value(b"event").map_or(Self::Other(line), Self::Event),
            Some(_) => Self::Other(line),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Vec<u8>> {
        let mut lines = Lines::default();
        let mut seen = Vec::new();
        let mut long = Vec::new();
        let mut take = |step: Step<'_>| match step {
            Step::Line(line) => seen.push(line.to_vec()),
            Step::LongStart(part) | Step::LongPart(part) => long.extend_from_slice(part),
            Step::LongEnd => seen.push(std::mem::take(&mut long)),
        };
        for piece in pieces {
            let mut at = 0;
            while let Some(step) = lines.step(piece, &mut at) {
                take(step);
            }
            assert_eq!(at, piece.len());
        }
        while let Some(step) = lines.finish() {
            take(step);
        }
        seen
    }

    #[test]
    fn lines_end_in_three_ways() {
        let text = "\u{feff}a\nb\r\nc\r\rd\n\r\n\ne\u{2028}\u{85}f\r\n\u{feff}last";
        let expected = ["a", "b", "c", "", "d", "", "", "e\u{2028}\u{85}f", "\u{feff}last"];
        for size in 1..=text.len() {
            let seen = lines(text.as_bytes().chunks(size));
            assert_eq!(seen, expected.map(|line| line.as_bytes().to_vec()), "pieces of {size}");
        }
    }

    #[test]
    fn long_lines_pass_in_parts() {
        let text =
            format!("short\n{}\r\nend\n{}", "x".repeat(3 * LINE_BYTES_MAX), "y".repeat(LINE_BYTES_MAX + 1));
        for size in [1000, LINE_BYTES_MAX, LINE_BYTES_MAX + 1, 2 * LINE_BYTES_MAX, text.len()] {
            let seen = lines(text.as_bytes().chunks(size));
            let lengths: Vec<_> = seen.iter().map(Vec::len).collect();
            assert_eq!(lengths, [5, 3 * LINE_BYTES_MAX, 3, LINE_BYTES_MAX + 1], "pieces of {size}");
        }
        let mut kept = Lines::default();
        for piece in text.as_bytes().chunks(1000) {
            let mut at = 0;
            while kept.step(piece, &mut at).is_some() {}
            assert!(kept.kept_bytes() <= 4 * LINE_BYTES_MAX);
        }
    }

    #[test]
    fn fields_are_told_apart() {
        for (line, expected) in [
            ("", Field::End),
            (": ping", Field::Comment),
            ("data: {}", Field::Data(b"{}")),
            ("data:{}", Field::Data(b"{}")),
            ("data:  x ", Field::Data(b" x ")),
            ("data", Field::Data(b"")),
            ("data:", Field::Data(b"")),
            ("database: x", Field::Other(b"database: x")),
            ("event: error", Field::Event(b"error")),
            ("event:error", Field::Event(b"error")),
            ("id: 7", Field::Other(b"id: 7")),
            ("{\"error\":1}", Field::Other(b"{\"error\":1}")),
        ] {
            assert_eq!(Field::of(line.as_bytes()), expected, "{line}");
        }
    }

    proptest! {
        #[test]
        fn cuts_change_nothing(text in "[ab:\r\n]{0,24}", cut in 0usize..24) {
            let whole = lines([text.as_bytes()]);
            let (first, second) = text.as_bytes().split_at(cut.min(text.len()));
            prop_assert_eq!(lines([first, second]), whole.clone());
            prop_assert_eq!(lines(text.as_bytes().chunks(1)), whole);
        }
    }
}
