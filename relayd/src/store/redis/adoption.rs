//! Taking a server in place of the store that this node used: an empty one is given what this process knows, any
//! other is taken as it is. The id comes last, so that nobody uses what is not whole.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use super::keeper::new_id;
use super::{Inner, name};
use crate::store::{
    Adopted, Adoption, AdoptionError, Chunk, GroupState, Mark, Record, RecordKind, StoreError, Stranger,
};

/// The setting that marks a server which is being given what this process knows.
const ADOPTING: &str = "adopting";

impl Inner {
    pub(super) async fn stranger(&self) -> Result<Option<Stranger>, StoreError> {
        let (found, _) = self.look("").await?;
        if self.identity.check(&found).is_ok() {
            return Ok(None);
        }
        let mut settings = self.records(RecordKind::Setting).await?;
        let mut census = self.census().await?;
        let known = self.identity.known();
        if found.is_empty() && settings.iter().any(|record| is_ours(record, &known)) {
            // It was broken off: what is there is our own, and comes again.
            settings.clear();
            census.records = 0;
        }
        Ok(Some(Stranger { is_used: !found.is_empty() || census.records > 0, census, settings }))
    }

    pub(super) async fn adopt(&self, how: Adoption) -> Result<Adopted, StoreError> {
        let stranger = self.stranger().await?.ok_or(AdoptionError::Same)?;
        let adopted = match how {
            Adoption::Fill if stranger.is_used => return Err(AdoptionError::Another.into()),
            Adoption::Fill => self.fill().await?,
            Adoption::AsItIs => self.take_as_it_is().await?,
        };
        self.health.look_soon();
        Ok(adopted)
    }

    async fn fill(&self) -> Result<Adopted, StoreError> {
        let id = match self.identity.known() {
            id if id.is_empty() => new_id()?,
            id => id,
        };
        let marker = Record { id: ADOPTING.to_owned(), version: 1, value: id.clone().into_bytes() };
        self.import(Chunk::Records(vec![(RecordKind::Setting, marker)])).await?;
        self.remembered.remove(RecordKind::Setting, ADOPTING);
        let records = self.remembered.all();
        let adopted = self.known_groups();
        let counts = Adopted { records: records.len() as u64, groups: adopted.len() as u64 };
        self.import(Chunk::Records(records)).await?;
        self.import(Chunk::Groups(adopted)).await?;
        self.raise(name::EPOCH, self.epoch.load(Ordering::Relaxed)).await?;
        self.look(&id).await?;
        self.identity.remember(&id)?;
        self.import(Chunk::Gone(vec![(RecordKind::Setting, ADOPTING.to_owned())])).await?;
        Ok(counts)
    }

    /// What this process knows of counters, and up to where the journals are in it: records that are shipped again
    /// bring back rows and sums, and book nothing twice.
    fn known_groups(&self) -> Vec<GroupState> {
        let booked = self.booked.lock().unwrap_or_else(PoisonError::into_inner);
        let marks: Vec<Mark> = booked.values().copied().collect();
        let groups = self.known.records().into_iter();
        let state = |(group, counters)| GroupState { group, counters, marks: marks.clone() };
        groups.filter(|(_, counters)| !counters.is_empty()).map(state).collect()
    }

    async fn take_as_it_is(&self) -> Result<Adopted, StoreError> {
        let (found, _) = self.look(&new_id()?).await?;
        let marks = self.marks().await?;
        *self.applied.lock().unwrap_or_else(PoisonError::into_inner) = marks;
        self.identity.remember(&found)?;
        self.tidings.changed();
        let census = self.census().await?;
        Ok(Adopted { records: census.records, groups: census.groups })
    }
}

fn is_ours(record: &Record, id: &str) -> bool {
    record.id == ADOPTING && record.value == id.as_bytes()
}
