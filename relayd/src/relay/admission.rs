//! Whether a call may go on: what it may need of every limit that holds for it is held, or nothing is.

use shared::domain::limit::Metric;
use shared::domain::{Timestamp, Usage};

use super::book::Book;
use super::call::Call;
use super::queue::{Full, Queues, Ticket};
use super::tariff::{Charge, Tariff};
use super::{RelayError, Worker};
use crate::directory::{AccountEntry, LimitSet};
use crate::limits::{self, Amount, Need, Scope, Unpriced};
use crate::protocol::Left;
use crate::store::{Booking, CounterAsk, GroupAsk, Held, Reservation, StoreError, Verdict};

/// Whether an account may take a call.
pub(super) enum Admission {
    /// It may.
    Admitted,
    /// One of its own limits refused, or the key's limits have no room for what it charges.
    AccountFull(Full),
    /// A limit refused that holds for the call whichever account serves it.
    Full(Full),
    /// A limit of money holds for it, and nobody knows what it costs there. Whose it is.
    Unpriced(Scope),
}

/// A call that wants to be admitted.
#[derive(Clone, Copy)]
pub(super) struct Asker<'a> {
    pub(super) call: &'a Call,
    /// Its place among those that wait, if it does.
    pub(super) ticket: Option<Ticket>,
}

/// What a call may use and cost at one account.
struct Needs {
    tokens: Amount,
    cost: Amount,
    rated: Amount,
    is_priced: bool,
}

impl Book {
    /// Holds what the call may need of an account, of its key and of what its key shares. Limits that do not cover
    /// the call are not asked about, so that most calls need no store at all. A further account may charge more
    /// than the one before: then only what is missing is asked for. Where calls wait that came before this one,
    /// there is no room for it.
    pub(super) async fn reserve(
        &mut self,
        worker: &Worker,
        Asker { call, ticket }: Asker<'_>,
        entry: &AccountEntry,
        now: Timestamp,
    ) -> Result<Admission, RelayError> {
        let relay = &worker.relay;
        let tariff = Tariff::of(worker, call, entry);
        self.estimate = call.likely(&tariff.model_size());
        self.estimated = tariff.charge(None, &self.estimate, call.tier());
        let sets: Vec<&LimitSet> = call.key.limit_sets().chain([&entry.limits]).collect();
        let needs = self.needs(call, &tariff, sets.iter().any(|set| set.has_strict()));
        self.closed.price_version = tariff.version();
        self.closed.multiplier = tariff.multiplier;
        self.tariff = Some(tariff);
        let is_further = !self.groups.is_empty();
        let allows_unpriced = relay.settings.allows_unpriced;
        let mut asked: Vec<(&LimitSet, Vec<CounterAsk>)> = Vec::with_capacity(sets.len());
        for set in sets {
            let need = needs.of(call, set.scope, allows_unpriced);
            let Ok(asks) = self.asks(set, &need, now) else {
                return Ok(Admission::Unpriced(set.scope));
            };
            if !asks.is_empty() {
                asked.push((set, asks));
            }
        }
        if asked.is_empty() {
            return Ok(Admission::Admitted);
        }
        if let Some(full) = ahead(&relay.queues, ticket, &asked) {
            return Ok(full.refused(is_further));
        }
        let groups: Vec<GroupAsk<'_>> =
            asked.iter().map(|(set, asks)| GroupAsk { group: &set.group, counters: asks }).collect();
        let lapses_at = now.after(relay.settings.hold_ttl);
        let reservation = Reservation { request: call.id, now, lapses_at, groups: &groups };
        match relay.directory.store().reserve(reservation).await? {
            Verdict::Admitted(held) => {
                self.take(&asked, held);
                Ok(Admission::Admitted)
            }
            Verdict::Refused(refusal) => {
                let refused = asked.iter().find(|(set, _)| set.group == refusal.group);
                let exceeded = refused.and_then(|(set, _)| set.exceeded(&refusal));
                let exceeded = exceeded.ok_or_else(unnamed)?;
                let full = Full { group: refusal.group, counter: refusal.ask.counter, exceeded };
                Ok(full.refused(is_further))
            }
        }
    }

