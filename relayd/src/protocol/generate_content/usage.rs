//! Usage as Gemini tells it: the prompt includes what was cached but not what tools read, and the candidates leave
//! thoughts out, unless the total shows that they don't.

use shared::domain::{Usage, UsageClass};

use super::super::json::Value;
use super::super::reading::Facts;

#[derive(Default)]
struct Figures {
    prompt: Option<u64>,
    candidates: Option<u64>,
    thoughts: Option<u64>,
    tools: Option<u64>,
    cached: Option<u64>,
    total: Option<u64>,
    audio_in: u64,
    audio_tools: u64,
    audio_cached: u64,
    audio_out: u64,
}

/// Reads `usageMetadata`; none if it has no figures.
pub(super) fn read(usage: Value<'_>, facts: &mut Facts) -> Option<Usage> {
    let mut figures = Figures::default();
    for (key, value) in usage.members() {
        match &*key {
            b"promptTokenCount" => figures.prompt = value.count(),
            b"candidatesTokenCount" => figures.candidates = value.count(),
            b"thoughtsTokenCount" => figures.thoughts = value.count(),
            b"toolUsePromptTokenCount" => figures.tools = value.count(),
            b"cachedContentTokenCount" => figures.cached = value.count(),
            b"totalTokenCount" => figures.total = value.count(),
            b"promptTokensDetails" => figures.audio_in = audio(value),
            b"toolUsePromptTokensDetails" => figures.audio_tools = audio(value),
            b"cacheTokensDetails" => figures.audio_cached = audio(value),
            b"candidatesTokensDetails" => figures.audio_out = audio(value),
            b"serviceTier" => facts.tier(value),
            _ => {}
        }
    }
    figures.usage()
}

impl Figures {
    fn usage(self) -> Option<Usage> {
        let figures = [self.prompt, self.candidates, self.thoughts, self.tools, self.cached, self.total];
        if figures.iter().all(Option::is_none) {
            return None;
        }
        let [prompt, candidates, thoughts, tools, cached, _] = figures.map(|figure| figure.unwrap_or(0));
        let sum = prompt.saturating_add(candidates);
        let includes_thoughts = [sum, sum.saturating_add(tools)].map(Some).contains(&self.total);
        let answer = if includes_thoughts { candidates } else { candidates.saturating_add(thoughts) };
        // Cached audio is read from the cache, and counts there.
        let audio_in = self.audio_in.saturating_sub(self.audio_cached).saturating_add(self.audio_tools);
        let uncached = prompt.saturating_add(tools).saturating_sub(cached);
        Some(Usage::of(&[
            (UsageClass::Input, uncached.saturating_sub(audio_in)),
            (UsageClass::CacheRead, cached),
            (UsageClass::InputAudio, audio_in),
            (UsageClass::Output, answer.saturating_sub(self.audio_out)),
            (UsageClass::OutputAudio, self.audio_out),
            (UsageClass::Reasoning, thoughts),
        ]))
    }
}

/// The tokens of audio in a list of `{modality, tokenCount}`.
fn audio(details: Value<'_>) -> u64 {
    details.elements().fold(0, |sum, element| {
        let (mut is_audio, mut count) = (false, 0);
        for (key, value) in element.members() {
            match &*key {
                b"modality" => is_audio = value.raw() == b"\"AUDIO\"",
                b"tokenCount" => count = value.count().unwrap_or(0),
                _ => {}
            }
        }
        if is_audio { count.saturating_add(sum) } else { sum }
    })
}
