//! Rebuilding costs and counters. Calls go on meanwhile: what they write waits in the journal, so that rows and
//! counters are of one moment.

use std::collections::BTreeMap;
use std::sync::Arc;

use shared::costs::{
    AmountChange, CostsRebuilt, CountChange, CounterChange, PricesFrom, RebuildCosts, SumChange,
};
use shared::domain::limit::{CalendarUnit, Counted};
use shared::domain::{KeyId, NanoUsd};

use super::long::Teller;
use super::{Admin, AdminError, Peer};
use crate::directory::Snapshot;
use crate::limits;
use crate::rebuild::{Change, Job, List, Plan, Prices};
use crate::store::{Booked, GroupId, Rollup};

impl Admin {
    pub(super) async fn rebuild_costs(
        &self,
        call: &RebuildCosts,
        peer: Peer,
        teller: Teller,
    ) -> Result<CostsRebuilt, AdminError> {
        let _turn = self.upkeep.lock().await;
        let held = self.ledger.hold().await?;
        let snapshot = self.directory.snapshot();
        let job = Arc::new(self.job(call, &snapshot).await?);
        let tell = move |progress| teller.tell(progress);
        let plan = job.plan(&tell).await?;
        let applies = !call.dry_run && !plan.is_empty();
        if applies {
            let audit = self.audit(peer, "costs.rebuild", "costs", "costs", told_of(call, &plan));
            job.apply(&plan, audit, &tell).await?;
            let (calls, sums, counters) = (plan.amended, plan.sums.len(), plan.counters.len());
            tracing::info!(uid = peer.uid, calls, sums, counters, "costs were rebuilt");
        }
        drop(held);
        Ok(view(&plan, &snapshot, applies))
    }

    async fn job(&self, call: &RebuildCosts, snapshot: &Snapshot) -> Result<Job, AdminError> {
        let accounts = self.directory.past_accounts().await?;
        let of_accounts = accounts.iter().map(|account| GroupId::of_account(&account.id));
        let groups = groups(snapshot).chain(of_accounts).collect();
        let prices = match call.prices {
            PricesFrom::Booked => Prices::Booked,
            PricesFrom::Today => Prices::List(List {
                table: self.directory.prices(),
                accounts: accounts.into_iter().map(|account| (account.id.clone(), account)).collect(),
            }),
        };
        let zone = self.directory.zone();
        Ok(Job {
            store: self.directory.store().clone(),
            now: self.clock.now(),
            prices,
            since: call.since,
            hours_since: call.since.map(|since| limits::start_of(CalendarUnit::Hour, zone, since)),
            groups,
        })
    }
}

/// The groups of keys, of their owners, and of all keys.
fn groups(snapshot: &Snapshot) -> impl Iterator<Item = GroupId> {
    let keys = snapshot.keys().iter().map(|entry| entry.limits.group.clone());
    let owners = snapshot.keys().iter().filter_map(|entry| entry.key.owner.as_deref());
    let owners = owners.map(GroupId::of_owner);
    let shared = snapshot.shared_limits().all().into_values().map(|set| set.group.clone());
    keys.chain(owners).chain(shared).chain([GroupId::of_all()])
}

/// What the audit log says of it.
fn told_of(call: &RebuildCosts, plan: &Plan) -> Vec<String> {
    let prices = match call.prices {
        PricesFrom::Booked => "prices booked",
        PricesFrom::Today => "prices today",
    };
    let mut fields = vec![prices.to_owned()];
    fields.extend(call.since.map(|since| format!("since {since}")));
    let changed =
        [(plan.amended, "calls"), (plan.sums.len() as u64, "sums"), (plan.counters.len() as u64, "counters")];
    fields.extend(changed.iter().map(|(number, what)| format!("{number} {what}")));
    fields
}

fn view(plan: &Plan, snapshot: &Snapshot, applied: bool) -> CostsRebuilt {
    let counters =
        |counters: &[Booked]| counters.iter().map(|counter| counter_view(counter, snapshot)).collect();
    CostsRebuilt {
        applied,
        calls: plan.calls,
        repriced: plan.amended,
        without_price: plan.without_price,
        cost: amounts(plan.cost),
        rated: amounts(plan.rated),
        hours_from: plan.hours_from,
        hours: plan.sums.len() as u64,
        sums: by_key(plan, snapshot),
        counters: counters(&plan.counters),
        left_alone: counters(&plan.left_alone),
    }
}

fn by_key(plan: &Plan, snapshot: &Snapshot) -> Vec<SumChange> {
    let mut keys: BTreeMap<Option<&KeyId>, (Rollup, Rollup)> = BTreeMap::new();
    for change in &plan.sums {
        let (before, after) = keys.entry(change.key.key.as_ref()).or_default();
        *before += &change.before;
        *after += &change.after;
    }
    let view = |(id, (before, after)): (Option<&KeyId>, (Rollup, Rollup))| SumChange {
        id: id.map(KeyId::to_string),
        name: id.map_or_else(|| "(given up)".to_owned(), |id| snapshot.key_name(id)),
        requests: CountChange { before: before.requests, after: after.requests },
        cost: AmountChange { before: before.cost(), after: after.cost() },
        rated: AmountChange { before: before.rated(), after: after.rated() },
    };
    keys.into_iter().map(view).collect()
}

fn counter_view(counter: &Booked, snapshot: &Snapshot) -> CounterChange {
    let Booked { group, counter, span, before, after } = counter;
    let own = || group.as_str().split_once(':').map_or(group.as_str(), |(_, name)| name).to_owned();
    CounterChange {
        group: group.as_str().to_owned(),
        name: snapshot.holder(group).map_or_else(own, |holder| holder.name.to_owned()),
        counter: counter.as_str().to_owned(),
        starts_at: span.end.map(|_| span.start),
        before: Counted::of(counter.metric(), *before),
        after: Counted::of(counter.metric(), *after),
    }
}

/// At most what an amount can say.
fn amounts(change: Change) -> AmountChange {
    let amount = |nanos: i128| -> NanoUsd {
        let most = if nanos < 0 { i64::MIN } else { i64::MAX };
        NanoUsd::from_nanos(i64::try_from(nanos).unwrap_or(most))
    };
    AmountChange { before: amount(change.before), after: amount(change.after) }
}
