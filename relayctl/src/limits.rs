//! The limits of keys and accounts as they are shown.

use shared::admin::LimitView;
use shared::domain::NanoUsd;
use shared::domain::limit::Metric;

use crate::format::{self, NOTHING};
use crate::output::{Cell, Grid, Look, Tone};

/// The limits of a key or an account in one cell.
pub(crate) fn cell(limits: &[LimitView]) -> String {
    let limits: Vec<_> = limits.iter().map(|view| &view.limit).collect();
    format::list(&limits, NOTHING)
}

/// A row for each limit of a key or an account, with what is used of it.
pub(crate) fn add_rows(grid: &mut Grid, limits: &[LimitView], look: &Look) {
    for (at, view) in limits.iter().enumerate() {
        grid.pair(if at == 0 { "limits" } else { "" }, standing(view, look));
    }
}

fn standing(view: &LimitView, look: &Look) -> Cell {
    let taken = view.used.saturating_add(view.held);
    let tone = if taken >= view.limit.amount { Tone::Warning } else { Tone::Neutral };
    let amount = |amount: u64| amount_of(view.limit.metric, amount);
    let mut text = match view.limit.metric {
        Metric::Concurrent => format!("{}: {} open", view.limit, amount(taken)),
        _ => format!("{}: {} used", view.limit, amount(view.used)),
    };
    if view.limit.metric != Metric::Concurrent && view.held > 0 {
        text.push_str(&format!(", {} open", amount(view.held)));
    }
    if let Some(reset) = view.resets_at {
        text.push_str(&format!(", resets {}", format::seen_from(look.now, reset)));
    }
    Cell::toned(text, tone)
}

/// An amount of what a limit counts.
fn amount_of(metric: Metric, amount: u64) -> String {
    match metric {
        Metric::Cost => NanoUsd::from_nanos(i64::try_from(amount).unwrap_or(i64::MAX)).to_string(),
        Metric::Requests | Metric::Tokens | Metric::Concurrent => format::count(amount),
    }
}
