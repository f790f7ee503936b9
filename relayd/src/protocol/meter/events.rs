//! Puts the lines of an event stream together to events, as far as the meter needs them.

use super::super::sse::{Field, Lines, Step};
use super::{Opening, Sink};

/// An event's name longer than this is none of ours.
const NAME_BYTES_MAX: usize = 64;
const KEEP_BYTES: usize = 4 * 1024;

/// The event that is being read.
#[derive(Default)]
pub(super) struct Events {
    lines: Lines,
    event: Event,
}

#[derive(Default)]
struct Event {
    name: Vec<u8>,
    data: Data,
    /// The data so far, while nobody has asked for it: a further line may.
    held: Vec<u8>,
    long: Long,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Data {
    #[default]
    None,
    /// One line, which bears no mark.
    Held,
    /// What came is being read.
    Read,
    /// JSON without the field's name before it, as some servers end a stream with an error.
    Bare,
}

/// What the long line that is passing is.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Long {
    #[default]
    Nothing,
    Data,
    Bare,
}

impl Events {
    pub(super) fn feed(&mut self, piece: &[u8], sink: &mut Sink<'_>) {
        let mut at = 0;
        while let Some(step) = self.lines.step(piece, &mut at) {
            self.event.step(step, sink);
        }
    }

    #[cfg(test)]
    pub(super) fn kept_bytes(&self) -> usize {
        self.lines.kept_bytes() + self.event.held.capacity() + self.event.name.capacity()
    }

    /// The stream has ended: a last line without an ending counts, and an event without its empty line.
    pub(super) fn finish(&mut self, sink: &mut Sink<'_>) {
        while let Some(step) = self.lines.finish() {
            self.event.step(step, sink);
        }
        self.event.end(sink);
    }
}

impl Event {
    fn step(&mut self, step: Step<'_>, sink: &mut Sink<'_>) {
        match step {
            Step::Line(line) => self.line(line, sink),
            Step::LongStart(start) => self.long_start(start, sink),
            Step::LongPart(part) => self.long_part(part, sink),
            Step::LongEnd => self.long_end(sink),
        }
    }

    fn line(&mut self, line: &[u8], sink: &mut Sink<'_>) {
        match Field::of(line) {
            Field::End if self.data != Data::Bare => self.end(sink),
            Field::End => {}
            Field::Comment => sink.facts.open(Opening::Announcing),
            Field::Data(data) => {
                sink.facts.answered(data);
                self.data(data, sink);
            }
            Field::Event(name) => {
                self.leave_bare(sink);
                self.name.clear();
                self.name.extend_from_slice(name.get(..name.len().min(NAME_BYTES_MAX)).unwrap_or_default());
            }
            Field::Other(line) => self.bare(line, sink),
        }
    }

    fn data(&mut self, data: &[u8], sink: &mut Sink<'_>) {
        self.leave_bare(sink);
        match self.data {
            Data::None if data.trim_ascii() == b"[DONE]" => sink.facts.done(),
            Data::None if self.is_wanted(data, sink) => {
                self.begin(sink);
                sink.read(data, &self.name);
            }
            Data::None => {
                self.held.clear();
                self.held.extend_from_slice(data);
                self.data = Data::Held;
            }
            Data::Held | Data::Read | Data::Bare => {
                self.read_held(sink);
                sink.read(b"\n", &self.name);
                sink.read(data, &self.name);
            }
        }
    }

    /// Until substance has been seen, everything is read; after that, only what bears a mark.
    fn is_wanted(&self, data: &[u8], sink: &Sink<'_>) -> bool {
        sink.facts.opening < Opening::Substance || self.name == b"error" || sink.reader.is_marked(data)
    }

    fn begin(&mut self, sink: &mut Sink<'_>) {
        sink.extractor.restart();
        self.data = Data::Read;
    }

    /// A further line has come: what was held belongs to it.
    fn read_held(&mut self, sink: &mut Sink<'_>) {
        if self.data == Data::Held {
            self.begin(sink);
            sink.read(&self.held, &self.name);
        }
    }

    fn bare(&mut self, line: &[u8], sink: &mut Sink<'_>) {
        if self.data == Data::None && line.starts_with(b"{") | line.starts_with(b"[") {
            sink.extractor.restart();
            self.data = Data::Bare;
        }
        if self.data == Data::Bare {
            sink.facts.answered(line);
            sink.read(line, &self.name);
            sink.read(b"\n", &self.name);
            if sink.extractor.is_complete() {
                self.end(sink);
            }
        }
    }

    fn leave_bare(&mut self, sink: &mut Sink<'_>) {
        if self.data == Data::Bare {
            self.end(sink);
        }
    }

    fn long_start(&mut self, start: &[u8], sink: &mut Sink<'_>) {
        match Field::of(start) {
            Field::Data(data) => {
                self.leave_bare(sink);
                self.long = Long::Data;
                sink.facts.answered(data);
                if self.data == Data::None {
                    self.begin(sink);
                } else {
                    self.read_held(sink);
                    sink.read(b"\n", &self.name);
                }
                sink.read(data, &self.name);
            }
            Field::Other(line)
                if self.data == Data::Bare || line.starts_with(b"{") | line.starts_with(b"[") =>
            {
                self.long = Long::Bare;
                if self.data == Data::None {
                    sink.extractor.restart();
                    self.data = Data::Bare;
                }
                sink.facts.answered(line);
                sink.read(line, &self.name);
            }
            _ => self.long = Long::Nothing,
        }
    }

    fn long_part(&mut self, part: &[u8], sink: &mut Sink<'_>) {
        if self.long != Long::Nothing {
            sink.facts.answered(part);
            sink.read(part, &self.name);
        }
    }

    fn long_end(&mut self, sink: &mut Sink<'_>) {
        if self.long == Long::Bare {
            sink.read(b"\n", &self.name);
            if sink.extractor.is_complete() {
                self.end(sink);
            }
        }
        self.long = Long::Nothing;
    }

    /// The event is over. What was read and made no sense goes to the client all the same.
    fn end(&mut self, sink: &mut Sink<'_>) {
        if matches!(self.data, Data::Read | Data::Bare) && !sink.extractor.is_complete() {
            sink.facts.open(Opening::Substance);
        }
        self.data = Data::None;
        self.name.clear();
        self.held.clear();
        self.held.shrink_to(KEEP_BYTES);
    }
}
