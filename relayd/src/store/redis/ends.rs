//! Ends of holds that the server has not heard of yet. Telling it must not wait, so each is kept here until some
//! call to the server has carried it along: the next one on its group at the latest, so that no reserve is refused
//! for what was given back before it.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ahash::RandomState;
use redis::Cmd;
use shared::domain::RequestId;

use crate::store::GroupId;

/// What a request lets go of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Extent {
    /// Its leases.
    Leases,
    /// All that it holds.
    Everything,
}

/// A request lets go of something that it held until a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct HoldEnd {
    pub(super) request: RequestId,
    pub(super) extent: Extent,
    /// What it asked for later stays.
    pub(super) turn: u64,
}

impl HoldEnd {
    fn add_to(self, command: &mut Cmd) {
        let kind = match self.extent {
            Extent::Leases => "r",
            Extent::Everything => "u",
        };
        command.arg(kind).arg(&self.request.as_u128().to_be_bytes()).arg(self.turn);
    }
}

/// Adds ends to a script's arguments, their number first.
pub(super) fn add_all(ends: &[HoldEnd], command: &mut Cmd) {
    command.arg(ends.len());
    ends.iter().for_each(|end| end.add_to(command));
}

/// How many are kept while the server is away.
const ENDS_MAX: usize = 100_000;
/// How many a call carries along at most, and so does a command that carries nothing else.
pub(super) const CARRIED_MAX: usize = 500;

/// By group.
#[derive(Default)]
pub(super) struct HoldEnds {
    waiting: Mutex<HashMap<GroupId, Vec<HoldEnd>, RandomState>>,
    /// How many there are, so that nobody takes the lock for nothing.
    count: AtomicUsize,
}

impl HoldEnds {
    /// Beyond a bound they are not kept: what is held then lapses.
    pub(super) fn add(&self, group: &GroupId, end: HoldEnd) {
        if self.count.load(Ordering::Relaxed) >= ENDS_MAX {
            return;
        }
        let mut waiting = self.waiting();
        waiting.entry(group.clone()).or_default().push(end);
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// Those of a group.
    pub(super) fn of(&self, group: &GroupId) -> Vec<HoldEnd> {
        if self.count.load(Ordering::Relaxed) == 0 {
            return Vec::new();
        }
        let waiting = self.waiting();
        let of_group = waiting.get(group).map(|ends| &ends[..ends.len().min(CARRIED_MAX)]);
        of_group.unwrap_or_default().to_vec()
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<(GroupId, Vec<HoldEnd>)> {
        if self.count.load(Ordering::Relaxed) == 0 {
            return Vec::new();
        }
        self.waiting().iter().map(|(group, ends)| (group.clone(), ends.clone())).collect()
    }

    /// The server has carried these out.
    pub(super) fn done(&self, group: &GroupId, ends: &[HoldEnd]) {
        if ends.is_empty() {
            return;
        }
        let mut waiting = self.waiting();
        let Some(of_group) = waiting.get_mut(group) else { return };
        let (before, done) = (of_group.len(), HashSet::<_, RandomState>::from_iter(ends));
        of_group.retain(|end| !done.contains(end));
        self.count.fetch_sub(before - of_group.len(), Ordering::Relaxed);
        if of_group.is_empty() {
            waiting.remove(group);
        }
    }

    /// Those that are pointless: of requests whose holds were replaced by bookings in all groups.
    pub(super) fn forget(&self, group: &GroupId, requests: &[RequestId]) {
        if self.count.load(Ordering::Relaxed) == 0 {
            return;
        }
        let ends: Vec<HoldEnd> =
            self.of(group).into_iter().filter(|end| requests.contains(&end.request)).collect();
        self.done(group, &ends);
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<GroupId, Vec<HoldEnd>, RandomState>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(request: u128, turn: u64) -> HoldEnd {
        HoldEnd { request: RequestId::from_u128(request), extent: Extent::Leases, turn }
    }

    #[test]
    fn an_end_waits_until_it_is_done() {
        let (ends, group, other) = (HoldEnds::default(), GroupId::from("key:a"), GroupId::from("key:b"));
        assert!(ends.of(&group).is_empty() && ends.all().is_empty());
        for (group, end) in [(&group, end(1, 1)), (&group, end(2, 1)), (&other, end(3, 2))] {
            ends.add(group, end);
        }
        assert_eq!(ends.of(&group), [end(1, 1), end(2, 1)]);
        ends.done(&group, &[end(1, 1), end(9, 9)]);
        assert_eq!(ends.of(&group), [end(2, 1)]);
        ends.done(&group, &[end(2, 1)]);
        ends.done(&group, &[end(2, 1)]);
        assert_eq!(ends.all(), [(other.clone(), vec![end(3, 2)])]);
        ends.forget(&other, &[RequestId::from_u128(3)]);
        assert!(ends.all().is_empty());
        assert_eq!(ends.count.into_inner(), 0);
    }
}
