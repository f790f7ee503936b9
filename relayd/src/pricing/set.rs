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

/// The whole price of a model as set by hand, for prompts of every length and for every service tier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetPrices(Figures);

impl SetPrices {
    /// Checks class names and amounts: dollars per million tokens, per thousand searches.
    pub fn parse(prices: &BTreeMap<String, String>) -> Result<Self, SetPriceError> {
        let mut figures = Figures::default();
        for (name, amount) in prices {
            let class = UsageClass::ALL.iter().copied().find(|class| class.name() == name);
            let class = class.ok_or_else(|| SetPriceError::Class { class: name.clone() })?;
            let rate = read_price(class, amount).map_err(|cause| SetPriceError::Amount { class, cause })?;
            figures[class as usize] = Some(rate);
        }
        if prices.is_empty() { Err(SetPriceError::Nothing) } else { Ok(Self(figures)) }
    }

    pub(super) fn price(&self) -> ModelPrice {
        ModelPrice::flat(&self.0)
    }
}
