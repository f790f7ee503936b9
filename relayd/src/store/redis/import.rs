//! Taking in parts of another store. Lists first, so that nothing is ever there that no list leads to.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use redis::Cmd;
use shared::domain::Timestamp;

use super::reserving::end_text;
use super::script::Script;
use super::{Inner, amending, batch, ledger, name, records, sums};
use crate::store::id_span::hour_of;
use crate::store::memory::{CounterRecord, Settlement};
use crate::store::{
    AuditRow, Chunk, Closed, GroupState, Mark, Record, RecordKind, Rollup, RollupKey, Row, StoreError,
};

/// How many values one command carries at most.
const VALUES_MAX: usize = 200;

impl Inner {
    pub(super) async fn import(&self, chunk: Chunk) -> Result<(), StoreError> {
        if chunk.is_empty() {
            return Ok(());
        }
        let _applying = self.applying.lock().await;
        match chunk {
            Chunk::Records(records) => self.import_records(&records).await,
            Chunk::Gone(ids) => self.import_gone(&ids).await,
            Chunk::Audit(rows) => self.import_audit(&rows).await,
            Chunk::Groups(groups) => self.import_groups(groups).await,
            Chunk::Rows(rows) => self.import_rows(&rows).await,
            Chunk::Sums(found) => self.send_all(put_sums(&found)).await,
            Chunk::Kept(kept) => self.send_all(amending::put_kept(&kept)).await,
            Chunk::Marks { marks, epoch } => self.import_marks(&marks, epoch).await,
        }
    }

    async fn import_records(&self, all: &[(RecordKind, Record)]) -> Result<(), StoreError> {
        let mut commands = Vec::new();
        for some in all.chunks(VALUES_MAX) {
            let mut by_kind: BTreeMap<RecordKind, Cmd> = BTreeMap::new();
            for (kind, record) in some {
                let command = by_kind.entry(*kind).or_insert_with(|| {
                    let mut command = redis::cmd("HSET");
                    command.arg(name::records(*kind));
                    command
                });
                command.arg(&record.id).arg(records::stored(record));
            }
            commands.extend(by_kind.into_values());
        }
        self.send_all(commands).await?;
        self.remembered.put_all(all);
        self.bump_version().await
    }

    async fn import_gone(&self, ids: &[(RecordKind, String)]) -> Result<(), StoreError> {
        let commands = ids.iter().map(|(kind, id)| {
            let mut command = redis::cmd("HDEL");
            command.arg(name::records(*kind)).arg(id);
            command
        });
        self.send_all(commands.collect()).await?;
        ids.iter().for_each(|(kind, id)| self.remembered.remove(*kind, id));
        self.bump_version().await
    }

    /// Others who know the records by now see that they changed.
    async fn bump_version(&self) -> Result<(), StoreError> {
        let mut command = redis::cmd("INCR");
        command.arg(name::VERSION);
        let version = self.link.ask_patiently(&command).await?;
        self.tidings.wrote(version);
        Ok(())
    }

    async fn import_audit(&self, rows: &[AuditRow]) -> Result<(), StoreError> {
        let mut commands = Vec::new();
        for rows in rows.chunks(VALUES_MAX) {
            let mut command = redis::cmd("ZADD");
            command.arg(name::AUDIT);
            for row in rows {
                command.arg(row.entry.at.as_millis()).arg(records::audit_member(row)?);
            }
            commands.push(command);
        }
        self.send_all(commands).await?;
        let last = rows.iter().map(|row| row.number).max().unwrap_or(0);
        self.raise(name::AUDITED, last).await
    }

    /// Only this process writes while a store is moved.
    pub(super) async fn raise(&self, number: &str, least: u64) -> Result<(), StoreError> {
        let mut get = redis::cmd("GET");
        get.arg(number);
        let known: Option<u64> = self.link.ask_patiently(&get).await?;
        if known.unwrap_or(0) >= least {
            return Ok(());
        }
        let mut set = redis::cmd("SET");
        set.arg(number).arg(least);
        self.link.ask_patiently(&set).await
    }

