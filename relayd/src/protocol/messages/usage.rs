//! Usage as Messages tells it: the input leaves out both cache fields, the output includes thinking, and the figures
//! of `message_delta` stand for those of `message_start` where they are given.

use shared::domain::{Usage, UsageClass};

use super::super::json::Value;
use super::super::reading::Facts;

/// The figures so far. A null says nothing, like an absent field.
#[derive(Default)]
pub(super) struct Counts {
    input: Option<u64>,
    cache_read: Option<u64>,
    cache_write: Option<u64>,
    cache_write_5m: Option<u64>,
    cache_write_1h: Option<u64>,
    output: Option<u64>,
    thinking: Option<u64>,
    searches: Option<u64>,
    is_fast: bool,
}

impl Counts {
    pub(super) fn update(&mut self, usage: Value<'_>, facts: &mut Facts) {
        for (key, value) in usage.members() {
            match &*key {
                b"input_tokens" => take(&mut self.input, value),
                b"cache_read_input_tokens" => take(&mut self.cache_read, value),
                b"cache_creation_input_tokens" => take(&mut self.cache_write, value),
                b"output_tokens" => take(&mut self.output, value),
                b"cache_creation" | b"output_tokens_details" | b"server_tool_use" => self.details(value),
                b"service_tier" if !self.is_fast => facts.tier(value),
                b"speed" if value.raw() == b"\"fast\"" => {
                    self.is_fast = true;
                    facts.tier(value);
                }
                _ => {}
            }
        }
    }

    fn details(&mut self, details: Value<'_>) {
        for (key, value) in details.members() {
            match &*key {
                b"ephemeral_5m_input_tokens" => take(&mut self.cache_write_5m, value),
                b"ephemeral_1h_input_tokens" => take(&mut self.cache_write_1h, value),
                b"thinking_tokens" => take(&mut self.thinking, value),
                b"web_search_requests" => take(&mut self.searches, value),
                _ => {}
            }
        }
    }

    /// Usage by class; none while no figure has come.
    pub(super) fn usage(&self) -> Option<Usage> {
        let (write_5m, write_1h) = self.writes();
        let figures = [
            (UsageClass::Input, self.input),
            (UsageClass::CacheRead, self.cache_read),
            (UsageClass::CacheWrite5m, write_5m),
            (UsageClass::CacheWrite1h, write_1h),
            (UsageClass::Output, self.output),
            (UsageClass::Reasoning, self.thinking),
            (UsageClass::WebSearches, self.searches),
        ];
        let has_some = figures.iter().any(|(_, figure)| figure.is_some());
        has_some.then(|| Usage::of(&figures.map(|(class, figure)| (class, figure.unwrap_or(0)))))
    }

    /// What was written to the caches of five minutes and of an hour. The total says what the split leaves out: it
    /// counts as the cheaper kind.
    fn writes(&self) -> (Option<u64>, Option<u64>) {
        let hour = self.cache_write_1h;
        let split = self.cache_write_5m.unwrap_or(0);
        let rest = self.cache_write.map(|total| total.saturating_sub(hour.unwrap_or(0)));
        (rest.map(|rest| rest.max(split)).or(self.cache_write_5m), hour)
    }
}

fn take(slot: &mut Option<u64>, value: Value<'_>) {
    *slot = value.count().or(*slot);
}
