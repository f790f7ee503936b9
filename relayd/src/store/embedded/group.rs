//! One group of counters in memory: windows, what is booked in them, who holds what. No locks, no clock.

use std::collections::HashMap;
use std::time::Duration;

use ahash::RandomState;
use minicbor::{Decode, Encode};
use shared::domain::{RequestId, Timestamp};

use crate::store::entry::{counter_name, span_times};
use crate::store::{Booked, Booking, CounterAsk, CounterId, GroupId, Held, Mark, Span, Standing, WindowRule};

/// How long what was booked in a window is kept after its end: for those who ask late, and no longer, for the
/// counters of limits that are gone would pile up.
const KEPT_AFTER_END: Duration = Duration::from_secs(24 * 3_600);

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

#[derive(Clone, Debug)]
struct HeldAmount {
    counter: CounterId,
    is_lease: bool,
    span: Span,
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

    /// Takes over what the database has. A window that began here after the recorded one stays: the recorded
    /// one had ended by then.
    pub(super) fn adopt(&mut self, record: &GroupRecord) {
        for CounterRecord { counter: id, span, booked } in &record.counters {
            match self.counter_mut(id) {
                Some(counter) if counter.span.start > span.start => {}
                Some(counter) if counter.span.start == span.start => counter.booked = *booked,
                _ => self.start_window(id, *span, *booked),
            }
        }
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

fn subtract(counters: &mut [Counter], held: &HeldAmount) {
    let counter = counters.iter_mut().find(|counter| counter.id == held.counter);
    if let Some(counter) = counter.filter(|counter| counter.span.start == held.span.start) {
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

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
struct CounterRecord {
    #[n(0)]
    #[cbor(with = "counter_name")]
    counter: CounterId,
    #[n(1)]
    #[cbor(with = "span_times")]
    span: Span,
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

    /// The counters in which something was booked since `before`.
    pub(super) fn moved_from(&self, before: Option<&Self>, group: &GroupId) -> Vec<Booked> {
        let booked_before = |counter: &CounterId, span: &Span| {
            let records = before.into_iter().flat_map(|before| &before.counters);
            let mut same =
                records.filter(|known| known.counter == *counter && known.span.start == span.start);
            same.next().map_or(0, |known| known.booked)
        };
        let moves = self.counters.iter().map(|CounterRecord { counter, span, booked }| Booked {
            group: group.clone(),
            counter: counter.clone(),
            span: *span,
            before: booked_before(counter, span),
            after: *booked,
        });
        moves.filter(|moved| moved.before != moved.after).collect()
    }

    /// Forgets windows that are long over at `now`.
    pub(super) fn forget_ended(&mut self, now: Timestamp) {
        self.counters.retain(|record| record.span.end.is_none_or(|end| now.since(end) < KEPT_AFTER_END));
    }

    /// A booking for a window that is over changes nothing; one for a later window starts that window.
    fn add(&mut self, booking: &Booking) {
        let Booking { counter, span, amount, .. } = booking;
        match self.counters.iter_mut().find(|record| record.counter == *counter) {
            Some(record) if record.span.start > span.start => {}
            Some(record) if record.span.start == span.start => {
                record.booked = record.booked.saturating_add(*amount);
            }
            Some(record) => (record.span, record.booked) = (*span, *amount),
            None => {
                let (counter, span, booked) = (counter.clone(), *span, *amount);
                self.counters.push(CounterRecord { counter, span, booked });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn booking(start: i64, amount: u64) -> Booking {
        let counter = CounterId::named("requests per minute").unwrap();
        let span = Span { start: at(start), end: Some(at(start + 60_000)) };
        Booking { group: "key:a".into(), counter, span, amount }
    }

    fn in_total(amount: u64) -> Booking {
        let counter = CounterId::named("tokens in total").unwrap();
        Booking { group: "key:a".into(), counter, span: Span::ENDLESS, amount }
    }

    #[test]
    fn bookings_go_to_their_window() {
        for (name, bookings, expected) in [
            ("same window", vec![booking(5, 1), booking(5, 2)], (5, 3)),
            ("a later window starts", vec![booking(5, 1), booking(70_000, 2)], (70_000, 2)),
            ("an older window is over", vec![booking(70_000, 2), booking(5, 1)], (70_000, 2)),
            ("a lifetime is one window", vec![in_total(1), in_total(2)], (0, 3)),
            ("sums saturate", vec![booking(5, u64::MAX), booking(5, 2)], (5, u64::MAX)),
        ] {
            let mut record = GroupRecord::default();
            for (sequence, booking) in (1..).zip(&bookings) {
                record.book(Mark { lane: 0, epoch: 1, sequence }, std::iter::once(booking));
            }
            let found: Vec<_> =
                record.counters.iter().map(|c| (c.span.start.as_millis(), c.booked)).collect();
            assert_eq!(found, [expected], "{name}");
        }
    }

    #[test]
    fn a_mark_is_booked_once() {
        let booking = in_total(1);
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

    #[test]
    fn windows_that_are_long_over_are_forgotten() {
        let mut record = GroupRecord::default();
        let mark = Mark { lane: 0, epoch: 1, sequence: 1 };
        record.book(mark, [booking(0, 1), in_total(1)].iter());
        let day = i64::try_from(KEPT_AFTER_END.as_millis()).unwrap();
        record.forget_ended(at(60_000 + day - 1));
        assert_eq!(record.counters.len(), 2);
        record.forget_ended(at(60_000 + day));
        assert_eq!(
            record.counters.iter().map(|c| c.counter.as_str()).collect::<Vec<_>>(),
            ["tokens in total"]
        );
    }
}
