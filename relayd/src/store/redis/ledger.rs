//! Rows and sums, as they are read and pruned. Hours are looked up in their lists; nothing is scanned for.

use redis::Cmd;
use shared::domain::{RequestId, Timestamp};

use super::link::{Link, LinkError};
use super::{amending, name, sums};
use crate::store::id_span::{IdSpan, first_id, hour_of};
use crate::store::transfer;
use crate::store::{Closed, GroupId, Rollup, RollupKey, RollupQuery, RowQuery, StoreError};

/// How many rows are asked for at once.
const PAGE: usize = 1_000;
/// How many bytes of a row are its id.
pub(super) const ID_BYTES: usize = 16;
const HOUR_MS: i64 = 3_600_000;

/// Rows that a query asks for, newest first.
pub(super) async fn rows(link: &Link, query: &RowQuery) -> Result<Vec<Closed>, StoreError> {
    let span = IdSpan::of(query);
    let mut rows = Vec::new();
    if span.is_empty() || query.limit == 0 {
        return Ok(rows);
    }
    for hour in hours(link, query, span).await? {
        collect(link, hour, span.within_hour(hour), query, &mut rows).await?;
        if rows.len() >= query.limit {
            break;
        }
    }
    Ok(rows)
}

/// The hours in which there may be rows of the query, newest first.
async fn hours(link: &Link, query: &RowQuery, span: IdSpan) -> Result<Vec<Timestamp>, StoreError> {
    if let Some(id) = query.id {
        return Ok(vec![hour_of(id.as_u128())]);
    }
    let subject = query.key.as_ref().map(GroupId::of_key);
    let subject = subject.or_else(|| query.account.as_ref().map(GroupId::of_account));
    let list = subject.map_or_else(|| name::ROW_HOURS.to_owned(), |subject| name::hours_of(subject.as_str()));
    let (first, last) = span.hours();
    let mut command = redis::cmd("ZREVRANGEBYSCORE");
    command.arg(list).arg(last.as_millis()).arg(first.as_millis());
    let hours: Vec<i64> = link.ask_patiently(&command).await?;
    Ok(hours.into_iter().map(Timestamp::from_millis).collect())
}

/// Collects the rows of an hour, page by page, until there are enough.
async fn collect(
    link: &Link,
    hour: Timestamp,
    mut span: IdSpan,
    query: &RowQuery,
    rows: &mut Vec<Closed>,
) -> Result<(), StoreError> {
    let [list, _] = name::rows(hour);
    while !span.is_empty() && rows.len() < query.limit {
        let page =
            if query.key.is_some() || query.account.is_some() { PAGE } else { query.limit - rows.len() };
        let page = page.min(PAGE);
        let mut command = redis::cmd("ZREVRANGEBYLEX");
        add_range(&mut command, &list, span);
        command.arg("LIMIT").arg(0).arg(page);
        let found: Vec<Vec<u8>> = link.ask_patiently(&command).await?;
        let is_last = found.len() < page;
        for row in found {
            let Row { closed, .. } = Row::read(row)?;
            span.end = closed.request.as_u128();
            let is_asked = query.key.as_ref().is_none_or(|key| closed.key == *key)
                && query.account.as_ref().is_none_or(|account| closed.account.as_ref() == Some(account));
            if is_asked && rows.len() < query.limit {
                rows.push(closed);
            }
        }
        if is_last {
            break;
        }
    }
    Ok(())
}

/// A row as it is stored, and what it says.
pub(super) struct Row {
    pub(super) stored: Vec<u8>,
    pub(super) closed: Closed,
}

impl Row {
    fn read(stored: Vec<u8>) -> Result<Self, StoreError> {
        let cbor = stored.get(ID_BYTES..).ok_or(LinkError::Unexpected)?;
        let closed = closed(cbor)?;
        Ok(Self { stored, closed })
    }
}

/// Looks for the row of an id.
pub(super) fn find(id: u128) -> Cmd {
    let mut command = redis::cmd("ZREVRANGEBYLEX");
    let [list, _] = name::rows(hour_of(id));
    add_range(&mut command, &list, IdSpan { first: id, end: id.saturating_add(1) });
    command.arg("LIMIT").arg(0).arg(1);
    command
}

/// The newest first: from the end, which does not belong to it, to the beginning.
fn add_range(command: &mut Cmd, list: &str, span: IdSpan) {
    let bound = |mark: u8, id: u128| [&[mark], id.to_be_bytes().as_slice()].concat();
    command.arg(list);
    if span.end == u128::MAX {
        command.arg("+");
    } else {
        command.arg(bound(b'(', span.end));
    }
    command.arg(bound(b'[', span.first));
}

/// Hourly sums, in the order of their keys.
pub(super) async fn rollups(
    link: &Link,
    query: &RollupQuery,
) -> Result<Vec<(RollupKey, Rollup)>, StoreError> {
    let since = query.since.map_or_else(|| "-inf".to_owned(), |since| since.as_millis().to_string());
    let until = query.until.map_or_else(|| "+inf".to_owned(), |until| format!("({}", until.as_millis()));
    let mut command = redis::cmd("ZRANGEBYSCORE");
    command.arg(name::SUM_HOURS).arg(since).arg(until);
    let hours: Vec<i64> = link.ask_patiently(&command).await?;
    let hours: Vec<Timestamp> = hours.into_iter().map(Timestamp::from_millis).collect();
    let mut found = sums_of(link, &hours).await?;
    found.retain(|(key, _)| {
        let is_wanted = query.key.is_none() || query.key == key.key;
        is_wanted && (query.account.is_none() || query.account == key.account)
    });
    Ok(found)
}

