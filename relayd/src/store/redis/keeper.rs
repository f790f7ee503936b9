//! Watches the server: whether it is there, whether it is the same and no older than it was, whether others changed
//! records. When it comes back, what is held is held there again before any call is judged by it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use redis::Cmd;
use shared::domain::{RequestId, Timestamp};
use tokio::sync::Notify;

use super::ends::CARRIED_MAX;
use super::identity::IdentityError;
use super::script::Script;
use super::{Inner, batch, name, reserving};
use crate::store::memory::HeldGroup;
use crate::store::{Mark, News, StoreError};

/// How often it is looked at while it is well.
const PULSE: Duration = Duration::from_secs(1);
/// How soon after a failure, and how late at most.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(2);
/// How long the end of a hold waits for a call that carries it along.
const FLUSH_DELAY: Duration = Duration::from_millis(2);
/// How long a node counts as alive after its last beat.
const BEAT_MS: u64 = 10_000;
/// How many holds are renewed in one command.
const RENEWED_MAX: usize = 500;

/// How long the server is given to get what it lost, before calls are judged by it all the same: what is lost for good
/// must not keep it from being used.
const CATCH_UP_MAX: Duration = Duration::from_secs(30);

/// Until what it lost is there again.
pub(super) struct CatchingUp {
    to: BTreeMap<(u32, u32), Mark>,
    since: Instant,
}

/// What was noticed and not told yet.
#[derive(Default)]
pub(super) struct Tidings {
    has_changed: AtomicBool,
    has_lost: AtomicBool,
    came: Notify,
    /// The version of the records as this process knows them.
    version: AtomicU64,
}

impl Tidings {
    pub(super) async fn next(&self) -> News {
        loop {
            let came = self.came.notified();
            if self.has_lost.swap(false, Ordering::Relaxed) {
                return News::Lost;
            }
            if self.has_changed.swap(false, Ordering::Relaxed) {
                return News::Changed;
            }
            came.await;
        }
    }

    /// This process changed records. If somebody else did so just before, that is still to be noticed.
    pub(super) fn wrote(&self, version: u64) {
        let before = version.saturating_sub(1);
        // Otherwise the next look tells.
        let _ = self.version.compare_exchange(before, version, Ordering::Relaxed, Ordering::Relaxed);
    }

    fn found(&self, version: u64) {
        if self.version.swap(version, Ordering::Relaxed) != version {
            self.tell(&self.has_changed);
        }
    }

    /// Whatever is known of the records may be wrong.
    pub(super) fn changed(&self) {
        self.tell(&self.has_changed);
    }

    fn lost(&self) {
        self.tell(&self.has_lost);
    }

    fn tell(&self, what: &AtomicBool) {
        what.store(true, Ordering::Relaxed);
        self.came.notify_one();
    }
}

/// Looks at the server until told to stop.
pub(super) async fn keep(inner: Arc<Inner>) {
    let mut pause = PULSE;
    loop {
        tokio::select! {
            () = inner.stop.cancelled() => return,
            () = inner.health.wanted() => {}
            () = tokio::time::sleep(pause) => {}
        }
        if inner.health.is_away() && !inner.is_catching_up() {
            // Connections that were made to what was there before are of no use.
            inner.link.reset();
        }
        pause = match inner.pulse().await {
            Ok(()) => PULSE,
            Err(error) => {
                inner.health.failed(&error);
                if pause == PULSE { RETRY_MIN } else { (2 * pause).min(RETRY_MAX) }
            }
        };
        inner.health.looked();
    }
}

/// Learns where counters stand, so that limits hold when the server goes before anybody asked.
pub(super) async fn learn(inner: Arc<Inner>) {
    tokio::select! {
        () = inner.stop.cancelled() => {}
        learned = inner.learn_groups() => if let Err(error) = learned {
            // What is asked for is learned all the same.
            tracing::debug!(%error, "where counters stand was not learned");
        },
    }
}

impl Inner {
    /// The first look: which store it is, and that it can serve.
    pub(super) async fn meet(&self) -> Result<(), StoreError> {
        self.check_version().await?;
        let is_new = self.identity.known().is_empty();
        let new = if is_new { new_id()? } else { String::new() };
        let (found, version) = self.look(&new).await?;
        match is_new {
            true => self.identity.remember(&found)?,
            false => self.identity.check(&found)?,
        }
        self.tidings.version.store(version, Ordering::Relaxed);
        let marks = self.marks().await?;
        super::applying::note(&self.booked, marks.clone());
        self.note_applied(marks);
        while self.health.come_back().is_some() {}
        Ok(())
    }

    async fn check_version(&self) -> Result<(), StoreError> {
        let mut command = redis::cmd("INFO");
        command.arg("server");
        let text: String = self.link.ask_patiently(&command).await?;
        let mut lines = text.lines().filter_map(|line| line.strip_prefix("redis_version:"));
        let version = lines.next().unwrap_or("unknown");
        let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
        match major {
            Some(..6) => Err(IdentityError::TooOld(version.to_owned()).into()),
            // Whoever hides its version has one.
            _ => Ok(()),
        }
    }

    /// One look; after a failure, everything that makes it fit to be used again.
    async fn pulse(&self) -> Result<(), StoreError> {
        let (found, version) = self.look("").await?;
        self.identity.check(&found)?;
        self.health.looked();
        // While a batch is on its way, what it does is not known yet.
        if let Ok(_applying) = self.applying.try_lock() {
            let marks = self.marks().await?;
            if self.is_behind(&marks) {
                return Ok(());
            }
        } else if self.is_catching_up() {
            return Ok(());
        }
        if self.health.is_away() {
            self.hold_again().await?;
        }
        self.tidings.found(version);
        self.flush().await
    }

