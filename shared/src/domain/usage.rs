//! What a call used, by class, and where the numbers come from.

use std::fmt;
use std::ops::{AddAssign, Index, IndexMut};

use minicbor::{Decode, Encode};
use serde::de::IgnoredAny;
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize};

macro_rules! usage_classes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// A kind of usage that has a price of its own. The classes do not overlap, but for `reasoning`,
        /// which is the part of `output` that the client does not see.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum UsageClass {
            $($(#[$doc])* $variant,)*
        }

        impl UsageClass {
            /// Every class, in the order of printing and of the journal's numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The class as it is written in JSON and tables.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

usage_classes! {
    /// Prompt tokens that were neither read from nor written to a cache.
    Input = "input",
    /// Prompt tokens read from a cache.
    CacheRead = "cache_read",
    /// Prompt tokens written to a cache that lives minutes.
    CacheWrite5m = "cache_write_5m",
    /// Prompt tokens written to a cache that lives an hour.
    CacheWrite1h = "cache_write_1h",
    /// Tokens of audio in the prompt.
    InputAudio = "input_audio",
    /// Answer tokens, reasoning included.
    Output = "output",
    /// Tokens of audio in the answer.
    OutputAudio = "output_audio",
    /// The part of `output` spent on reasoning: for information, priced with `output`.
    Reasoning = "reasoning",
    /// Searches that the vendor made for the call.
    WebSearches = "web_searches",
}

const CLASSES: usize = UsageClass::ALL.len();

/// Amounts by class; JSON is an object without the zeros.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage([u64; CLASSES]);

impl Usage {
    /// Builds usage from pairs.
    pub fn of(amounts: &[(UsageClass, u64)]) -> Self {
        let mut usage = Self::default();
        for &(class, amount) in amounts {
            usage[class] = amount;
        }
        usage
    }

    /// The classes that were used, with their amounts.
    pub fn iter(&self) -> impl Iterator<Item = (UsageClass, u64)> + '_ {
        UsageClass::ALL.iter().map(|&class| (class, self[class])).filter(|&(_, amount)| amount > 0)
    }

    /// Nothing was used.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|&amount| amount == 0)
    }

    /// All prompt tokens, cached or not.
    pub fn prompt_tokens(&self) -> u64 {
        use UsageClass::{CacheRead, CacheWrite1h, CacheWrite5m, Input, InputAudio};
        [Input, CacheRead, CacheWrite5m, CacheWrite1h, InputAudio]
            .iter()
            .fold(0, |sum, &class| sum.saturating_add(self[class]))
    }

    /// All answer tokens.
    pub fn answer_tokens(&self) -> u64 {
        self[UsageClass::Output].saturating_add(self[UsageClass::OutputAudio])
    }

    /// All tokens, of the prompt and of the answer.
    pub fn tokens(&self) -> u64 {
        self.prompt_tokens().saturating_add(self.answer_tokens())
    }
}

impl Index<UsageClass> for Usage {
    type Output = u64;

    fn index(&self, class: UsageClass) -> &u64 {
        &self.0[class as usize]
    }
}

impl IndexMut<UsageClass> for Usage {
    fn index_mut(&mut self, class: UsageClass) -> &mut u64 {
        &mut self.0[class as usize]
    }
}

impl AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        for (sum, amount) in self.0.iter_mut().zip(other.0) {
            *sum = sum.saturating_add(amount);
        }
    }
}

impl fmt::Debug for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter().map(|(class, amount)| (class.name(), amount))).finish()
    }
}

impl Serialize for Usage {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (class, amount) in self.iter() {
            map.serialize_entry(class.name(), &amount)?;
        }
        map.end()
    }
}

/// Unknown classes are skipped: a newer program may write more of them.
impl<'de> Deserialize<'de> for Usage {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Classes;
        impl<'de> serde::de::Visitor<'de> for Classes {
            type Value = Usage;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of usage by class")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Usage, A::Error> {
                let mut usage = Usage::default();
                while let Some(name) = map.next_key::<String>()? {
                    match UsageClass::ALL.iter().find(|class| class.name() == name) {
                        Some(&class) => usage[class] = map.next_value()?,
                        None => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(usage)
            }
        }
        deserializer.deserialize_map(Classes)
    }
}

/// A CBOR array in the order of [`UsageClass::ALL`]; classes are only ever added at its end.
impl<C> Encode<C> for Usage {
    fn encode<W: minicbor::encode::Write>(
        &self,
        encoder: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        let used = self.0.iter().rposition(|&amount| amount > 0).map_or(0, |last| last + 1);
        encoder.array(used as u64)?;
        for amount in &self.0[..used] {
            encoder.u64(*amount)?;
        }
        Ok(())
    }
}

impl<'b, C> Decode<'b, C> for Usage {
    fn decode(decoder: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        let mut usage = Self::default();
        for (index, amount) in decoder.array_iter::<u64>()?.enumerate() {
            let amount = amount?;
            if let Some(slot) = usage.0.get_mut(index) {
                *slot = amount;
            }
        }
        Ok(usage)
    }
}

/// Prices by class in pico-dollars per unit (micro-dollars per million tokens); a zero may also mean that the
/// class was not used or has no price. A CBOR array without the trailing zeros.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates(pub [u64; CLASSES]);

impl Index<UsageClass> for Rates {
    type Output = u64;

    fn index(&self, class: UsageClass) -> &u64 {
        &self.0[class as usize]
    }
}

impl IndexMut<UsageClass> for Rates {
    fn index_mut(&mut self, class: UsageClass) -> &mut u64 {
        &mut self.0[class as usize]
    }
}

