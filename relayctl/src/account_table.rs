//! The table of accounts, which `account list` and `status` show.

use shared::admin::AccountView;

use crate::format::{self, NOTHING};
use crate::limits;
use crate::output::{Cell, Grid, Look, Tone};

/// All accounts with their state.
pub(crate) fn table(accounts: &[AccountView], look: &Look) -> String {
    if accounts.is_empty() {
        return "no accounts yet; `relayctl account add` adds one".to_owned();
    }
    let columns = [
        "name",
        "??kind",
        "state",
        "?????>priority",
        "?????>weight",
        "????>open",
        "???~limits",
        "????last used",
        "???last failure",
        "?~why",
    ];
    let mut grid = Grid::new(look, &columns);
    for account in accounts {
        grid.row([
            account.name.as_str().into(),
            account.kind.name().into(),
            state(account),
            account.priority.to_string().into(),
            account.weight.to_string().into(),
            format::count(account.in_flight).into(),
            limits::cell(&account.limits).into(),
            account.last_used_at.map_or_else(|| "never".to_owned(), |at| look.ago(at)).into(),
            last_failure(account, look).into(),
            why(account, look).into(),
        ]);
    }
    grid.text()
}

/// The state of an account.
pub(crate) fn state(account: &AccountView) -> Cell {
    let tone = match account.health.state.as_str() {
        "ok" => Tone::Good,
        "paused" | "limited" | "overloaded" => Tone::Warning,
        _ => Tone::Bad,
    };
    Cell::toned(account.health.state.as_str(), tone)
}

/// What ails an account, since when, and until when; an account that does not rest has nothing.
pub(crate) fn why(account: &AccountView, look: &Look) -> String {
    let health = &account.health;
    let Some(until) = health.until else { return NOTHING.to_owned() };
    let since = health.since.map(|since| look.ago(since));
    let parts: Vec<String> = [health.cause.clone(), since].into_iter().flatten().collect();
    format!(
        "{}, tried again {}",
        format::list(&parts, "something ails it"),
        format::seen_from(look.now, until)
    )
}

/// What went wrong last in short, and when; it may be long over, or nothing to rest for.
fn last_failure(account: &AccountView, look: &Look) -> String {
    let Some(failure) = &account.health.last_failure else { return NOTHING.to_owned() };
    let when = look.ago(failure.at);
    match failure.status {
        Some(status) => format!("{status}, {when}"),
        None => when,
    }
}

/// What went wrong last in full.
pub(crate) fn failure(account: &AccountView, look: &Look) -> String {
    let Some(failure) = &account.health.last_failure else { return NOTHING.to_owned() };
    format!("{}, {}", failure.cause, look.happened(failure.at))
}
