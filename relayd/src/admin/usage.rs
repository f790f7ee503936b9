//! Calls about usage: sums from the hourly rollups, single requests from the ledger, and the audit log.

use std::collections::{BTreeMap, HashMap};

use ahash::RandomState;
use shared::admin::{AuditEntry, ListAudit, ListRequests, RequestRow, SumUsage, UsageBy, UsageRow};
use shared::domain::limit::CalendarUnit;
use shared::domain::{AccountId, KeyId, Provenance, Timestamp, Zone};

use super::{Admin, AdminError, Missing};
use crate::directory::Snapshot;
use crate::limits;
use crate::pricing;
use crate::store::{Closed, Rollup, RollupKey, RollupQuery, RowQuery};

const ROWS_DEFAULT: u32 = 100;
const ROWS_MAX: u32 = 10_000;

impl Admin {
    pub(super) async fn sum_usage(&self, call: &SumUsage) -> Result<Vec<UsageRow>, AdminError> {
        self.settle().await;
        let snapshot = self.directory.snapshot();
        let key = past_key(&snapshot, call.key.as_deref())?;
        let account = past_account(&snapshot, call.account.as_deref())?;
        let zone = self.directory.zone();
        let hour = |time| limits::start_of(CalendarUnit::Hour, zone, time);
        // An hour counts whole, so that its start is below the end that was asked for.
        let query = RollupQuery { since: call.since.map(hour), until: call.until, key, account };
        let rollups = self.directory.store().rollups(query).await?;
        let mut by_heading: HashMap<Heading<'_>, Rollup, RandomState> = HashMap::default();
        for (place, rollup) in &rollups {
            if call.model.as_ref().is_none_or(|model| place.model == *model) {
                *by_heading.entry(Heading::of(call.by, place)).or_default() += rollup;
            }
        }
        // There are far fewer headings than sums: only they are looked up.
        let mut sums: BTreeMap<(Option<String>, String), Rollup> = BTreeMap::new();
        for (heading, rollup) in &by_heading {
            *sums.entry(heading.label(&snapshot, zone)).or_default() += rollup;
        }
        Ok(sums.into_iter().map(|((id, name), rollup)| usage_row(id, name, &rollup)).collect())
    }

    pub(super) async fn list_requests(&self, call: ListRequests) -> Result<Vec<RequestRow>, AdminError> {
        self.settle().await;
        let snapshot = self.directory.snapshot();
        let key = past_key(&snapshot, call.key.as_deref())?;
        let account = past_account(&snapshot, call.account.as_deref())?;
        let limit = call.limit.unwrap_or(ROWS_DEFAULT).min(ROWS_MAX);
        let query = RowQuery {
            since: call.since,
            until: call.until,
            before: call.before,
            id: call.id,
            key,
            account,
            limit: limit as usize,
        };
        let rows = self.directory.store().rows(query).await?;
        Ok(rows.into_iter().map(|closed| request_row(closed, &snapshot)).collect())
    }

    pub(super) async fn list_audit(&self, call: &ListAudit) -> Result<Vec<AuditEntry>, AdminError> {
        let limit = call.limit.unwrap_or(ROWS_DEFAULT).min(ROWS_MAX);
        Ok(self.directory.store().audit(call.since, limit as usize).await?)
    }

    /// What the journal has goes to the store first, so that an operator sees the call that just ended.
    pub(super) async fn settle(&self) {
        if let Err(error) = self.ledger.flush().await {
            tracing::warn!(%error, "usage is shown as far as the store has it");
        }
    }
}

/// The key that a question is about, if it is about one: also one that is deleted.
fn past_key(snapshot: &Snapshot, name: Option<&str>) -> Result<Option<KeyId>, AdminError> {
    let names = || snapshot.keys().iter().map(|entry| entry.key.name.as_str());
    let known =
        |name| snapshot.past_key(name).ok_or_else(|| AdminError::NoKey(Missing::among(name, names())));
    Ok(name.map(known).transpose()?.cloned())
}

/// The account that a question is about, if it is about one: also one that was removed.
fn past_account(snapshot: &Snapshot, name: Option<&str>) -> Result<Option<AccountId>, AdminError> {
    let missing = |name| AdminError::NoAccount(Missing::among(name, snapshot.past_account_names()));
    let known = |name| snapshot.past_account(name).ok_or_else(|| missing(name));
    Ok(name.map(known).transpose()?.cloned())
}

/// What sums are added up under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Heading<'a> {
    Key(Option<&'a KeyId>),
    Account(Option<&'a AccountId>),
    Model(&'a str),
    Hour(Timestamp),
}

impl<'a> Heading<'a> {
    fn of(by: UsageBy, place: &'a RollupKey) -> Self {
        match by {
            UsageBy::Key => Self::Key(place.key.as_ref()),
            UsageBy::Account => Self::Account(place.account.as_ref()),
            UsageBy::Model => Self::Model(&place.model),
            UsageBy::Day => Self::Hour(place.hour),
        }
    }

    /// Id and name. Hours of a day have the same.
    fn label(self, snapshot: &Snapshot, zone: &Zone) -> (Option<String>, String) {
        match self {
            Self::Key(Some(id)) => (Some(id.to_string()), snapshot.key_name(id)),
            Self::Key(None) => (None, "(given up)".to_owned()),
            Self::Account(Some(id)) => (Some(id.to_string()), snapshot.account_name(id)),
            Self::Account(None) => (None, "(none)".to_owned()),
            Self::Model(model) => (None, model.to_owned()),
            Self::Hour(hour) => (None, zone.day(hour)),
        }
    }
}

fn usage_row(id: Option<String>, name: String, rollup: &Rollup) -> UsageRow {
    let counts = Provenance::ALL.iter().zip(rollup.provenance).filter(|(_, count)| *count > 0);
    UsageRow {
        name,
        id,
        requests: rollup.requests,
        failed: rollup.failed,
        usage: rollup.usage,
        cost: rollup.cost(),
        rated: rollup.rated(),
        unpriced: rollup.unpriced,
        provenance: counts.map(|(provenance, count)| (*provenance, count)).collect(),
    }
}

fn request_row(closed: Closed, snapshot: &Snapshot) -> RequestRow {
    let millis =
        |from: Timestamp, to: Timestamp| u64::try_from(to.since(from).as_millis()).unwrap_or(u64::MAX);
    RequestRow {
        id: closed.request,
        opened_at: closed.opened_at,
        first_byte_ms: closed.first_byte_at.map(|at| millis(closed.opened_at, at)),
        total_ms: millis(closed.opened_at, closed.closed_at),
        queued_ms: closed.queued_ms,
        key_name: snapshot.key_name(&closed.key),
        account_name: closed.account.as_ref().map(|account| snapshot.account_name(account)),
        key: closed.key,
        account: closed.account,
        protocol: closed.protocol,
        operation: closed.operation,
        model: closed.model,
        priced_model: closed.priced_model,
        status: closed.status,
        end: closed.end.name().to_owned(),
        attempts: closed.attempts,
        usage: closed.usage,
        provenance: closed.provenance,
        cost: closed.cost,
        rated: closed.rated,
        unpriced: closed.unpriced,
        prices: pricing::printed(&closed.rates),
        price_version: closed.price_version,
        multiplier: closed.multiplier,
    }
}
