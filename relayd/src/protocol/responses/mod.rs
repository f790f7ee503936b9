//! Replies of OpenAI's Responses API.

mod usage;

use std::sync::LazyLock;

use super::json::Value;
use super::mark::Mark;
use super::reading::{Facts, ReplyError};
use super::scan::Path;

pub(super) const PATHS: &[Path] = &[
    &["type"],
    &["response", "usage"],
    &["response", "model"],
    &["response", "service_tier"],
    &["response", "error"],
    &["usage"],
    &["model"],
    &["service_tier"],
    &["error"],
    &["code"],
    &["message"],
    &["detail"],
];

pub(super) static MARKS: LazyLock<[Mark; 6]> = LazyLock::new(|| {
    [
        Mark::key("\"usage\""),
        Mark::key("\"error\""),
        Mark::text("\"response.completed\""),
        Mark::text("\"response.incomplete\""),
        Mark::text("\"response.failed\""),
        Mark::text("\"response.done\""),
    ]
});

/// Reads a response, or the events of one.
#[derive(Default)]
pub(super) struct Reader {
    kind: Option<Kind>,
    /// `code` and `message` at the root, which an `error` event has there.
    flat: ReplyError,
    has_error: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Announcement,
    End,
    Failure,
    Error,
    Other,
}

impl Kind {
    fn named(name: &[u8]) -> Self {
        match name {
            b"response.created" | b"response.queued" | b"response.in_progress" => Self::Announcement,
            b"codex.rate_limits" | b"keepalive" | b"ping" => Self::Announcement,
            b"response.completed" | b"response.incomplete" | b"response.done" => Self::End,
            b"response.failed" => Self::Failure,
            b"error" => Self::Error,
            _ => Self::Other,
        }
    }
}

impl Reader {
    pub(super) fn value(&mut self, path: Path, value: Value<'_>, facts: &mut Facts) {
        match path {
            ["type"] => self.kind = value.text().map(|kind| Kind::named(kind.as_bytes())),
            [.., "usage"] => facts.usage(usage::read(value)),
            [.., "model"] => facts.model(value),
            [.., "service_tier"] => facts.tier(value),
            ["code"] => self.flat.read_code(value),
            ["message"] => self.flat.read_message(value),
            _ => {
                self.has_error |= !value.is_nothing();
                facts.error(value);
            }
        }
    }

    /// A record has ended, of an event of this name.
    pub(super) fn end(&mut self, event: &[u8], facts: &mut Facts) {
        let kind = self.kind.take().unwrap_or_else(|| Kind::named(event));
        let flat = std::mem::take(&mut self.flat);
        let has_error = std::mem::take(&mut self.has_error);
        facts.record_has_substance |= kind != Kind::Announcement;
        match kind {
            Kind::End => facts.terminal(),
            Kind::Failure => {
                facts.terminal();
                facts.failed(ReplyError { kind: "response.failed".to_owned(), ..ReplyError::default() });
            }
            Kind::Error if !has_error => facts.failed(flat),
            Kind::Error | Kind::Announcement | Kind::Other => {}
        }
    }
}