/// The sums of hours, in the order of their keys.
pub(super) async fn sums_of(
    link: &Link,
    hours: &[Timestamp],
) -> Result<Vec<(RollupKey, Rollup)>, StoreError> {
    let commands = hours.iter().map(|hour| {
        let mut command = redis::cmd("HGETALL");
        command.arg(&name::sums(*hour)[0]);
        command
    });
    let answers = link.ask_all(commands.collect()).await?;
    let mut found = Vec::new();
    for (hour, answer) in hours.iter().zip(answers) {
        let fields: Vec<(Vec<u8>, Vec<u8>)> =
            redis::from_redis_value(answer).map_err(|_| LinkError::Unexpected)?;
        for (field, figures) in fields {
            found.push(sums::read(*hour, &field, &figures)?);
        }
    }
    found.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
    Ok(found)
}

/// Adds some rows of an hour behind one, the oldest first; tells whether there may be more.
pub(super) async fn row_page(
    link: &Link,
    hour: Timestamp,
    after: Option<RequestId>,
    rows: &mut Vec<transfer::Row>,
) -> Result<bool, StoreError> {
    let mut command = redis::cmd("ZRANGEBYLEX");
    command.arg(&name::rows(hour)[0]);
    match after.filter(|after| hour_of(after.as_u128()) == hour) {
        // The id alone is below every row that begins with it.
        Some(after) => command.arg(edge(after.as_u128().saturating_add(1))),
        None => command.arg("-"),
    };
    command.arg("+").arg("LIMIT").arg(0).arg(PAGE);
    let found: Vec<Vec<u8>> = link.ask_patiently(&command).await?;
    for row in &found {
        rows.push(raw(row)?);
    }
    Ok(found.len() == PAGE)
}

fn edge(id: u128) -> Vec<u8> {
    [b"[".as_slice(), &id.to_be_bytes()].concat()
}

/// A row as it is stored.
pub(super) fn raw(row: &[u8]) -> Result<transfer::Row, StoreError> {
    let (id, cbor) = row.split_first_chunk::<ID_BYTES>().ok_or(LinkError::Unexpected)?;
    Ok(transfer::Row { request: RequestId::from_u128(u128::from_be_bytes(*id)), cbor: cbor.into() })
}

/// What a row says.
pub(super) fn closed(cbor: &[u8]) -> Result<Closed, StoreError> {
    minicbor::decode(cbor)
        .map_err(|error| StoreError::Damaged { what: "ledger row", source: Box::new(error) })
}

/// Drops rows opened before a time and sums of hours before another. Lists forget an hour last, so that what was
/// broken off is taken up by the next.
pub(super) async fn prune(
    link: &Link,
    rows_before: Timestamp,
    rollups_before: Option<Timestamp>,
) -> Result<u64, StoreError> {
    let mut dropped = 0;
    for hour in hours_before(link, name::ROW_HOURS, &rows_before.as_millis().to_string()).await? {
        dropped += prune_hour(link, hour, rows_before).await?;
    }
    amending::drop_ended(link, rows_before).await?;
    if let Some(before) = rollups_before {
        prune_sums(link, before).await?;
    }
    Ok(dropped)
}

async fn prune_sums(link: &Link, before: Timestamp) -> Result<(), StoreError> {
    let hours = hours_before(link, name::SUM_HOURS, &format!("({}", before.as_millis())).await?;
    if !hours.is_empty() {
        amending::note_sums(link, before).await?;
    }
    for hour in hours {
        let [sums, marks] = name::sums(hour);
        let commands = [unlink(&sums), unlink(&marks), forget(name::SUM_HOURS, hour)];
        link.ask_all(commands.into()).await?;
    }
    Ok(())
}

async fn hours_before(link: &Link, list: &str, end: &str) -> Result<Vec<Timestamp>, StoreError> {
    let mut command = redis::cmd("ZRANGEBYSCORE");
    command.arg(list).arg("-inf").arg(end);
    let hours: Vec<i64> = link.ask_patiently(&command).await?;
    Ok(hours.into_iter().map(Timestamp::from_millis).collect())
}

async fn prune_hour(link: &Link, hour: Timestamp, before: Timestamp) -> Result<u64, StoreError> {
    let [rows, of_hour] = name::rows(hour);
    let mut dropped = 0;
    loop {
        let mut command = redis::cmd("ZRANGEBYLEX");
        let end = [b"(".as_slice(), &first_id(before).to_be_bytes()].concat();
        command.arg(&rows).arg("-").arg(end).arg("LIMIT").arg(0).arg(PAGE);
        let found: Vec<Vec<u8>> = link.ask_patiently(&command).await?;
        let page: Vec<Row> = found.into_iter().map(Row::read).collect::<Result<_, _>>()?;
        let Some(command) = amending::drop_rows(hour, before, &page) else { break };
        dropped += link.ask_patiently::<u64>(&command).await?;
    }
    if hour.as_millis() + HOUR_MS > before.as_millis() {
        return Ok(dropped);
    }
    let mut list = redis::cmd("SMEMBERS");
    list.arg(&of_hour);
    let subjects: Vec<String> = link.ask_patiently(&list).await?;
    let mut commands: Vec<Cmd> =
        subjects.iter().map(|subject| forget(&name::hours_of(subject), hour)).collect();
    commands.extend([unlink(&of_hour), forget(name::ROW_HOURS, hour)]);
    link.ask_all(commands).await?;
    Ok(dropped)
}

fn unlink(key: &str) -> Cmd {
    let mut command = redis::cmd("UNLINK");
    command.arg(key);
    command
}

fn forget(list: &str, hour: Timestamp) -> Cmd {
    let mut command = redis::cmd("ZREM");
    command.arg(list).arg(hour.as_millis());
    command
}
