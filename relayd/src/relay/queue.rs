//! Where calls wait for a limit of concurrency to have room: a line for each counter, in the order of arrival,
//! shared by all workers. It knows who comes before whom and wakes whose turn it may be; whether there is room is
//! the store's to know.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ahash::RandomState;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::limits::LimitExceeded;
use crate::store::{CounterId, GroupId};

/// How often the first in a line looks again by itself: nobody here is told what another node releases, or that a
/// lost node's holds have lapsed.
const LOOK: Duration = Duration::from_millis(250);
/// How often the others do: another account may have become usable.
const LOOK_BEHIND: Duration = Duration::from_secs(1);

/// A limit that has no room for a call.
#[derive(Clone, Debug)]
pub(super) struct Full {
    pub(super) group: GroupId,
    pub(super) counter: CounterId,
    pub(super) exceeded: LimitExceeded,
}

/// Tells who came first; of several calls that wait, the one with the lowest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket(u64);

/// The calls that wait.
#[derive(Default)]
pub struct Queues {
    /// How many they are. While there are none, nobody looks any further.
    waiting: AtomicU64,
    lines: Mutex<Lines>,
}

#[derive(Default)]
struct Lines {
    tickets: u64,
    groups: HashMap<GroupId, Vec<Line>, RandomState>,
}

/// The calls that wait for one counter: a group may count several things, and whoever waits for one of them stands
/// in nobody's way who needs another.
struct Line {
    counter: CounterId,
    /// The last refusal, for those who are refused because others wait.
    refused: LimitExceeded,
    waiters: BTreeMap<Ticket, Arc<Notify>>,
}

