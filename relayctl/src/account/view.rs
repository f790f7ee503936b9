//! How accounts are shown.

use shared::admin::{AccountView, TestReport};
use shared::domain::account::SimulatorSettings;

use crate::format::{self, NOTHING};
use crate::key;
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

/// All accounts; the daemon's status shows them the same way.
pub(crate) fn table(accounts: &[AccountView], look: &Look) -> String {
    if accounts.is_empty() {
        return "no accounts yet; `relayctl account add` adds one".to_owned();
    }
    let columns = ["name", "kind", "state", ">priority", ">weight", ">open", "~limits", "last used", "~why"];
    let mut grid = Grid::new(look, &columns);
    for account in accounts {
        grid.row([
            account.name.as_str().into(),
            account.kind.name().into(),
            state(account),
            account.priority.to_string().into(),
            account.weight.to_string().into(),
            format::count(account.in_flight).into(),
            key::limits(&account.limits).into(),
            account
                .last_used_at
                .map_or_else(|| "never".to_owned(), |at| format::seen_from(look.now, at))
                .into(),
            why(account, look).into(),
        ]);
    }
    grid.text()
}

pub(super) fn record(account: &AccountView, look: &Look) -> String {
    let map: Vec<_> = account.model_map.iter().map(|(from, to)| format!("{from} -> {to}")).collect();
    let mut grid = Grid::bare(look);
    grid.pair("name", account.name.as_str())
        .pair("id", account.id.as_str())
        .pair("kind", account.kind.name())
        .pair("state", state(account))
        .pair("why", why(account, look))
        .pair("base URL", account.base_url.as_str())
        .pair("credential", if account.has_secret { "stored" } else { "none" })
        .pair("models", format::list(&account.models, "all of its kind"))
        .pair("model map", format::list(&map, "none"))
        .pair("price as", account.price_as.as_deref().unwrap_or(NOTHING))
        .pair("priority", account.priority.to_string())
        .pair("weight", account.weight.to_string())
        .pair("headers", format::list(&account.headers, "none"))
        .pair("open calls", format::count(account.in_flight))
        .pair(
            "added",
            format!("{} ({})", account.created_at, format::seen_from(look.now, account.created_at)),
        );
    if let Some(version) = &account.api_version {
        grid.pair("api-version", version.as_str());
    }
    if let Some(simulator) = account.simulator {
        grid.pair("simulator", simulated(simulator));
    }
    key::add_limits(&mut grid, &account.limits, look);
    grid.text()
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

fn state(account: &AccountView) -> Cell {
    let tone = match account.health.state.as_str() {
        "ok" => Tone::Good,
        "paused" | "limited" | "overloaded" => Tone::Warning,
        _ => Tone::Bad,
    };
    Cell::toned(account.health.state.as_str(), tone)
}

fn why(account: &AccountView, look: &Look) -> String {
    let health = &account.health;
    let since = health.since.map(|since| format::seen_from(look.now, since));
    let until = health.until.map(|until| format!("tried again {}", format::seen_from(look.now, until)));
    let parts: Vec<String> = [health.cause.clone(), since, until].into_iter().flatten().collect();
    format::list(&parts, NOTHING)
}