    fn needs(&self, call: &Call, tariff: &Tariff, is_strict: bool) -> Needs {
        let Charge { cost, rated } = self.estimated;
        let (worst_usage, worst): (Usage, Charge) = if is_strict {
            let usage = call.worst(&tariff.model_size());
            (usage, tariff.dearest(&usage, call.tier()))
        } else {
            (self.estimate, self.estimated)
        };
        let amount = |likely: u64, worst: u64| Amount { likely, worst: worst.max(likely) };
        Needs {
            tokens: amount(self.estimate.tokens(), worst_usage.tokens()),
            cost: amount(cost.total.as_counted(), worst.cost.total.as_counted()),
            rated: amount(rated.as_counted(), worst.rated.as_counted()),
            is_priced: !cost.unpriced && !worst.cost.unpriced,
        }
    }

    /// What is asked of a set: of one in which something is held already, only what is missing.
    fn asks(&self, set: &LimitSet, need: &Need<'_>, now: Timestamp) -> Result<Vec<CounterAsk>, Unpriced> {
        let is_held = self.groups.contains(&set.group);
        if set.rules.is_empty() || (is_held && !set.has_strict()) {
            return Ok(Vec::new());
        }
        let mut asks = limits::asks(&set.rules, need, now)?;
        if is_held {
            asks.retain_mut(|ask| {
                ask.amount = ask.amount.saturating_sub(self.held(&set.group, &ask.counter));
                !ask.counter.metric().is_exact() && ask.amount > 0
            });
        }
        Ok(asks)
    }

    fn take(&mut self, asked: &[(&LimitSet, Vec<CounterAsk>)], held: Vec<Held>) {
        for (set, asks) in asked {
            if !self.groups.contains(&set.group) {
                self.groups.push(set.group.clone());
            }
            if set.scope != Scope::Account {
                let of_set = held.iter().filter(|held| held.group == set.group);
                of_set.for_each(|held| self.note_left(asks, held));
            }
        }
        for held in held {
            let is_same = |known: &&mut Booking| known.group == held.group && known.counter == held.counter;
            match self.closed.bookings.iter_mut().find(is_same) {
                // What is held in two steps is booked in one, where the first was held.
                Some(known) => known.amount = known.amount.saturating_add(held.amount),
                None => self.closed.bookings.push(booking(held)),
            }
        }
    }

    /// Of several limits of a metric, the client is told of the one of which least is left.
    fn note_left(&mut self, asks: &[CounterAsk], held: &Held) {
        let metric = held.counter.metric();
        let Some(ask) = asks.iter().find(|ask| ask.counter == held.counter) else { return };
        if metric == Metric::Concurrent {
            return;
        }
        let (limit, resets_at) = (ask.limit, held.standing.resets_at);
        let left = Left { metric, limit, left: held.standing.left_of(limit), resets_at };
        match self.left.iter_mut().find(|known| known.metric == metric) {
            Some(known) if known.left > left.left => *known = left,
            Some(_) => {}
            None => self.left.push(left),
        }
    }
}

impl Needs {
    /// A key and its owner are charged by the multipliers; the account and everything by the vendor's prices.
    fn of<'a>(&self, call: &'a Call, scope: Scope, allows_unpriced: bool) -> Need<'a> {
        let cost = match scope {
            Scope::Key | Scope::Owner => self.rated,
            Scope::Account | Scope::All => self.cost,
        };
        Need {
            model: &call.model,
            operation: call.target.operation,
            tokens: self.tokens,
            cost: (self.is_priced || allows_unpriced).then_some(cost),
        }
    }
}

impl Full {
    /// A further account is asked for what it alone needs, or charges more: the next may not.
    const fn refused(self, is_further: bool) -> Admission {
        match self.exceeded.scope {
            Scope::Account => Admission::AccountFull(self),
            _ if is_further => Admission::AccountFull(self),
            _ => Admission::Full(self),
        }
    }
}

/// The first limit of concurrency for which calls wait that came before this one.
fn ahead(queues: &Queues, ticket: Option<Ticket>, asked: &[(&LimitSet, Vec<CounterAsk>)]) -> Option<Full> {
    if queues.is_idle() {
        return None;
    }
    let asks = asked.iter().flat_map(|(set, asks)| asks.iter().map(|ask| (&set.group, &ask.counter)));
    let mut leases = asks.filter(|(_, counter)| counter.metric() == Metric::Concurrent);
    leases.find_map(|(group, counter)| queues.ahead(ticket, group, counter))
}

/// An engine that refuses by something else than it was asked has lost its mind.
fn unnamed() -> StoreError {
    StoreError::Damaged { what: "refusal", source: "it names no limit that was asked about".into() }
}

fn booking(held: Held) -> Booking {
    Booking { group: held.group, counter: held.counter, span: held.span, amount: held.amount }
}
