//! Reads price lists in the widely used per-token JSON format: an object of models, each an object of dollars
//! per token. Nothing is guessed: an entry with a figure that cannot be kept exactly is left out as a whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use ahash::{AHashMap, AHashSet};
use serde_json::value::RawValue;
use shared::domain::{ServiceTier, UsageClass};

use super::decimal::{NoPrice, scaled};
use super::model::{Figures, ModelPrice, Tier, TokenMax};

/// The entry with which the format documents itself.
const SPECIMEN: &str = "sample_spec";

/// What the relay serves and counts in tokens; models of other kinds are priced by pixels, seconds or pages.
const MODES: [&str; 4] = ["chat", "completion", "responses", "embedding"];

/// The vendor whose models are listed under a prefix but asked for without.
const UNPREFIXED: &str = "gemini";

const NAME_BYTES_MAX: usize = 256;

/// So many reasons are listed one by one.
const SKIPPED_MAX: usize = 100;

const CLASSES: [(&str, UsageClass); 8] = [
    // The longer of two names that begin alike comes first.
    ("cache_creation_input_token_cost_above_1hr", UsageClass::CacheWrite1h),
    ("cache_creation_input_token_cost", UsageClass::CacheWrite5m),
    ("cache_read_input_token_cost", UsageClass::CacheRead),
    ("input_cost_per_audio_token", UsageClass::InputAudio),
    ("input_cost_per_token", UsageClass::Input),
    ("output_cost_per_audio_token", UsageClass::OutputAudio),
    ("output_cost_per_reasoning_token", UsageClass::Reasoning),
    ("output_cost_per_token", UsageClass::Output),
];

const SERVICES: [(&str, Option<ServiceTier>); 6] = [
    ("", None),
    ("_priority", Some(ServiceTier::Priority)),
    ("_fast", Some(ServiceTier::Fast)),
    ("_ultrafast", Some(ServiceTier::Ultrafast)),
    ("_flex", Some(ServiceTier::Flex)),
    ("_batches", Some(ServiceTier::Batch)),
];

/// Why a file is no price list.
#[derive(Debug, thiserror::Error)]
pub enum PriceError {
    /// It is not an object of objects, or not JSON at all.
    #[error("a price list is a JSON object with one object for each model; this one is none from {} on", place(.0))]
    Form(serde_json::Error),
    /// It is a JSON object, but none of its entries has a price that can be used.
    #[error("the price list has no usable price{}", for_example(skipped))]
    Empty {
        /// Why its entries cannot be used.
        skipped: Vec<String>,
    },
}

/// Where the JSON breaks off. It is told in the sentence: the words of the library mean nothing to an operator.
fn place(error: &serde_json::Error) -> String {
    format!("line {}, column {}", error.line(), error.column().max(1))
}

fn for_example(skipped: &[String]) -> String {
    skipped.first().map_or(String::new(), |reason| format!(" ({reason})"))
}

/// A price list that was read.
#[derive(Clone, Debug)]
pub struct ParsedList {
    pub(super) models: AHashMap<Arc<str>, Arc<ModelPrice>>,
    /// What was left out, and why.
    pub skipped: Vec<String>,
}

type Object<'a> = BTreeMap<String, &'a RawValue>;

/// Reads a price list.
pub fn parse(json: &str) -> Result<ParsedList, PriceError> {
    let entries: Object<'_> = serde_json::from_str(json).map_err(PriceError::Form)?;
    let mut models = AHashMap::new();
    let mut unprefixed = Vec::new();
    let mut taken = AHashSet::new();
    let mut skipped = Skipped::default();
    for (name, entry) in entries.iter().filter(|(name, _)| *name != SPECIMEN) {
        match read_entry(name, entry) {
            Err(reason) => skipped.because(name, &reason),
            Ok(None) => skipped.without_price(name),
            Ok(Some(Entry { price, provider })) => {
                let price = Arc::new(price);
                match name.split_once('/') {
                    Some((UNPREFIXED, plain)) => unprefixed.push((plain, Arc::clone(&price))),
                    _ if provider.as_deref() == Some(UNPREFIXED) => drop(taken.insert(name.as_str())),
                    _ => {}
                }
                models.insert(Arc::from(name.as_str()), price);
            }
        }
    }
    // The plain name of a Gemini model is that of the Gemini API, not of another vendor who sells it.
    for (name, price) in unprefixed.into_iter().filter(|(name, _)| !taken.contains(name)) {
        models.insert(Arc::from(name), price);
    }
    let skipped = skipped.lines();
    if models.is_empty() { Err(PriceError::Empty { skipped }) } else { Ok(ParsedList { models, skipped }) }
}

/// Why an entry is left out.
#[derive(Debug, thiserror::Error)]
enum Reason {
    #[error("the name is longer than {NAME_BYTES_MAX} bytes")]
    Name,
    #[error("it is not an object")]
    Form,
    #[error("{field} is {cause}")]
    Field { field: String, cause: NoPrice },
}

struct Entry {
    price: ModelPrice,
    provider: Option<String>,
}

