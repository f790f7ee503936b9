//! The price of one model: a sheet of prices for standard service, and one for each tier that has its own.

use std::collections::{BTreeMap, BTreeSet};

use shared::domain::{Rates, ServiceTier, Usage, UsageClass};

use super::decimal::{NoPrice, scaled, unscaled};

const CLASSES: usize = UsageClass::ALL.len();

/// Decimal places from dollars per million tokens to pico-dollars per token.
const PER_MILLION: u32 = 6;

/// Decimal places from dollars per thousand searches to pico-dollars per search.
const PER_THOUSAND: u32 = 9;

/// Where a sheet applies. The default is the base: prompts of any length, standard service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Tier {
    /// Only to prompts of more tokens than this, unless it is zero.
    pub(super) above: u64,
    /// Only to this service.
    pub(super) service: Option<ServiceTier>,
}

/// The figures that a price list gives for one tier, in pico-dollars per unit.
pub(super) type Figures = [Option<u64>; CLASSES];

/// What one unit of a class costs in one tier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Figure {
    /// The list has no figure from which it would follow.
    #[default]
    Unknown,
    /// The tier's own figure.
    Own(u64),
    /// The figure of a more general tier, in want of one of its own: charged, and counted as unpriced.
    Borrowed(u64),
}

type Sheet = [Figure; CLASSES];

/// The price of one model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ModelPrice {
    base: Sheet,
    /// Every other sheet. A service that has one has one for every length, the base length included.
    others: Box<[(Tier, Sheet)]>,
    /// The base holds for every service.
    is_flat: bool,
    pub(super) token_max: TokenMax,
}

/// The most tokens that a model takes and writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenMax {
    /// Of a prompt.
    pub input: Option<u64>,
    /// Of an answer.
    pub output: Option<u64>,
}

impl ModelPrice {
    /// Takes the figures of a price list by tier; `fast` multiplies every token price (in millionths).
    pub(super) fn of_list(mut given: BTreeMap<Tier, Figures>, fast: Option<u64>) -> Result<Self, NoPrice> {
        // Reasoning is part of the output; lists that repeat the output's figure for it say nothing new, and
        // do not repeat it for every tier.
        for figures in given.values_mut() {
            if figures[UsageClass::Reasoning as usize] == figures[UsageClass::Output as usize] {
                figures[UsageClass::Reasoning as usize] = None;
            }
        }
        if let Some(fast) = fast {
            add_fast(&mut given, fast)?;
        }
        let base = given.remove(&Tier::default()).unwrap_or([None; CLASSES]);
        add_missing_lengths(&mut given);
        let others =
            given.iter().map(|(&tier, figures)| (tier, complete(tier, figures, &given, &base))).collect();
        Ok(Self {
            base: base.map(|figure| figure.map_or(Figure::Unknown, Figure::Own)),
            others,
            is_flat: false,
            token_max: TokenMax::default(),
        })
    }

    /// Takes prices that hold for every length and service.
    pub(super) fn flat(figures: &Figures) -> Self {
        let base = figures.map(|figure| figure.map_or(Figure::Unknown, Figure::Own));
        Self { base, others: Box::default(), is_flat: true, token_max: TokenMax::default() }
    }

    /// Whether both charge the same for everything.
    pub(super) fn charges_like(&self, other: &Self) -> bool {
        (&self.base, &self.others, self.is_flat) == (&other.base, &other.others, other.is_flat)
    }

    /// The prices of the classes that were used, and whether all of them are known for this tier.
    pub(super) fn rates(&self, usage: &Usage, service: Option<ServiceTier>) -> (Rates, bool) {
        let (sheet, mut known) = self.sheet(usage.prompt_tokens(), service);
        let mut rates = Rates::default();
        for (class, _) in usage.iter() {
            let figure = match sheet[class as usize] {
                Figure::Unknown if class == UsageClass::Reasoning => sheet[UsageClass::Output as usize],
                figure => figure,
            };
            match figure {
                Figure::Own(rate) => rates[class] = rate,
                Figure::Borrowed(rate) => (rates[class], known) = (rate, false),
                Figure::Unknown => known = false,
            }
        }
        (rates, known)
    }

    /// The sheet for a call, and whether its service is one that the list knows.
    fn sheet(&self, prompt_tokens: u64, service: Option<ServiceTier>) -> (&Sheet, bool) {
        let asked = service.filter(|_| !self.is_flat);
        let service = asked.and_then(|asked| self.known_service(asked));
        let fits = |tier: &Tier| tier.service == service && (tier.above == 0 || prompt_tokens > tier.above);
        let best = self.others.iter().filter(|(tier, _)| fits(tier)).max_by_key(|(tier, _)| tier.above);
        (best.map_or(&self.base, |(_, sheet)| sheet), asked.is_some() == service.is_some())
    }

