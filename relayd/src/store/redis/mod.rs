//! The store on a Redis or Valkey server. Counters are judged by scripts inside it, in one round trip; what a batch
//! of closed requests means is cut into calls that may each be made again. Everything that a call may need while
//! the server is away is followed in memory: where counters stand, and what is held.

mod adoption;
mod amending;
mod applying;
mod batch;
mod ends;
mod health;
mod identity;
mod import;
mod keeper;
mod ledger;
mod link;
mod name;
mod records;
mod remembered;
mod reserving;
mod script;
mod settings;
mod sums;
#[cfg(test)]
mod tests;
mod transfer;

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use shared::admin::AuditEntry;
use shared::domain::{RequestId, Timestamp};
use tokio_util::sync::CancellationToken;

pub use self::identity::IdFile;
pub use self::settings::{ClientError, Settings, client};

use self::ends::{Extent, HoldEnd, HoldEnds};
use self::health::Health;
use self::identity::Identity;
use self::keeper::{CatchingUp, Tidings};
use self::link::{Link, LinkError};
use self::remembered::Remembered;
use self::reserving::TimeSource;
use super::memory::{CounterRecord, Counters, Settlement};
use super::{
    Adopted, Adoption, Answer, Booked, Booking, Census, Chunk, Closed, CounterAsk, Cursor, Entry, Exported,
    GroupId, HeldGroup, Kept, Mark, News, Record, RecordKind, Reservation, Rollup, RollupKey, RollupQuery,
    RowQuery, Standing, Store, StoreError, StoreState, Stranger, Verdict, Write,
};

/// The engine.
pub struct Redis {
    inner: Arc<Inner>,
}

struct Inner {
    link: Link,
    settings: Settings,
    time: TimeSource,
    /// What this process knows of counters and holds.
    known: Counters,
    ends: HoldEnds,
    health: Health,
    tidings: Tidings,
    /// Grows with every reservation: tells what a request held before from what it asked for later.
    turn: AtomicU64,
    /// How long holds live that are not renewed, in milliseconds.
    hold_life_ms: AtomicU64,
    /// Somebody is about to tell the server of what ended.
    is_flushing: AtomicBool,
    /// The epoch in which this process writes.
    epoch: AtomicU64,
    /// Up to where the journals are certainly applied.
    applied: Mutex<BTreeMap<(u32, u32), Mark>>,
    /// Up to where what is known of counters goes: what the server once had of them, it may have no more.
    booked: Mutex<BTreeMap<(u32, u32), Mark>>,
    /// What it is to have again before calls are judged by it.
    catching_up: Mutex<Option<CatchingUp>>,
    remembered: Remembered,
    identity: Identity,
    /// Held while a batch is applied, and while holds are made again.
    applying: tokio::sync::Mutex<()>,
    stop: CancellationToken,
}

impl Redis {
    /// Reaches the server and begins to watch it, in the runtime that this is called in.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`] if it cannot be reached, is too old, or is not the one that this node used.
    pub async fn open(settings: Settings) -> Result<Self, StoreError> {
        Self::open_with(settings, TimeSource::Server).await
    }

    async fn open_with(settings: Settings, time: TimeSource) -> Result<Self, StoreError> {
        let inner = Arc::new(Inner {
            link: Link::new(settings.client.clone(), settings.connect_timeout, settings.timeout),
            identity: Identity::in_file(settings.id_file.clone())?,
            settings,
            time,
            known: Counters::new([]),
            ends: HoldEnds::default(),
            health: Health::unknown(),
            tidings: Tidings::default(),
            turn: AtomicU64::new(1),
            hold_life_ms: AtomicU64::new(0),
            is_flushing: AtomicBool::new(false),
            epoch: AtomicU64::new(0),
            applied: Mutex::default(),
            booked: Mutex::default(),
            catching_up: Mutex::default(),
            remembered: Remembered::default(),
            applying: tokio::sync::Mutex::default(),
            stop: CancellationToken::new(),
        });
        inner.meet().await?;
        tokio::spawn(keeper::keep(Arc::clone(&inner)));
        tokio::spawn(keeper::learn(Arc::clone(&inner)));
        Ok(Self { inner })
    }

