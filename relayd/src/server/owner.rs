//! What the holder of a key may know of it: its limits, how much of them is used, and what it cost so far.

use http::Response;
use serde_json::{Value, json};
use shared::domain::limit::{CalendarUnit, Counted, Metric};
use shared::domain::{Timestamp, UsageClass};
use tokio::sync::Semaphore;

use super::router::OwnerView;
use crate::directory::KeyEntry;
use crate::limits;
use crate::relay::{Relay, ReplyBody};
use crate::store::{Rollup, RollupQuery, StoreError};

/// How many views a worker reads out of the store at once; more of them wait. Whoever has a key may ask for them as often
/// as they like, and what is read is what keeps the books.
const READ_AT_ONCE: usize = 2;

/// Lets as many views be read at once as may be.
pub struct Views(Semaphore);

impl Default for Views {
    fn default() -> Self {
        Self(Semaphore::new(READ_AT_ONCE))
    }
}

impl Views {
    async fn read<T>(&self, view: impl Future<Output = T>) -> T {
        // They are never closed.
        let _turn = self.0.acquire().await;
        view.await
    }
}

/// Sums of one key.
#[derive(Default)]
struct Sums {
    total: Rollup,
    day: Rollup,
    month: Rollup,
}

/// Answers in the form that was asked for.
pub(super) async fn view(
    (relay, views): (&Relay, &Views),
    key: &KeyEntry,
    view: OwnerView,
    now: Timestamp,
) -> Result<Response<ReplyBody>, StoreError> {
    let sums = || views.read(sums(relay, key, now));
    let body = match view {
        OwnerView::Me => me(key),
        OwnerView::Credit => json!({
            "object": "usage",
            "data": [{"type": "credit_balance", "credit_balance": null}],
        }),
        OwnerView::KeyInfo | OwnerView::Usage => {
            let (sums, limits) = (sums().await?, limits(relay, key, now).await?);
            match view {
                OwnerView::KeyInfo => key_info(key, &sums, &limits, now),
                _ => json!({"usage": sums.print(), "limits": limits.rows, "timestamp": now}),
            }
        }
        OwnerView::OpenaiKeyInfo => {
            let (sums, limits) = (sums().await?, limits(relay, key, now).await?);
            openai_key_info(key, &sums, &limits)
        }
        OwnerView::OpenaiUsage => openai_usage(&sums().await?),
    };
    Ok(super::json(&body))
}

fn me(key: &KeyEntry) -> Value {
    json!({
        "id": format!("user_{}", key.key.id),
        "type": "user",
        "display_name": key.key.name,
        "created_at": key.key.created_at,
    })
}

fn key_info(key: &KeyEntry, sums: &Sums, limits: &Limits, now: Timestamp) -> Value {
    json!({
        "keyInfo": {
            "id": key.key.id,
            "name": key.key.name,
            "tokenLimit": limits.tokens.map_or(0, |tokens| tokens.limit),
            "limits": limits.rows,
            "expiresAt": key.key.expires_at,
            "usage": usage(&sums.total),
        },
        "timestamp": now,
    })
}

fn openai_key_info(key: &KeyEntry, sums: &Sums, limits: &Limits) -> Value {
    json!({
        "id": key.key.id,
        "name": key.key.name,
        "permissions": key.key.permissions,
        "token_limit": limits.tokens.map_or(0, |tokens| tokens.limit),
        "tokens_used": sums.total.usage.tokens(),
        "tokens_remaining": limits.tokens.map(|tokens| tokens.left),
        "limits": limits.rows,
        "expires_at": key.key.expires_at,
        "usage": sums.print(),
    })
}

fn openai_usage(sums: &Sums) -> Value {
    json!({
        "object": "usage",
        "total_tokens": sums.total.usage.tokens(),
        "total_requests": sums.total.requests,
        "daily_tokens": sums.day.usage.tokens(),
        "daily_requests": sums.day.requests,
        "monthly_tokens": sums.month.usage.tokens(),
        "monthly_requests": sums.month.requests,
    })
}

impl Sums {
    fn print(&self) -> Value {
        json!({"total": usage(&self.total), "daily": usage(&self.day), "monthly": usage(&self.month)})
    }
}

/// The limits that hold for a key.
#[derive(Default)]
struct Limits {
    rows: Vec<Value>,
    /// Of those that count tokens, the one of which least is left: some clients know of one such limit only.
    tokens: Option<Tokens>,
}

/// A limit that counts tokens.
#[derive(Clone, Copy)]
struct Tokens {
    limit: u64,
    left: u64,
}

async fn limits(relay: &Relay, key: &KeyEntry, now: Timestamp) -> Result<Limits, StoreError> {
    let mut limits = Limits::default();
    for set in key.limit_sets() {
        for (limit, standing) in set.standings(&**relay.directory.store(), now).await? {
            limits.rows.push(json!({
                "limit": limit,
                "holder": set.scope.name(),
                "used": Counted::of(limit.metric, standing.booked),
                "held": Counted::of(limit.metric, standing.held),
                "resets_at": standing.resets_at,
            }));
            if limit.metric == Metric::Tokens {
                let tokens = Tokens { limit: limit.amount, left: standing.left_of(limit.amount) };
                limits.tokens = limits.tokens.into_iter().chain([tokens]).min_by_key(|tokens| tokens.left);
            }
        }
    }
    Ok(limits)
}

/// The day and the month are those of the configured zone.
async fn sums(relay: &Relay, key: &KeyEntry, now: Timestamp) -> Result<Sums, StoreError> {
    let zone = relay.directory.zone();
    let day = limits::start_of(CalendarUnit::Day, zone, now);
    let month = limits::start_of(CalendarUnit::Month(1), zone, now);
    let mut sums = Sums::default();
    let query = RollupQuery {
        since: Some(limits::start_of(CalendarUnit::Hour, zone, key.key.created_at)),
        key: Some(key.key.id.clone()),
        ..RollupQuery::default()
    };
    for (place, rollup) in relay.directory.store().rollups(query).await? {
        sums.total += &rollup;
        if place.hour >= month {
            sums.month += &rollup;
        }
        if place.hour >= day {
            sums.day += &rollup;
        }
    }
    Ok(sums)
}

fn usage(rollup: &Rollup) -> Value {
    let usage = &rollup.usage;
    json!({
        "requests": rollup.requests,
        "tokens": usage.tokens(),
        "inputTokens": usage[UsageClass::Input],
        "outputTokens": usage[UsageClass::Output],
        "cacheCreateTokens": usage[UsageClass::CacheWrite5m].saturating_add(usage[UsageClass::CacheWrite1h]),
        "cacheReadTokens": usage[UsageClass::CacheRead],
        "cost": rollup.cost(),
    })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn only_so_many_views_are_read_at_once() {
        let (views, open, most) = (Views::default(), Cell::new(0), Cell::new(0));
        let view = async || {
            open.set(open.get() + 1);
            most.set(most.get().max(open.get()));
            tokio::task::yield_now().await;
            open.set(open.get() - 1);
        };
        let read = || views.read(view());
        tokio::join!(read(), read(), read(), read(), read());
        assert_eq!((most.get(), open.get()), (READ_AT_ONCE, 0));
    }
}