    /// OpenAI serves `priority` and `fast` alike (<https://developers.openai.com/api/docs/guides/fast-mode>);
    /// where a model has a fast price of its own, as Anthropic's have, that is meant.
    fn known_service(&self, asked: ServiceTier) -> Option<ServiceTier> {
        let has = |service| self.others.iter().any(|(tier, _)| tier.service == Some(service));
        let is_alias = asked == ServiceTier::Fast && !has(ServiceTier::Fast);
        Some(if is_alias { ServiceTier::Priority } else { asked }).filter(|&service| has(service))
    }

    /// The figures for people, by class and tier: `input`, `input above 200000`, `output priority`. Dollars per
    /// million tokens or per thousand searches; what a tier has only borrowed is left out.
    pub(super) fn print(&self) -> BTreeMap<String, String> {
        let sheets = [(Tier::default(), self.base)].into_iter().chain(self.others.iter().copied());
        let lines = sheets.flat_map(|(tier, sheet)| {
            let own = UsageClass::ALL.iter().filter_map(move |&class| match sheet[class as usize] {
                Figure::Own(_) if class == UsageClass::WebSearches && tier != Tier::default() => None,
                Figure::Own(rate) => Some((class, rate)),
                Figure::Borrowed(_) | Figure::Unknown => None,
            });
            own.map(move |(class, rate)| (label(class, tier), unscaled(rate, places(class))))
        });
        lines.collect()
    }
}

/// Prices for people, by class. Dollars per million tokens or per thousand searches.
pub fn printed(rates: &Rates) -> BTreeMap<String, String> {
    let charged = UsageClass::ALL.iter().filter(|class| rates[**class] > 0);
    charged.map(|&class| (class.name().to_owned(), unscaled(rates[class], places(class)))).collect()
}

/// Decimal places from the dollars in which people write the price of a class to pico-dollars per unit.
const fn places(class: UsageClass) -> u32 {
    match class {
        UsageClass::WebSearches => PER_THOUSAND,
        _ => PER_MILLION,
    }
}

/// Reads a price as people write it: dollars per million tokens or per thousand searches.
pub(super) fn read_price(class: UsageClass, text: &str) -> Result<u64, NoPrice> {
    scaled(text.strip_prefix('$').unwrap_or(text), i64::from(places(class)))
}

fn label(class: UsageClass, tier: Tier) -> String {
    let above = if tier.above > 0 { format!(" above {}", tier.above) } else { String::new() };
    let service = tier.service.map_or(String::new(), |service| format!(" {}", service.name()));
    format!("{}{above}{service}", class.name())
}

/// Adds the sheets of a fast mode whose price is a multiple of the standard one. Searches are not multiplied.
fn add_fast(given: &mut BTreeMap<Tier, Figures>, millionths: u64) -> Result<(), NoPrice> {
    let standard: Vec<_> =
        given.iter().filter(|(tier, _)| tier.service.is_none()).map(|(&t, &f)| (t, f)).collect();
    for (tier, mut figures) in standard {
        figures[UsageClass::WebSearches as usize] = None;
        for rate in figures.iter_mut().flatten() {
            let exact = u128::from(*rate) * u128::from(millionths);
            if exact % 1_000_000 != 0 {
                return Err(NoPrice::TooFine);
            }
            *rate = u64::try_from(exact / 1_000_000).map_err(|_| NoPrice::TooLarge)?;
        }
        given.insert(Tier { service: Some(ServiceTier::Fast), ..tier }, figures);
    }
    Ok(())
}

/// Gives every service a sheet for every length that has one, if only to borrow all of it.
fn add_missing_lengths(given: &mut BTreeMap<Tier, Figures>) {
    let services: BTreeSet<_> =
        given.keys().filter(|tier| tier.service.is_some()).map(|tier| tier.service).collect();
    let mut lengths: BTreeSet<_> = given.keys().map(|tier| tier.above).collect();
    lengths.insert(0);
    for service in services {
        for &above in &lengths {
            given.entry(Tier { above, service }).or_insert([None; CLASSES]);
        }
    }
}

/// Fills the gaps of a sheet from standard service at the same length, else from the base. A search costs the
/// same in every tier.
fn complete(tier: Tier, figures: &Figures, given: &BTreeMap<Tier, Figures>, base: &Figures) -> Sheet {
    let standard = given.get(&Tier { service: None, ..tier });
    let mut sheet = Sheet::default();
    for &class in UsageClass::ALL {
        let at = class as usize;
        let general = standard.and_then(|standard| standard[at]).or(base[at]);
        sheet[at] = match (figures[at], general) {
            (Some(rate), _) => Figure::Own(rate),
            (None, Some(rate)) if class == UsageClass::WebSearches => Figure::Own(rate),
            (None, Some(rate)) => Figure::Borrowed(rate),
            (None, None) => Figure::Unknown,
        };
    }
    sheet
}
