//! Applying batches of closed requests: to the store that is meant, and to none that was emptied or is another; what
//! moved is then known here too.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};

use redis::Value;
use shared::domain::{RequestId, Timestamp};

use super::Inner;
use super::batch::{self, Grain};
use super::link::LinkError;
use crate::store::memory::{CounterRecord, Settlement};
use crate::store::{Booked, End, Entry, GroupId, Mark, StoreError};

impl Inner {
    /// Rows and sums first, bookings second, marks last: what the marks say is in all of them.
    pub(super) async fn apply(&self, batch: &[Entry]) -> Result<Vec<Booked>, StoreError> {
        let _applying = self.applying.lock().await;
        self.here_to_ship()?;
        let all: Vec<&Entry> = batch.iter().collect();
        let marks = self.begin(&all).await?;
        let is_new = |entry: &&Entry| marks.get(&entry.mark.writer()).is_none_or(|mark| *mark < entry.mark);
        let new: Vec<&Entry> = all.into_iter().filter(is_new).collect();
        if new.is_empty() {
            return Ok(Vec::new());
        }
        let booked = match self.carry_out(&new, Grain::Runs).await {
            // A batch that broke off had other bounds than this one.
            Err(StoreError::Unavailable(error)) if is_in_part(&*error) => {
                self.carry_out(&new, Grain::Records).await?
            }
            result => result?,
        };
        let last = batch::last_marks(batch);
        self.finish(last.values()).await?;
        let moved = self.learn(booked, &new);
        note(&self.booked, last.clone());
        self.note_applied(last);
        Ok(moved)
    }

    /// Moves the marks; fails if what was written before went to another store, or to one that was emptied.
    pub(super) async fn finish<'a>(
        &self,
        marks: impl IntoIterator<Item = &'a Mark>,
    ) -> Result<(), StoreError> {
        let id = self.identity.known();
        let found: String = self.link.ask_patiently(&batch::finish(&id, marks)).await?;
        Ok(self.identity.check(&found)?)
    }

    /// Notes the hours; gives the marks, which must not be below what was applied before.
    pub(super) async fn begin(&self, batch: &[&Entry]) -> Result<BTreeMap<(u32, u32), Mark>, StoreError> {
        let (id, found): (String, HashMap<String, String>) =
            self.link.ask_patiently(&batch::begin(batch)).await?;
        // One that was emptied is no older one: nothing is shipped to it again.
        self.identity.check(&id)?;
        let marks = batch::marks(&found)?;
        self.compare(&marks)?;
        Ok(marks)
    }

    /// Tells if the server lost what was applied; then what it has is the truth from now on.
    pub(super) fn compare(&self, marks: &BTreeMap<(u32, u32), Mark>) -> Result<(), StoreError> {
        let mut applied = self.applied.lock().unwrap_or_else(PoisonError::into_inner);
        let is_older =
            applied.iter().any(|(writer, known)| marks.get(writer).is_none_or(|mark| mark < known));
        if !is_older {
            return Ok(());
        }
        tracing::warn!("the store came back older than it was; what it lacks is shipped again");
        self.lost(std::mem::replace(&mut applied, marks.clone()));
        Err(StoreError::Older)
    }

    pub(super) fn note_applied(&self, marks: BTreeMap<(u32, u32), Mark>) {
        note(&self.applied, marks);
    }

    async fn carry_out(&self, entries: &[&Entry], grain: Grain) -> Result<Vec<BookedGroup>, StoreError> {
        self.link.ask_all(batch::facts(entries, grain)).await?;
        self.book(entries, grain).await
    }

    /// Books; gives what moved in each group, and whose holds ended there.
    async fn book(&self, entries: &[&Entry], grain: Grain) -> Result<Vec<BookedGroup>, StoreError> {
        let settlements = batch::settlements(entries, |entry| self.groups_of(entry));
        let mut commands = Vec::new();
        let mut asked: Vec<usize> = Vec::new();
        for (place, settlement) in settlements.iter().enumerate() {
            let calls: Vec<_> = settlement.calls(last_end(entries), self.time, grain).collect();
            asked.extend(std::iter::repeat_n(place, calls.len()));
            commands.extend(calls);
        }
        let replies: Vec<Value> = self.link.ask_all(commands).await?;
        let mut moves: Vec<Vec<Booked>> = settlements.iter().map(|_| Vec::new()).collect();
        for (place, reply) in asked.into_iter().zip(replies) {
            moves[place].extend(batch::moved(&settlements[place].group, reply)?);
        }
        let booked = settlements.into_iter().zip(moves).map(|(settlement, moves)| BookedGroup {
            requests: settlement.requests(),
            moves: batch::joined(moves),
            group: settlement.group,
        });
        Ok(booked.collect())
    }

    /// Takes over what was booked.
    fn learn(&self, booked: Vec<BookedGroup>, entries: &[&Entry]) -> Vec<Booked> {
        let mut all = Vec::new();
        for BookedGroup { group, requests, moves } in booked {
            self.ends.forget(&group, &requests);
            let records = moves.iter().map(CounterRecord::of_booked).collect();
            self.known.settle(&group, &Settlement { records, requests });
            all.extend(moves);
        }
        for entry in entries {
            drop(self.known.take_groups_of(entry.closed.request));
        }
        all
    }

    /// Where an ended request holds something, besides where it books. What another process held is not known:
    /// there it is looked for where it is likely.
    pub(super) fn groups_of(&self, Entry { mark, closed, .. }: &Entry) -> Vec<GroupId> {
        let mut groups = self.known.groups_of(closed.request);
        let is_own = mark.epoch == self.epoch.load(Ordering::Relaxed);
        if groups.is_empty() && (!is_own || closed.end == End::Orphaned) {
            groups.extend([GroupId::of_key(&closed.key), GroupId::of_all()]);
            groups.extend(closed.account.iter().map(GroupId::of_account));
        }
        groups
    }
}

fn is_in_part(error: &(dyn std::error::Error + Send + Sync + 'static)) -> bool {
    matches!(error.downcast_ref(), Some(LinkError::InPart))
}

/// What a batch booked in a group.
struct BookedGroup {
    group: GroupId,
    requests: Vec<RequestId>,
    moves: Vec<Booked>,
}

/// Moves marks up.
pub(super) fn note(known: &Mutex<BTreeMap<(u32, u32), Mark>>, marks: BTreeMap<(u32, u32), Mark>) {
    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
    for (writer, mark) in marks {
        known.entry(writer).and_modify(|known| *known = (*known).max(mark)).or_insert(mark);
    }
}

/// The last time that a batch knows of.
fn last_end(entries: &[&Entry]) -> Timestamp {
    entries.iter().map(|entry| entry.closed.closed_at).max().unwrap_or_default()
}
