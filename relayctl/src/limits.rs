//! The limits of keys and accounts: the flags that change them, and how they are shown.

use clap::Args;
use shared::admin::LimitView;
use shared::domain::limit::Metric;
use shared::domain::{Limit, LimitChanges, LimitName, NanoUsd};

use crate::args::replaced;
use crate::format::{self, NOTHING};
use crate::output::{Cell, Grid, Look, Tone};

/// How limits that are there change.
#[derive(Debug, Default, Args)]
pub(crate) struct LimitArgs {
    /// What it may use, in place of all limits that it has (repeatable)
    #[arg(long = "limit", value_name = "LIMIT", conflicts_with_all = ["added", "dropped"])]
    limits: Vec<Limit>,
    /// A limit beside those that it has, or in place of the one that counts the same (repeatable)
    #[arg(long = "add-limit", value_name = "LIMIT")]
    added: Vec<Limit>,
    /// A limit to take away, such as "60 requests per minute" or "requests per minute" (repeatable)
    #[arg(long = "drop-limit", value_name = "LIMIT")]
    dropped: Vec<LimitName>,
}

impl LimitArgs {
    /// The limits in place of all the old, if there are to be any, and the changes of single ones.
    pub(crate) fn changes(self, clears: bool) -> (Option<Vec<Limit>>, LimitChanges) {
        (replaced(self.limits, clears), LimitChanges { dropped: self.dropped, added: self.added })
    }
}

/// The limits of a key or an account in one cell.
pub(crate) fn cell(limits: &[LimitView]) -> String {
    let limits: Vec<_> = limits.iter().map(|view| &view.limit).collect();
    format::list(&limits, NOTHING)
}

/// A row for each limit of a key or an account, with what is used of it.
pub(crate) fn add_rows(grid: &mut Grid, limits: &[LimitView], look: &Look) {
    if limits.is_empty() {
        grid.pair("limits", "none");
    }
    for (at, view) in limits.iter().enumerate() {
        let text = format!("{}: {}", view.limit, taken(view, look));
        grid.pair(if at == 0 { "limits" } else { "" }, Cell::toned(text, tone(view)));
    }
}

/// What is used of a limit, in one cell.
pub(crate) fn used(view: &LimitView, look: &Look) -> Cell {
    Cell::toned(taken(view, look), tone(view))
}

fn tone(view: &LimitView) -> Tone {
    let taken = view.used.saturating_add(view.held);
    if taken >= view.limit.amount { Tone::Warning } else { Tone::Neutral }
}

fn taken(view: &LimitView, look: &Look) -> String {
    let amount = |amount: u64| amount_of(view.limit.metric, amount);
    if view.limit.metric == Metric::Concurrent {
        return format!("{} open", amount(view.used.saturating_add(view.held)));
    }
    let mut text = format!("{} used", amount(view.used));
    if view.held > 0 {
        text.push_str(&format!(", {} open", amount(view.held)));
    }
    if let Some(reset) = view.resets_at {
        text.push_str(&format!(", resets {}", format::seen_from(look.now, reset)));
    }
    text
}

/// An amount of what a limit counts.
pub(crate) fn amount_of(metric: Metric, amount: u64) -> String {
    match metric {
        Metric::Cost => NanoUsd::from_counted(amount).to_string(),
        Metric::Requests | Metric::Tokens | Metric::Concurrent => format::count(amount),
    }
}
