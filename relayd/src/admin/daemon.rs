//! Calls about the daemon itself.

use std::sync::atomic::Ordering;

use shared::admin::{ConfigView, Done, JournalView, StatusView, StoreView};

use super::{Admin, AdminError, Peer};
use crate::store::StoreState;

impl Admin {
    pub(super) async fn status(&self) -> Result<StatusView, AdminError> {
        let store = self.directory.store();
        let state = match store.state() {
            StoreState::Ok => "ok".to_owned(),
            StoreState::Failing(cause) => cause,
        };
        let journal = self.ledger.view();
        let snapshot = self.directory.snapshot();
        let keys = snapshot.keys().iter().filter(|entry| entry.key.deleted_at.is_none()).count();
        let lined_up: usize = snapshot.accounts().iter().map(|entry| entry.waiting()).sum();
        Ok(StatusView {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            node: self.about.node.clone(),
            started_at: self.about.started_at,
            listen: self.about.listen.clone(),
            data: self.about.data.display().to_string(),
            store: StoreView { engine: store.engine().to_owned(), state },
            journal: JournalView {
                epoch: journal.epoch,
                unshipped: journal.unshipped,
                bytes: journal.disk_bytes,
                set_aside: journal.set_aside,
            },
            in_flight: self.in_flight.load(Ordering::Relaxed),
            waiting: (self.waiting)() + lined_up as u64,
            draining: (self.draining)(),
            connections: (self.connections)() as u64,
            keys: keys as u64,
            damaged: snapshot.damaged().to_vec(),
            accounts: self.list_accounts().await?,
        })
    }

    pub(super) fn stop(&self, peer: Peer) -> Done {
        tracing::info!(uid = peer.uid, pid = peer.pid, "told to stop");
        self.stop.cancel();
        Done {}
    }

    pub(super) fn config(&self) -> ConfigView {
        ConfigView {
            file: self.about.config_file.as_ref().map(|file| file.display().to_string()),
            toml: self.about.config_toml.clone(),
        }
    }
}
