//! What a call will probably use, and at most: from sizes, and from what is known of the model. Held while it
//! runs, and the likely part booked where no figures ever come. It says nothing about which tokens a cache will
//! serve.

use shared::domain::{Usage, UsageClass};

/// Bytes of JSON text that make one token. English comes to a little more, code and other scripts to less. A token
/// is never less than a byte.
const TEXT_BYTES_PER_TOKEN: u64 = 4;

/// Tokens for each KiB of media as it stands in the body (base64). A photo of one megapixel comes to about five
/// for each KiB, a scanned page to more, audio to one or two.
const TOKENS_PER_MEDIA_KIB: u64 = 8;

/// A page or a picture of little detail comes to a few thousand tokens, however well it is compressed.
const TOKENS_PER_MEDIA_KIB_MAX: u64 = 4096;
const TOKENS_OF_ANY_MEDIUM: u64 = 8192;

/// Answer tokens where the client sets no limit and nothing is known of the model.
const OUTPUT_TOKENS_AVERAGE: u64 = 512;

/// The most answer tokens that are likely where nothing is known of the model: clients set limits far above what
/// models write.
const OUTPUT_TOKENS_LIKELY_MAX: u64 = 4096;

/// The most answers to one call that any vendor writes (OpenAI's `n`). Whoever asks for more is refused by them, and
/// must not hold everybody's money until then.
const CHOICES_LIKELY_MAX: u64 = 128;

/// The longest prompts and answers of today's models, where the price list does not say it.
const CONTEXT_TOKENS_MAX: u64 = 2_000_000;
const OUTPUT_TOKENS_MAX: u64 = 131_072;

/// What is known of a call.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sizes {
    /// Bytes of the body.
    pub body: u64,
    /// Bytes among them that are pictures, sound or documents.
    pub media: u64,
    /// The body refers to what lies elsewhere (a picture by its address), so that its size says little.
    pub has_references: bool,
    /// The most tokens of one answer, where the client says so; zero where no text comes back.
    pub output_limit: Option<u64>,
    /// How many answers are asked for.
    pub choices: u64,
}

/// What is known of a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ModelSize {
    /// The longest prompt that it takes.
    pub input_max: Option<u64>,
    /// The longest answer that it writes.
    pub output_max: Option<u64>,
    /// Tokens of its recent answers, on average.
    pub output_average: Option<u64>,
}

/// What a call will probably use: text by its length, media by their KiB, an answer of at most twice the recent
/// average.
pub fn likely(sizes: &Sizes, model: &ModelSize) -> Usage {
    let text = sizes.body.saturating_sub(sizes.media).div_ceil(TEXT_BYTES_PER_TOKEN);
    let media = sizes.media.min(sizes.body).div_ceil(1024).saturating_mul(TOKENS_PER_MEDIA_KIB);
    let input = text.saturating_add(media).min(model.input_max.unwrap_or(u64::MAX));
    let usual = model.output_average.map(|average| average.saturating_mul(2).max(1));
    let most = usual.unwrap_or(OUTPUT_TOKENS_LIKELY_MAX).min(model.output_max.unwrap_or(u64::MAX));
    let answer =
        sizes.output_limit.unwrap_or(model.output_average.unwrap_or(OUTPUT_TOKENS_AVERAGE)).min(most);
    usage(input, answer, sizes.choices.min(CHOICES_LIKELY_MAX))
}

/// What a call will use at most: a token for every byte of text, the longest prompt where the body says little of
/// its size, the longest answer that is allowed.
pub fn worst(sizes: &Sizes, model: &ModelSize) -> Usage {
    let context = model.input_max.unwrap_or(CONTEXT_TOKENS_MAX);
    let text = sizes.body.saturating_sub(sizes.media);
    let media = match sizes.media.min(sizes.body) {
        0 => 0,
        bytes => {
            bytes.div_ceil(1024).saturating_mul(TOKENS_PER_MEDIA_KIB_MAX).saturating_add(TOKENS_OF_ANY_MEDIUM)
        }
    };
    let input = if sizes.has_references { context } else { text.saturating_add(media).min(context) };
    let answer = sizes.output_limit.unwrap_or(u64::MAX).min(model.output_max.unwrap_or(OUTPUT_TOKENS_MAX));
    usage(input, answer, sizes.choices)
}