    /// Asks the server while it can be used, and remembers if it cannot.
    fn asking<'a, T: Send + 'a>(
        &'a self,
        work: impl Future<Output = Result<T, StoreError>> + Send + 'a,
    ) -> Answer<'a, T> {
        self.asking_while(Inner::here, work)
    }

    /// The same, for what is shipped.
    fn shipping<'a, T: Send + 'a>(
        &'a self,
        work: impl Future<Output = Result<T, StoreError>> + Send + 'a,
    ) -> Answer<'a, T> {
        self.asking_while(Inner::here_to_ship, work)
    }

    fn asking_while<'a, T: Send + 'a>(
        &'a self,
        is_here: fn(&Inner) -> Result<(), LinkError>,
        work: impl Future<Output = Result<T, StoreError>> + Send + 'a,
    ) -> Answer<'a, T> {
        Box::pin(async move {
            is_here(&self.inner)?;
            let result = work.await;
            self.inner.remember(result.as_ref().err());
            result
        })
    }

    fn end(&self, request: RequestId, group: &GroupId, extent: Extent) {
        let turn = self.inner.turn.load(Ordering::Relaxed);
        self.inner.ends.add(group, HoldEnd { request, extent, turn });
        self.inner.flush_soon();
    }
}

/// Whoever watches ends with it.
impl Drop for Redis {
    fn drop(&mut self) {
        self.inner.stop.cancel();
    }
}

impl Inner {
    /// Fails while the server is away, so that nobody waits for it.
    fn here(&self) -> Result<(), LinkError> {
        match self.health.state() {
            StoreState::Failing(cause) if self.health.is_away() => Err(LinkError::Away(cause)),
            _ => Ok(()),
        }
    }

    /// The same for what is shipped: a server that is to catch up gets it.
    fn here_to_ship(&self) -> Result<(), LinkError> {
        if self.is_catching_up() { Ok(()) } else { self.here() }
    }

    /// The first failure counts; whoever watches finds out more.
    fn remember(&self, error: Option<&StoreError>) {
        let is_told = matches!(error, Some(StoreError::Unavailable(_) | StoreError::Older));
        if let Some(error) = error.filter(|_| is_told && !self.health.is_away()) {
            self.health.failed(error);
        }
    }

    async fn reserve(self: &Arc<Self>, reservation: Reservation<'_>) -> Result<Verdict, StoreError> {
        loop {
            if !self.health.is_away() {
                match self.reserve_there(&reservation).await {
                    Ok(verdict) => return Ok(verdict),
                    Err(error) => self.remember(Some(&error)),
                }
            }
            if !self.settings.serves_alone {
                self.here()?;
            }
            // If not, it came back this moment.
            let judge = || self.known.reserve(&reservation);
            if let Some(verdict) = self.health.while_away(reservation.request, judge) {
                return Ok(verdict);
            }
        }
    }

    async fn reserve_there(self: &Arc<Self>, reservation: &Reservation<'_>) -> Result<Verdict, StoreError> {
        let turn = self.next_turn();
        let ends: Vec<Vec<HoldEnd>> = reservation.groups.iter().map(|ask| self.ends.of(ask.group)).collect();
        let command = reserving::reserve(reservation, turn, &ends, self.time);
        let mut unheard = Unheard { inner: self, reservation, turn, is_heard: false };
        let reply: Vec<String> = self.link.ask(&command, &self.health).await?;
        for (ask, ends) in reservation.groups.iter().zip(&ends) {
            self.ends.done(ask.group, ends);
        }
        let verdict = reserving::verdict(reservation, &reply)?;
        match &verdict {
            // Calls are judged without it by now, so this one is too.
            Verdict::Admitted(_) if self.health.is_away() => Err(LinkError::TooLate.into()),
            Verdict::Admitted(held) => {
                unheard.is_heard = true;
                if self.known.follow(reservation, held) {
                    // It may have been emptied.
                    self.health.look_soon();
                }
                Ok(verdict)
            }
            Verdict::Refused(_) => {
                unheard.is_heard = true;
                Ok(verdict)
            }
        }
    }

    async fn standings(
        &self,
        group: &GroupId,
        counters: &[CounterAsk],
        now: Timestamp,
    ) -> Result<Vec<Standing>, StoreError> {
        let ends = self.ends.of(group);
        let command = reserving::standings(group, counters, now, &ends, self.time);
        let reply: Vec<String> = self.link.ask_patiently(&command).await?;
        self.ends.done(group, &ends);
        Ok(reserving::all_standings(counters, &reply)?)
    }

    async fn records(&self, kind: RecordKind) -> Result<Vec<Record>, StoreError> {
        let found: BTreeMap<String, Vec<u8>> = self.link.ask_patiently(&records::all(kind)).await?;
        let read = found.iter().map(|(id, stored)| records::read(id, stored));
        read.collect()
    }

