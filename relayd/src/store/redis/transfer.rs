//! The store as it is moved: chunks out of the server, and how much there is. Everything is found through lists.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use redis::{Cmd, Value};
use shared::domain::{RequestId, Timestamp};

use super::link::LinkError;
use super::reserving::{parse, span};
use super::{Inner, amending, batch, ledger, name, records};
use crate::store::id_span::hour_of;
use crate::store::memory::CounterRecord;
use crate::store::transfer::{CHUNK, CHUNK_OF_GROUPS};
use crate::store::{
    Census, Chunk, CounterId, Cursor, Exported, GroupId, GroupState, Record, RecordKind, Row, StoreError,
};

/// How many hours of sums are read at once.
const HOURS: usize = 24;
/// How many hours of rows are looked at together.
const ROW_HOURS: usize = 200;

impl Inner {
    pub(super) async fn export(&self, cursor: Cursor) -> Result<Exported, StoreError> {
        Ok(match cursor {
            Cursor::Records => (Chunk::Records(self.all_records().await?), None),
            Cursor::Audit(after) => self.export_audit(after).await?,
            Cursor::Groups(after) => self.export_groups(after).await?,
            Cursor::TheseGroups(groups) => (Chunk::Groups(self.these_groups(&groups).await?), None),
            Cursor::Rows(after) => self.export_rows(after).await?,
            Cursor::TheseRows(ids) => (Chunk::Rows(self.these_rows(&ids).await?), None),
            Cursor::Sums(since) => self.export_sums(since).await?,
            Cursor::TheseSums(hours) => (Chunk::Sums(ledger::sums_of(&self.link, &hours).await?), None),
            Cursor::Kept => (Chunk::Kept(amending::kept(&self.link).await?), None),
            Cursor::Marks => {
                let marks = self.marks().await?.into_values().collect();
                (Chunk::Marks { marks, epoch: self.last_epoch().await? }, None)
            }
        })
    }

    async fn all_records(&self) -> Result<Vec<(RecordKind, Record)>, StoreError> {
        let mut all = Vec::new();
        for kind in RecordKind::ALL {
            all.extend(self.records(kind).await?.into_iter().map(|record| (kind, record)));
        }
        Ok(all)
    }

    async fn export_audit(&self, after: Option<(Timestamp, u64)>) -> Result<Exported, StoreError> {
        let mut passed = 0;
        loop {
            let since = after.map(|(at, _)| at);
            let found: Vec<Vec<u8>> =
                self.link.ask_patiently(&records::audit_from(since, passed, CHUNK)).await?;
            let is_last = found.len() < CHUNK;
            passed += found.len();
            let mut rows = records::audit_rows(&found)?;
            rows.retain(|row| after.is_none_or(|after| (row.entry.at, row.number) > after));
            let last = rows.last().map(|row| Cursor::Audit(Some((row.entry.at, row.number))));
            if is_last || last.is_some() {
                return Ok((Chunk::Audit(rows), last.filter(|_| !is_last)));
            }
        }
    }

    /// Of groups that are gone the list is cleaned; meanwhile nothing is booked.
    async fn export_groups(&self, after: Option<GroupId>) -> Result<Exported, StoreError> {
        let _applying = self.applying.lock().await;
        self.page_of_groups(after).await
    }

    async fn page_of_groups(&self, after: Option<GroupId>) -> Result<Exported, StoreError> {
        let mut list = redis::cmd("ZRANGEBYLEX");
        list.arg(name::GROUPS);
        match &after {
            Some(group) => list.arg(format!("({}", group.as_str())),
            None => list.arg("-"),
        };
        list.arg("+").arg("LIMIT").arg(0).arg(CHUNK_OF_GROUPS);
        let names: Vec<String> = self.link.ask_patiently(&list).await?;
        let groups: Vec<GroupId> = names.iter().map(|name| name.as_str().into()).collect();
        let found = self.these_groups(&groups).await?;
        let is_there: BTreeSet<&GroupId> = found.iter().map(|state| &state.group).collect();
        let gone: Vec<&str> =
            groups.iter().filter(|group| !is_there.contains(group)).map(GroupId::as_str).collect();
        if !gone.is_empty() {
            let mut clean = redis::cmd("ZREM");
            clean.arg(name::GROUPS).arg(gone);
            self.link.ask_patiently::<()>(&clean).await?;
        }
        let last = groups.last().filter(|_| groups.len() == CHUNK_OF_GROUPS);
        let next = last.map(|last| Cursor::Groups(Some(last.clone())));
        Ok((Chunk::Groups(found), next))
    }