fn usage(input: u64, answer: u64, choices: u64) -> Usage {
    Usage::of(&[(UsageClass::Input, input), (UsageClass::Output, answer.saturating_mul(choices.max(1)))])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tokens(usage: Usage) -> (u64, u64) {
        (usage[UsageClass::Input], usage[UsageClass::Output])
    }

    fn sizes(body: u64, media: u64, output_limit: Option<u64>, choices: u64) -> Sizes {
        Sizes { body, media, output_limit, choices, has_references: false }
    }

    #[test]
    fn sizes_become_tokens() {
        for (name, sizes, input, output) in [
            ("empty", sizes(0, 0, None, 1), 0, 512),
            ("rounded up", sizes(5, 0, None, 1), 2, 512),
            ("limit of the client", sizes(400, 0, Some(100), 1), 100, 100),
            ("a limit that nobody reaches", sizes(400, 0, Some(64_000), 1), 100, 4096),
            ("three answers", sizes(400, 0, Some(100), 3), 100, 300),
            ("no answers are one", sizes(400, 0, Some(100), 0), 100, 100),
            ("as many as nobody writes", sizes(400, 0, Some(100), u64::from(u32::MAX)), 100, 12_800),
            ("none wanted", sizes(400, 0, Some(0), 1), 100, 0),
            ("media by the KiB", sizes(2_000 + 100 * 1024, 100 * 1024, Some(1), 1), 500 + 800, 1),
            ("more media than body", sizes(1024, u64::MAX, Some(1), 1), 8, 1),
            ("extremes", sizes(u64::MAX, u64::MAX, Some(u64::MAX), u64::MAX), 1 << 57, 4096 * 128),
        ] {
            assert_eq!(tokens(likely(&sizes, &ModelSize::default())), (input, output), "{name}");
        }
    }

    #[test]
    fn what_is_known_of_the_model_counts() {
        let model = ModelSize { input_max: Some(200), output_max: Some(150), output_average: Some(40) };
        for (name, limit, output) in [
            ("the usual answer", None, 40),
            ("at most twice that", Some(64_000), 80),
            ("less where the client allows less", Some(30), 30),
        ] {
            let sizes = sizes(4_000, 0, limit, 1);
            assert_eq!(tokens(likely(&sizes, &model)), (200, output), "{name}");
        }
        assert_eq!(tokens(worst(&sizes(100, 0, None, 1), &model)), (100, 150));
        assert_eq!(tokens(worst(&sizes(4_000, 0, Some(20), 2), &model)), (200, 40));
        // Whoever asks for more answers than any vendor writes may find one that does.
        assert_eq!(tokens(worst(&sizes(100, 0, Some(20), 1_000), &model)), (100, 20_000));
        let refers = Sizes { has_references: true, ..sizes(10, 0, Some(20), 1) };
        assert_eq!(tokens(worst(&refers, &model)), (200, 20));
        assert_eq!(tokens(worst(&refers, &ModelSize::default())), (CONTEXT_TOKENS_MAX, 20));
        assert_eq!(tokens(worst(&sizes(10, 0, None, 1), &ModelSize::default())), (10, OUTPUT_TOKENS_MAX));
        let picture = worst(&sizes(1_024, 1_000, Some(1), 1), &ModelSize::default());
        assert_eq!(tokens(picture), (24 + 4096 + 8192, 1));
    }

    proptest! {
        #[test]
        fn the_worst_is_never_less_than_the_likely(
            (body, media) in (0..1_000_000_u64, 0..1_000_000_u64),
            output_limit in prop::option::of(0..100_000_u64),
            choices in 0..4_u64,
            (input_max, output_max, output_average) in (
                prop::option::of(1..1_000_000_u64),
                prop::option::of(1..100_000_u64),
                prop::option::of(1..100_000_u64),
            ),
        ) {
            let model = ModelSize { input_max, output_max, output_average };
            let sizes = sizes(body, media, output_limit, choices);
            let (likely, worst) = (tokens(likely(&sizes, &model)), tokens(worst(&sizes, &model)));
            prop_assert!(likely.0 <= worst.0 && likely.1 <= worst.1, "{likely:?} {worst:?}");
        }
    }
}