    /// Records at or below the store's marks are never sent again, so a group that was not there needs none of its own.
    async fn correct(&self, counters: &[Booked]) -> Result<Vec<Booked>, StoreError> {
        let _applying = self.applying.lock().await;
        let mut by_group: BTreeMap<&GroupId, Vec<&Booked>> = BTreeMap::new();
        counters.iter().for_each(|change| by_group.entry(&change.group).or_default().push(change));
        if by_group.is_empty() {
            return Ok(Vec::new());
        }
        self.link.ask_patiently::<()>(&batch::note_groups(by_group.keys().copied())).await?;
        let commands = by_group.iter().map(|(group, changes)| amending::correct(group, changes, self.time));
        let replies = self.link.ask_all(commands.collect()).await?;
        let mut set = Vec::new();
        for ((group, changes), reply) in by_group.into_iter().zip(replies) {
            let places: Vec<usize> = redis::from_redis_value(reply).map_err(|_| LinkError::Unexpected)?;
            let moved: Vec<&Booked> =
                places.iter().filter_map(|place| changes.get(*place).copied()).collect();
            let records = moved.iter().map(|moved| CounterRecord::of_booked(moved)).collect();
            self.known.settle(group, &Settlement { records, requests: Vec::new() });
            set.extend(moved.into_iter().cloned());
        }
        // In the order in which they were given.
        Ok(counters.iter().filter(|change| set.contains(change)).cloned().collect())
    }

    async fn write(&self, writes: &[Write]) -> Result<Vec<u64>, StoreError> {
        let reply: Vec<u64> = self.link.ask_patiently(&records::write(writes)?).await?;
        let (version, each) = records::written(&reply)?;
        self.remembered.wrote(writes, &each);
        self.tidings.wrote(version);
        Ok(each)
    }
}

/// A reservation whose verdict was not heard: what it may hold all the same is given back.
struct Unheard<'a, 'b> {
    inner: &'a Arc<Inner>,
    reservation: &'a Reservation<'b>,
    turn: u64,
    is_heard: bool,
}

impl Drop for Unheard<'_, '_> {
    fn drop(&mut self) {
        if self.is_heard {
            return;
        }
        let (request, turn) = (self.reservation.request, self.turn);
        for ask in self.reservation.groups {
            self.inner.ends.add(ask.group, HoldEnd { request, extent: Extent::Everything, turn });
        }
        self.inner.flush_soon();
    }
}

