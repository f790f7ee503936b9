//! A reply put into a protocol's words: whole, or as the script of a stream.

use bytes::Bytes;
use serde_json::Value;

use super::reply::{Content, Cuts, Reply};

/// How a protocol writes replies.
pub(super) trait Form: Send + Sync {
    /// The body of a reply in one piece.
    fn whole(&self, reply: &Reply) -> Value;

    /// The media type of a stream.
    fn stream_type(&self) -> &'static str {
        "text/event-stream; charset=utf-8"
    }

    /// Whether a call's arguments are streamed in pieces.
    fn cuts_calls(&self) -> bool {
        true
    }

    /// What comes before the first piece; may be empty.
    fn opening(&self, reply: &Reply) -> String;

    /// One piece.
    fn piece(&self, reply: &Reply, piece: &Piece<'_>) -> String;

    /// What comes after the last piece, `pieces` in all.
    fn closing(&self, reply: &Reply, pieces: usize) -> String;
}

/// A part of the words, or of the JSON of the arguments.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece<'a> {
    /// The part.
    pub(super) text: &'a str,
    /// Which one it is, from 0.
    pub(super) index: usize,
    /// Bytes of all pieces up to the end of this one.
    pub(super) bytes_so_far: usize,
}

/// A server-sent event whose name is its data's type.
pub(super) fn named_event(data: &Value) -> String {
    format!("event: {}\ndata: {data}\n\n", data["type"].as_str().unwrap_or_default())
}

/// A stream that is about to be sent. Each frame is written when it is due, so that a waiting stream holds
/// little more than its words.
pub(super) struct Script {
    form: Box<dyn Form>,
    reply: Reply,
    cuts: Cuts,
    stage: Stage,
}

#[derive(Clone, Copy)]
enum Stage {
    Opening,
    Piece(usize),
    Over,
}

/// What is sent at one time.
#[derive(Debug)]
pub(super) struct Frame {
    /// The bytes, never none.
    pub(super) bytes: Bytes,
    /// Whether there is a gap before it: true of every piece but the first.
    pub(super) comes_after_gap: bool,
}

impl Script {
    /// Prepares a stream of so many pieces.
    pub(super) fn new(form: Box<dyn Form>, reply: Reply, pieces: usize) -> Self {
        let whole_call = matches!(reply.content, Content::Call { .. }) && !form.cuts_calls();
        let cuts = Cuts::new(reply.content.as_str(), if whole_call { 1 } else { pieces });
        Self { form, reply, cuts, stage: Stage::Opening }
    }

    /// The media type of the stream.
    pub(super) fn media_type(&self) -> &'static str {
        self.form.stream_type()
    }

    fn step(&mut self) -> Option<(String, bool)> {
        match self.stage {
            Stage::Opening => {
                self.stage = Stage::Piece(0);
                Some((self.form.opening(&self.reply), false))
            }
            Stage::Piece(index) => {
                let text = self.reply.content.as_str();
                let Some(range) = self.cuts.next(text) else {
                    self.stage = Stage::Over;
                    return Some((self.form.closing(&self.reply, index), false));
                };
                let bytes_so_far = range.end;
                let piece = Piece { text: text.get(range).unwrap_or_default(), index, bytes_so_far };
                self.stage = Stage::Piece(index + 1);
                Some((self.form.piece(&self.reply, &piece), index > 0))
            }
            Stage::Over => None,
        }
    }
}

impl Iterator for Script {
    type Item = Frame;

    fn next(&mut self) -> Option<Frame> {
        loop {
            let (text, comes_after_gap) = self.step()?;
            if !text.is_empty() {
                return Some(Frame { bytes: text.into(), comes_after_gap });
            }
        }
    }
}
