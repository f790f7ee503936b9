//! What runs by the clock, or when the store has news: holds are renewed, old rows are dropped. Each is a task of its own: however long the
//! dropping takes, no hold lapses under a live call.

use std::sync::Arc;
use std::time::Duration;

use shared::domain::Timestamp;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin::Upkeep;
use crate::causes::Causes;
use crate::clock::Clock;
use crate::config::Config;
use crate::directory::Directory;
use crate::ledger::Ledger;
use crate::store::{News, Store};

/// How long after a failure news are followed again.
const RETRY: Duration = Duration::from_secs(1);
const PRUNE_EVERY: Duration = Duration::from_secs(3_600);

/// Settings of the jobs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    hold_ttl: Duration,
    rows_keep: Option<Duration>,
    rollups_keep: Option<Duration>,
}

impl Settings {
    /// Takes them from the configuration.
    pub(crate) fn of(config: &Config) -> Self {
        Self {
            hold_ttl: config.limits.hold_ttl_ms.duration(),
            rows_keep: config.ledger.rows_keep(),
            rollups_keep: config.ledger.rollups_keep(),
        }
    }
}

/// What the jobs work on.
#[derive(Clone)]
pub(crate) struct Jobs {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Clock,
    pub(crate) settings: Settings,
    /// What must not happen while rows are dropped.
    pub(crate) upkeep: Upkeep,
    /// Told when they are to end.
    pub(crate) end: CancellationToken,
}

impl Jobs {
    /// Starts them.
    pub(crate) fn start(self, tasks: &TaskTracker) {
        tasks.spawn(self.clone().renew());
        tasks.spawn(self.prune());
    }

    async fn renew(self) {
        // Several times within a hold's life, so that one late tick lapses nothing.
        let mut ticks = ticks((self.settings.hold_ttl / 3).max(Duration::from_millis(10)));
        while self.comes(&mut ticks).await {
            let now = self.clock.now();
            let renewed = self.store.renew_holds(now, now.after(self.settings.hold_ttl));
            if let Some(Err(error)) = self.end.run_until_cancelled(renewed).await {
                tracing::debug!(%error, "holds could not be renewed");
            }
        }
    }

    async fn prune(self) {
        let mut ticks = ticks(PRUNE_EVERY);
        while self.comes(&mut ticks).await {
            if let Ok(_turn) = self.upkeep.try_lock() {
                self.prune_once().await;
            }
        }
    }

    /// Waits for the next tick; false if the end comes first.
    async fn comes(&self, ticks: &mut Interval) -> bool {
        self.end.run_until_cancelled(ticks.tick()).await.is_some()
    }

    async fn prune_once(&self) {
        let now = self.clock.now();
        let before = |keep: Duration| {
            let keep = i64::try_from(keep.as_millis()).unwrap_or(i64::MAX);
            Timestamp::from_millis(now.as_millis().saturating_sub(keep))
        };
        let Some(rows_keep) = self.settings.rows_keep else { return };
        match self.store.prune(before(rows_keep), self.settings.rollups_keep.map(before)).await {
            Ok(0) => {}
            Ok(rows) => tracing::info!(rows, "old rows were dropped"),
            Err(error) => tracing::warn!(%error, "old rows could not be dropped"),
        }
    }
}

/// Follows what the store learns by itself, until told to end.
pub(crate) async fn follow(
    store: Arc<dyn Store>,
    directory: Arc<Directory>,
    ledger: Arc<Ledger>,
    end: CancellationToken,
) {
    // Each is tried again by itself: that records changed is followed also while nothing can be shipped.
    let mut untold: Vec<News> = Vec::new();
    loop {
        tokio::select! {
            () = end.cancelled() => return,
            news = store.news() => if !untold.contains(&news) {
                untold.push(news);
            },
            () = tokio::time::sleep(RETRY), if !untold.is_empty() => {}
        }
        for news in std::mem::take(&mut untold) {
            if let Err(error) = follow_news(news, &directory, &ledger).await {
                tracing::warn!(error = %Causes(&*error), "what the store told could not be followed");
                untold.push(news);
            }
        }
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

async fn follow_news(news: News, directory: &Directory, ledger: &Ledger) -> Result<(), Failure> {
    match news {
        News::Changed => Ok(directory.reload().await?),
        News::Lost => Ok(ledger.ship_again().await?),
    }
}

/// The first comes at once.
fn ticks(every: Duration) -> Interval {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::contract::Folder;
    use crate::store::embedded::Embedded;
    use crate::store::{CounterAsk, CounterId, GroupAsk, GroupId, Reservation, WindowRule};

    const HOLD_TTL: Duration = Duration::from_millis(100);

    /// Reserves a lease that lapses at once unless holds are renewed; tells whether it is held at a time.
    async fn is_held_at(store: &dyn Store, number: u64, now: Timestamp, later: Timestamp) -> bool {
        let group = GroupId::from(format!("key:{number}").as_str());
        let counter = CounterId::named("concurrent").unwrap();
        let asks = [CounterAsk { counter, window: WindowRule::Now, amount: 1, limit: 1 }];
        let request = shared::domain::RequestId::from_u128(u128::from(number));
        let groups = [GroupAsk { group: &group, counters: &asks }];
        store.reserve(Reservation { request, now, lapses_at: now, groups: &groups }).await.unwrap();
        store.standings(&group, &asks, later).await.unwrap()[0].held == 1
    }

    /// Waits until holds live on that were made after this began.
    async fn wait_for_a_renewal(store: &dyn Store, clock: &Clock, mut numbers: std::ops::Range<u64>) {
        let began = clock.now();
        let beyond = began.after(HOLD_TTL).after(Duration::from_millis(1));
        while !is_held_at(store, numbers.next().unwrap(), began, beyond).await {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    #[test]
    fn holds_are_renewed_while_old_rows_are_dropped() {
        // Where nothing else may block, whatever touches a file waits until this thread is let go.
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().max_blocking_threads(1).build().unwrap();
        let (let_go, waits) = std::sync::mpsc::channel::<()>();
        let blocked = runtime.spawn_blocking(move || waits.recv());
        let folder = Folder::new();
        let (tasks, end, clock) = (TaskTracker::new(), CancellationToken::new(), Clock::new());
        let store: Arc<dyn Store> = Arc::new(Embedded::open(folder.path()).unwrap());
        let settings =
            Settings { hold_ttl: HOLD_TTL, rows_keep: Some(Duration::from_secs(1)), rollups_keep: None };
        let upkeep = Upkeep::default();
        let jobs = Jobs { store: store.clone(), clock: clock.clone(), settings, upkeep, end: end.clone() };
        runtime.block_on(async {
            jobs.start(&tasks);
            // The first renewal may come before the dropping begins.
            for numbers in [0..u64::MAX / 2, u64::MAX / 2..u64::MAX] {
                let renewed = wait_for_a_renewal(&*store, &clock, numbers);
                tokio::time::timeout(Duration::from_secs(10), renewed).await.expect("no hold is renewed");
            }
            let_go.send(()).unwrap();
            blocked.await.unwrap().unwrap();
            end.cancel();
            tasks.close();
            tasks.wait().await;
        });
    }
}
