//! Replies of the Anthropic Messages API.

mod usage;

use std::sync::LazyLock;

use super::json::Value;
use super::mark::Mark;
use super::reading::Facts;
use super::scan::Path;

pub(super) const PATHS: &[Path] =
    &[&["type"], &["usage"], &["message", "usage"], &["model"], &["message", "model"], &["error"]];

pub(super) static MARKS: LazyLock<[Mark; 3]> =
    LazyLock::new(|| [Mark::key("\"usage\""), Mark::text("\"message_stop\""), Mark::key("\"error\"")]);

/// Reads a message, or the events of one.
#[derive(Default)]
pub(super) struct Reader {
    counts: usage::Counts,
    kind: Option<Kind>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Announcement,
    Stop,
    Other,
}

impl Kind {
    fn named(name: &[u8]) -> Self {
        match name {
            b"ping" | b"message_start" => Self::Announcement,
            b"message_stop" => Self::Stop,
            _ => Self::Other,
        }
    }
}

impl Reader {
    pub(super) fn value(&mut self, path: Path, value: Value<'_>, facts: &mut Facts) {
        match path {
            ["type"] => self.kind = value.text().map(|kind| Kind::named(kind.as_bytes())),
            ["usage"] | ["message", "usage"] => {
                self.counts.update(value, facts);
                facts.usage(self.counts.usage());
            }
            ["model"] | ["message", "model"] => facts.model(value),
            _ => facts.error(value),
        }
    }

    /// A record has ended, of an event of this name.
    pub(super) fn end(&mut self, event: &[u8], facts: &mut Facts) {
        let kind = self.kind.take().unwrap_or_else(|| Kind::named(event));
        facts.record_has_substance |= kind != Kind::Announcement;
        if kind == Kind::Stop {
            facts.terminal();
        }
    }
}
