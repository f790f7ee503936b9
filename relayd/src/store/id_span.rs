//! A request's id begins with the time of its opening, so that a span of ids is a span of time.

use shared::domain::{RequestId, Timestamp};

use super::RowQuery;

const HOUR_MS: i64 = 3_600_000;

/// The ids from `first` on and below `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct IdSpan {
    pub(super) first: u128,
    pub(super) end: u128,
}

impl IdSpan {
    /// The ids that a query asks for.
    pub(super) fn of(query: &RowQuery) -> Self {
        if let Some(id) = query.id {
            return Self { first: id.as_u128(), end: id.as_u128().saturating_add(1) };
        }
        let first = query.since.map_or(0, first_id);
        let end = query.until.map_or(u128::MAX, first_id);
        Self { first, end: query.before.map_or(end, |before| end.min(before.as_u128())) }
    }

    /// What of it lies in an hour.
    pub(super) fn within_hour(self, hour: Timestamp) -> Self {
        let next = Timestamp::from_millis(hour.as_millis().saturating_add(HOUR_MS));
        Self { first: self.first.max(first_id(hour)), end: self.end.min(first_id(next)) }
    }

    /// No id is in it.
    pub(super) const fn is_empty(self) -> bool {
        self.first >= self.end
    }

    /// The first and the last hour that it touches.
    pub(super) fn hours(self) -> (Timestamp, Timestamp) {
        (hour_of(self.first), hour_of(self.end))
    }
}

/// The lowest id that a request opened at this time can have.
pub(super) fn first_id(time: Timestamp) -> u128 {
    match time.as_millis() {
        ..0 => 0,
        millis if millis < 1 << 48 => RequestId::new(time, [0; 10]).as_u128(),
        _ => u128::MAX,
    }
}

/// The UTC hour in which a request was opened, by its id.
pub(super) fn hour_of(id: u128) -> Timestamp {
    // 48 bits are left.
    Timestamp::from_millis(i64::try_from(id >> 80).unwrap_or(i64::MAX)).hour()
}
