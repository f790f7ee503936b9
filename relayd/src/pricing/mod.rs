//! What usage costs: an immutable table of prices, and the arithmetic. Names match exactly or not at all, money
//! is integers throughout, and what has no price is said to have none.

mod decimal;
mod list;
mod model;
mod names;
mod set;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use ahash::AHashMap;
use shared::admin::PriceView;
use shared::domain::{Glob, NanoUsd, Rates, ServiceTier, Usage, UsageClass};

pub use list::{ParsedList, PriceError, parse};
pub use names::PricedNames;
pub use set::{SetPriceError, SetPrices, merged};

use model::ModelPrice;
pub use model::{TokenMax, printed};

/// The prices that relayd comes with, in the format of any other list.
const BUILT_IN: &str = include_str!("built_in.json");

/// Small prices for the simulator's models, so that trying things out shows costs.
const SIMULATOR: &str = include_str!("simulator.json");

/// Reads the prices that relayd comes with.
pub fn built_in() -> Result<ParsedList, PriceError> {
    let mut list = parse(BUILT_IN)?;
    list.models.extend(parse(SIMULATOR)?.models);
    Ok(list)
}

/// Where a price comes from. A later one stands in front of an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// It came with relayd.
    BuiltIn,
    /// From the price list that an operator loaded.
    File,
    /// Set by hand.
    Set,
}

impl Source {
    /// The source as it is written in JSON and tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::BuiltIn => "built_in",
            Self::File => "file",
            Self::Set => "set",
        }
    }
}

/// What a call cost, and how that was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// What was charged.
    pub total: NanoUsd,
    /// Whether some of the usage has no price, or none for its tier.
    pub unpriced: bool,
    /// The prices of the classes that were used.
    pub rates: Rates,
    /// Which of the names had a price.
    pub priced_as: Option<usize>,
}

/// How two tables differ, in models.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Priced only in the new one.
    pub added: u64,
    /// Priced differently.
    pub changed: u64,
    /// Priced only in the old one.
    pub removed: u64,
}

/// Prices by model: a snapshot that is replaced as a whole.
#[derive(Clone, Debug)]
pub struct PriceTable {
    version: u64,
    models: AHashMap<Arc<str>, (Source, Arc<ModelPrice>)>,
}

impl PriceTable {
    /// Lays prices set by hand over those of a file, and these over the built-in ones, model by model: a file
    /// that lacks a model takes no price away.
    pub fn build(
        version: u64,
        built_in: &ParsedList,
        file: Option<&ParsedList>,
        set: &BTreeMap<String, SetPrices>,
    ) -> Self {
        let mut models = AHashMap::with_capacity(built_in.models.len() + set.len());
        for (source, list) in [(Source::BuiltIn, Some(built_in)), (Source::File, file)] {
            for (name, price) in list.into_iter().flat_map(|list| &list.models) {
                models.insert(Arc::clone(name), (source, Arc::clone(price)));
            }
        }
        for (name, prices) in set {
            models.insert(Arc::from(name.as_str()), (Source::Set, Arc::new(prices.price())));
        }
        Self { version, models }
    }

    /// A table without any price.
    pub fn empty() -> Self {
        Self { version: 0, models: AHashMap::new() }
    }

    /// The models that have a price.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.models.keys().map(AsRef::as_ref)
    }

    /// The models whose price was set by hand.
    pub fn names_set(&self) -> impl Iterator<Item = &str> {
        let set = self.models.iter().filter(|(_, (source, _))| *source == Source::Set);
        set.map(|(name, _)| name.as_ref())
    }

    /// The table's version, which every row priced by it names.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Whether a model of exactly this name has a price.
    pub fn has(&self, name: &str) -> bool {
        self.models.contains_key(name)
    }

    /// How many tokens a model takes and writes, as far as the list says it.
    pub fn token_max(&self, name: &str) -> TokenMax {
        self.models.get(name).map_or_else(TokenMax::default, |(_, price)| price.token_max)
    }

    /// Prices usage by the first of the names that has a price: the reply's model, the one sent, the stand-in.
    pub fn cost(&self, names: &[&str], usage: &Usage, tier: Option<ServiceTier>) -> Cost {
        let mut found = names.iter().enumerate().filter_map(|(at, &name)| Some((at, self.models.get(name)?)));
        let Some((at, (_, price))) = found.next() else {
            return Cost { unpriced: !usage.is_empty(), ..Cost::default() };
        };
        let (rates, is_known) = price.rates(usage, tier);
        let unpriced = !is_known && !usage.is_empty();
        Cost { total: total(usage, &rates), unpriced, rates, priced_as: Some(at) }
    }

    /// The prices of the models that fit, by name.
    pub fn views(&self, models: Option<&Glob>) -> Vec<PriceView> {
        let fits = |name: &str| models.is_none_or(|glob| glob.matches(name));
        let mut views: Vec<_> =
            self.models.keys().filter(|name| fits(name)).filter_map(|name| self.view(name)).collect();
        views.sort_unstable_by(|one, other| one.model.cmp(&other.model));
        views
    }

    /// The price of the model of exactly this name.
    pub fn view(&self, name: &str) -> Option<PriceView> {
        let (source, price) = self.models.get(name)?;
        Some(PriceView { model: name.to_owned(), source: source.name().to_owned(), prices: price.print() })
    }
}

/// How `new` differs from `old`. A price that merely comes from elsewhere has not changed.
pub fn diff(old: &PriceTable, new: &PriceTable) -> Changes {
    let mut changes = Changes::default();
    for (name, (_, price)) in &new.models {
        match old.models.get(name) {
            None => changes.added += 1,
            Some((_, before)) if !before.charges_like(price) => changes.changed += 1,
            Some(_) => {}
        }
    }
    changes.removed = old.models.keys().filter(|name| !new.has(name)).count() as u64;
    changes
}

/// What usage costs at these rates, rounded once, half up. Recomputes a ledger row from what it keeps.
pub fn total(usage: &Usage, rates: &Rates) -> NanoUsd {
    const PICOS_PER_NANO: u128 = 1000;
    let reasoning = usage[UsageClass::Reasoning].min(usage[UsageClass::Output]);
    let picos = UsageClass::ALL.iter().fold(0_u128, |sum, &class| {
        let amount = match class {
            UsageClass::Output => usage[class] - reasoning,
            UsageClass::Reasoning => reasoning,
            _ => usage[class],
        };
        sum.saturating_add(u128::from(amount) * u128::from(rates[class]))
    });
    let nanos = picos.saturating_add(PICOS_PER_NANO / 2) / PICOS_PER_NANO;
    NanoUsd::from_nanos(i64::try_from(nanos).unwrap_or(i64::MAX))
}