    /// Learns where all counters stand that something was ever booked in: they may be needed without the server.
    pub(super) async fn learn_groups(&self) -> Result<(), StoreError> {
        let mut after = None;
        loop {
            let _applying = self.applying.lock().await;
            let (chunk, next) = self.page_of_groups(after).await?;
            if let Chunk::Groups(groups) = chunk {
                groups.into_iter().for_each(|state| self.know(state));
            }
            let Some(Cursor::Groups(last)) = next else { return Ok(()) };
            after = last;
        }
    }

    async fn these_groups(&self, groups: &[GroupId]) -> Result<Vec<GroupState>, StoreError> {
        let commands = groups.iter().map(|group| {
            let mut command = redis::cmd("HGETALL");
            command.arg(&name::group(group)[0]);
            command
        });
        let answers = self.link.ask_all(commands.collect()).await?;
        let read = |(group, answer): (&GroupId, Value)| group_state(group, answer);
        let states = groups.iter().zip(answers).map(read).collect::<Result<Vec<_>, _>>()?;
        Ok(states.into_iter().flatten().collect())
    }

    async fn export_rows(&self, mut after: Option<RequestId>) -> Result<Exported, StoreError> {
        let mut rows: Vec<Row> = Vec::new();
        let mut since = after.map(|id| hour_of(id.as_u128()));
        loop {
            let hours = self.row_hours(since).await?;
            for hour in &hours {
                self.rows_of_hour(*hour, &mut after, &mut rows).await?;
                if rows.len() >= CHUNK {
                    return Ok((Chunk::Rows(rows), Some(Cursor::Rows(after))));
                }
            }
            match hours.last().filter(|_| hours.len() == ROW_HOURS) {
                Some(last) => since = Some(Timestamp::from_millis(last.as_millis() + 1)),
                None => return Ok((Chunk::Rows(rows), None)),
            }
        }
    }

    /// Some hours with rows, from one on.
    async fn row_hours(&self, since: Option<Timestamp>) -> Result<Vec<Timestamp>, StoreError> {
        let mut list = redis::cmd("ZRANGEBYSCORE");
        list.arg(name::ROW_HOURS).arg(bound(since)).arg("+inf").arg("LIMIT").arg(0).arg(ROW_HOURS);
        let hours: Vec<i64> = self.link.ask_patiently(&list).await?;
        Ok(hours.into_iter().map(Timestamp::from_millis).collect())
    }

    /// Adds rows of an hour behind one, until there are enough or no more; tells which was the last.
    async fn rows_of_hour(
        &self,
        hour: Timestamp,
        after: &mut Option<RequestId>,
        rows: &mut Vec<Row>,
    ) -> Result<(), StoreError> {
        while rows.len() < CHUNK {
            let has_more = ledger::row_page(&self.link, hour, *after, rows).await?;
            *after = rows.last().map(|row| row.request).or(*after);
            if !has_more {
                break;
            }
        }
        Ok(())
    }

    async fn these_rows(&self, ids: &[RequestId]) -> Result<Vec<Row>, StoreError> {
        let answers = self.link.ask_all(ids.iter().map(|id| ledger::find(id.as_u128())).collect()).await?;
        let mut rows = Vec::new();
        for answer in answers {
            let found: Vec<Vec<u8>> = redis::from_redis_value(answer).map_err(|_| LinkError::Unexpected)?;
            rows.extend(found.iter().map(|row| ledger::raw(row)).collect::<Result<Vec<_>, _>>()?);
        }
        Ok(rows)
    }

    async fn export_sums(&self, since: Option<Timestamp>) -> Result<Exported, StoreError> {
        let mut list = redis::cmd("ZRANGEBYSCORE");
        list.arg(name::SUM_HOURS).arg(bound(since)).arg("+inf").arg("LIMIT").arg(0).arg(HOURS + 1);
        let hours: Vec<i64> = self.link.ask_patiently(&list).await?;
        let mut hours: Vec<Timestamp> = hours.into_iter().map(Timestamp::from_millis).collect();
        let next = if hours.len() > HOURS { hours.pop() } else { None };
        let sums = ledger::sums_of(&self.link, &hours).await?;
        Ok((Chunk::Sums(sums), next.map(|hour| Cursor::Sums(Some(hour)))))
    }

