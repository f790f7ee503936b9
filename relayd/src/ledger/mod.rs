//! Every admitted request is booked exactly once: what opens and closes is appended to a journal, synced in
//! groups, and shipped to the store in batches; what a dead process left is closed at the next start.
//!
//! How amounts become prices is not known here, nor what the store does with them.

mod apply;
mod aside;
mod frame;
mod hold;
mod journal;
mod lane;
mod record;
mod recover;
mod segment;
mod ship;
mod sync;
#[cfg(test)]
mod tests;
mod writer;

use std::io;
use std::sync::Arc;

use tokio::sync::Notify;

pub use self::apply::Watch;
pub use self::hold::Held;
pub use self::journal::{JournalError, Settings};
pub use self::lane::Lane;
pub use self::record::{Attempt, Opened};

use self::apply::Delivery;
use self::aside::SetAside;
use self::journal::Epoch;
use self::segment::create_folder;
use self::ship::{Cargo, Shipper};
use self::sync::Syncer;
use crate::clock::Clock;
use crate::store::{Store, StoreError};

/// Why the ledger cannot do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The journal's folder cannot be read or written.
    #[error("the journal's files cannot be used")]
    Files(#[from] io::Error),
    /// The store does not take what the journal has.
    #[error("the store does not take the ledger's records")]
    Store(#[from] StoreError),
    /// Nothing is shipped for a while.
    #[error("the ledger's records are held back for a while")]
    Held,
    /// The ledger was stopped.
    #[error("the ledger was stopped")]
    Stopped,
}

/// How the ledger is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LedgerView {
    /// This start of the daemon.
    pub epoch: u64,
    /// Records in the journal that the store does not have yet.
    pub unshipped: u64,
    /// What the journal takes on the disk, with the room that it holds ready.
    pub disk_bytes: u64,
    /// What it may take.
    pub disk_bytes_max: u64,
    /// Records that could not be applied since the start.
    pub set_aside: u64,
    /// Ends of requests are kept in memory because the disk refuses them.
    pub is_failing: bool,
}

/// The journal of this start of the daemon, with the threads that sync and ship it. Dropping it ends the
/// threads and leaves the rest to the next start.
pub struct Ledger {
    epoch: Arc<Epoch>,
    lanes: Vec<Arc<Lane>>,
    aside: Arc<SetAside>,
    shipper: Shipper,
    syncer: Syncer,
}

impl Ledger {
    /// Closes and ships what dead processes left, then opens a journal with as many lanes as the settings say.
    /// To be called before anything is reserved: it makes the counters what they should be. Blocks while it
    /// reads files.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Files`] and [`LedgerError::Store`]; nothing is lost, it may be tried again.
    pub async fn start(
        store: Arc<dyn Store>,
        settings: Settings,
        clock: &Clock,
        watch: Option<Watch>,
    ) -> Result<(Self, Vec<Arc<Lane>>), LedgerError> {
        create_folder(&settings.dir)?;
        let aside = Arc::new(SetAside::new(settings.dir.join("set-aside")));
        let mut found = recover::find(&settings.dir)?;
        let mut delivery = Delivery { store, aside: Arc::clone(&aside), watch, refused: None };
        let retired = recover::recover(&mut found, &mut delivery, settings.keep(), clock.now()).await?;
        let number = delivery.store.next_epoch(found.epoch).await?;
        let numbers = (0..).filter(|lane| !found.lanes_in_use.contains(lane)).take(settings.lanes as usize);
        let epoch = Arc::new(Epoch::create(number, settings.clone())?);
        epoch.room.take_anyway(retired.iter().map(|old| old.bytes).sum());
        let lanes = numbers.map(|lane| Ok(Arc::new(Lane::start(&epoch, lane)?)));
        let lanes: Vec<Arc<Lane>> = lanes.collect::<io::Result<_>>()?;
        let synced = Arc::new(Notify::new());
        let syncer = Syncer::start(&epoch, &lanes, Arc::clone(&synced))?;
        let cargo = Cargo { epoch: Arc::clone(&epoch), lanes: lanes.clone(), delivery, retired };
        let shipper = Shipper::start(cargo, synced)?;
        Ok((Self { epoch, lanes: lanes.clone(), aside, shipper, syncer }, lanes))
    }

    /// Brings everything that was appended until now to the store.
    ///
    /// # Errors
    ///
    /// The store or the disk fails; it will be tried again by itself.
    pub async fn flush(&self) -> Result<(), LedgerError> {
        self.shipper.flush().await
    }

    /// The same, and nothing more while the hold lives: rows, sums and counters in the store are of one moment, and
    /// stay so. Whoever asks to flush meanwhile is refused.
    ///
    /// # Errors
    ///
    /// As [`Ledger::flush`]; and [`LedgerError::Held`], if somebody else has it.
    pub async fn hold(&self) -> Result<Held, LedgerError> {
        self.shipper.hold().await
    }

    /// Ships again what the store has lost.
    ///
    /// # Errors
    ///
    /// As for [`Self::flush`].
    pub async fn ship_again(&self) -> Result<(), LedgerError> {
        self.shipper.ship_again().await
    }

    /// How the ledger is.
    pub fn view(&self) -> LedgerView {
        let behind = |(lane, position): (&Arc<Lane>, u64)| lane.last_sequence().saturating_sub(position);
        LedgerView {
            epoch: self.epoch.number,
            unshipped: self.lanes.iter().zip(self.shipper.positions()).map(behind).sum(),
            disk_bytes: self.epoch.room.taken(),
            disk_bytes_max: self.epoch.room.max(),
            set_aside: self.aside.count(),
            is_failing: self.lanes.iter().any(|lane| lane.has_unwritten()),
        }
    }

    /// Flushes, ends the threads, and gives back the room that was held ready.
    ///
    /// # Errors
    ///
    /// What could not be flushed; the next start ships it.
    pub async fn stop(mut self) -> Result<(), LedgerError> {
        let flushed = self.flush().await;
        self.syncer.stop();
        self.shipper.stop();
        self.lanes.iter().for_each(|lane| lane.finish());
        flushed
    }
}
