//! All groups in memory, behind sharded locks. Nothing here waits for anything but a lock that is held for
//! microseconds; whatever lasts is told elsewhere.

mod group;

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ahash::RandomState;
use shared::domain::{RequestId, Timestamp};

pub use self::group::{CounterRecord, HeldAmount};

use self::group::{Ask, Group};
use crate::store::{CounterAsk, GroupId, Held, Refusal, Reservation, Standing, Verdict};

const SHARDS: usize = 32;

type Groups = HashMap<GroupId, Group, RandomState>;
type Requests = HashMap<RequestId, Vec<GroupId>, RandomState>;

/// The groups, and which of them every request holds something in. Locks are taken in the order of the group
/// shards, then at most one of the request shards.
pub struct Counters {
    groups: Vec<Mutex<Groups>>,
    requests: Vec<Mutex<Requests>>,
    hasher: RandomState,
    renewed_until: AtomicI64,
}

/// What a batch means for one group.
#[derive(Default)]
pub struct Settlement {
    /// What the store now has of the counters that the batch moved, or of all.
    pub records: Vec<CounterRecord>,
    /// The requests whose holds end.
    pub requests: Vec<RequestId>,
}

/// What a request holds in a group.
#[derive(Clone, Debug)]
pub struct HeldGroup {
    /// The group.
    pub group: GroupId,
    /// The request.
    pub request: RequestId,
    /// Until when, unless it is renewed.
    pub lapses_at: Timestamp,
    /// How much of what.
    pub amounts: Vec<HeldAmount>,
}

impl Counters {
    /// Starts from what the store has.
    pub fn new(records: impl IntoIterator<Item = (GroupId, Vec<CounterRecord>)>) -> Self {
        let counters = Self {
            groups: (0..SHARDS).map(|_| Mutex::default()).collect(),
            requests: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            renewed_until: AtomicI64::new(i64::MIN),
        };
        for (id, records) in records {
            counters.with_group(&id, |group| group.adopt(&records));
        }
        counters
    }

    pub fn reserve(&self, reservation: &Reservation<'_>) -> Verdict {
        let &Reservation { request, now, lapses_at, groups } = reservation;
        let mut shards = self.lock_all(groups.iter().map(|ask| self.shard(ask.group)).collect());
        for ask in groups {
            let group = shards.group(self.shard(ask.group), ask.group);
            self.drop_lapsed(ask.group, group, now);
            if let Some((refused, standing)) = group.refusal(ask.counters, now) {
                let refusal = Refusal { group: ask.group.clone(), ask: refused, standing };
                return Verdict::Refused(refusal);
            }
        }
        let mut held = Vec::with_capacity(groups.iter().map(|ask| ask.counters.len()).sum());
        for ask in groups {
            let group = shards.group(self.shard(ask.group), ask.group);
            group.hold(ask.group, Ask { request, now, lapses_at, counters: ask.counters }, &mut held);
        }
        self.note_groups(reservation);
        Verdict::Admitted(held)
    }

    /// Holds what a call was admitted with elsewhere, and takes over where its counters stand there, but for what is
    /// less than was booked before: an answer may be late, or come from a store that was emptied. Tells whether a
    /// counter stands there as if nothing had been booked.
    pub fn follow(&self, reservation: &Reservation<'_>, admitted: &[Held]) -> bool {
        let &Reservation { request, now, lapses_at, groups } = reservation;
        let mut shards = self.lock_all(groups.iter().map(|ask| self.shard(ask.group)).collect());
        let (mut held, mut is_blank) = (Vec::with_capacity(admitted.len()), false);
        for ask in groups {
            let group = shards.group(self.shard(ask.group), ask.group);
            self.drop_lapsed(ask.group, group, now);
            let of_group = admitted.iter().filter(|held| held.group == *ask.group);
            let records: Vec<CounterRecord> = of_group.clone().map(CounterRecord::of).collect();
            is_blank |= group.follow(&records);
            // Whose clock is ahead must not begin windows while those that were held in still run there.
            let ends = of_group.filter_map(|held| held.span.end);
            let now = ends.map(last_moment).min().map_or(now, |last| last.min(now));
            group.hold(ask.group, Ask { request, now, lapses_at, counters: ask.counters }, &mut held);
        }
        self.note_groups(reservation);
        is_blank
    }

    /// Holds what was held elsewhere, in the windows in which it was held.
    pub fn hold_again(&self, held: &HeldGroup) {
        let HeldGroup { group, request, .. } = held;
        self.with_group(group, |members| members.hold_again(held));
        let mut requests = self.requests_of(*request);
        let holding = requests.entry(*request).or_default();
        if !holding.contains(group) {
            holding.push(group.clone());
        }
    }

    pub fn release(&self, request: RequestId, group: &GroupId) {
        let mut groups = locked(&self.groups[self.shard(group)]);
        if let Some(members) = groups.get_mut(group)
            && members.release(request)
        {
            self.forget(request, group);
        }
    }