    /// Whether the server still lacks what had been applied to it; if that is new, it is to be applied again before any
    /// call is judged by it.
    fn is_behind(&self, marks: &BTreeMap<(u32, u32), Mark>) -> bool {
        if let Err(error) = self.compare(marks) {
            self.health.failed(&error);
            return true;
        }
        let mut catching_up = self.catching_up.lock().unwrap_or_else(PoisonError::into_inner);
        let is_behind = catching_up.as_ref().is_some_and(|CatchingUp { to, since }| {
            let lacks = to.iter().any(|(writer, known)| marks.get(writer).is_none_or(|mark| mark < known));
            lacks && since.elapsed() < CATCH_UP_MAX
        });
        if !is_behind {
            *catching_up = None;
        }
        is_behind
    }

    /// What the server lost is being applied again.
    pub(super) fn is_catching_up(&self) -> bool {
        self.catching_up.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// The server has not what was applied to it up to these marks.
    pub(super) fn lost(&self, to: BTreeMap<(u32, u32), Mark>) {
        let mut catching_up = self.catching_up.lock().unwrap_or_else(PoisonError::into_inner);
        *catching_up = Some(CatchingUp { to, since: Instant::now() });
        drop(catching_up);
        self.tidings.lost();
    }

    pub(super) async fn look(&self, new_id: &str) -> Result<(String, u64), StoreError> {
        let beat = name::beat(self.settings.node);
        let mut command = Script::Pulse.call([name::ID, name::VERSION, &beat]);
        command.arg(new_id).arg(BEAT_MS);
        self.link.probe(&command).await
    }

    pub(super) async fn marks(&self) -> Result<BTreeMap<(u32, u32), Mark>, StoreError> {
        let mut command = redis::cmd("HGETALL");
        command.arg(name::MARKS);
        let found: HashMap<String, String> = self.link.ask_patiently(&command).await?;
        Ok(batch::marks(&found)?)
    }

    /// Holds there what is held here. What is admitted meanwhile is held in further rounds; the server is in use
    /// again when there is nothing left.
    async fn hold_again(&self) -> Result<(), StoreError> {
        let _applying = self.applying.lock().await;
        self.flush().await?;
        self.health.return_begins();
        let turn = self.next_turn();
        self.hold_all(self.known.holds(), turn).await?;
        while let Some(unheld) = self.health.come_back() {
            let unheld: HashSet<RequestId> = unheld.into_iter().collect();
            let turn = self.next_turn();
            let mut holds = self.known.holds();
            holds.retain(|held| unheld.contains(&held.request));
            self.hold_all(holds, turn).await?;
        }
        Ok(())
    }

    /// Taken before what is held is read: what ends afterwards ends there too.
    pub(super) fn next_turn(&self) -> u64 {
        self.turn.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(super) async fn hold_all(&self, holds: Vec<HeldGroup>, turn: u64) -> Result<(), StoreError> {
        let life_ms = self.hold_life_ms.load(Ordering::Relaxed);
        let commands = holds.iter().map(|held| reserving::hold_again(held, life_ms, turn, self.time));
        self.link.ask_all(commands.collect()).await?;
        Ok(())
    }

    /// Lets all holds of this process live until then.
    pub(super) async fn renew(&self, now: Timestamp, until: Timestamp) -> Result<(), StoreError> {
        let mut by_group: HashMap<_, Vec<RequestId>> = HashMap::new();
        for held in self.known.holds() {
            by_group.entry(held.group).or_default().push(held.request);
        }
        let mut commands: Vec<Cmd> = Vec::new();
        for (group, requests) in &by_group {
            for requests in requests.chunks(RENEWED_MAX) {
                commands.push(reserving::renew(group, requests, (now, until), self.time));
            }
        }
        self.link.ask_all(commands).await?;
        Ok(())
    }

    /// Tells the server of what ended.
    async fn flush(&self) -> Result<(), StoreError> {
        let all = self.ends.all();
        if all.is_empty() {
            return Ok(());
        }
        let commands = all.iter().flat_map(|(group, ends)| {
            let ends = ends.chunks(CARRIED_MAX);
            ends.map(move |ends| reserving::carry_out(group, ends, self.time))
        });
        self.link.ask_all(commands.collect()).await?;
        all.iter().for_each(|(group, ends)| self.ends.done(group, ends));
        Ok(())
    }

    /// Has that done by the runtime of the caller, if there is one; else the next look does it.
    pub(super) fn flush_soon(self: &Arc<Self>) {
        if self.health.is_away() || self.is_flushing.swap(true, Ordering::AcqRel) {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            self.is_flushing.store(false, Ordering::Release);
            return;
        };
        let inner = Arc::clone(self);
        runtime.spawn(async move {
            // Most are carried along by the next call on their group, which costs nothing.
            tokio::time::sleep(FLUSH_DELAY).await;
            inner.is_flushing.store(false, Ordering::Release);
            let result = inner.flush().await;
            inner.remember(result.as_ref().err());
        });
    }
}

pub(super) fn new_id() -> Result<String, StoreError> {
    let random: [u8; 16] =
        shared::crypto::random().map_err(|error| StoreError::Unavailable(Box::new(error)))?;
    Ok(format!("{:032x}", u128::from_be_bytes(random)))
}
