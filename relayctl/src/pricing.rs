//! `relayctl pricing`: what models cost.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, ensure};
use clap::Subcommand;
use shared::admin::{PriceUnset, PriceView, PricesUpdated, SetPrice, ShowPrices, UnsetPrice, UpdatePrices};
use shared::domain::money::NoAmount;
use shared::domain::{Glob, NanoUsd, UsageClass};

use crate::args;
use crate::ctl::Ctl;
use crate::failure::Failure;
use crate::format::{self, NOTHING};
use crate::output::{Grid, Look};

/// The widely used list has about two megabytes.
const FILE_BYTES_MAX: u64 = 32 << 20;
/// Left-out entries that a table shows; JSON has all.
const SKIPPED_SHOWN_MAX: usize = 10;

/// What the source of a price is called that was set by hand.
const SET: &str = "set";

#[derive(Debug, Subcommand)]
pub(crate) enum PricingCommand {
    /// Prices in force, in dollars per million tokens
    Show {
        /// Only models that fit, such as claude-*
        #[arg(value_parser = args::glob)]
        model: Option<Glob>,
    },
    /// Replace the price list by a file in the per-token JSON format; prices set by hand stay
    Update {
        /// The file: a JSON object with an entry for each model
        #[arg(long, value_name = "FILE")]
        file: PathBuf,
        /// Only say what would change
        #[arg(long)]
        dry_run: bool,
    },
    /// Set prices of one model by hand, in dollars per million tokens; classes that are not named stay
    Set {
        /// The model's exact name
        #[arg(value_parser = args::text)]
        model: String,
        /// A class of usage with its price, such as input=3 output=15 cache_read=0.30; `none` takes a class back
        #[arg(required = true, value_name = "CLASS=USD")]
        prices: Vec<ClassPrice>,
    },
    /// Take back all prices of one model that were set by hand
    Unset {
        /// The model's exact name
        model: String,
    },
}

/// A class of usage and what is to become of its price.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClassPrice {
    class: UsageClass,
    price: Option<NanoUsd>,
}

/// The text is no price of a class.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoClassPrice {
    #[error("a price is written like input=3 or cache_read=none")]
    Form,
    #[error("{0:?} is none of the classes {classes}", classes = classes())]
    Class(String),
    #[error(transparent)]
    Amount(#[from] NoAmount),
}

fn classes() -> String {
    let names: Vec<_> = UsageClass::ALL.iter().map(|class| class.name()).collect();
    format::list(&names, NOTHING)
}

impl FromStr for ClassPrice {
    type Err = NoClassPrice;

    fn from_str(text: &str) -> Result<Self, NoClassPrice> {
        let (name, price) = args::pair(text, '=').ok_or(NoClassPrice::Form)?;
        let name = name.replace('-', "_");
        let class = UsageClass::ALL.iter().copied().find(|class| class.name() == name);
        let class = class.ok_or(NoClassPrice::Class(name))?;
        let price = if price == "none" { None } else { Some(price.parse::<NanoUsd>()?) };
        Ok(Self { class, price })
    }
}

/// Runs one command of the group.
pub(crate) async fn run(ctl: &Ctl, command: PricingCommand) -> Result<(), Failure> {
    let (client, out) = (&ctl.client, &ctl.out);
    match command {
        PricingCommand::Show { model } => out.print(&*client.call(&ShowPrices { model }).await?, table),
        PricingCommand::Update { file, dry_run } => {
            let call = UpdatePrices { json: content(&file)?, dry_run };
            out.print(&client.call(&call).await?, |report, _| updated(report, dry_run))
        }
        PricingCommand::Set { model, prices } => {
            out.print(&client.call(&setting(model, prices)).await?, record)
        }
        PricingCommand::Unset { model } => {
            let prices = client.call(&ShowPrices { model: Some(Glob::from(model.as_str())) }).await?;
            // Where none is set, the daemon refuses, and knows the name that may be meant.
            if prices.iter().any(|price| price.model == model && price.source == SET) {
                ctl.prompt.confirm(&format!("take back the price of {model} that was set by hand"))?;
            }
            out.print(&client.call(&UnsetPrice { model }).await?, unset)
        }
    }
}