    pub fn give_back(&self, request: RequestId, group: &GroupId) {
        let mut groups = locked(&self.groups[self.shard(group)]);
        if let Some(members) = groups.get_mut(group) {
            members.remove(request);
            self.forget(request, group);
        }
    }

    pub fn renew_holds(&self, until: Timestamp) {
        self.renewed_until.fetch_max(until.as_millis(), Ordering::Relaxed);
    }

    pub fn standings(&self, id: &GroupId, counters: &[CounterAsk], now: Timestamp) -> Vec<Standing> {
        let mut groups = locked(&self.groups[self.shard(id)]);
        let Some(group) = groups.get_mut(id) else {
            let unused = Group::default();
            return counters.iter().map(|ask| unused.standing(ask, now)).collect();
        };
        self.drop_lapsed(id, group, now);
        counters.iter().map(|ask| group.standing(ask, now)).collect()
    }

    /// The groups that a request holds something in.
    pub fn groups_of(&self, request: RequestId) -> Vec<GroupId> {
        self.requests_of(request).get(&request).cloned().unwrap_or_default()
    }

    /// Everything that is held.
    pub fn holds(&self) -> Vec<HeldGroup> {
        let renewed_until = Timestamp::from_millis(self.renewed_until.load(Ordering::Relaxed));
        let shards = self.groups.iter().flat_map(|shard| {
            let groups = locked(shard);
            groups.iter().flat_map(|(id, group)| group.holds(id)).collect::<Vec<_>>()
        });
        shards.map(|held| HeldGroup { lapses_at: held.lapses_at.max(renewed_until), ..held }).collect()
    }

    /// What is booked in every group.
    pub fn records(&self) -> Vec<(GroupId, Vec<CounterRecord>)> {
        let shards = self.groups.iter().flat_map(|shard| {
            let groups = locked(shard);
            groups.iter().map(|(id, group)| (id.clone(), group.records())).collect::<Vec<_>>()
        });
        shards.collect()
    }

    /// The groups that a request holds something in; they are forgotten, so each must be settled next.
    pub fn take_groups_of(&self, request: RequestId) -> Vec<GroupId> {
        self.requests_of(request).remove(&request).unwrap_or_default()
    }

    /// Takes over what was booked and ends the holds that it replaces, in one step: no reader sees an amount
    /// both held and booked, or neither.
    pub fn settle(&self, id: &GroupId, settlement: &Settlement) {
        self.with_group(id, |group| {
            for request in &settlement.requests {
                group.remove(*request);
            }
            group.adopt(&settlement.records);
        });
    }

    fn note_groups(&self, Reservation { request, groups, .. }: &Reservation<'_>) {
        let mut requests = self.requests_of(*request);
        let holding = requests.entry(*request).or_default();
        for ask in *groups {
            if !holding.contains(ask.group) {
                holding.push(ask.group.clone());
            }
        }
    }

    fn with_group(&self, id: &GroupId, change: impl FnOnce(&mut Group)) {
        let mut groups = locked(&self.groups[self.shard(id)]);
        change(groups.entry(id.clone()).or_default());
    }

    fn drop_lapsed(&self, id: &GroupId, group: &mut Group, now: Timestamp) {
        let renewed_until = Timestamp::from_millis(self.renewed_until.load(Ordering::Relaxed));
        for request in group.remove_lapsed(now, renewed_until) {
            self.forget(request, id);
        }
    }

    fn forget(&self, request: RequestId, group: &GroupId) {
        let mut requests = self.requests_of(request);
        if let Some(holding) = requests.get_mut(&request) {
            holding.retain(|held| held != group);
            if holding.is_empty() {
                requests.remove(&request);
            }
        }
    }

    fn requests_of(&self, request: RequestId) -> MutexGuard<'_, Requests> {
        locked(&self.requests[self.shard(&request)])
    }

    fn shard(&self, key: &impl Hash) -> usize {
        // The upper bits: the lower ones choose the slot within the shard's table.
        usize::try_from(self.hasher.hash_one(key) >> 32).unwrap_or_default() % SHARDS
    }

    fn lock_all(&self, mut shards: Vec<usize>) -> Shards<'_> {
        shards.sort_unstable();
        shards.dedup();
        Shards(shards.into_iter().map(|shard| (shard, locked(&self.groups[shard]))).collect())
    }
}

fn last_moment(end: Timestamp) -> Timestamp {
    Timestamp::from_millis(end.as_millis().saturating_sub(1))
}

/// Several shards, locked in their order.
struct Shards<'a>(Vec<(usize, MutexGuard<'a, Groups>)>);

impl Shards<'_> {
    /// A group of one of these shards.
    fn group(&mut self, shard: usize, id: &GroupId) -> &mut Group {
        let place = self.0.partition_point(|(locked, _)| *locked < shard);
        self.0[place].1.entry(id.clone()).or_default()
    }
}

/// Nothing panics under these locks, and every change under them is whole before the next could: a poisoned
/// lock guards sound values.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
