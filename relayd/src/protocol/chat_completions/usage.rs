//! Usage as OpenAI tells it, and as others who say they do: the prompt includes what was read from and written to
//! caches, the completion includes reasoning. Responses uses the same figures under other names.

use shared::domain::{Usage, UsageClass};

use super::super::json::Value;

#[derive(Default)]
struct Figures {
    prompt: Option<u64>,
    completion: Option<u64>,
    total: Option<u64>,
    /// From the details of the prompt. A zero or a null there says zero, whatever the aliases say.
    read: Option<u64>,
    written: Option<u64>,
    audio_in: u64,
    audio_out: u64,
    reasoning: u64,
    /// Aliases at the root, by other vendors.
    hits: Option<u64>,
    misses: Option<u64>,
    cached: Option<u64>,
    cache_read: Option<u64>,
    cache_creation: Option<u64>,
}

/// Reads a usage object; none if it has no figures.
pub(in crate::protocol) fn read(usage: Value<'_>) -> Option<Usage> {
    let mut figures = Figures::default();
    for (key, value) in usage.members() {
        figures.member(&key, value);
    }
    figures.usage()
}

impl Figures {
    fn member(&mut self, key: &[u8], value: Value<'_>) {
        match key {
            b"prompt_tokens" | b"input_tokens" => self.prompt = value.count().or(self.prompt),
            b"completion_tokens" | b"output_tokens" => self.completion = value.count().or(self.completion),
            b"total_tokens" => self.total = value.count(),
            b"prompt_tokens_details" | b"input_tokens_details" => self.prompt_details(value),
            b"completion_tokens_details" | b"output_tokens_details" => self.completion_details(value),
            b"prompt_cache_hit_tokens" => self.hits = value.count(),
            b"prompt_cache_miss_tokens" => self.misses = value.count(),
            b"cached_tokens" => self.cached = value.count(),
            b"cache_read_input_tokens" => self.cache_read = value.count(),
            b"cache_creation_input_tokens" => self.cache_creation = value.count(),
            _ => {}
        }
    }

    fn prompt_details(&mut self, details: Value<'_>) {
        let mut creation = None;
        for (key, value) in details.members() {
            let said = Some(value.count().unwrap_or(0));
            match &*key {
                b"cached_tokens" => self.read = said,
                b"cache_write_tokens" => self.written = said,
                b"cache_creation_tokens" => creation = said,
                b"audio_tokens" => self.audio_in = value.count().unwrap_or(0),
                _ => {}
            }
        }
        self.written = self.written.or(creation);
    }

    fn completion_details(&mut self, details: Value<'_>) {
        for (key, value) in details.members() {
            match &*key {
                b"reasoning_tokens" => self.reasoning = value.count().unwrap_or(0),
                b"audio_tokens" => self.audio_out = value.count().unwrap_or(0),
                _ => {}
            }
        }
    }

    fn usage(self) -> Option<Usage> {
        let halves = match (self.hits, self.misses) {
            (None, None) => None,
            (hits, misses) => Some(hits.unwrap_or(0).saturating_add(misses.unwrap_or(0))),
        };
        let prompt = self.prompt.or(halves);
        // Embeddings of some vendors come with the total alone.
        let prompt = if prompt.is_none() && self.completion.is_none() { self.total } else { prompt };
        if prompt.is_none() && self.completion.is_none() {
            return None;
        }
        let read = self.read.or(self.hits).or(self.cached).or(self.cache_read).unwrap_or(0);
        let written = self.written.or(self.cache_creation).unwrap_or(0);
        let apart = read.saturating_add(written).saturating_add(self.audio_in);
        Some(Usage::of(&[
            (UsageClass::Input, prompt.unwrap_or(0).saturating_sub(apart)),
            (UsageClass::CacheRead, read),
            (UsageClass::CacheWrite5m, written),
            (UsageClass::InputAudio, self.audio_in),
            (UsageClass::Output, self.completion.unwrap_or(0).saturating_sub(self.audio_out)),
            (UsageClass::OutputAudio, self.audio_out),
            (UsageClass::Reasoning, self.reasoning),
        ]))
    }
}
