//! What a call will probably use, from sizes alone: held while it runs, and booked where no figures ever come.
//! An estimate, not a bound: it says nothing about which tokens a cache will serve.

use shared::domain::{Usage, UsageClass};

/// Bytes of JSON text that make one token. English comes to a little more, code and other scripts to less.
const TEXT_BYTES_PER_TOKEN: u64 = 4;

/// Tokens for each KiB of media as it stands in the body (base64). A photo of one megapixel comes to about five
/// for each KiB, a scanned page to more, audio to one or two.
const TOKENS_PER_MEDIA_KIB: u64 = 8;

/// Answer tokens where the client sets no limit.
const OUTPUT_TOKENS_AVERAGE: u64 = 512;

/// The most answer tokens that are held for one answer: clients set limits far above what models write.
const OUTPUT_TOKENS_MAX: u64 = 4096;

/// Estimates a call whose body has `body_len` bytes, `media_bytes` of them media, and that asks for `n` answers
/// of at most `output_limit` tokens each; a call that gets no text back (embeddings) has a limit of zero.
pub fn estimate(body_len: u64, media_bytes: u64, output_limit: Option<u64>, n: u64) -> Usage {
    let text = body_len.saturating_sub(media_bytes).div_ceil(TEXT_BYTES_PER_TOKEN);
    let media = media_bytes.min(body_len).div_ceil(1024).saturating_mul(TOKENS_PER_MEDIA_KIB);
    let answer = output_limit.unwrap_or(OUTPUT_TOKENS_AVERAGE).min(OUTPUT_TOKENS_MAX);
    Usage::of(&[
        (UsageClass::Input, text.saturating_add(media)),
        (UsageClass::Output, answer.saturating_mul(n.max(1))),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_become_tokens() {
        for (name, body, media, limit, n, input, output) in [
            ("empty", 0, 0, None, 1, 0, 512),
            ("rounded up", 5, 0, None, 1, 2, 512),
            ("limit of the client", 400, 0, Some(100), 1, 100, 100),
            ("a limit that nobody reaches", 400, 0, Some(64_000), 1, 100, 4096),
            ("three answers", 400, 0, Some(100), 3, 100, 300),
            ("no answers are one", 400, 0, Some(100), 0, 100, 100),
            ("none wanted", 400, 0, Some(0), 1, 100, 0),
            ("media by the KiB", 2_000 + 100 * 1024, 100 * 1024, Some(1), 1, 500 + 800, 1),
            ("more media than body", 1024, u64::MAX, Some(1), 1, 8, 1),
            ("extremes", u64::MAX, u64::MAX, Some(u64::MAX), u64::MAX, 1 << 57, u64::MAX),
        ] {
            let usage = estimate(body, media, limit, n);
            assert_eq!((usage[UsageClass::Input], usage[UsageClass::Output]), (input, output), "{name}");
        }
    }
}