fn setting(model: String, prices: Vec<ClassPrice>) -> SetPrice {
    let prices = prices
        .into_iter()
        .map(|ClassPrice { class, price }| (class.name().to_owned(), price.map(NanoUsd::to_decimal)));
    SetPrice { model, prices: prices.collect() }
}

fn content(path: &Path) -> anyhow::Result<String> {
    let unreadable = || format!("cannot read {}", path.display());
    let file = File::open(path).with_context(unreadable)?;
    let mut text = String::new();
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).with_context(unreadable)?;
    ensure!(text.len() as u64 <= FILE_BYTES_MAX, "{} is too long to be a price list", path.display());
    Ok(text)
}

/// A column for each class that some model has; tiers follow in a column of their own.
fn table(prices: &[PriceView], look: &Look) -> String {
    if prices.is_empty() {
        return "no model with a price fits".to_owned();
    }
    let classes: Vec<&str> = UsageClass::ALL.iter().map(|class| class.name()).collect();
    let used: BTreeSet<&str> =
        prices.iter().flat_map(|price| price.prices.keys().map(String::as_str)).collect();
    let shown: Vec<&str> = classes.iter().copied().filter(|class| used.contains(class)).collect();
    let heads: Vec<String> = shown.iter().map(|class| head(class)).collect();
    let mut columns = vec!["model", "??source"];
    columns.extend(heads.iter().map(String::as_str));
    columns.push("?????~tiers");
    let mut grid = Grid::new(look, &columns);
    for price in prices {
        let amounts = shown.iter().map(|class| amount(&price.prices, class).into());
        let names = [price.model.as_str().into(), price.source.as_str().into()];
        grid.row(names.into_iter().chain(amounts).chain([tiers(&price.prices, &shown).into()]));
    }
    format!("dollars per million tokens, and per thousand searches\n\n{}", grid.text())
}

/// The head of a class's column; most models have only a few classes.
fn head(class: &str) -> String {
    let spare = match class {
        "input" | "output" => "",
        "cache_read" => "?",
        "cache_write_5m" => "???",
        _ => "????",
    };
    format!("{spare}>{}", class.replace('_', " "))
}

fn amount(prices: &BTreeMap<String, String>, class: &str) -> String {
    prices.get(class).cloned().unwrap_or_else(|| NOTHING.to_owned())
}

fn tiers(prices: &BTreeMap<String, String>, shown: &[&str]) -> String {
    let tiers = prices.iter().filter(|(name, _)| !shown.contains(&name.as_str()));
    let tiers: Vec<_> = tiers.map(|(name, price)| format!("{name} {price}")).collect();
    format::list(&tiers, NOTHING)
}

fn record(price: &PriceView, look: &Look) -> String {
    let mut grid = Grid::bare(look);
    grid.pair("model", price.model.as_str()).pair("source", price.source.as_str());
    for (class, amount) in &price.prices {
        grid.pair(&class.replace('_', " "), amount.as_str());
    }
    grid.text()
}

fn unset(report: &PriceUnset, look: &Look) -> String {
    let model = format::plain(&report.model);
    let lead = format!("the price of {model} that was set by hand is taken back; it has");
    match &report.now {
        Some(price) => format!("{lead} this one now\n\n{}", record(price, look)),
        None => format!("{lead} no price now"),
    }
}

