//! Takes the usage chunk that the relay asked for out of a Chat stream again, for a client that did not ask. All other
//! bytes pass as they are, in order.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::LazyLock;

use bytes::{Bytes, BytesMut};
use memchr::memchr2;

use super::json::Members;
use super::mark::Mark;
use super::sse::Field;

/// An event that comes in several pieces is held up to this length; a longer one is no usage chunk.
const HELD_BYTES_MAX: usize = 64 * 1024;

static USAGE: LazyLock<Mark> = LazyLock::new(|| Mark::key("\"usage\""));

/// Looks for events with `"choices":[]` and a `usage` that is not null, and takes them out, but for comments among
/// their lines. An event is forwarded when it is complete; one within a single piece is not copied.
#[derive(Default)]
pub struct UsageChunkFilter {
    /// The beginning of an event, from earlier pieces.
    held: BytesMut,
    line: LineState,
    /// The event at hand was too long to be held: it passes up to its end.
    is_passing: bool,
    out: VecDeque<Bytes>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum LineState {
    #[default]
    Start,
    Inside,
    /// After the CR of a line, where an LF may follow.
    Ended,
    /// After the CR of an empty line, where an LF may follow.
    EmptyEnded,
}

impl UsageChunkFilter {
    /// Takes the next bytes of the stream.
    pub fn push(&mut self, piece: &Bytes) {
        let mut start = 0;
        let mut forwarded = 0;
        while let Some(end) = self.event_end(piece, start) {
            if !self.held.is_empty() {
                self.held.extend_from_slice(piece.get(start..end).unwrap_or_default());
                let event = self.held.split().freeze();
                self.event(&event);
                forwarded = end;
            } else if self.is_passing {
                self.is_passing = false;
            } else if let Some(event) = piece.get(start..end)
                && is_usage_chunk(event)
            {
                self.forward(piece.slice(forwarded..start));
                self.comments(&piece.slice(start..end));
                forwarded = end;
            }
            start = end;
        }
        self.rest(piece, forwarded, start);
    }

    /// The next bytes to be forwarded; none when more must come first.
    pub fn pop(&mut self) -> Option<Bytes> {
        self.out.pop_front()
    }

    /// The stream has ended: lets go of what is held, unless it is a usage chunk that lacks its empty line.
    pub fn finish(&mut self) {
        let event = self.held.split().freeze();
        self.event(&event);
    }

    /// Where the event at hand ends, if it ends in this piece from `at` on. One that ends in CR has ended when the
    /// next byte has come.
    fn event_end(&mut self, piece: &[u8], mut at: usize) -> Option<usize> {
        loop {
            let byte = *piece.get(at)?;
            let is_lf = byte == b'\n';
            let (passed, next) = match (self.line, byte) {
                (LineState::EmptyEnded, _) => {
                    self.line = LineState::Start;
                    return Some(at + usize::from(is_lf));
                }
                (LineState::Start, b'\n') => return Some(at + 1),
                (LineState::Start, b'\r') => (1, LineState::EmptyEnded),
                (LineState::Ended, _) => (usize::from(is_lf), LineState::Start),
                (LineState::Start | LineState::Inside, _) => {
                    let rest = piece.get(at..)?;
                    match memchr2(b'\n', b'\r', rest) {
                        None => (rest.len(), LineState::Inside),
                        Some(end) if rest.get(end) == Some(&b'\n') => (end + 1, LineState::Start),
                        Some(end) => (end + 1, LineState::Ended),
                    }
                }
            };
            at += passed;
            self.line = next;
        }
    }

    /// Forwards what comes before `start`, and holds what comes from there on: the beginning of an event.
    fn rest(&mut self, piece: &Bytes, forwarded: usize, start: usize) {
        let rest = piece.get(start..).unwrap_or_default();
        self.is_passing |= self.held.len() + rest.len() > HELD_BYTES_MAX;
        if self.is_passing {
            let held = self.held.split().freeze();
            self.forward(held);
            self.forward(piece.slice(forwarded..));
        } else {
            self.forward(piece.slice(forwarded..start));
            self.held.extend_from_slice(rest);
        }
    }

    fn event(&mut self, event: &Bytes) {
        if is_usage_chunk(event) {
            self.comments(event);
        } else {
            self.forward(event.clone());
        }
    }

    fn comments(&mut self, event: &Bytes) {
        for line in lines(event) {
            if event.get(line.clone()).is_some_and(|line| line.starts_with(b":")) {
                self.forward(event.slice(line));
            }
        }
    }

    fn forward(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.out.push_back(bytes);
        }
    }
}

/// Whether the event has no choices, but usage.
fn is_usage_chunk(event: &[u8]) -> bool {
    if event.len() > HELD_BYTES_MAX || !USAGE.is_in(event) {
        return false;
    }
    let mut data = Vec::with_capacity(event.len());
    for line in lines(event) {
        let line = event.get(line).unwrap_or_default();
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if let Field::Data(value) = Field::of(line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line)) {
            data.extend_from_slice(value);
            data.push(b'\n');
        }
    }
    let (mut has_usage, mut has_no_choices) = (false, false);
    for (key, value) in Members::new(&data) {
        match &*key {
            b"usage" => has_usage = value.is_object(),
            b"choices" => has_no_choices = value.raw().starts_with(b"[") && value.is_nothing(),
            _ => {}
        }
    }
    has_usage && has_no_choices
}

