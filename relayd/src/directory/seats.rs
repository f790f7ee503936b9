//! What a choice among accounts reads of each and calls change all the time: it lies side by side, so that looking at
//! a thousand accounts is reading some kilobytes in a row. A seat outlasts the snapshots that an account is in.

use std::array;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use shared::domain::Timestamp;

/// Seats that lie in one piece of memory, as many as a number has bits.
const BLOCK: u32 = u64::BITS;

/// Load and last use of one account.
#[derive(Default)]
pub(super) struct Figures {
    in_flight: AtomicU64,
    last_used: AtomicI64,
}

impl Figures {
    /// Calls that the account is serving now.
    pub(super) fn in_flight(&self) -> u64 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// When it was last chosen; the epoch if never.
    pub(super) fn last_used(&self) -> Timestamp {
        Timestamp::from_millis(self.last_used.load(Ordering::Relaxed))
    }

    /// A call goes to it.
    pub(super) fn enter(&self, now: Timestamp) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.last_used.fetch_max(now.as_millis(), Ordering::Relaxed);
    }

    /// A call has ended.
    pub(super) fn leave(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Block {
    /// A bit for each seat.
    taken: AtomicU64,
    figures: [Figures; BLOCK as usize],
    /// Looked at for few of those that are seen, and kept out of the way.
    rests_until: [AtomicI64; BLOCK as usize],
}

impl Block {
    fn new() -> Self {
        Self {
            taken: AtomicU64::new(0),
            figures: array::from_fn(|_| Figures::default()),
            rests_until: array::from_fn(|_| AtomicI64::default()),
        }
    }

    /// Takes a seat that is free, if one is.
    fn take(&self) -> Option<u32> {
        let first_free = |taken: u64| taken.checked_add(1).map(|_| taken | (taken + 1));
        let before = self.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, first_free).ok()?;
        let place = before.trailing_ones();
        let figures = &self.figures[place as usize];
        figures.in_flight.store(0, Ordering::Relaxed);
        figures.last_used.store(0, Ordering::Relaxed);
        self.rest(place, None);
        Some(place)
    }

    fn rest(&self, place: u32, until: Option<Timestamp>) {
        let until = until.map_or(i64::MIN, Timestamp::as_millis);
        self.rests_until[place as usize].store(until, Ordering::Release);
    }
}

/// All seats. Blocks are added and never taken away: a clone sees those that were there, at the same numbers.
#[derive(Clone, Default)]
pub(super) struct Seats(Vec<Arc<Block>>);

impl Seats {
    /// Gives a seat to an account.
    pub(super) fn take(&mut self) -> Seat {
        let free = self.0.iter().zip(0..).find_map(|(block, number)| Some((block, number, block.take()?)));
        if let Some((block, number, place)) = free {
            return Seat { block: block.clone(), number: number * BLOCK + place };
        }
        let block = Arc::new(Block::new());
        let number = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        self.0.push(block.clone());
        let place = block.take().unwrap_or_default();
        Seat { block, number: number.saturating_mul(BLOCK) + place }
    }

    /// What stands at a seat.
    pub(super) fn figures(&self, number: u32) -> &Figures {
        &self.0[(number / BLOCK) as usize].figures[(number % BLOCK) as usize]
    }

    /// Whether the account at a seat may rest from some calls then. One that does not rests from none.
    pub(super) fn may_rest(&self, number: u32, now: Timestamp) -> bool {
        let block = &self.0[(number / BLOCK) as usize];
        block.rests_until[(number % BLOCK) as usize].load(Ordering::Acquire) > now.as_millis()
    }
}

/// An account's seat. Dropping it leaves it to another.
pub(super) struct Seat {
    block: Arc<Block>,
    number: u32,
}

impl Seat {
    pub(super) fn figures(&self) -> &Figures {
        &self.block.figures[(self.number % BLOCK) as usize]
    }

    /// Takes note of the end of all rests of the account.
    pub(super) fn rest(&self, until: Option<Timestamp>) {
        self.block.rest(self.number % BLOCK, until);
    }

    /// Tells it from all others.
    pub(super) const fn number(&self) -> u32 {
        self.number
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.block.taken.fetch_and(!(1 << (self.number % BLOCK)), Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seat_that_was_left_is_taken_anew() {
        let mut seats = Seats::default();
        let mut taken: Vec<Seat> = (0..150).map(|_| seats.take()).collect();
        let numbers: Vec<u32> = taken.iter().map(Seat::number).collect();
        assert_eq!(numbers, (0..150).collect::<Vec<_>>());
        let now = Timestamp::from_millis(5);
        taken.iter().for_each(|seat| seat.figures().enter(now));
        taken[70].rest(Some(now));
        let earlier = seats.clone();
        assert_eq!(earlier.figures(70).in_flight(), 1);
        assert!(earlier.may_rest(70, Timestamp::from_millis(4)) && !earlier.may_rest(70, now));
        taken.remove(70);
        let seat = seats.take();
        let figures = seat.figures();
        assert_eq!((seat.number(), figures.in_flight()), (70, 0), "nothing is left of whose it was");
        assert_eq!(figures.last_used(), Timestamp::from_millis(0));
        assert!(!seats.may_rest(70, Timestamp::from_millis(-1)));
        assert_eq!(seats.take().number(), 150);
    }
}
