//! Usage as Responses tells it: the figures of Chat Completions under other names.

use shared::domain::Usage;

use super::super::chat_completions;
use super::super::json::Value;

/// Reads a usage object; none if it has no figures.
pub(super) fn read(usage: Value<'_>) -> Option<Usage> {
    chat_completions::usage::read(usage)
}