/// The lines of an event, with their endings.
fn lines(event: &[u8]) -> impl Iterator<Item = Range<usize>> + '_ {
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at;
        let rest = event.get(start..).filter(|rest| !rest.is_empty())?;
        at += match memchr2(b'\n', b'\r', rest) {
            None => rest.len(),
            Some(end) if rest.get(end..end + 2) == Some(b"\r\n") => end + 2,
            Some(end) => end + 1,
        };
        Some(start..at)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filtered<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Vec<u8>> {
        let mut filter = UsageChunkFilter::default();
        let mut out = Vec::new();
        for piece in pieces {
            filter.push(&Bytes::copy_from_slice(piece));
            out.extend(std::iter::from_fn(|| filter.pop()).map(|bytes| bytes.to_vec()));
        }
        filter.finish();
        out.extend(std::iter::from_fn(|| filter.pop()).map(|bytes| bytes.to_vec()));
        out
    }

    fn at_every_cut(stream: &str) -> String {
        let stream = stream.as_bytes();
        let whole = filtered([stream]).concat();
        assert_eq!(filtered(stream.chunks(1)).concat(), whole, "byte by byte");
        for cut in 0..=stream.len() {
            let (first, second) = stream.split_at(cut);
            assert_eq!(filtered([first, second]).concat(), whole, "cut at {cut}");
        }
        String::from_utf8(whole).unwrap()
    }

    const DELTA: &str = r#"data: {"choices":[{"index":0,"delta":{"content":"\"usage\":{"}}],"usage":null}"#;
    const USAGE_CHUNK: &str = r#"data: {"id":"x","choices":[],"usage":{"prompt_tokens":1}}"#;

    #[test]
    fn exactly_the_usage_chunk_is_taken_out() {
        for end in ["\n", "\r\n", "\r"] {
            let with = format!("{DELTA}\n\n{USAGE_CHUNK}\n\n: ping\n\n{DELTA}\n\ndata: [DONE]\n\n")
                .replace('\n', end);
            let without = format!("{DELTA}\n\n: ping\n\n{DELTA}\n\ndata: [DONE]\n\n").replace('\n', end);
            assert_eq!(at_every_cut(&with), without, "{end:?}");
            assert_eq!(at_every_cut(&without), without, "{end:?}");
        }
    }

    #[test]
    fn other_events_stay() {
        for stream in [
            r#"data: {"choices":[],"prompt_filter_results":[],"usage":null}"#,
            r#"data: {"choices":[{"delta":{}}],"usage":{"prompt_tokens":1}}"#,
            r#"data: {"usage":{"prompt_tokens":1}}"#,
            r#"data: {"choices":[],"x":{"usage":{"prompt_tokens":1}}}"#,
            r#"data: {"choices":null,"usage":{"prompt_tokens":1}}"#,
            r#"data: {"choices":{},"usage":{"prompt_tokens":1}}"#,
            r#"{"choices":[],"usage":{"prompt_tokens":1}}"#,
            "event: x\n\n\n\r\n\r\r: \n",
            "data: garbage \"usage\":{",
        ] {
            for end in ["", "\n", "\n\n"] {
                let stream = format!("{stream}{end}");
                assert_eq!(at_every_cut(&stream), stream);
            }
        }
    }

    #[test]
    fn usage_chunks_come_in_many_clothes() {
        for (stream, rest) in [
            (
                ": a\nevent: x\ndata:{ \"choices\" : [ ] ,\n: b\ndata: \"usage\":{\"a\":1}}\n\nx",
                ": a\n: b\nx",
            ),
            ("\u{feff}data: {\"choices\":[],\"usage\":{\"a\":1}}\n\n", ""),
            ("data: {\"choices\":[],\"usage\":{\"a\":1}}", ""),
            ("data: {\"choices\":[],\"usage\":{\"a\":1}}\r", ""),
            ("data: {\"choices\":[],\"usage\":{\"a\":1}}\r\n\ndata: 1\n\n", "data: 1\n\n"),
        ] {
            assert_eq!(at_every_cut(stream), rest, "{stream}");
        }
    }

    #[test]
    fn long_events_pass_and_memory_is_bounded() {
        let long =
            format!("data: {{\"choices\":[],\"usage\":{{\"a\":\"{}\"}}}}\n\n", "x".repeat(HELD_BYTES_MAX));
        let stream = format!("{DELTA}\n\n{long}{USAGE_CHUNK}\n\n{DELTA}\n\n");
        let expected = format!("{DELTA}\n\n{long}{DELTA}\n\n");
        for size in [1, 1000, HELD_BYTES_MAX, stream.len()] {
            assert_eq!(filtered(stream.as_bytes().chunks(size)).concat(), expected.as_bytes(), "{size}");
        }
        let mut filter = UsageChunkFilter::default();
        for piece in stream.as_bytes().chunks(1000) {
            filter.push(&Bytes::copy_from_slice(piece));
            assert!(filter.held.len() <= HELD_BYTES_MAX);
        }
    }

    #[test]
    fn whole_events_are_not_copied() {
        let piece = Bytes::from(format!("{DELTA}\n\n{DELTA}\n\n"));
        let mut filter = UsageChunkFilter::default();
        filter.push(&piece);
        let out = filter.pop().unwrap();
        assert_eq!((out.as_ptr(), out.len(), filter.pop()), (piece.as_ptr(), piece.len(), None));
    }

    proptest! {
        #[test]
        fn cuts_change_nothing(
            stream in r#"(data: |\{"choices":\[\],"usage":\{\}\}|\n|\r\n|\r|:|"usage"|x){0,16}"#,
        ) {
            at_every_cut(&stream);
        }

        #[test]
        fn streams_without_the_chunk_pass_as_they_are(stream in "[\na:\r\"usage{}]{0,40}") {
            prop_assert_eq!(at_every_cut(&stream), stream);
        }
    }
}