    async fn last_epoch(&self) -> Result<u64, StoreError> {
        let mut command = redis::cmd("GET");
        command.arg(name::EPOCH);
        let epoch: Option<u64> = self.link.ask_patiently(&command).await?;
        Ok(epoch.unwrap_or(0))
    }

    pub(super) async fn census(&self) -> Result<Census, StoreError> {
        let mut commands: Vec<Cmd> =
            RecordKind::ALL.iter().map(|kind| counting("HLEN", name::records(*kind))).collect();
        let kinds = commands.len();
        commands.extend([counting("ZCARD", name::AUDIT), counting("HLEN", name::MARKS)]);
        let counts = self.count(commands).await?;
        let groups: Vec<String> = self.link.ask_patiently(&all_of(name::GROUPS)).await?;
        let groups = groups.iter().map(|group| counting("EXISTS", &name::group(&group.as_str().into())[0]));
        let groups = self.count(groups.collect()).await?;
        let hours: Vec<i64> = self.link.ask_patiently(&all_of(name::ROW_HOURS)).await?;
        let rows = hours.iter().map(|hour| counting("ZCARD", &name::rows(Timestamp::from_millis(*hour))[0]));
        let rows = self.count(rows.collect()).await?;
        let hours: Vec<i64> = self.link.ask_patiently(&all_of(name::SUM_HOURS)).await?;
        let sums = hours.iter().map(|hour| counting("HLEN", &name::sums(Timestamp::from_millis(*hour))[0]));
        let sums = self.count(sums.collect()).await?;
        Ok(Census {
            records: counts[..kinds].iter().sum(),
            audit: counts[kinds],
            groups: groups.iter().sum(),
            rows: rows.iter().sum(),
            sums: sums.iter().sum(),
            writers: counts[kinds + 1],
        })
    }

    async fn count(&self, commands: Vec<Cmd>) -> Result<Vec<u64>, StoreError> {
        let answers = self.link.ask_all(commands).await?;
        let counts = answers.into_iter().map(redis::from_redis_value::<u64>);
        Ok(counts.collect::<Result<_, _>>().map_err(|_| LinkError::Unexpected)?)
    }
}

fn counting(command: &str, key: &str) -> Cmd {
    let mut command = redis::cmd(command);
    command.arg(key);
    command
}

fn all_of(list: &str) -> Cmd {
    let mut command = redis::cmd("ZRANGE");
    command.arg(list).arg(0).arg(-1);
    command
}

fn bound(since: Option<Timestamp>) -> String {
    since.map_or_else(|| "-inf".to_owned(), |since| since.as_millis().to_string())
}

/// Reads a group's hash; nothing where there is none.
fn group_state(group: &GroupId, answer: Value) -> Result<Option<GroupState>, LinkError> {
    let fields: HashMap<Vec<u8>, Vec<u8>> =
        redis::from_redis_value(answer).map_err(|_| LinkError::Unexpected)?;
    // Requests are no text.
    let text = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(str::to_owned);
    let fields: BTreeMap<String, String> =
        fields.iter().filter_map(|(field, value)| Some((text(field)?, text(value)?))).collect();
    let value = |kind: &str, name: &str| fields.get(&format!("{kind}:{name}")).map_or("", String::as_str);
    let mut state = GroupState { group: group.clone(), counters: Vec::new(), marks: Vec::new() };
    for field in fields.keys() {
        match field.split_once(':') {
            Some(("s", counter)) => state.counters.push(CounterRecord {
                counter: CounterId::named(counter).ok_or(LinkError::Unexpected)?,
                span: span(value("s", counter), value("e", counter))?,
                booked: parse(Some(value("b", counter)).filter(|booked| !booked.is_empty()).unwrap_or("0"))?,
            }),
            Some(("m", writer)) => state.marks.push(batch::mark(writer, value("m", writer))?),
            _ => {}
        }
    }
    state.marks.sort_unstable();
    let is_there = !state.counters.is_empty() || !state.marks.is_empty();
    Ok(is_there.then_some(state))
}
