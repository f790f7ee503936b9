//! The models that a key can reach: those its accounts are set up for by name, and for accounts that serve
//! everything, those of the price list that the vendor makes.

use std::collections::BTreeSet;

use http::{Response, StatusCode};
use shared::domain::{Account, AccountKind, Timestamp};

use super::error::ServerError;
use super::reply;
use super::router::Listing;
use crate::directory::KeyEntry;
use crate::protocol::MODEL_BYTES_MAX;
use crate::protocol::models::{self, ListedModel};
use crate::provider::is_made_by;
use crate::relay::{Relay, ReplyBody};

/// Names of the simulator's models (see its manual page).
const SIMULATED: [&str; 4] = ["sim-echo", "sim-long", "sim-slow", "sim-tools"];

/// The list, in a protocol's form.
pub(super) fn list(relay: &Relay, key: &KeyEntry, listing: Listing) -> Response<ReplyBody> {
    let names = reachable(relay, key, listing.only);
    let models: Vec<ListedModel<'_>> = names.iter().map(|name| listed(name)).collect();
    reply(StatusCode::OK, models::model_list(listing.protocol, &models))
}

/// One model, in a protocol's form.
pub(super) fn one(
    relay: &Relay,
    key: &KeyEntry,
    listing: Listing,
    id: &str,
) -> Result<Response<ReplyBody>, ServerError> {
    if !reachable(relay, key, listing.only).contains(id) {
        // A path has room for far more than a name.
        return Err(ServerError::NoModel(id[..id.floor_char_boundary(MODEL_BYTES_MAX)].to_owned()));
    }
    Ok(reply(StatusCode::OK, models::single_model(listing.protocol, &listed(id))))
}

/// When a model came to be is the vendor's to know; clients want a time all the same.
const fn listed(id: &str) -> ListedModel<'_> {
    ListedModel { id, created_at: Timestamp::from_millis(0) }
}

fn reachable(relay: &Relay, key: &KeyEntry, only: Option<AccountKind>) -> BTreeSet<String> {
    let snapshot = relay.directory.snapshot();
    let prices = relay.directory.prices();
    let mut names = BTreeSet::new();
    for entry in snapshot.accounts() {
        let account = &entry.account;
        let is_meant = only.is_none_or(|kind| kind == account.kind);
        if !is_meant || account.paused || !key.key.may_use(account.kind.family(), &account.id) {
            continue;
        }
        names.extend(account.model_map.keys().cloned());
        match account.kind {
            AccountKind::Simulator => names.extend(SIMULATED.map(str::to_owned)),
            _ if account.models.is_empty() => {
                names.extend(prices.names().filter(|name| is_made_by(account.kind, name)).map(str::to_owned));
            }
            _ => names.extend(named(account, prices.names())),
        }
    }
    names.retain(|name| key.key.may_ask_for(name));
    names
}

/// Patterns without a star are names; the others stand for the priced models that fit.
fn named<'a>(account: &'a Account, priced: impl Iterator<Item = &'a str>) -> Vec<String> {
    let patterns = account.models.iter().map(ToString::to_string);
    let (globs, mut names): (Vec<_>, Vec<_>) = patterns.partition(|pattern| pattern.contains('*'));
    if !globs.is_empty() {
        names.extend(priced.filter(|name| account.serves(name)).map(str::to_owned));
    }
    names
}
