//! Reads what a reply says about itself (usage, model, errors, its end) from a copy of its bytes as they pass. It
//! changes nothing, keeps little, and never fails: what it cannot read counts as not said.

mod events;

#[cfg(test)]
mod tests;

use shared::domain::Protocol;

use self::events::Events;
use super::json::Value;
use super::mark::Mark;
use super::reading::{Facts, Opening, Reading};
use super::scan::{Extractor, Found, Path};
use super::{chat_completions, generate_content, messages, responses};

/// How a reply's body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReplyForm {
    /// `text/event-stream`.
    EventStream,
    /// One JSON array, an element per chunk: Gemini's streams without `alt=sse`.
    JsonArrayStream,
    /// One JSON value.
    Json,
}

impl ReplyForm {
    /// The form of a reply with this `content-type`, to a request that asked for a stream or not. A stream that does not
    /// say that it is one is Gemini's array, or an error.
    pub fn of(protocol: Protocol, is_stream: bool, content_type: &str) -> Self {
        let kind = content_type.split(';').next().unwrap_or_default().trim();
        match protocol {
            _ if kind.eq_ignore_ascii_case("text/event-stream") => Self::EventStream,
            Protocol::GenerateContent if is_stream => Self::JsonArrayStream,
            _ => Self::Json,
        }
    }
}

/// Reads a reply as it passes.
pub struct Meter {
    form: ReplyForm,
    reader: Reader,
    facts: Facts,
    extractor: Extractor,
    events: Events,
}

/// What one protocol's replies mean.
enum Reader {
    Messages(messages::Reader),
    ChatCompletions(chat_completions::Reader),
    Responses(responses::Reader),
    GenerateContent(generate_content::Reader),
}

impl Reader {
    fn new(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Messages => Self::Messages(messages::Reader::default()),
            Protocol::ChatCompletions => Self::ChatCompletions(chat_completions::Reader::default()),
            Protocol::Responses => Self::Responses(responses::Reader::default()),
            Protocol::GenerateContent => Self::GenerateContent(generate_content::Reader),
        }
    }

    /// Where a protocol says what is wanted.
    const fn paths(protocol: Protocol) -> &'static [Path] {
        match protocol {
            Protocol::Messages => messages::PATHS,
            Protocol::ChatCompletions => chat_completions::PATHS,
            Protocol::Responses => responses::PATHS,
            Protocol::GenerateContent => generate_content::PATHS,
        }
    }

    /// Whether a line of data bears a mark, without which it need not be read.
    fn is_marked(&self, data: &[u8]) -> bool {
        let marks: &[Mark] = match self {
            Self::Messages(_) => messages::MARKS.as_slice(),
            Self::ChatCompletions(_) => chat_completions::MARKS.as_slice(),
            Self::Responses(_) => responses::MARKS.as_slice(),
            Self::GenerateContent(_) => generate_content::MARKS.as_slice(),
        };
        marks.iter().any(|mark| mark.is_in(data))
    }

    fn found(&mut self, found: Found<'_>, event: &[u8], facts: &mut Facts) {
        match found {
            Found::Value { path, text } => {
                let value = Value::new(text);
                match self {
                    Self::Messages(reader) => reader.value(path, value, facts),
                    Self::ChatCompletions(reader) => reader.value(path, value, facts),
                    Self::Responses(reader) => reader.value(path, value, facts),
                    Self::GenerateContent(reader) => reader.value(path, value, facts),
                }
            }
            // Whatever is too long to be kept is no announcement.
            Found::Dropped { .. } => facts.record_has_substance = true,
            Found::End => {
                match self {
                    Self::Messages(reader) => reader.end(event, facts),
                    Self::ChatCompletions(reader) => reader.end(facts),
                    Self::Responses(reader) => reader.end(event, facts),
                    Self::GenerateContent(reader) => reader.end(facts),
                }
                facts.end_record(event == b"error");
            }
        }
    }
}

impl Meter {
    /// A meter for the reply to one attempt.
    pub fn new(protocol: Protocol, form: ReplyForm) -> Self {
        Self {
            form,
            reader: Reader::new(protocol),
            facts: Facts::default(),
            extractor: Extractor::new(Reader::paths(protocol)),
            events: Events::default(),
        }
    }

    /// Says how many answers were asked for, where that is more than one: a Chat stream without `[DONE]` is complete
    /// when each of them has finished.
    #[must_use]
    pub fn expecting(mut self, choices: u32) -> Self {
        if let Reader::ChatCompletions(reader) = &mut self.reader {
            reader.expect(choices);
        }
        self
    }

    /// Takes the reply's next bytes.
    pub fn feed(&mut self, piece: &[u8]) {
        let Self { reader, facts, extractor, .. } = self;
        match self.form {
            ReplyForm::EventStream => self.events.feed(piece, &mut Sink { reader, facts, extractor }),
            ReplyForm::JsonArrayStream => facts.answered(piece),
            ReplyForm::Json => {
                facts.answered(piece);
                facts.opening_of_json(piece);
            }
        }
        if self.form != ReplyForm::EventStream {
            extractor.feed(piece, &mut |found| reader.found(found, b"", facts));
        }
        if self.form == ReplyForm::Json {
            facts.reading.terminal = extractor.is_complete();
        }
    }

    /// The reply has ended, in whatever way: reads a last event that lacks its empty line.
    pub fn finish(&mut self) {
        if self.form == ReplyForm::EventStream {
            let Self { reader, facts, extractor, .. } = self;
            self.events.finish(&mut Sink { reader, facts, extractor });
        }
    }

    /// What the reply has shown so far.
    pub fn opening(&self) -> Opening {
        self.facts.opening
    }

    /// Bytes of memory held beyond the meter's own size.
    #[cfg(test)]
    fn kept_bytes(&self) -> usize {
        self.extractor.kept_bytes() + self.events.kept_bytes()
    }

    /// What the reply has said so far.
    pub fn reading(&self) -> &Reading {
        &self.facts.reading
    }
}

/// Where the lines of events go.
struct Sink<'m> {
    reader: &'m mut Reader,
    facts: &'m mut Facts,
    extractor: &'m mut Extractor,
}

impl Sink<'_> {
    fn read(&mut self, data: &[u8], event: &[u8]) {
        let Self { reader, facts, extractor } = self;
        extractor.feed(data, &mut |found| reader.found(found, event, facts));
    }
}