impl Store for Redis {
    fn engine(&self) -> &'static str {
        "redis"
    }

    fn state(&self) -> StoreState {
        self.inner.health.state()
    }

    fn serves(&self) -> bool {
        self.inner.settings.serves_alone || !self.inner.health.is_away()
    }

    fn news(&self) -> Pin<Box<dyn Future<Output = News> + Send + '_>> {
        Box::pin(self.inner.tidings.next())
    }

    fn records(&self, kind: RecordKind) -> Answer<'_, Vec<Record>> {
        self.asking(async move {
            let records = self.inner.records(kind).await?;
            self.inner.remembered.set_kind(kind, &records);
            Ok(records)
        })
    }

    fn record(&self, kind: RecordKind, id: &str) -> Answer<'_, Option<Record>> {
        let id = id.to_owned();
        self.asking(async move {
            let found: Option<Vec<u8>> = self.inner.link.ask_patiently(&records::one(kind, &id)).await?;
            let record = found.map(|stored| records::read(&id, &stored)).transpose()?;
            self.inner.remembered.set(kind, &id, record.as_ref());
            Ok(record)
        })
    }

    fn write(&self, writes: Vec<Write>) -> Answer<'_, Vec<u64>> {
        self.asking(async move { self.inner.write(&writes).await })
    }

    fn audit(&self, since: Option<Timestamp>, limit: usize) -> Answer<'_, Vec<AuditEntry>> {
        self.asking(async move {
            let found: Vec<Vec<u8>> = self.inner.link.ask_patiently(&records::audit(since, limit)).await?;
            records::audit_entries(&found)
        })
    }

    fn next_epoch(&self, seen: u64) -> Answer<'_, u64> {
        self.asking(async move {
            let mut command = script::Script::Epoch.call([name::EPOCH]);
            command.arg(seen);
            let epoch = self.inner.link.ask_patiently(&command).await?;
            self.inner.epoch.store(epoch, Ordering::Relaxed);
            Ok(epoch)
        })
    }

    fn reserve<'a>(&'a self, reservation: Reservation<'a>) -> Answer<'a, Verdict> {
        Box::pin(self.inner.reserve(reservation))
    }

    fn release(&self, request: RequestId, group: &GroupId) {
        self.inner.known.release(request, group);
        self.end(request, group, Extent::Leases);
    }

    fn give_back(&self, request: RequestId, group: &GroupId) {
        self.inner.known.give_back(request, group);
        self.end(request, group, Extent::Everything);
    }

    fn renew_holds(&self, now: Timestamp, until: Timestamp) -> Answer<'_, ()> {
        self.inner.known.renew_holds(until);
        self.inner.hold_life_ms.fetch_max(reserving::life_ms(now, until), Ordering::Relaxed);
        self.asking(self.inner.renew(now, until))
    }

    fn standings<'a>(
        &'a self,
        group: &'a GroupId,
        counters: &'a [CounterAsk],
        now: Timestamp,
    ) -> Answer<'a, Vec<Standing>> {
        let there = self.asking(self.inner.standings(group, counters, now));
        Box::pin(async move {
            match there.await {
                // What was known last is better than nothing.
                Err(StoreError::Unavailable(_)) => Ok(self.inner.known.standings(group, counters, now)),
                answer => answer,
            }
        })
    }

    fn apply(&self, batch: Arc<[Entry]>) -> Answer<'_, Vec<Booked>> {
        self.shipping(async move { self.inner.apply(&batch).await })
    }

    fn marks(&self) -> Answer<'_, Vec<Mark>> {
        self.shipping(async {
            let marks = self.inner.marks().await?;
            self.inner.note_applied(marks.clone());
            Ok(marks.into_values().collect())
        })
    }

    fn rows(&self, query: RowQuery) -> Answer<'_, Vec<Closed>> {
        self.asking(async move { ledger::rows(&self.inner.link, &query).await })
    }

    fn rollups(&self, query: RollupQuery) -> Answer<'_, Vec<(RollupKey, Rollup)>> {
        self.asking(async move { ledger::rollups(&self.inner.link, &query).await })
    }

    fn prune(&self, rows_before: Timestamp, rollups_before: Option<Timestamp>) -> Answer<'_, u64> {
        self.asking(async move { ledger::prune(&self.inner.link, rows_before, rollups_before).await })
    }

    fn kept(&self) -> Answer<'_, Kept> {
        self.asking(amending::kept(&self.inner.link))
    }

    fn counters(&self, groups: Vec<GroupId>) -> Answer<'_, Vec<Booking>> {
        self.asking(async move { amending::counters(&self.inner.link, &groups).await })
    }

    fn amend_rows(&self, rows: Vec<Closed>) -> Answer<'_, u64> {
        self.asking(async move { amending::amend_rows(&self.inner.link, &rows).await })
    }

    fn put_sums(&self, sums: Vec<(RollupKey, Rollup)>) -> Answer<'_, ()> {
        self.asking(async move { self.inner.link.ask_all(amending::put_sums(&sums)).await.map(drop) })
    }

    fn correct(&self, counters: Vec<Booked>) -> Answer<'_, Vec<Booked>> {
        self.asking(async move { self.inner.correct(&counters).await })
    }

    fn export(&self, cursor: Cursor) -> Answer<'_, Exported> {
        self.asking(self.inner.export(cursor))
    }

    fn import(&self, chunk: Chunk) -> Answer<'_, ()> {
        self.asking(self.inner.import(chunk))
    }

    fn census(&self) -> Answer<'_, Census> {
        self.asking(self.inner.census())
    }

    fn holds(&self) -> Vec<HeldGroup> {
        self.inner.known.holds()
    }

    fn hold_again(&self, holds: Vec<HeldGroup>, now: Timestamp, until: Timestamp) -> Answer<'_, ()> {
        self.asking(async move {
            self.inner.hold_life_ms.fetch_max(reserving::life_ms(now, until), Ordering::Relaxed);
            holds.iter().for_each(|held| self.inner.known.hold_again(held));
            self.inner.known.renew_holds(until);
            let turn = self.inner.next_turn();
            self.inner.hold_all(holds, turn).await
        })
    }

    fn close(&self) {
        self.inner.stop.cancel();
        self.inner.link.reset();
    }

    fn stranger(&self) -> Answer<'_, Option<Stranger>> {
        Box::pin(self.inner.stranger())
    }

    fn adopt(&self, how: Adoption) -> Answer<'_, Adopted> {
        Box::pin(self.inner.adopt(how))
    }
}
