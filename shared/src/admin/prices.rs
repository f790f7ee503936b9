//! Prices.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::domain::Glob;

/// Asks for prices.
#[derive(Debug, Serialize, Deserialize)]
pub struct ShowPrices {
    /// Only models that fit.
    pub model: Option<Glob>,
}

/// The price of one model.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PriceView {
    /// The model's exact name.
    pub model: String,
    /// Where the price comes from: `built_in`, `file` or `set`.
    pub source: String,
    /// Dollars per million tokens (or per thousand searches), by class and tier: `input`,
    /// `output`, `input above 200000`, `output priority`.
    pub prices: BTreeMap<String, String>,
}

/// Replaces the price list by one in the per-token JSON format; prices that were set by hand stay.
#[derive(Debug, Serialize, Deserialize)]
pub struct UpdatePrices {
    /// The file's content.
    pub json: String,
    /// Only say what would change.
    pub dry_run: bool,
}

/// What an update of the price list changed.
#[derive(Debug, Serialize, Deserialize)]
pub struct PricesUpdated {
    /// Version of the list now in force.
    pub version: u64,
    /// Models that have a price now.
    pub models: u64,
    /// Models that had none before.
    pub added: u64,
    /// Models whose price differs now.
    pub changed: u64,
    /// Models that have none any more.
    pub removed: u64,
    /// Entries of the file that were left out, with the reason.
    pub skipped: Vec<String>,
}

/// Sets prices of one model by hand: dollars per million tokens by class. Classes that were set by hand before
/// and are not named stay.
#[derive(Debug, Serialize, Deserialize)]
pub struct SetPrice {
    /// The model's exact name.
    pub model: String,
    /// Decimal dollars per million, by class name (`input`, `output`, `cache_read`, …); `None` takes a class back.
    pub prices: BTreeMap<String, Option<String>>,
}

/// Takes back all prices of one model that were set by hand.
#[derive(Debug, Serialize, Deserialize)]
pub struct UnsetPrice {
    /// The model's exact name.
    pub model: String,
}

/// What is in force after prices were taken back.
#[derive(Debug, Serialize, Deserialize)]
pub struct PriceUnset {
    /// The model.
    pub model: String,
    /// Its price in a list; none where no list has one.
    pub now: Option<PriceView>,
}
