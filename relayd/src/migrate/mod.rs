//! Moving everything to another store while calls are served: all is copied, then what changed meanwhile; at last
//! nobody is admitted for a moment, the last difference is copied, everything is counted, what is held is held
//! there, and the new store takes the place of the old.

mod copy;
mod places;

use std::time::{Duration, Instant};

use shared::admin::{AuditEntry, Problem, ProblemCode};
use shared::progress::Progress;
use tokio::sync::OwnedMutexGuard;
use tokio_util::sync::CancellationToken;

pub use self::places::{PlaceError, Places, make_folder};

use self::copy::Copy;
use self::places::{MIGRATING, Target};
use crate::causes::Causes;
use crate::clock::Clock;
use crate::config::StoreUrl;
use crate::directory::Directory;
use crate::ledger::{Held, Ledger, LedgerError};
use crate::store::{Census, Frozen, RecordKind, Store, StoreError, StoreState, Switch, SwitchError, Write};

/// For how long nobody is admitted at most.
const FROZEN_MAX: Duration = Duration::from_secs(30);
/// How many rounds of differences are copied while calls are served: each is smaller than the one before.
const ROUNDS: usize = 3;
/// So few changes are left for when nobody is admitted.
const FEW: usize = 500;

/// Why the store was not moved.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The other store cannot be opened.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// A store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What the journal has does not reach the store.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The store in use cannot be read now.
    #[error("the store in use fails: {0}")]
    Failing(String),
    /// It would be moved to where it is.
    #[error("the store is there already")]
    Same,
    /// There is something already.
    #[error("the store at {to} is not empty: it has {} records and {} rows", .census.records, .census.rows)]
    NotEmpty {
        /// Where.
        to: String,
        /// How much.
        census: Census,
    },
    /// There is part of something else.
    #[error("the store at {to} holds part of another store ({found}), whose move was broken off")]
    OfAnother {
        /// Where.
        to: String,
        /// Of which.
        found: String,
    },
    /// They do not have the same.
    #[error("the stores differ: {part} are {there} there and {here} here; nothing was changed here")]
    Counts {
        /// What.
        part: &'static str,
        /// In the store in use.
        here: u64,
        /// In the other.
        there: u64,
    },
    /// The last difference was too large, or a store too slow.
    #[error("the last difference was not copied within {} seconds; nothing was changed here", FROZEN_MAX.as_secs())]
    TooLong,
    /// There were too many moves.
    #[error(transparent)]
    Switch(#[from] SwitchError),
    /// The daemon stops.
    #[error("the daemon is stopping; nothing was changed here")]
    Stopping,
}

impl MigrateError {
    /// What an operator is told of it.
    pub fn problem(&self) -> Problem {
        let (code, hint) = match self {
            Self::Same => (ProblemCode::Invalid, None),
            Self::NotEmpty { .. } | Self::OfAnother { .. } => {
                (ProblemCode::Conflict, Some("empty it first, or move to another place"))
            }
            Self::Counts { .. } => (ProblemCode::Conflict, Some("empty the other store, then try again")),
            Self::TooLong | Self::Ledger(LedgerError::Held) => (ProblemCode::Conflict, Some("try it again")),
            Self::Switch(SwitchError::TooOften) => (ProblemCode::Conflict, None),
            Self::Place(_) | Self::Store(_) | Self::Ledger(_) | Self::Failing(_) | Self::Stopping => {
                (ProblemCode::Unavailable, Some("the store in use stays in use; it may be tried again"))
            }
        };
        Problem { code, message: Causes(self).to_string(), hint: hint.map(str::to_owned) }
    }
}

/// Hears how far it is.
pub type Tell<'a> = &'a (dyn Fn(Progress) + Send + Sync);

/// What is needed to move the store.
pub struct Migration<'a> {
    /// Where stores lie.
    pub places: &'a Places,
    /// The store in use.
    pub switch: &'a Switch,
    /// Keys, accounts and prices, which stay as they are for a moment.
    pub directory: &'a Directory,
    /// The journal, which is not shipped for a moment.
    pub ledger: &'a Ledger,
    /// The clock.
    pub clock: &'a Clock,
    /// How long a hold lives.
    pub hold_ttl: Duration,
    /// Told when the daemon stops.
    pub stop: &'a CancellationToken,
}

/// What was moved.
#[derive(Debug)]
pub struct Report {
    /// The old store, as it is shown.
    pub from: String,
    /// The new one.
    pub to: String,
    /// How much there is of everything.
    pub census: Census,
    /// How many amounts are held there now.
    pub holds: u64,
    /// For how long nobody was admitted.
    pub frozen: Duration,
}

