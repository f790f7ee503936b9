//! Replies of OpenAI's Chat Completions, of embeddings, and of the many servers that speak like them.

pub(super) mod usage;

use std::sync::LazyLock;

use super::json::Value;
use super::mark::Mark;
use super::reading::Facts;
use super::scan::Path;

/// Kimi puts the usage of a stream into its last choice, Groq into an object of its own.
pub(super) const PATHS: &[Path] = &[
    &["usage"],
    &["x_groq", "usage"],
    &["choices", "usage"],
    &["choices", "index"],
    &["choices", "delta"],
    &["choices", "message"],
    &["choices", "text"],
    &["choices", "finish_reason"],
    &["model"],
    &["service_tier"],
    &["error"],
    &["detail"],
];

pub(super) static MARKS: LazyLock<[Mark; 3]> =
    LazyLock::new(|| [Mark::key("\"usage\""), Mark::key("\"finish_reason\""), Mark::key("\"error\"")]);

/// Answers that finish are told apart up to this index; a higher one counts as this one.
const INDEX_MAX: u64 = 127;

/// Reads a completion, or the chunks of one.
pub(super) struct Reader {
    expected: u32,
    finished: u128,
    index: Option<u64>,
    is_finished: Option<bool>,
}

impl Default for Reader {
    fn default() -> Self {
        Self { expected: 1, finished: 0, index: None, is_finished: None }
    }
}

impl Reader {
    /// So many answers were asked for.
    pub(super) fn expect(&mut self, choices: u32) {
        self.expected = choices.clamp(1, 128);
    }

    pub(super) fn value(&mut self, path: Path, value: Value<'_>, facts: &mut Facts) {
        match path {
            [.., "usage"] => facts.usage(usage::read(value)),
            ["choices", "index"] => self.index(value.count().unwrap_or(0), facts),
            ["choices", "finish_reason"] => self.finish_reason(!value.is_nothing(), facts),
            ["choices", "delta"] => facts.record_has_substance |= !is_announcement(value),
            ["choices", ..] => facts.record_has_substance |= !value.is_nothing(),
            ["model"] => facts.model(value),
            ["service_tier"] => facts.tier(value),
            _ => facts.error(value),
        }
    }

    /// Index and reason of one choice come in either order; the second of a kind is the next choice's.
    fn index(&mut self, index: u64, facts: &mut Facts) {
        if self.index.is_some() {
            self.end_choice(facts);
        }
        self.index = Some(index);
    }

    fn finish_reason(&mut self, is_finished: bool, facts: &mut Facts) {
        if self.is_finished.is_some() {
            self.end_choice(facts);
        }
        self.is_finished = Some(is_finished);
    }

    fn end_choice(&mut self, facts: &mut Facts) {
        let index = self.index.take().unwrap_or(0).min(INDEX_MAX);
        if self.is_finished.take() == Some(true) {
            facts.record_has_substance = true;
            self.finished |= 1 << index;
            if self.finished.count_ones() >= self.expected {
                facts.terminal();
            }
        }
    }

    /// A chunk has ended.
    pub(super) fn end(&mut self, facts: &mut Facts) {
        self.end_choice(facts);
    }
}

/// A delta that gives no more than a role.
fn is_announcement(delta: Value<'_>) -> bool {
    delta.members().all(|(key, value)| *key == *b"role" || value.is_nothing())
}
