//! `relayctl pricing`: what models cost.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use clap::{Args, Subcommand};
use shared::admin::{PriceView, PricesUpdated, SetPrice, ShowPrices, UpdatePrices};
use shared::domain::usage::UsageClass;
use shared::domain::{Glob, NanoUsd};

use crate::args;
use crate::ctl::Ctl;
use crate::failure::Failure;
use crate::format::{self, NOTHING};
use crate::output::{Grid, Look};

/// The widely used list has about two megabytes.
const FILE_BYTES_MAX: u64 = 32 << 20;
/// Left-out entries that a table shows; JSON has all.
const SKIPPED_SHOWN_MAX: usize = 10;

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
        #[arg(long, value_name = "FILE")]
        file: PathBuf,
        /// Only say what would change
        #[arg(long)]
        dry_run: bool,
    },
    /// Set the price of one model by hand, in dollars per million tokens
    Set(Box<SetArgs>),
}

#[derive(Debug, Args)]
#[command(override_usage = "pricing set <MODEL> --input <USD> --output <USD> [OPTIONS]")]
pub(crate) struct SetArgs {
    /// The model's exact name
    #[arg(value_parser = args::text)]
    model: String,
    #[command(flatten)]
    prices: PriceArgs,
}

/// At least one of them is needed.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
struct PriceArgs {
    /// Prompt tokens that no cache had a part in
    #[arg(long, value_name = "USD")]
    input: Option<NanoUsd>,
    /// Answer tokens; `--output 15` means the same
    #[arg(long, value_name = "USD")]
    output_tokens: Option<NanoUsd>,
    /// Prompt tokens read from a cache
    #[arg(long, value_name = "USD")]
    cache_read: Option<NanoUsd>,
    /// Prompt tokens written to a cache that lives minutes
    #[arg(long, alias = "cache-write", value_name = "USD")]
    cache_write_5m: Option<NanoUsd>,
    /// Prompt tokens written to a cache that lives an hour
    #[arg(long, value_name = "USD")]
    cache_write_1h: Option<NanoUsd>,
    /// Tokens of audio in the prompt
    #[arg(long, value_name = "USD")]
    input_audio: Option<NanoUsd>,
    /// Tokens of audio in the answer
    #[arg(long, value_name = "USD")]
    output_audio: Option<NanoUsd>,
    /// A thousand searches that the vendor makes
    #[arg(long, value_name = "USD")]
    web_searches: Option<NanoUsd>,
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
        PricingCommand::Set(args) => out.print(&client.call(&args.call()).await?, record),
    }
}

impl SetArgs {
    fn call(self) -> SetPrice {
        let prices = self.prices.by_class().into_iter();
        let given = prices.filter_map(|(class, price)| Some((class.name().to_owned(), price?)));
        let decimal = |price: NanoUsd| price.to_string().replacen('$', "", 1);
        SetPrice { model: self.model, prices: given.map(|(class, price)| (class, decimal(price))).collect() }
    }
}

impl PriceArgs {
    fn by_class(&self) -> [(UsageClass, Option<NanoUsd>); 8] {
        [
            (UsageClass::Input, self.input),
            (UsageClass::Output, self.output_tokens),
            (UsageClass::CacheRead, self.cache_read),
            (UsageClass::CacheWrite5m, self.cache_write_5m),
            (UsageClass::CacheWrite1h, self.cache_write_1h),
            (UsageClass::InputAudio, self.input_audio),
            (UsageClass::OutputAudio, self.output_audio),
            (UsageClass::WebSearches, self.web_searches),
        ]
    }
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
    let heads: Vec<String> = shown.iter().map(|class| format!(">{}", class.replace('_', " "))).collect();
    let mut columns = vec!["model", "source"];
    columns.extend(heads.iter().map(String::as_str));
    columns.push("~tiers");
    let mut grid = Grid::new(look, &columns);
    for price in prices {
        let amounts = shown.iter().map(|class| amount(&price.prices, class).into());
        let names = [price.model.as_str().into(), price.source.as_str().into()];
        grid.row(names.into_iter().chain(amounts).chain([tiers(&price.prices, &shown).into()]));
    }
    format!("dollars per million tokens, and per thousand searches\n\n{}", grid.text())
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
    use crate::output::tests::PIPE;

    fn command(line: &str) -> Result<PricingCommand, clap::Error> {
        parsed(&line.split(' ').collect::<Vec<_>>())
    }

    #[test]
    fn prices_are_set_by_class() {
        let line = "pricing set m --input $3 --output-tokens 15 --cache-write 3.75";
        let PricingCommand::Set(args) = command(line).unwrap() else { panic!() };
        let expected = [("cache_write_5m", "3.75"), ("input", "3.00"), ("output", "15.00")];
        let expected = expected.map(|(class, price)| (class.to_owned(), price.to_owned()));
        assert_eq!(args.call().prices, BTreeMap::from(expected));
    }

    #[test]
    fn a_price_is_needed_and_is_a_number() {
        for (line, part) in [
            ("pricing set m", "--input"),
            ("pricing set m --input cheap", "an amount is written like"),
            ("pricing update", "--file"),
        ] {
            let error = command(line).map(|_| ()).unwrap_err().to_string();
            assert!(error.contains(part), "{line}: {error}");
        }
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