    async fn import_groups(&self, groups: Vec<GroupState>) -> Result<(), StoreError> {
        let mut commands = vec![batch::note_groups(groups.iter().map(|state| &state.group))];
        commands.extend(groups.iter().map(|state| self.put_group(state)));
        self.send_all(commands).await?;
        groups.into_iter().for_each(|state| self.know(state));
        Ok(())
    }

    pub(super) fn know(&self, GroupState { group, counters, .. }: GroupState) {
        self.known.settle(&group, &Settlement { records: counters, requests: Vec::new() });
    }

    fn put_group(&self, state: &GroupState) -> Cmd {
        let mut command = Script::Adopt.call(name::group(&state.group));
        // What is to be kept for how long goes by the server's clock, unless a test sets it.
        self.time.add_to(Timestamp::default(), &mut command);
        command.arg(state.counters.len());
        for CounterRecord { counter, span, booked } in &state.counters {
            let end = end_text(span.end);
            command.arg(counter.as_str()).arg(span.start.as_millis()).arg(end);
            command.arg(i64::try_from(*booked).unwrap_or(i64::MAX));
        }
        for mark in &state.marks {
            command.arg(batch::writer(*mark)).arg(mark.epoch).arg(mark.sequence);
        }
        command
    }

    async fn import_rows(&self, rows: &[Row]) -> Result<(), StoreError> {
        let mut by_hour: BTreeMap<Timestamp, Vec<(&Row, Closed)>> = BTreeMap::new();
        for row in rows {
            let hour = hour_of(row.request.as_u128());
            by_hour.entry(hour).or_default().push((row, ledger::closed(&row.cbor)?));
        }
        let mut commands = vec![note_hours(name::ROW_HOURS, by_hour.keys())];
        for (hour, rows) in &by_hour {
            commands.extend(batch::subjects(*hour, rows.iter().map(|(_, closed)| closed)));
            let raw: Vec<_> = rows.iter().map(|(row, _)| (row.request, &*row.cbor)).collect();
            commands.extend(
                raw.chunks(batch::ENTRIES_MAX).map(|raw| batch::put_rows(*hour, raw.iter().copied())),
            );
        }
        self.send_all(commands).await
    }

    async fn import_marks(&self, marks: &[Mark], epoch: u64) -> Result<(), StoreError> {
        self.finish(marks).await?;
        self.raise(name::EPOCH, epoch).await?;
        self.epoch.fetch_max(epoch, Ordering::Relaxed);
        self.note_applied(marks.iter().map(|mark| (mark.writer(), *mark)).collect());
        Ok(())
    }

    async fn send_all(&self, commands: Vec<Cmd>) -> Result<(), StoreError> {
        self.link.ask_all(commands).await.map(drop)
    }
}

fn put_sums(found: &[(RollupKey, Rollup)]) -> Vec<Cmd> {
    let mut by_hour: BTreeMap<Timestamp, Vec<_>> = BTreeMap::new();
    for (key, sum) in found {
        by_hour.entry(key.hour).or_default().push(sums::stored(key, sum));
    }
    let mut commands = vec![note_hours(name::SUM_HOURS, by_hour.keys())];
    for (hour, fields) in by_hour {
        commands.extend(fields.chunks(VALUES_MAX).map(|fields| set_fields(&name::sums(hour)[0], fields)));
    }
    commands
}

fn set_fields(key: &str, fields: &[(Vec<u8>, Vec<u8>)]) -> Cmd {
    let mut command = redis::cmd("HSET");
    command.arg(key);
    for (field, value) in fields {
        command.arg(field).arg(value);
    }
    command
}

fn note_hours<'a>(list: &str, hours: impl Iterator<Item = &'a Timestamp>) -> Cmd {
    let mut command = redis::cmd("ZADD");
    command.arg(list);
    hours.for_each(|hour| {
        command.arg(hour.as_millis()).arg(hour.as_millis());
    });
    command
}
