//! One group of counters in memory: windows, what is booked in them, who holds what. No locks, no clock.

use std::collections::HashMap;

use ahash::RandomState;
use minicbor::{Decode, Encode};
use shared::domain::{RequestId, Timestamp};

use super::HeldGroup;
use crate::store::entry::{counter_name, span_times};
use crate::store::{Booked, CounterAsk, CounterId, GroupId, Held, Span, Standing, WindowRule};

/// The group's counters and holds.
#[derive(Debug)]
pub(super) struct Group {
    counters: Vec<Counter>,
    holds: HashMap<RequestId, Hold, RandomState>,
    /// No hold's own expiry is earlier, so that groups whose holds are fresh are not searched for lapsed ones.
    earliest_lapse: Timestamp,
}

#[derive(Debug)]
struct Counter {
    id: CounterId,
    span: Span,
    booked: u64,
    /// The sum of what the holds hold in this window.
    held: u64,
}

#[derive(Debug)]
struct Hold {
    lapses_at: Timestamp,
    amounts: Vec<HeldAmount>,
}

/// An amount that a request holds of a counter.
#[derive(Clone, Debug)]
pub struct HeldAmount {
    /// The counter.
    pub counter: CounterId,
    /// It is released, never booked.
    pub is_lease: bool,
    /// In which window.
    pub span: Span,
    /// How much.
    pub amount: u64,
}

/// What a request asks of the group, and until when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ask<'a> {
    pub(super) request: RequestId,
    pub(super) now: Timestamp,
    pub(super) lapses_at: Timestamp,
    pub(super) counters: &'a [CounterAsk],
}

impl Default for Group {
    fn default() -> Self {
        Self {
            counters: Vec::new(),
            holds: HashMap::default(),
            earliest_lapse: Timestamp::from_millis(i64::MAX),
        }
    }
}

impl Group {
    /// The first ask that does not fit, and where its counter stands.
    pub(super) fn refusal(&self, asks: &[CounterAsk], now: Timestamp) -> Option<(CounterAsk, Standing)> {
        asks.iter().find_map(|ask| {
            let standing = self.standing(ask, now);
            let taken = standing.booked.checked_add(standing.held);
            let total = taken.and_then(|taken| taken.checked_add(ask.amount));
            let fits = total.is_some_and(|total| total <= ask.limit);
            (!fits).then(|| (ask.clone(), standing))
        })
    }

    /// Holds what was asked, in the windows that run now, and lists what may be booked later. The asks must
    /// have been judged under the same lock. A counter that is asked twice is held once, with the larger
    /// amount: it will be booked once.
    pub(super) fn hold(&mut self, group: &GroupId, ask: Ask<'_>, held: &mut Vec<Held>) {
        let mut amounts: Vec<HeldAmount> = Vec::with_capacity(ask.counters.len());
        for CounterAsk { counter, window, amount, .. } in ask.counters {
            match amounts.iter_mut().find(|held| held.counter == *counter) {
                Some(held) => held.amount = held.amount.max(*amount),
                None => {
                    let span = self.open_window(counter, *window, ask.now);
                    let is_lease = *window == WindowRule::Now;
                    amounts.push(HeldAmount { counter: counter.clone(), is_lease, span, amount: *amount });
                }
            }
        }
        for HeldAmount { counter, is_lease, span, amount } in &amounts {
            let Some(counted) = self.counter_mut(counter) else { continue };
            counted.held = counted.held.saturating_add(*amount);
            if !is_lease {
                let (standing, counter) = (counted.standing(), counter.clone());
                held.push(Held { group: group.clone(), counter, span: *span, amount: *amount, standing });
            }
        }
        self.earliest_lapse = self.earliest_lapse.min(ask.lapses_at);
        let hold =
            self.holds.entry(ask.request).or_insert(Hold { lapses_at: ask.lapses_at, amounts: Vec::new() });
        hold.lapses_at = hold.lapses_at.max(ask.lapses_at);
        if hold.amounts.is_empty() {
            hold.amounts = amounts;
        } else {
            hold.amounts.extend(amounts);
        }
    }

    /// Holds what was held elsewhere, in place of what the request holds here. A window that is not known begins.
    pub(super) fn hold_again(&mut self, held: &HeldGroup) {
        self.remove(held.request);
        for HeldAmount { counter, span, amount, .. } in &held.amounts {
            match self.counter_mut(counter) {
                Some(known) if known.span.start > span.start => {}
                Some(known) if known.span.start == span.start => {
                    known.held = known.held.saturating_add(*amount)
                }
                _ => {
                    self.start_window(counter, *span, 0);
                    if let Some(begun) = self.counter_mut(counter) {
                        begun.held = begun.held.saturating_add(*amount);
                    }
                }
            }
        }
        self.earliest_lapse = self.earliest_lapse.min(held.lapses_at);
        let HeldGroup { request, lapses_at, amounts, .. } = held.clone();
        self.holds.insert(request, Hold { lapses_at, amounts });
    }

    /// Gives back the request's leases; tells whether nothing of its hold is left.
    pub(super) fn release(&mut self, request: RequestId) -> bool {
        let Some(hold) = self.holds.get_mut(&request) else { return true };
        for lease in hold.amounts.extract_if(.., |held| held.is_lease) {
            subtract(&mut self.counters, &lease);
        }
        let is_empty = hold.amounts.is_empty();
        if is_empty {
            self.holds.remove(&request);
        }
        is_empty
    }