impl<C> Encode<C> for Rates {
    fn encode<W: minicbor::encode::Write>(
        &self,
        encoder: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        let used = self.0.iter().rposition(|&rate| rate > 0).map_or(0, |last| last + 1);
        encoder.array(used as u64)?;
        for rate in &self.0[..used] {
            encoder.u64(*rate)?;
        }
        Ok(())
    }
}

impl<'b, C> Decode<'b, C> for Rates {
    fn decode(decoder: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        let mut rates = Self::default();
        for (index, rate) in decoder.array_iter::<u64>()?.enumerate() {
            let rate = rate?;
            if let Some(slot) = rates.0.get_mut(index) {
                *slot = rate;
            }
        }
        Ok(rates)
    }
}

/// How fast the vendor served a call, where that has a price of its own. Standard service is no tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum ServiceTier {
    /// Ahead of others.
    #[n(0)]
    Priority,
    /// In a faster mode of the model.
    #[n(1)]
    Fast,
    /// In the fastest mode of the model.
    #[n(2)]
    Ultrafast,
    /// When there is room.
    #[n(3)]
    Flex,
    /// Within a day.
    #[n(4)]
    Batch,
    /// In a way that this version does not know.
    #[n(5)]
    Other,
}

impl ServiceTier {
    /// Reads what a reply calls its tier, in any letter case; `None` is standard service.
    pub fn read(name: &str) -> Option<Self> {
        const NAMES: [(&str, Option<ServiceTier>); 14] = [
            ("", None),
            ("auto", None),
            ("default", None),
            ("standard", None),
            ("on_demand", None),
            ("service_tier_unspecified", None),
            ("traffic_type_unspecified", None),
            ("priority", Some(ServiceTier::Priority)),
            ("on_demand_priority", Some(ServiceTier::Priority)),
            ("fast", Some(ServiceTier::Fast)),
            ("ultrafast", Some(ServiceTier::Ultrafast)),
            ("flex", Some(ServiceTier::Flex)),
            ("on_demand_flex", Some(ServiceTier::Flex)),
            ("batch", Some(ServiceTier::Batch)),
        ];
        let known = NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        known.map_or(Some(Self::Other), |&(_, tier)| tier)
    }

    /// The tier as it is written in JSON and tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Priority => "priority",
            Self::Fast => "fast",
            Self::Ultrafast => "ultrafast",
            Self::Flex => "flex",
            Self::Batch => "batch",
            Self::Other => "other",
        }
    }
}

/// Where the numbers of a ledger row come from.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Encode, Decode,
)]
#[serde(rename_all = "snake_case")]
#[cbor(index_only)]
pub enum Provenance {
    /// The upstream's own final figures.
    #[n(0)]
    Measured,
    /// The reply ended early; the upstream's figures up to then.
    #[n(1)]
    Partial,
    /// No figures came; computed from sizes.
    #[n(2)]
    Estimated,
    /// The process that relayed it died; the reservation stands in for the figures.
    #[n(3)]
    Orphaned,
    /// Nothing was used: the call failed before the upstream did any work.
    #[n(4)]
    Unused,
}

impl Provenance {
    /// Every provenance, in the order of printing.
    pub const ALL: [Self; 5] = [Self::Measured, Self::Partial, Self::Estimated, Self::Orphaned, Self::Unused];

    /// The provenance as it is written in JSON and tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Measured => "measured",
            Self::Partial => "partial",
            Self::Estimated => "estimated",
            Self::Orphaned => "orphaned",
            Self::Unused => "unused",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_survives_json_and_cbor() {
        for usage in [
            Usage::default(),
            Usage::of(&[(UsageClass::Input, 7), (UsageClass::Output, 9)]),
            Usage::of(&[(UsageClass::WebSearches, u64::MAX)]),
        ] {
            let json = serde_json::to_string(&usage).unwrap();
            assert_eq!(serde_json::from_str::<Usage>(&json).unwrap(), usage);
            let cbor = minicbor::to_vec(usage).unwrap();
            assert_eq!(minicbor::decode::<Usage>(&cbor).unwrap(), usage);
        }
        assert_eq!(serde_json::from_str::<Usage>(r#"{"input":1,"dreams":3}"#).unwrap()[UsageClass::Input], 1);
    }

    #[test]
    fn rates_survive_cbor() {
        let mut rates = Rates::default();
        rates[UsageClass::Output] = 15_000_000;
        let cbor = minicbor::to_vec(rates).unwrap();
        assert_eq!(minicbor::decode::<Rates>(&cbor).unwrap(), rates);
    }

    #[test]
    fn tiers_are_read_in_the_vendors_words() {
        for (name, tier) in [
            ("standard", None),
            ("default", None),
            ("ON_DEMAND", None),
            ("priority", Some(ServiceTier::Priority)),
            ("FLEX", Some(ServiceTier::Flex)),
            ("fast", Some(ServiceTier::Fast)),
            ("batch", Some(ServiceTier::Batch)),
            ("scale", Some(ServiceTier::Other)),
        ] {
            assert_eq!(ServiceTier::read(name), tier, "{name}");
        }
    }

    #[test]
    fn reasoning_is_part_of_the_answer() {
        let usage = Usage::of(&[
            (UsageClass::Input, 10),
            (UsageClass::CacheRead, 5),
            (UsageClass::Output, 7),
            (UsageClass::Reasoning, 3),
        ]);
        assert_eq!((usage.prompt_tokens(), usage.answer_tokens(), usage.tokens()), (15, 7, 22));
    }
}