/// The other store has everything. Nothing changes in the one in use while this lives.
struct Finished {
    census: Census,
    holds: u64,
    _still: OwnedMutexGuard<()>,
    _held: Held,
}

/// What is applied is noted while this lives.
struct Noting<'a>(&'a Switch);

impl Drop for Noting<'_> {
    fn drop(&mut self) {
        self.0.forget();
    }
}

impl Migration<'_> {
    /// Moves the store. Until the very end, nothing changes for anybody.
    ///
    /// # Errors
    ///
    /// The store in use stays in use. What was copied stays in the other, and is gone on from when it is tried again.
    pub async fn run(
        &self,
        to: &StoreUrl,
        audit: AuditEntry,
        tell: Tell<'_>,
    ) -> Result<Report, MigrateError> {
        let target = self.target(to).await?;
        self.switch.note();
        let _noting = Noting(self.switch);
        // What is being applied now is not noted: it is in the store after this.
        self.ledger.flush().await?;
        let mut copy = Copy::new(self.switch, &*target.store, self.stop, tell).await?;
        copy.everything().await?;
        for _ in 0..ROUNDS {
            self.ledger.flush().await?;
            if copy.difference("differences").await? <= FEW {
                break;
            }
        }
        let frozen = self.switch.freeze().await;
        tracing::info!("nobody is admitted while the last changes of the store are copied");
        let began = Instant::now();
        let last = tokio::time::timeout(FROZEN_MAX, self.finish(copy, &target, audit));
        let result = last.await.unwrap_or(Err(MigrateError::TooLong));
        let result = result.and_then(|finished| self.exchange(frozen, target, &finished));
        let frozen = began.elapsed();
        tracing::info!(
            ms = u64::try_from(frozen.as_millis()).unwrap_or(u64::MAX),
            "calls are admitted again"
        );
        Ok(Report { frozen, ..result? })
    }

    /// Opens the other store, which must be empty or hold part of this one.
    async fn target(&self, to: &StoreUrl) -> Result<Target, MigrateError> {
        if self.places.current() == String::from(to.clone()) {
            return Err(MigrateError::Same);
        }
        if let StoreState::Failing(cause) = self.switch.state() {
            return Err(MigrateError::Failing(cause));
        }
        let target = self.places.open_target(to).await?;
        let name = self.places.name();
        let shown = || String::from(to.clone());
        if let Some(record) = target.store.record(RecordKind::Setting, MIGRATING).await? {
            let found = String::from_utf8_lossy(&record.value).into_owned();
            return if found == name {
                Ok(target)
            } else {
                Err(MigrateError::OfAnother { to: shown(), found })
            };
        }
        let census = target.store.census().await?;
        if !census.is_empty() {
            return Err(MigrateError::NotEmpty { to: shown(), census });
        }
        let claim = Write {
            kind: RecordKind::Setting,
            id: MIGRATING.to_owned(),
            expected: None,
            value: Some(name.into_bytes()),
            audit: None,
        };
        target.store.write(vec![claim]).await?;
        Ok(target)
    }

    /// Nobody is admitted any more: copies what is left, counts, holds what is held, and makes the other store whole.
    async fn finish(
        &self,
        mut copy: Copy<'_>,
        target: &Target,
        audit: AuditEntry,
    ) -> Result<Finished, MigrateError> {
        let _still = self.directory.still().await;
        let _held = self.ledger.hold().await?;
        copy.difference("frozen").await?;
        copy.marks().await?;
        let census = copy.compare().await?;
        let (now, holds) = (self.clock.now(), self.switch.holds());
        let amounts: usize = holds.iter().map(|held| held.amounts.len()).sum();
        target.store.hold_again(holds, now, now.after(self.hold_ttl)).await?;
        let claim = target.store.record(RecordKind::Setting, MIGRATING).await?;
        let whole = Write {
            kind: RecordKind::Setting,
            id: MIGRATING.to_owned(),
            expected: claim.map(|record| record.version),
            value: None,
            audit: Some(audit),
        };
        target.store.write(vec![whole]).await?;
        self.places.moved(target, now)?;
        Ok(Finished { census, holds: amounts as u64, _still, _held })
    }

    fn exchange(
        &self,
        frozen: Frozen<'_>,
        target: Target,
        finished: &Finished,
    ) -> Result<Report, MigrateError> {
        let from = self.places.current();
        let Target { store, url, .. } = target;
        frozen.exchange(store)?;
        self.places.use_now(&url);
        let Finished { census, holds, .. } = *finished;
        Ok(Report { from, to: url.into(), census, holds, frozen: Duration::ZERO })
    }
}