impl Queues {
    /// How many calls wait now.
    pub fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Whether nobody waits. Whoever is about to wait counts before it looks for room a last time, and a release
    /// gives its room back before it asks here: the store's lock orders them, so that one of them sees the other.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting() == 0
    }

    /// The refusal of a counter that others wait for who came before the call. One without a ticket comes last.
    pub(super) fn ahead(&self, call: Option<Ticket>, group: &GroupId, counter: &CounterId) -> Option<Full> {
        let lines = self.locked();
        let line = lines.line(group, counter)?;
        let is_ahead = line.first().is_some_and(|first| call.is_none_or(|ticket| first < ticket));
        let (group, counter) = (group.clone(), counter.clone());
        is_ahead.then(|| Full { group, counter, exceeded: line.refused.clone() })
    }

    /// Something that was held in a group was given back: whoever comes first there looks for room.
    pub(super) fn released(&self, group: &GroupId) {
        if self.is_idle() {
            return;
        }
        let woken: Vec<_> =
            self.locked().groups.get(group).into_iter().flatten().filter_map(Line::wake).collect();
        woken.iter().for_each(|first| first.notify_one());
    }

    /// Joins the end of the lines of these limits; `None` if as many calls as may wait already for each of them.
    pub(super) fn join(self: &Arc<Self>, full: &[Full], size_max: usize) -> Option<Place> {
        let mut lines = self.locked();
        lines.tickets += 1;
        let ticket = Ticket(lines.tickets);
        drop(lines);
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let mut place =
            Place { queues: self.clone(), ticket, stands: Vec::new(), wake: Arc::new(Notify::new()) };
        place.stand(full, size_max).then_some(place)
    }

    /// Every change under the lock is whole before anything could panic.
    fn locked(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lines {
    fn line(&self, group: &GroupId, counter: &CounterId) -> Option<&Line> {
        self.groups.get(group)?.iter().find(|line| line.counter == *counter)
    }

    fn first(&self, group: &GroupId, counter: &CounterId) -> Option<Ticket> {
        self.line(group, counter)?.first()
    }

    /// Takes a call out of a line; gives whoever comes first now, if that was the call.
    fn leave(&mut self, ticket: Ticket, (group, counter): &(GroupId, CounterId)) -> Option<Arc<Notify>> {
        let lines = self.groups.get_mut(group)?;
        let at = lines.iter().position(|line| line.counter == *counter)?;
        let line = &mut lines[at];
        let was_first = line.first() == Some(ticket);
        line.waiters.remove(&ticket);
        let next = line.wake().filter(|_| was_first);
        if line.waiters.is_empty() {
            lines.swap_remove(at);
        }
        if lines.is_empty() {
            self.groups.remove(group);
        }
        next
    }

    /// Puts a call where its ticket belongs, if there is room in the group.
    fn enter(&mut self, ticket: Ticket, wake: &Arc<Notify>, full: &Full, size_max: usize) -> bool {
        let lines = self.groups.entry(full.group.clone()).or_default();
        if lines.iter().map(|line| line.waiters.len()).sum::<usize>() >= size_max {
            return false;
        }
        let at = lines.iter().position(|line| line.counter == full.counter).unwrap_or_else(|| {
            let (counter, refused) = (full.counter.clone(), full.exceeded.clone());
            lines.push(Line { counter, refused, waiters: BTreeMap::new() });
            lines.len() - 1
        });
        let line = &mut lines[at];
        line.refused.clone_from(&full.exceeded);
        line.waiters.insert(ticket, wake.clone());
        true
    }
}

impl Line {
    fn first(&self) -> Option<Ticket> {
        self.waiters.first_key_value().map(|(ticket, _)| *ticket)
    }

    /// What wakes whoever comes first.
    fn wake(&self) -> Option<Arc<Notify>> {
        self.waiters.first_key_value().map(|(_, wake)| wake.clone())
    }
}

/// A call's place in the lines of the limits that it waits for. Dropping it makes way for the next.
pub(super) struct Place {
    queues: Arc<Queues>,
    ticket: Ticket,
    stands: Vec<(GroupId, CounterId)>,
    wake: Arc<Notify>,
}

impl Place {
    pub(super) const fn ticket(&self) -> Ticket {
        self.ticket
    }

    /// Stands in the lines of these limits and in no others, by the order of arrival. Whoever enters a line is woken
    /// once for what was released meanwhile. Tells whether there is a line with room for it.
    pub(super) fn stand(&mut self, full: &[Full], size_max: usize) -> bool {
        let is_wanted = |(group, counter): &(GroupId, CounterId)| {
            full.iter().any(|full| full.group == *group && full.counter == *counter)
        };
        let mut lines = self.queues.locked();
        let left = self.stands.extract_if(.., |stand| !is_wanted(stand));
        let woken: Vec<_> = left.filter_map(|stand| lines.leave(self.ticket, &stand)).collect();
        for full in full {
            let stand = (full.group.clone(), full.counter.clone());
            if !self.stands.contains(&stand) && lines.enter(self.ticket, &self.wake, full, size_max) {
                self.stands.push(stand);
                self.wake.notify_one();
            }
        }
        drop(lines);
        woken.iter().for_each(|next| next.notify_one());
        !self.stands.is_empty()
    }

    /// Waits until it makes sense to look for room again, at most until then.
    pub(super) async fn turn(&self, deadline: Instant) {
        let pause = if self.is_first() { LOOK } else { LOOK_BEHIND };
        // Spread by an eighth to either side, so that calls that came together do not look together.
        let spread = u32::try_from(self.ticket.0 * 5 % 26).unwrap_or(0);
        let look_at = Instant::now() + pause * (87 + spread) / 100;
        // Woken or not: whoever waits looks for itself.
        let _ = timeout_at(look_at.min(deadline), self.wake.notified()).await;
    }

    fn is_first(&self) -> bool {
        let lines = self.queues.locked();
        self.stands.iter().any(|(group, counter)| lines.first(group, counter) == Some(self.ticket))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut lines = self.queues.locked();
        let woken: Vec<_> = self.stands.iter().filter_map(|stand| lines.leave(self.ticket, stand)).collect();
        drop(lines);
        self.queues.waiting.fetch_sub(1, Ordering::Relaxed);
        woken.iter().for_each(|next| next.notify_one());
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;
    use crate::limits::{Scope, Standing};

    fn full(group: &str, counter: &str) -> Full {
        let exceeded = LimitExceeded {
            scope: Scope::Key,
            limit: "1 concurrent".parse().unwrap(),
            amount: 1,
            standing: Standing::default(),
        };
        Full { group: group.into(), counter: CounterId::named(counter).unwrap(), exceeded }
    }

    fn is_woken(place: &Place) -> bool {
        pin!(place.wake.notified()).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    fn is_behind(queues: &Queues, call: Option<&Place>, full: &Full) -> bool {
        queues.ahead(call.map(Place::ticket), &full.group, &full.counter).is_some()
    }

    #[test]
    fn the_first_to_come_is_the_first_to_be_woken() {
        let queues = Arc::new(Queues::default());
        let limit = full("key:a", "concurrent");
        assert!(!is_behind(&queues, None, &limit));
        let places: Vec<Place> =
            (0..3).map(|_| queues.join(std::slice::from_ref(&limit), 3).unwrap()).collect();
        assert!(queues.join(std::slice::from_ref(&limit), 3).is_none(), "there is room for three");
        assert_eq!(queues.waiting(), 3);
        assert!(places.iter().all(is_woken), "whoever comes looks once more");
        let behind = places.iter().map(|place| is_behind(&queues, Some(place), &limit));
        assert_eq!(behind.collect::<Vec<_>>(), [false, true, true]);
        assert!(is_behind(&queues, None, &limit));
        queues.released(&"key:other".into());
        queues.released(&limit.group);
        assert_eq!(places.iter().map(is_woken).collect::<Vec<_>>(), [true, false, false]);
        let [first, second, third] = <[Place; 3]>::try_from(places).ok().unwrap();
        drop(second);
        assert!(!is_woken(&first) && !is_woken(&third), "who leaves from the middle changes nothing");
        drop(first);
        assert!(is_woken(&third), "the next is woken in place of the one that left");
        drop(third);
        assert_eq!(queues.waiting(), 0);
        assert!(queues.locked().groups.is_empty());
    }

    #[test]
    fn a_call_that_changes_lines_keeps_its_turn() {
        let queues = Arc::new(Queues::default());
        let (key, account) = (full("key:a", "concurrent"), full("account:b", "concurrent"));
        let mut early = queues.join(std::slice::from_ref(&key), 9).unwrap();
        let mut late = queues.join(std::slice::from_ref(&account), 9).unwrap();
        assert!(is_woken(&early) && is_woken(&late));
        assert!(early.stand(&[account.clone(), key.clone()], 9));
        assert!(is_woken(&early) && !is_behind(&queues, Some(&early), &account));
        assert!(is_behind(&queues, Some(&late), &account));
        assert!(early.stand(std::slice::from_ref(&key), 9));
        assert!(is_woken(&late) && !is_woken(&early), "a line that is left goes on");
        assert!(!late.stand(std::slice::from_ref(&key), 1), "the other line is full");
        drop((early, late));
        assert!(queues.locked().groups.is_empty());
    }

    #[test]
    fn counters_of_a_group_have_lines_of_their_own_and_one_bound() {
        let queues = Arc::new(Queues::default());
        let (all, some) = (full("key:a", "concurrent"), full("key:a", "concurrent on slow"));
        let one = queues.join(std::slice::from_ref(&all), 2).unwrap();
        let two = queues.join(std::slice::from_ref(&some), 2).unwrap();
        assert!(is_woken(&one) && is_woken(&two));
        assert!(!is_behind(&queues, Some(&two), &some) && is_behind(&queues, Some(&two), &all));
        assert!(queues.join(std::slice::from_ref(&some), 2).is_none());
        queues.released(&all.group);
        assert!(is_woken(&one) && is_woken(&two), "nobody knows which of them has room");
    }
}