/// Reads one entry; `None` if it prices nothing that the relay counts.
fn read_entry(name: &str, entry: &RawValue) -> Result<Option<Entry>, Reason> {
    if name.len() > NAME_BYTES_MAX {
        return Err(Reason::Name);
    }
    let fields: Object<'_> = serde_json::from_str(entry.get()).map_err(|_| Reason::Form)?;
    if text(&fields, "mode").is_some_and(|mode| !MODES.contains(&mode.as_str())) {
        return Ok(None);
    }
    let mut given: BTreeMap<Tier, Figures> = BTreeMap::new();
    for (field, value) in &fields {
        if let Some((class, tier)) = meaning(field)
            && let Some(rate) = number(field, value, 12)?
        {
            given.entry(tier).or_default()[class as usize] = Some(rate);
        }
    }
    if let Some(rate) = search_price(&fields)? {
        given.entry(Tier::default()).or_default()[UsageClass::WebSearches as usize] = Some(rate);
    }
    if given.is_empty() || is_priced_otherwise(&fields, &given) {
        return Ok(None);
    }
    let fast = fast_multiple(&fields)?;
    let mut price = ModelPrice::of_list(given, fast)
        .map_err(|cause| Reason::Field { field: "provider_specific_entry.fast".to_owned(), cause })?;
    price.token_max =
        TokenMax { input: tokens(&fields, "max_input_tokens"), output: tokens(&fields, "max_output_tokens") };
    Ok(Some(Entry { price, provider: text(&fields, "litellm_provider") }))
}

/// A number of tokens; lists have texts and zeros where nobody knows.
fn tokens(fields: &Object<'_>, field: &str) -> Option<u64> {
    let count = serde_json::from_str::<u64>(fields.get(field)?.get()).ok();
    count.filter(|&count| count > 0)
}

/// The class and tier that a field names: `input_cost_per_token_above_200k_tokens_priority`.
fn meaning(field: &str) -> Option<(UsageClass, Tier)> {
    let (rest, class) = CLASSES.iter().find_map(|&(stem, class)| Some((field.strip_prefix(stem)?, class)))?;
    let (above, rest) = match rest.strip_prefix("_above_").and_then(|rest| rest.split_once("k_tokens")) {
        Some((thousands, rest)) => (u64::from(thousands.parse::<u32>().ok()?) * 1000, rest),
        None => (0, rest),
    };
    let (_, service) = SERVICES.iter().find(|(suffix, _)| *suffix == rest)?;
    Some((class, Tier { above, service: *service }))
}

/// Whether tokens cost nothing because something else does: a song, an image, a second.
fn is_priced_otherwise(fields: &Object<'_>, given: &BTreeMap<Tier, Figures>) -> bool {
    let is_other = |field: &str| {
        (field.starts_with("input_cost_per_") || field.starts_with("output_cost_per_"))
            && meaning(field).is_none()
    };
    given.values().flatten().flatten().all(|&rate| rate == 0)
        && fields
            .iter()
            .any(|(field, value)| is_other(field) && !matches!(number(field, value, 12), Ok(None | Some(0))))
}

/// A figure times ten to the power of `scale`; `null` is none.
fn number(field: &str, value: &RawValue, scale: i64) -> Result<Option<u64>, Reason> {
    match value.get() {
        "null" => Ok(None),
        text => {
            let failed = |cause| Reason::Field { field: field.to_owned(), cause };
            scaled(text, scale).map(Some).map_err(failed)
        }
    }
}

/// The price of a search: one figure, or the medium one of three sizes.
fn search_price(fields: &Object<'_>) -> Result<Option<u64>, Reason> {
    const FIELD: &str = "search_context_cost_per_query";
    let Some(value) = fields.get(FIELD) else { return Ok(None) };
    match serde_json::from_str::<Object<'_>>(value.get()) {
        Ok(sizes) => {
            sizes.get("search_context_size_medium").map_or(Ok(None), |value| number(FIELD, value, 12))
        }
        Err(_) => number(FIELD, value, 12),
    }
}

/// By how much a fast mode multiplies token prices, in millionths.
fn fast_multiple(fields: &Object<'_>) -> Result<Option<u64>, Reason> {
    let specific = fields.get("provider_specific_entry");
    let specific = specific.and_then(|value| serde_json::from_str::<Object<'_>>(value.get()).ok());
    let fast = specific.as_ref().and_then(|specific| specific.get("fast"));
    fast.map_or(Ok(None), |value| number("provider_specific_entry.fast", value, 6))
}

fn text(fields: &Object<'_>, field: &str) -> Option<String> {
    fields.get(field).and_then(|value| serde_json::from_str(value.get()).ok())
}

/// What is said of the entries that were left out.
#[derive(Default)]
struct Skipped {
    reasons: Vec<String>,
    more: usize,
    without_price: usize,
    example: Option<String>,
}

impl Skipped {
    fn because(&mut self, name: &str, reason: &Reason) {
        if self.reasons.len() < SKIPPED_MAX {
            self.reasons.push(format!("{}: {reason}", printable(name)));
        } else {
            self.more += 1;
        }
    }

    /// Lists have these by the hundred: they are counted.
    fn without_price(&mut self, name: &str) {
        self.without_price += 1;
        self.example.get_or_insert_with(|| printable(name));
    }

    fn lines(self) -> Vec<String> {
        let mut lines = self.reasons;
        if self.more > 0 {
            lines.push(format!("and {} more with unusable figures", self.more));
        }
        if let Some(example) = self.example {
            let entries = match self.without_price {
                1 => "1 entry".to_owned(),
                count => format!("{count} entries"),
            };
            lines.push(format!("{entries} without prices that the relay counts by, such as {example}"));
        }
        lines
    }
}

/// A name from a file, fit for a terminal.
fn printable(name: &str) -> String {
    name.chars().take(80).flat_map(char::escape_debug).collect()
}