    /// Removes the request's hold.
    pub(super) fn remove(&mut self, request: RequestId) {
        for held in self.holds.remove(&request).into_iter().flat_map(|hold| hold.amounts) {
            subtract(&mut self.counters, &held);
        }
    }

    /// Removes the holds that lapsed and names their requests. No hold lapses before `renewed_until`.
    pub(super) fn remove_lapsed(&mut self, now: Timestamp, renewed_until: Timestamp) -> Vec<RequestId> {
        if now < self.earliest_lapse.max(renewed_until) {
            return Vec::new();
        }
        let lapsed: Vec<RequestId> =
            self.holds.iter().filter(|(_, hold)| hold.lapses_at <= now).map(|(id, _)| *id).collect();
        for request in &lapsed {
            self.remove(*request);
        }
        let earliest = self.holds.values().map(|hold| hold.lapses_at).min();
        self.earliest_lapse = earliest.unwrap_or(Timestamp::from_millis(i64::MAX));
        lapsed
    }

    /// Where a counter stands. A window that has ended counts no more; one of the calendar ends whether it was
    /// used or not.
    pub(super) fn standing(&self, ask: &CounterAsk, now: Timestamp) -> Standing {
        let counter = self.counters.iter().find(|counter| counter.id == ask.counter);
        match counter.filter(|counter| ask.window.in_force(counter.span, now).is_some()) {
            Some(counter) => counter.standing(),
            None => Standing { resets_at: ask.window.known_end(), ..Standing::default() },
        }
    }

    /// Takes over what the store has. A window that began here after the recorded one stays: the recorded
    /// one had ended by then.
    pub(super) fn adopt(&mut self, records: &[CounterRecord]) {
        for CounterRecord { counter: id, span, booked } in records {
            match self.counter_mut(id) {
                Some(counter) if counter.span.start > span.start => {}
                Some(counter) if counter.span.start == span.start => counter.booked = *booked,
                _ => self.start_window(id, *span, *booked),
            }
        }
    }

    /// Takes over where counters stand, but for what is less than was booked before; tells whether that is nothing.
    pub(super) fn follow(&mut self, records: &[CounterRecord]) -> bool {
        let mut is_blank = false;
        for record in records {
            let known =
                self.counter_mut(&record.counter).filter(|known| known.span.start == record.span.start);
            let known = known.map_or(0, |known| known.booked);
            if known <= record.booked {
                self.adopt(std::slice::from_ref(record));
            } else {
                is_blank |= record.booked == 0;
            }
        }
        is_blank
    }

    /// What is held here, by whom.
    pub(super) fn holds(&self, id: &GroupId) -> impl Iterator<Item = HeldGroup> {
        self.holds.iter().map(|(request, hold)| HeldGroup {
            group: id.clone(),
            request: *request,
            lapses_at: hold.lapses_at,
            amounts: hold.amounts.clone(),
        })
    }

    /// What is booked here.
    pub(super) fn records(&self) -> Vec<CounterRecord> {
        let records = self.counters.iter().map(|Counter { id, span, booked, .. }| CounterRecord {
            counter: id.clone(),
            span: *span,
            booked: *booked,
        });
        records.collect()
    }

    /// The window that a use at `now` falls in; begins one if none runs.
    fn open_window(&mut self, id: &CounterId, window: WindowRule, now: Timestamp) -> Span {
        let running = self.counter_mut(id).and_then(|counter| window.in_force(counter.span, now));
        running.unwrap_or_else(|| {
            let span = window.opened(now);
            self.start_window(id, span, 0);
            span
        })
    }

    fn start_window(&mut self, id: &CounterId, span: Span, booked: u64) {
        let held = self
            .holds
            .values()
            .flat_map(|hold| &hold.amounts)
            .filter(|held| held.counter == *id && held.span.start == span.start)
            .fold(0, |sum: u64, held| sum.saturating_add(held.amount));
        let started = Counter { id: id.clone(), span, booked, held };
        match self.counter_mut(id) {
            Some(counter) => *counter = started,
            None => self.counters.push(started),
        }
    }

    fn counter_mut(&mut self, id: &CounterId) -> Option<&mut Counter> {
        self.counters.iter_mut().find(|counter| counter.id == *id)
    }
}

impl Counter {
    const fn standing(&self) -> Standing {
        Standing { booked: self.booked, held: self.held, resets_at: self.span.end }
    }
}

impl CounterRecord {
    /// What is booked where an amount is held.
    pub fn of(held: &Held) -> Self {
        Self { counter: held.counter.clone(), span: held.span, booked: held.standing.booked }
    }

    /// What is booked after a move.
    pub fn of_booked(moved: &Booked) -> Self {
        Self { counter: moved.counter.clone(), span: moved.span, booked: moved.after }
    }
}

fn subtract(counters: &mut [Counter], held: &HeldAmount) {
    let counter = counters.iter_mut().find(|counter| counter.id == held.counter);
    if let Some(counter) = counter.filter(|counter| counter.span.start == held.span.start) {
        counter.held = counter.held.saturating_sub(held.amount);
    }
}

/// What is booked in one window of a counter. CBOR map; unknown keys are skipped.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct CounterRecord {
    /// The counter.
    #[n(0)]
    #[cbor(with = "counter_name")]
    pub counter: CounterId,
    /// The window.
    #[n(1)]
    #[cbor(with = "span_times")]
    pub span: Span,
    /// What is booked in it.
    #[n(2)]
    pub booked: u64,
}
