//! Prices that an operator sets by hand.

use std::collections::BTreeMap;

use shared::domain::UsageClass;

use super::decimal::NoPrice;
use super::model::{Figures, ModelPrice, read_price};

/// Why prices cannot be set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetPriceError {
    /// No price was given.
    #[error("at least one price is needed, such as input")]
    Nothing,
    /// Every class was taken back.
    #[error("no price would be left")]
    NothingLeft,
    /// There is no such class of usage.
    #[error("{class:?} is no class of usage; the classes are {}", classes())]
    Class {
        /// What was given.
        class: String,
    },
    /// A price is not a decimal amount of dollars.
    #[error(
        "the price of {} is written like 3.00 or 0.0375 (dollars per million tokens, or per thousand \
         searches); this one is {cause}",
        class.name()
    )]
    Amount {
        /// The class.
        class: UsageClass,
        /// What is wrong with it.
        #[source]
        cause: NoPrice,
    },
}

fn classes() -> String {
    UsageClass::ALL.iter().map(|class| class.name()).collect::<Vec<_>>().join(", ")
}

fn class(name: &str) -> Result<UsageClass, SetPriceError> {
    let class = UsageClass::ALL.iter().copied().find(|class| class.name() == name);
    class.ok_or_else(|| SetPriceError::Class { class: name.to_owned() })
}

fn rate(class: UsageClass, amount: &str) -> Result<u64, SetPriceError> {
    read_price(class, amount).map_err(|cause| SetPriceError::Amount { class, cause })
}

/// What changes of single classes make of the prices that were set by hand before; `None` takes a class back.
/// Classes that only a newer version knows stay.
pub fn merged(
    mut prices: BTreeMap<String, String>,
    changes: &BTreeMap<String, Option<String>>,
) -> Result<BTreeMap<String, String>, SetPriceError> {
    for (name, amount) in changes {
        let class = class(name)?;
        match amount {
            Some(amount) => {
                rate(class, amount)?;
                prices.insert(name.clone(), amount.clone());
            }
            None => drop(prices.remove(name)),
        }
    }
    match (changes.is_empty(), prices.is_empty()) {
        (true, _) => Err(SetPriceError::Nothing),
        (false, true) => Err(SetPriceError::NothingLeft),
        (false, false) => Ok(prices),
    }
}

/// The whole price of a model as set by hand, for prompts of every length and for every service tier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetPrices(Figures);

impl SetPrices {
    /// Checks class names and amounts: dollars per million tokens, per thousand searches.
    pub fn parse(prices: &BTreeMap<String, String>) -> Result<Self, SetPriceError> {
        let mut figures = Figures::default();
        for (name, amount) in prices {
            let class = class(name)?;
            figures[class as usize] = Some(rate(class, amount)?);
        }
        if prices.is_empty() { Err(SetPriceError::Nothing) } else { Ok(Self(figures)) }
    }

    pub(super) fn price(&self) -> ModelPrice {
        ModelPrice::flat(&self.0)
    }
}