fn updated(report: &PricesUpdated, dry_run: bool) -> String {
    let lead = if dry_run { "would have" } else { "have" };
    let mut text = format!(
        "{} models {lead} a price (version {}): {} added, {} changed, {} removed",
        format::count(report.models),
        report.version,
        format::count(report.added),
        format::count(report.changed),
        format::count(report.removed)
    );
    for entry in report.skipped.iter().take(SKIPPED_SHOWN_MAX) {
        text.push_str(&format!("\nleft out: {}", format::plain(entry)));
    }
    if let Some(more) = report.skipped.len().checked_sub(SKIPPED_SHOWN_MAX).filter(|more| *more > 0) {
        text.push_str(&format!("\nleft out: {more} more, listed with --output json"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::tests::parsed;
    use crate::output::tests::{PIPE, fits};

    fn command(line: &str) -> Result<PricingCommand, clap::Error> {
        parsed(&line.split(' ').collect::<Vec<_>>())
    }

    #[test]
    fn prices_are_set_by_class() {
        let line = "pricing set m input=$3 output=15 cache-write-5m=3.75 cache_read=none";
        let PricingCommand::Set { model, prices } = command(line).unwrap() else { panic!() };
        let expected = [
            ("cache_read", None),
            ("cache_write_5m", Some("3.75")),
            ("input", Some("3.00")),
            ("output", Some("15.00")),
        ];
        let expected = expected.map(|(class, price)| (class.to_owned(), price.map(str::to_owned)));
        assert_eq!(setting(model, prices).prices, BTreeMap::from(expected));
    }

    #[test]
    fn a_price_is_needed_and_is_a_number() {
        for (line, part) in [
            ("pricing set m", "<CLASS=USD>"),
            ("pricing set m 3", "a price is written like input=3"),
            ("pricing set m input=", "a price is written like input=3"),
            ("pricing set m input=cheap", "an amount is written like"),
            ("pricing set m inptu=3", "none of the classes input, cache_read"),
            ("pricing set m --input 3", "--input"),
            ("pricing update", "--file"),
        ] {
            let error = command(line).map(|_| ()).unwrap_err().to_string();
            assert!(error.contains(part), "{line}: {error}");
        }
    }

    #[test]
    fn what_is_in_force_is_told_after_a_price_was_taken_back() {
        let now = PriceView { model: "m".to_owned(), source: "file".to_owned(), prices: BTreeMap::new() };
        let report = |now| PriceUnset { model: "m".to_owned(), now };
        assert!(unset(&report(Some(now)), &PIPE).ends_with("it has this one now\n\nmodel   m\nsource  file"));
        assert!(unset(&report(None), &PIPE).ends_with("it has no price now"));
    }

    #[test]
    fn classes_get_columns_and_tiers_share_one() {
        let price = |model: &str, prices: &[(&str, &str)]| PriceView {
            model: model.to_owned(),
            source: "built_in".to_owned(),
            prices: prices.iter().map(|(name, price)| ((*name).to_owned(), (*price).to_owned())).collect(),
        };
        let prices = [
            price("a", &[("input", "3"), ("output", "15"), ("input above 200000", "6")]),
            price("b", &[("input", "0.1"), ("cache_read", "0.01")]),
        ];
        let text = table(&prices, &PIPE);
        assert!(text.contains("MODEL  SOURCE    INPUT  CACHE READ  OUTPUT  TIERS"), "{text}");
        assert!(text.contains("input above 200000 6"), "{text}");
        let all: Vec<_> = UsageClass::ALL.iter().map(|class| (class.name(), "123.4567")).collect();
        let long = [price("vertex_ai/claude-sonnet-4-5-20250929", &all)];
        fits(|look| table(&long, look), &["vertex_ai/claude-sonnet-4-5-20250929"]);
    }

    #[test]
    fn an_update_tells_what_was_left_out_in_bounds() {
        let skipped = (0..12).map(|at| format!("model {at}")).collect();
        let report = PricesUpdated { version: 3, models: 1_200, added: 1, changed: 2, removed: 0, skipped };
        let text = updated(&report, true);
        assert!(text.starts_with("1,200 models would have a price (version 3)"), "{text}");
        assert!(text.ends_with("left out: 2 more, listed with --output json"), "{text}");
    }
}
