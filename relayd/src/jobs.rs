//! What runs by the clock: holds are renewed, old rows are dropped.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

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

/// Runs the jobs until told to end.
pub(crate) async fn run(
    store: Arc<dyn Store>,
    clock: Clock,
    settings: Settings,
    upkeep: Upkeep,
    end: CancellationToken,
) {
    // Several times within a hold's life, so that one late tick lapses nothing.
    let mut renew = interval((settings.hold_ttl / 3).max(Duration::from_millis(10)));
    let mut prune = interval(PRUNE_EVERY);
    renew.set_missed_tick_behavior(MissedTickBehavior::Delay);
    prune.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = end.cancelled() => return,
            _ = renew.tick() => {
                let now = clock.now();
                if let Err(error) = store.renew_holds(now, now.after(settings.hold_ttl)).await {
                    tracing::debug!(%error, "holds could not be renewed");
                }
            }
            _ = prune.tick() => {
                let turn = upkeep.try_lock();
                if turn.is_ok() { prune_once(&*store, &clock, settings).await }
            }
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
    loop {
        let news = tokio::select! {
            () = end.cancelled() => return,
            news = store.news() => news,
        };
        while let Err(error) = follow_news(&news, &directory, &ledger).await {
            tracing::warn!(error = %Causes(&*error), "what the store told could not be followed");
            tokio::select! {
                () = end.cancelled() => return,
                () = tokio::time::sleep(RETRY) => {}
            }
        }
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

async fn follow_news(news: &News, directory: &Directory, ledger: &Ledger) -> Result<(), Failure> {
    match news {
        News::Changed => Ok(directory.reload().await?),
        News::Lost => Ok(ledger.ship_again().await?),
    }
}

async fn prune_once(store: &dyn Store, clock: &Clock, settings: Settings) {
    let now = clock.now();
    let before = |keep: Duration| {
        let keep = i64::try_from(keep.as_millis()).unwrap_or(i64::MAX);
        shared::domain::Timestamp::from_millis(now.as_millis().saturating_sub(keep))
    };
    let Some(rows_keep) = settings.rows_keep else { return };
    match store.prune(before(rows_keep), settings.rollups_keep.map(before)).await {
        Ok(0) => {}
        Ok(rows) => tracing::info!(rows, "old rows were dropped"),
        Err(error) => tracing::warn!(%error, "old rows could not be dropped"),
    }
}
