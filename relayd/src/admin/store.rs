//! Moving the store, and taking a server in its place.

use std::collections::BTreeMap;
use std::time::Duration;

use shared::store::{AdoptStore, MigrateStore, StoreAdopted, StoreMigrated};

use super::long::Teller;
use super::{Admin, AdminError, Invalid, Peer};
use crate::config::StoreUrl;
use crate::migrate::{Migration, Report};
use crate::store::{Adoption, AdoptionError, Census, RecordKind, Store, StoreError, StoreState, Write};

/// How long a server that was adopted may take to be in use.
const READY_MAX: Duration = Duration::from_secs(15);
const LOOK: Duration = Duration::from_millis(20);
/// The setting that tells when a server was adopted.
const ADOPTED: &str = "adopted";

impl Admin {
    pub(super) async fn migrate_store(
        &self,
        call: MigrateStore,
        peer: Peer,
        teller: Teller,
    ) -> Result<StoreMigrated, AdminError> {
        let to = StoreUrl::try_from(call.to.expose().to_owned()).map_err(Invalid::StoreUrl)?;
        let _turn = self.upkeep.lock().await;
        let shown = String::from(to.clone());
        let audit = self.audit(peer, "store.migrate", "store", &shown, vec!["store".to_owned()]);
        let migration = Migration {
            places: &self.places,
            switch: &self.switch,
            directory: &self.directory,
            ledger: &self.ledger,
            clock: &self.clock,
            hold_ttl: self.hold_ttl,
            stop: &self.stop,
        };
        let tell = move |progress| _ = teller.tell(progress);
        let Report { from, to, census, holds, frozen } = migration.run(&to, audit, &tell).await?;
        let frozen_ms = u64::try_from(frozen.as_millis()).unwrap_or(u64::MAX);
        tracing::info!(uid = peer.uid, from, to, frozen_ms, "the store was moved");
        Ok(StoreMigrated { from, to, counts: counts(&census), holds, frozen_ms })
    }

    pub(super) async fn adopt_store(
        &self,
        AdoptStore { as_is, dry_run }: &AdoptStore,
        peer: Peer,
    ) -> Result<StoreAdopted, AdminError> {
        let _turn = self.upkeep.lock().await;
        let stranger = self.switch.stranger().await?.ok_or(AdoptionError::Same).map_err(StoreError::from)?;
        if *as_is && stranger.is_used && !self.directory.opens(&stranger.settings) {
            return Err(Invalid::OtherSealingKey.into());
        }
        let found = counts(&stranger.census);
        let was_empty = !stranger.is_used;
        if *dry_run {
            return Ok(StoreAdopted {
                applied: false,
                was_empty,
                found,
                records: 0,
                groups: 0,
                state: self.state(),
            });
        }
        let how = if *as_is { Adoption::AsItIs } else { Adoption::Fill };
        let adopted = self.switch.adopt(how).await?;
        tracing::warn!(
            uid = peer.uid,
            as_is,
            adopted.records,
            adopted.groups,
            "a server was adopted as the store"
        );
        self.until_ready().await;
        if *as_is {
            self.directory.reload().await?;
        }
        self.note_adoption(peer, *as_is).await?;
        Ok(StoreAdopted {
            applied: true,
            was_empty,
            found,
            records: adopted.records,
            groups: adopted.groups,
            state: self.state(),
        })
    }

    /// Whoever watches the server finds that it can be used.
    async fn until_ready(&self) {
        let ready = async {
            while self.switch.state() != StoreState::Ok {
                tokio::time::sleep(LOOK).await;
            }
        };
        // If it takes longer, the state tells.
        drop(tokio::time::timeout(READY_MAX, ready).await);
    }

    async fn note_adoption(&self, peer: Peer, as_is: bool) -> Result<(), AdminError> {
        let how = if as_is { "as it is" } else { "filled" };
        let known = self.switch.record(RecordKind::Setting, ADOPTED).await?;
        let write = Write {
            kind: RecordKind::Setting,
            id: ADOPTED.to_owned(),
            expected: known.map(|record| record.version),
            value: Some(format!("\"{}\"", self.clock.now()).into_bytes()),
            audit: Some(self.audit(peer, "store.adopt", "store", "store", vec![how.to_owned()])),
        };
        self.switch.write(vec![write]).await?;
        Ok(())
    }

    fn state(&self) -> String {
        match self.switch.state() {
            StoreState::Ok => "ok".to_owned(),
            StoreState::Failing(cause) => cause,
        }
    }
}

fn counts(census: &Census) -> BTreeMap<String, u64> {
    census.parts().into_iter().map(|(part, count)| (part.replace(' ', "_"), count)).collect()
}
