//! Copying: everything once, then what changed since, until both have the same.

use std::collections::HashMap;

use shared::domain::Timestamp;
use shared::progress::Progress;
use tokio_util::sync::CancellationToken;

use super::places::MIGRATING;
use super::{MigrateError, Tell};
use crate::store::{AuditRow, Census, Chunk, Cursor, Record, RecordKind, Store, StoreError, Switch, Touched};

/// How many rows, sums or groups are asked for by name at once.
const NAMED_MAX: usize = 500;

pub(super) struct Copy<'a> {
    source: &'a Switch,
    target: &'a dyn Store,
    stop: &'a CancellationToken,
    tell: Tell<'a>,
    /// How much there was at the beginning.
    total: u64,
    done: u64,
    /// The last audit entry that was copied.
    audited: Option<(Timestamp, u64)>,
}

type Records = HashMap<(RecordKind, String), Record>;

impl<'a> Copy<'a> {
    pub(super) async fn new(
        source: &'a Switch,
        target: &'a dyn Store,
        stop: &'a CancellationToken,
        tell: Tell<'a>,
    ) -> Result<Self, MigrateError> {
        let Census { audit, groups, rows, sums, .. } = source.census().await?;
        Ok(Self { source, target, stop, tell, total: audit + groups + rows + sums, done: 0, audited: None })
    }

    pub(super) async fn everything(&mut self) -> Result<(), MigrateError> {
        self.records().await?;
        self.audit("audit").await?;
        for (stage, cursor) in
            [("counters", Cursor::Groups(None)), ("sums", Cursor::Sums(None)), ("rows", Cursor::Rows(None))]
        {
            self.part(stage, cursor).await?;
        }
        Ok(())
    }

    /// Copies what changed since it was asked last; gives how much that was.
    pub(super) async fn difference(&mut self, stage: &'static str) -> Result<usize, MigrateError> {
        let touched = self.source.take_notes();
        let count = touched.len();
        self.total += count as u64;
        self.told(stage, 0);
        self.records().await?;
        self.audit(stage).await?;
        let Touched { rows, hours, groups } = touched;
        for rows in rows.chunks(NAMED_MAX) {
            self.part(stage, Cursor::TheseRows(rows.to_vec())).await?;
        }
        let hours: Vec<_> = hours.into_iter().collect();
        // An hour has many sums.
        for hour in &hours {
            self.part(stage, Cursor::TheseSums(vec![*hour])).await?;
        }
        let groups: Vec<_> = groups.into_iter().collect();
        for groups in groups.chunks(NAMED_MAX) {
            self.part(stage, Cursor::TheseGroups(groups.to_vec())).await?;
        }
        Ok(count)
    }

    /// Copies how far back the store goes, and up to where the journals are applied. What is in the store then must be copied already.
    pub(super) async fn marks(&mut self) -> Result<(), MigrateError> {
        self.part("frozen", Cursor::Kept).await?;
        self.part("frozen", Cursor::Marks).await
    }

    /// Counts what both have.
    pub(super) async fn compare(&self) -> Result<Census, MigrateError> {
        let (here, there) = (self.source.census().await?, self.target.census().await?);
        // That it is being filled is a record.
        let there = Census { records: there.records.saturating_sub(1), ..there };
        for ((part, here), (_, there)) in here.parts().into_iter().zip(there.parts()) {
            // Groups that nobody used for days may have gone here meanwhile.
            let is_same = here == there || (part == "groups of counters" && there > here);
            if !is_same {
                return Err(MigrateError::Counts { part, here, there });
            }
        }
        Ok(here)
    }

    async fn part(&mut self, stage: &'static str, first: Cursor) -> Result<(), MigrateError> {
        let mut next = Some(first);
        while let Some(cursor) = next {
            if self.stop.is_cancelled() {
                return Err(MigrateError::Stopping);
            }
            let (chunk, then) = self.source.export(cursor).await?;
            let count = chunk.len();
            self.target.import(chunk).await?;
            self.told(stage, count);
            next = then;
        }
        Ok(())
    }

    /// Records are few: all are compared.
    async fn records(&mut self) -> Result<(), MigrateError> {
        let (here, there) = (records(self.source).await?, records(self.target).await?);
        let changed = here.iter().filter(|(place, record)| there.get(*place) != Some(*record));
        let changed: Vec<_> = changed.map(|((kind, _), record)| (*kind, record.clone())).collect();
        let is_gone = |place: &&(RecordKind, String)| !here.contains_key(*place) && place.1 != MIGRATING;
        let gone: Vec<_> = there.keys().filter(is_gone).cloned().collect();
        if !changed.is_empty() {
            self.target.import(Chunk::Records(changed)).await?;
        }
        if !gone.is_empty() {
            self.target.import(Chunk::Gone(gone)).await?;
        }
        Ok(())
    }

    async fn audit(&mut self, stage: &'static str) -> Result<(), MigrateError> {
        let mut next = Some(Cursor::Audit(self.audited));
        while let Some(cursor) = next {
            let (chunk, then) = self.source.export(cursor).await?;
            if let Chunk::Audit(rows) = &chunk {
                self.audited = rows.last().map(AuditRow::place).or(self.audited);
            }
            let count = chunk.len();
            self.target.import(chunk).await?;
            self.told(stage, count);
            next = then;
        }
        Ok(())
    }

    fn told(&mut self, stage: &'static str, more: usize) {
        self.done += more as u64;
        // What came meanwhile was not counted at the beginning.
        self.total = self.total.max(self.done);
        (self.tell)(Progress { stage: stage.to_owned(), done: self.done, total: self.total });
    }
}

async fn records(store: &dyn Store) -> Result<Records, StoreError> {
    let (chunk, _) = store.export(Cursor::Records).await?;
    let Chunk::Records(records) = chunk else { return Ok(Records::new()) };
    Ok(records.into_iter().map(|(kind, record)| ((kind, record.id.clone()), record)).collect())
}
