//! What the database keeps of a group: what is booked in its counters, and the marks of what was applied to it.

use std::time::Duration;

use minicbor::{Decode, Encode};
use shared::domain::Timestamp;

use crate::store::memory::CounterRecord;
use crate::store::{Booked, Booking, CounterId, GroupId, GroupState, Mark, Span};

/// How long what was booked in a window is kept after its end: for those who ask late, and no longer, for the
/// counters of limits that are gone would pile up.
const KEPT_AFTER_END: Duration = Duration::from_secs(24 * 3_600);

/// What the database keeps of a group. CBOR map; unknown keys are skipped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct GroupRecord {
    #[n(0)]
    pub(super) counters: Vec<CounterRecord>,
    /// The last record applied to this group, one for each lane of a node.
    #[n(1)]
    marks: Vec<Mark>,
}

impl GroupRecord {
    /// A group that has everything up to these marks, and has booked nothing.
    pub(super) fn unused(marks: Vec<Mark>) -> Self {
        Self { counters: Vec::new(), marks }
    }

    /// The record as it is moved.
    pub(super) fn state(self, group: GroupId) -> GroupState {
        let Self { mut counters, mut marks } = self;
        counters.sort_unstable_by(|one, other| one.counter.cmp(&other.counter));
        marks.sort_unstable();
        GroupState { group, counters, marks }
    }

    /// What was moved.
    pub(super) fn of(state: &GroupState) -> Self {
        Self { counters: state.counters.clone(), marks: state.marks.clone() }
    }

    /// Books what an entry says of this group, unless the entry was applied before.
    pub(super) fn book<'a>(&mut self, mark: Mark, bookings: impl Iterator<Item = &'a Booking>) {
        match self.marks.iter_mut().find(|applied| applied.writer() == mark.writer()) {
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

    /// Sets a counter, if it stands where it is said to stand; tells whether it was set.
    pub(super) fn correct(&mut self, change: &Booked) -> bool {
        let Booked { counter, span, before, after, .. } = change;
        match self.counters.iter_mut().find(|record| record.counter == *counter) {
            Some(record) if record.span.start == span.start && record.booked == *before => {
                record.booked = *after;
            }
            Some(record) if record.span.start < span.start && *before == 0 => {
                (record.span, record.booked) = (*span, *after);
            }
            None if *before == 0 => {
                let (counter, span, booked) = (counter.clone(), *span, *after);
                self.counters.push(CounterRecord { counter, span, booked });
            }
            Some(_) | None => return false,
        }
        true
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
                record.book(Mark { node: 7, lane: 0, epoch: 1, sequence }, std::iter::once(booking));
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
        for (node, lane, epoch, sequence, expected) in [
            (7, 0, 1, 4, 1),
            (7, 0, 1, 4, 1),
            (7, 0, 1, 3, 1),
            (7, 1, 1, 3, 2),
            (7, 0, 1, 5, 3),
            (7, 0, 2, 1, 4),
            (7, 0, 1, 9, 4),
            (8, 0, 1, 9, 5),
        ] {
            record.book(Mark { node, lane, epoch, sequence }, std::iter::once(&booking));
            assert_eq!(record.counters[0].booked, expected, "{node} {lane} {epoch} {sequence}");
        }
        let bytes = minicbor::to_vec(&record).unwrap();
        assert_eq!(minicbor::decode::<GroupRecord>(&bytes).unwrap(), record);
    }

    #[test]
    fn windows_that_are_long_over_are_forgotten() {
        let mut record = GroupRecord::default();
        let mark = Mark { node: 7, lane: 0, epoch: 1, sequence: 1 };
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
