//! Replies of Gemini's `generateContent`.

mod usage;

use std::sync::LazyLock;

use super::json::Value;
use super::mark::Mark;
use super::reading::Facts;
use super::scan::Path;

pub(super) const PATHS: &[Path] = &[
    &["usageMetadata"],
    &["modelVersion"],
    &["candidates", "finishReason"],
    &["candidates", "content"],
    &["promptFeedback", "blockReason"],
    &["error"],
];

pub(super) static MARKS: LazyLock<[Mark; 4]> = LazyLock::new(|| {
    [
        Mark::key("\"usageMetadata\""),
        Mark::key("\"finishReason\""),
        Mark::key("\"blockReason\""),
        Mark::key("\"error\""),
    ]
});

/// Reads a reply, or the chunks of one.
pub(super) struct Reader;

impl Reader {
    pub(super) fn value(&mut self, path: Path, value: Value<'_>, facts: &mut Facts) {
        match path {
            ["usageMetadata"] => {
                let usage = usage::read(value, facts);
                facts.usage(usage);
            }
            ["modelVersion"] => facts.model(value),
            ["candidates", "content"] => facts.record_has_substance = true,
            ["candidates", ..] | ["promptFeedback", ..] if !value.is_nothing() => {
                facts.record_has_substance = true;
                facts.terminal();
            }
            ["error"] => facts.error(value),
            _ => {}
        }
    }

    pub(super) fn end(&mut self, _: &mut Facts) {}
}
