//! How accounts are shown.

use shared::admin::{AccountView, TestReport};
use shared::domain::account::SimulatorSettings;
use shared::domain::{AccountKind, Delay};

use crate::account_table::{failure, state, why};
use crate::format::{self, NOTHING};
use crate::limits;
use crate::output::{Cell, Grid, Look, Tone};

pub(super) fn tested(report: &TestReport, look: &Look) -> String {
    let result = if report.ok { Cell::toned("works", Tone::Good) } else { Cell::toned("fails", Tone::Bad) };
    let mut grid = Grid::bare(look);
    grid.pair("result", result)
        .pair("message", report.message.as_str())
        .pair("called", report.url.as_str())
        .pair("status", report.status.map_or_else(|| "no answer".to_owned(), |status| status.to_string()))
        .pair("first byte", report.first_byte_ms.map_or_else(|| NOTHING.to_owned(), format::millis))
        .pair("total", format::millis(report.total_ms));
    grid.text()
}

/// One sentence about an account that was paused or resumed.
pub(super) fn line(account: &AccountView, _: &Look) -> String {
    format::plain(&format!("account {} ({}) is {}", account.name, account.id, account.health.state))
}

pub(super) fn record(account: &AccountView, look: &Look) -> String {
    let map: Vec<_> = account.model_map.iter().map(|(from, to)| format!("{from} -> {to}")).collect();
    let mut grid = Grid::bare(look);
    grid.pair("name", account.name.as_str())
        .pair("id", account.id.as_str())
        .pair("kind", account.kind.name())
        .pair("state", state(account))
        .pair("why", why(account, look))
        .pair("last failure", failure(account, look))
        .pair("base URL", account.base_url.as_str())
        .pair("credential", if account.has_secret { "stored" } else { "none" })
        .pair("models", format::list(&account.models, any(account.kind)))
        .pair("model map", format::list(&map, "none"))
        .pair("price as", account.price_as.as_deref().unwrap_or(NOTHING))
        .pair("priority", account.priority.to_string())
        .pair("weight", account.weight.to_string())
        .pair("gap", gap(account))
        .pair("headers", format::list(&account.headers, "none"))
        .pair("open calls", format::count(account.in_flight))
        .pair("added", look.happened(account.created_at));
    if let Some(version) = &account.api_version {
        grid.pair("api-version", version.as_str());
    }
    if let Some(simulator) = account.simulator {
        grid.pair("simulator", simulated(simulator));
    }
    limits::add_rows(&mut grid, &account.limits, look);
    grid.text()
}

/// Which models an account serves for which none are named.
const fn any(kind: AccountKind) -> &'static str {
    match kind {
        AccountKind::Simulator => "sim-*, and any for keys bound to it",
        AccountKind::Ccr => "ccr,*",
        AccountKind::ClaudeConsole
        | AccountKind::OpenaiResponses
        | AccountKind::GeminiApi
        | AccountKind::AzureOpenai => "any that a client names, but sim-*",
    }
}

/// What is kept between the starts of two calls.
fn gap(account: &AccountView) -> String {
    let gap = Delay::from_millis(account.gap_ms).filter(|gap| !gap.is_zero());
    gap.map_or_else(|| "none".to_owned(), |gap| gap.to_string())
}

fn simulated(simulator: SimulatorSettings) -> String {
    format!(
        "first byte after {}, {} chunks {} apart, {} % errors",
        format::millis(simulator.latency_ms),
        format::count(simulator.chunks.into()),
        format::millis(simulator.chunk_gap_ms),
        simulator.error_percent
    )
}
