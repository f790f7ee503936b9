//! Records as operators see them.

use shared::admin::{AccountView, BoundAccount, FailureView, HealthView, KeyView, LimitView};
use shared::domain::key::Unusable;
use shared::domain::{AccountId, Limit, Timestamp};

use crate::directory::{AccountEntry, KeyEntry, LimitSet, Snapshot};
use crate::scheduler::health::Cause;
use crate::store::{Standing, Store, StoreError};

/// A key with the standing of its limits.
pub(super) async fn key(
    store: &dyn Store,
    snapshot: &Snapshot,
    entry: &KeyEntry,
    now: Timestamp,
) -> Result<KeyView, StoreError> {
    let key = &entry.key;
    let state = match key.unusable(now) {
        Some(Unusable::Deleted) => "deleted",
        Some(Unusable::Disabled) => "disabled",
        Some(Unusable::Expired(_)) => "expired",
        None if key.activated_at(now).is_some() => "waiting",
        None => "active",
    };
    Ok(KeyView {
        id: key.id.clone(),
        name: key.name.clone(),
        hint: key.hint.clone(),
        state: state.to_owned(),
        owner: key.owner.clone(),
        permissions: key.permissions.clone(),
        allow_models: key.allow_models.clone(),
        deny_models: key.deny_models.clone(),
        accounts: key.accounts.clone(),
        bound: key.accounts.iter().map(|id| bound(snapshot, id)).collect(),
        limits: standings(store, &entry.limits, now).await?,
        queue: key.queue,
        on_disconnect: key.on_disconnect,
        rates: key.rates.clone(),
        usage: key.usage,
        expires_at: key.expires_at,
        valid_s_from_first_use: key.valid_s_from_first_use,
        created_at: key.created_at,
        deleted_at: key.deleted_at,
        last_used_at: None,
    })
}

fn bound(snapshot: &Snapshot, id: &AccountId) -> BoundAccount {
    BoundAccount { id: id.clone(), name: snapshot.account_name(id), removed: snapshot.position(id).is_none() }
}

/// An account with its health and the standing of its limits.
pub(super) async fn account(
    store: &dyn Store,
    entry: &AccountEntry,
    now: Timestamp,
) -> Result<AccountView, StoreError> {
    let account = &entry.account;
    let last_used = entry.state.last_used();
    Ok(AccountView {
        id: account.id.clone(),
        name: account.name.clone(),
        kind: account.kind,
        base_url: account.base_url.clone(),
        has_secret: account.secret.is_some(),
        api_version: account.api_version.clone(),
        models: account.models.clone(),
        model_map: account.model_map.clone(),
        price_as: account.price_as.clone(),
        priority: account.priority,
        weight: account.weight,
        headers: account.headers.keys().cloned().collect(),
        limits: standings(store, &entry.limits, now).await?,
        gap_ms: account.gap_ms,
        simulator: account.simulator,
        health: health(entry, now),
        in_flight: entry.state.in_flight(),
        last_used_at: (last_used.as_millis() > 0).then_some(last_used),
        created_at: account.created_at,
    })
}

fn health(entry: &AccountEntry, now: Timestamp) -> HealthView {
    let (health, alone) = entry.state.told(now);
    let cooling = health.cooling(now);
    let state = match cooling {
        _ if entry.account.paused => "paused",
        Some(cooling) => cooling.ailment.name(),
        None => "ok",
    };
    let last = health.last();
    HealthView {
        state: state.to_owned(),
        cause: last.map(|incident| described(incident.cause, alone.as_deref())),
        since: last.map(|incident| incident.at),
        until: cooling.map(|cooling| cooling.until),
        last_failure: entry.state.last_failure().map(|failure| FailureView {
            at: failure.at,
            status: failure.cause.status(),
            cause: failure.cause.describe(),
        }),
    }
}

/// What went wrong, and for what alone, if not for everything.
fn described(cause: Cause, alone: Option<&str>) -> String {
    let cause = cause.describe();
    alone.map_or_else(|| cause.clone(), |alone| format!("{cause}, {alone}"))
}

/// Where limits stand.
pub(super) async fn standings(
    store: &dyn Store,
    set: &LimitSet,
    now: Timestamp,
) -> Result<Vec<LimitView>, StoreError> {
    let standings = set.standings(store, now).await?;
    let view = |(limit, standing): (Limit, Standing)| LimitView {
        limit,
        used: standing.booked,
        held: standing.held,
        resets_at: standing.resets_at,
    };
    Ok(standings.into_iter().map(view).collect())
}
