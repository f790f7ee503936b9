//! One group of counters in memory: windows, what is booked in them, who holds what. No locks, no clock.

use std::collections::HashMap;

use ahash::RandomState;
use minicbor::{Decode, Encode};
use shared::domain::{RequestId, Timestamp};

use crate::limits::window;
use crate::store::entry::counter_code;
use crate::store::{Booking, CounterAsk, CounterId, GroupId, Held, Mark, Standing, WindowRule};

/// Counters that have no fixed windows have one window, which began at the dawn of time: so a booking finds it
/// whenever the first use was.
const ENDLESS_START: Timestamp = Timestamp::from_millis(0);

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
    window_start: Timestamp,
    booked: u64,
    /// The sum of what the holds hold in this window.
    held: u64,
}

#[derive(Debug)]
struct Hold {
    lapses_at: Timestamp,
    amounts: Vec<HeldAmount>,
}

#[derive(Clone, Copy, Debug)]
struct HeldAmount {
    counter: CounterId,
    window_start: Timestamp,
    amount: u64,
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
            let standing = self.standing(ask.counter, now);
            let taken = standing.booked.checked_add(standing.held);
            let total = taken.and_then(|taken| taken.checked_add(ask.amount));
            let fits = total.is_some_and(|total| total <= ask.limit);
            (!fits).then_some((*ask, standing))
        })
    }

    /// Holds what was asked, in the windows that run now, and lists what may be booked later. The asks must
    /// have been judged under the same lock. A counter that is asked twice is held once, with the larger
    /// amount: it will be booked once.
    pub(super) fn hold(&mut self, group: &GroupId, ask: Ask<'_>, held: &mut Vec<Held>) {
        let mut amounts: Vec<HeldAmount> = Vec::with_capacity(ask.counters.len());
        for &CounterAsk { counter, amount, .. } in ask.counters {
            match amounts.iter_mut().find(|held| held.counter == counter) {
                Some(held) => held.amount = held.amount.max(amount),
                None => {
                    let window_start = self.open_window(counter, ask.now);
                    amounts.push(HeldAmount { counter, window_start, amount });
                }
            }
        }
        for &HeldAmount { counter, window_start, amount } in &amounts {
            if let Some(counter) = self.counter_mut(counter) {
                counter.held = counter.held.saturating_add(amount);
            }
            if counter.window != WindowRule::Now {
                held.push(Held { group: group.clone(), counter, window_start, amount });
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

    /// Gives back the request's leases; tells whether nothing of its hold is left.
    pub(super) fn release(&mut self, request: RequestId) -> bool {
        let Some(hold) = self.holds.get_mut(&request) else { return true };
        for lease in hold.amounts.extract_if(.., |held| held.counter.window == WindowRule::Now) {
            subtract(&mut self.counters, lease);
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
            subtract(&mut self.counters, held);
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

    /// Where a counter stands. A window that has ended counts no more.
    pub(super) fn standing(&self, id: CounterId, now: Timestamp) -> Standing {
        match self.counters.iter().find(|counter| counter.id == id) {
            Some(counter) if counter.is_in_force(now) => Standing {
                booked: counter.booked,
                held: counter.held,
                resets_at: window::opened(id.window, counter.window_start).and_then(|window| window.end),
            },
            _ => Standing::default(),
        }
    }

    /// Takes over what the database has. A window that began here after the recorded one stays: the recorded
    /// one had ended by then.
    pub(super) fn adopt(&mut self, record: &GroupRecord) {
        for &CounterRecord { counter: id, window_start, booked } in &record.counters {
            match self.counter_mut(id) {
                Some(counter) if counter.window_start > window_start => {}
                Some(counter) if counter.window_start == window_start => counter.booked = booked,
                _ => self.start_window(id, window_start, booked),
            }
        }
    }

    /// The start of the window that a use at `now` falls in; begins one if none runs.
    fn open_window(&mut self, id: CounterId, now: Timestamp) -> Timestamp {
        match self.counter_mut(id) {
            Some(counter) if counter.is_in_force(now) => counter.window_start,
            _ => {
                let window_start = match id.window {
                    WindowRule::Fixed(_) => now,
                    WindowRule::Now | WindowRule::Lifetime => ENDLESS_START,
                };
                self.start_window(id, window_start, 0);
                window_start
            }
        }
    }

    fn start_window(&mut self, id: CounterId, window_start: Timestamp, booked: u64) {
        let held = self
            .holds
            .values()
            .flat_map(|hold| &hold.amounts)
            .filter(|held| held.counter == id && held.window_start == window_start)
            .fold(0, |sum: u64, held| sum.saturating_add(held.amount));
        let started = Counter { id, window_start, booked, held };
        match self.counter_mut(id) {
            Some(counter) => *counter = started,
            None => self.counters.push(started),
        }
    }

    fn counter_mut(&mut self, id: CounterId) -> Option<&mut Counter> {
        self.counters.iter_mut().find(|counter| counter.id == id)
    }
}

impl Counter {
    /// Whether its window still runs; a counter of leases has none that could end.
    fn is_in_force(&self, now: Timestamp) -> bool {
        self.id.window == WindowRule::Now
            || window::in_force(self.id.window, Some(self.window_start), now).is_some()
    }
}

fn subtract(counters: &mut [Counter], held: HeldAmount) {
    let counter = counters.iter_mut().find(|counter| counter.id == held.counter);
    if let Some(counter) = counter.filter(|counter| counter.window_start == held.window_start) {
        counter.held = counter.held.saturating_sub(held.amount);
    }
}

/// What the database keeps of a group. CBOR map; unknown keys are skipped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct GroupRecord {
    #[n(0)]
    counters: Vec<CounterRecord>,
    /// The last record applied to this group, one for each lane.
    #[n(1)]
    marks: Vec<Mark>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
struct CounterRecord {
    #[n(0)]
    #[cbor(with = "counter_code")]
    counter: CounterId,
    #[n(1)]
    window_start: Timestamp,
    #[n(2)]
    booked: u64,
}

impl GroupRecord {
    /// Books what an entry says of this group, unless the entry was applied before.
    pub(super) fn book<'a>(&mut self, mark: Mark, bookings: impl Iterator<Item = &'a Booking>) {
        match self.marks.iter_mut().find(|applied| applied.lane == mark.lane) {
            Some(applied) if *applied >= mark => return,
            Some(applied) => *applied = mark,
            None => self.marks.push(mark),
        }
        bookings.for_each(|booking| self.add(booking));
    }

    /// A booking for a window that is over changes nothing; one for a later window starts that window.
    fn add(&mut self, booking: &Booking) {
        let window_start = match booking.counter.window {
            WindowRule::Now => return,
            WindowRule::Fixed(_) => booking.window_start,
            WindowRule::Lifetime => ENDLESS_START,
        };
        let booked = booking.amount;
        match self.counters.iter_mut().find(|record| record.counter == booking.counter) {
            Some(record) if record.window_start > window_start => {}
            Some(record) if record.window_start == window_start => {
                record.booked = record.booked.saturating_add(booked);
            }
            Some(record) => (record.window_start, record.booked) = (window_start, booked),
            None => self.counters.push(CounterRecord { counter: booking.counter, window_start, booked }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use shared::domain::limit::Metric;

    use super::*;

    fn counter(window: WindowRule) -> CounterId {
        CounterId { metric: Metric::Requests, window }
    }

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn booking(window: WindowRule, start: i64, amount: u64) -> Booking {
        Booking { group: "key:a".into(), counter: counter(window), window_start: at(start), amount }
    }

    #[test]
    fn bookings_go_to_their_window() {
        let minute = WindowRule::Fixed(Duration::from_secs(60));
        for (name, bookings, expected) in [
            ("same window", vec![booking(minute, 5, 1), booking(minute, 5, 2)], Some((5, 3))),
            (
                "a later window starts",
                vec![booking(minute, 5, 1), booking(minute, 70_000, 2)],
                Some((70_000, 2)),
            ),
            (
                "an older window is over",
                vec![booking(minute, 70_000, 2), booking(minute, 5, 1)],
                Some((70_000, 2)),
            ),
            (
                "a lifetime is one window",
                vec![booking(WindowRule::Lifetime, 9, 1), booking(WindowRule::Lifetime, 5, 2)],
                Some((0, 3)),
            ),
            ("leases are never booked", vec![booking(WindowRule::Now, 0, 1)], None),
            ("sums saturate", vec![booking(minute, 5, u64::MAX), booking(minute, 5, 2)], Some((5, u64::MAX))),
        ] {
            let mut record = GroupRecord::default();
            for (sequence, booking) in (1..).zip(&bookings) {
                record.book(Mark { lane: 0, epoch: 1, sequence }, std::iter::once(booking));
            }
            let found = record.counters.first().map(|c| (c.window_start.as_millis(), c.booked));
            assert_eq!(found, expected, "{name}");
        }
    }

    #[test]
    fn a_mark_is_booked_once() {
        let booking = booking(WindowRule::Lifetime, 0, 1);
        let mut record = GroupRecord::default();
        for (lane, epoch, sequence, expected) in
            [(0, 1, 4, 1), (0, 1, 4, 1), (0, 1, 3, 1), (1, 1, 3, 2), (0, 1, 5, 3), (0, 2, 1, 4), (0, 1, 9, 4)]
        {
            record.book(Mark { lane, epoch, sequence }, std::iter::once(&booking));
            assert_eq!(record.counters[0].booked, expected, "{lane} {epoch} {sequence}");
        }
        let bytes = minicbor::to_vec(&record).unwrap();
        assert_eq!(minicbor::decode::<GroupRecord>(&bytes).unwrap(), record);
    }
}
