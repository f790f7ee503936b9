//! What dropped rows leave behind, and putting right what is stored.

use std::collections::{BTreeMap, HashMap};

use redis::Cmd;
use shared::domain::Timestamp;

use super::link::{Link, LinkError};
use super::reserving::{TimeSource, end_text, parse, span};
use super::script::Script;
use super::{ledger, name, sums};
use crate::store::amend::amended;
use crate::store::id_span::hour_of;
use crate::store::{Booked, Booking, Closed, CounterId, GroupId, Kept, Rollup, RollupKey, Span, StoreError};

const SUMS_SINCE: &str = "sums_since";

/// Drops the first rows of an hour, which were opened before a time, all of them or none.
pub(super) fn drop_rows(hour: Timestamp, before: Timestamp, rows: &[ledger::Row]) -> Option<Cmd> {
    let mut balances: BTreeMap<String, u64> = BTreeMap::new();
    let bookings = rows.iter().flat_map(|row| &row.closed.bookings);
    for booking in bookings.filter(|booking| !booking.span.is_over(before)) {
        let balance = balances.entry(balance_field(booking)).or_default();
        *balance = balance.saturating_add(booking.amount);
    }
    let [list, _] = name::rows(hour);
    let mut command = Script::Drop.call([list.as_str(), name::BALANCES, name::KEPT]);
    command.arg(&rows.last()?.stored).arg(rows.len()).arg(before.as_millis());
    for (field, amount) in balances {
        command.arg(field).arg(i64::try_from(amount).unwrap_or(i64::MAX));
    }
    Some(command)
}

/// Names have no line ends.
fn balance_field(Booking { group, counter, span, .. }: &Booking) -> String {
    let end = end_text(span.end);
    format!("{}\n{}\n{}\n{end}", group.as_str(), counter.as_str(), span.start.as_millis())
}

fn balance(field: &str, amount: u64) -> Result<Booking, LinkError> {
    let parts: Vec<&str> = field.split('\n').collect();
    let [group, counter, start, end] = parts[..] else { return Err(LinkError::Unexpected) };
    let counter = CounterId::named(counter).ok_or(LinkError::Unexpected)?;
    Ok(Booking { group: group.into(), counter, span: span(start, end)?, amount })
}

async fn balances(link: &Link) -> Result<HashMap<String, u64>, StoreError> {
    let mut command = redis::cmd("HGETALL");
    command.arg(name::BALANCES);
    link.ask_patiently(&command).await
}

/// Forgets balances of windows that were over at a time.
pub(super) async fn drop_ended(link: &Link, time: Timestamp) -> Result<(), StoreError> {
    let mut command = redis::cmd("HDEL");
    command.arg(name::BALANCES);
    let mut has_ended = false;
    for (field, amount) in balances(link).await? {
        if balance(&field, amount)?.span.is_over(time) {
            command.arg(field);
            has_ended = true;
        }
    }
    if has_ended { link.ask_patiently(&command).await } else { Ok(()) }
}

/// Sums before a time are about to go.
pub(super) async fn note_sums(link: &Link, before: Timestamp) -> Result<(), StoreError> {
    let known = times(link).await?.get(SUMS_SINCE).copied().unwrap_or(i64::MIN);
    let mut command = redis::cmd("HSET");
    command.arg(name::KEPT).arg(SUMS_SINCE).arg(known.max(before.as_millis()));
    link.ask_patiently(&command).await
}

async fn times(link: &Link) -> Result<HashMap<String, i64>, StoreError> {
    let mut command = redis::cmd("HGETALL");
    command.arg(name::KEPT);
    link.ask_patiently(&command).await
}

/// How far back the store can be asked. There never was a version without balances.
pub(super) async fn kept(link: &Link) -> Result<Kept, StoreError> {
    let times = times(link).await?;
    let time = |name: &str| times.get(name).map(|millis| Timestamp::from_millis(*millis));
    let balances = balances(link).await?;
    let balances: Result<Vec<Booking>, LinkError> =
        balances.iter().map(|(field, amount)| balance(field, *amount)).collect();
    Ok(Kept {
        rows_since: time("rows_since"),
        sums_since: time(SUMS_SINCE),
        balances_since: time("balances_since"),
        balances: balances?,
    })
}

/// Puts in the place of what is there what another store kept.
pub(super) fn put_kept(kept: &Kept) -> Vec<Cmd> {
    let mut clear = redis::cmd("DEL");
    clear.arg(name::KEPT).arg(name::BALANCES);
    let mut commands = vec![clear];
    let times = [
        ("rows_since", kept.rows_since),
        (SUMS_SINCE, kept.sums_since),
        ("balances_since", kept.balances_since),
    ];
    for (name, time) in times.into_iter().filter_map(|(name, time)| Some((name, time?))) {
        let mut command = redis::cmd("HSET");
        command.arg(name::KEPT).arg(name).arg(time.as_millis());
        commands.push(command);
    }
    for balance in &kept.balances {
        let mut command = redis::cmd("HSET");
        command.arg(name::BALANCES).arg(balance_field(balance));
        command.arg(i64::try_from(balance.amount).unwrap_or(i64::MAX));
        commands.push(command);
    }
    commands
}

/// What is booked in all counters of groups.
pub(super) async fn counters(link: &Link, groups: &[GroupId]) -> Result<Vec<Booking>, StoreError> {
    let commands = groups.iter().map(|group| {
        let mut command = redis::cmd("HGETALL");
        command.arg(&name::group(group)[0]);
        command
    });
    let answers = link.ask_all(commands.collect()).await?;
    let mut found = Vec::new();
    for (group, answer) in groups.iter().zip(answers) {
        // What requests hold is no text.
        let fields: HashMap<Vec<u8>, Vec<u8>> =
            redis::from_redis_value(answer).map_err(|_| LinkError::Unexpected)?;
        found.extend(booked_in(group, &fields)?);
    }
    Ok(found)
}

fn booked_in(group: &GroupId, fields: &HashMap<Vec<u8>, Vec<u8>>) -> Result<Vec<Booking>, LinkError> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|_| LinkError::Unexpected);
    let mut booked = Vec::new();
    for (field, amount) in fields {
        let Some(counter) = field.strip_prefix(b"b:") else { continue };
        let bound = |prefix: &[u8]| {
            let value = fields.get(&[prefix, counter].concat()).ok_or(LinkError::Unexpected)?;
            text(value)
        };
        let span = span(&bound(b"s:")?, &bound(b"e:")?)?;
        let amount = parse(&text(amount)?)?;
        let counter = CounterId::named(&text(counter)?).ok_or(LinkError::Unexpected)?;
        if amount > 0 {
            booked.push(Booking { group: group.clone(), counter, span, amount });
        }
    }
    Ok(booked)
}

/// Puts rows in the places of those that have their ids; gives how many were there.
pub(super) async fn amend_rows(link: &Link, rows: &[Closed]) -> Result<u64, StoreError> {
    let ids = rows.iter().map(|closed| closed.request.as_u128());
    let answers = link.ask_all(ids.map(ledger::find).collect()).await?;
    let mut by_hour: BTreeMap<Timestamp, Cmd> = BTreeMap::new();
    for (closed, answer) in rows.iter().zip(answers) {
        let found: Vec<Vec<u8>> = redis::from_redis_value(answer).map_err(|_| LinkError::Unexpected)?;
        let Some(stored) = found.into_iter().next() else { continue };
        let (id, cbor) = stored.split_at_checked(ledger::ID_BYTES).ok_or(LinkError::Unexpected)?;
        let row = [id, &amended(cbor, closed)?].concat();
        let hour = hour_of(closed.request.as_u128());
        let command =
            by_hour.entry(hour).or_insert_with(|| Script::Replace.call([name::rows(hour)[0].as_str()]));
        command.arg(stored).arg(row);
    }
    let replies = link.ask_all(by_hour.into_values().collect()).await?;
    let counts = replies.into_iter().map(redis::from_redis_value);
    let counts: Result<Vec<u64>, _> = counts.collect();
    Ok(counts.map_err(|_| LinkError::Unexpected)?.into_iter().sum())
}

/// Puts sums in the places of those that have their keys.
pub(super) fn put_sums(sums: &[(RollupKey, Rollup)]) -> Vec<Cmd> {
    let mut commands = Vec::with_capacity(2 * sums.len());
    for (key, sum) in sums {
        let hour = key.hour.as_millis();
        let [list, _] = name::sums(key.hour);
        let (field, figures) = sums::stored(key, sum);
        if *sum == Rollup::default() {
            let mut command = redis::cmd("HDEL");
            command.arg(list).arg(field);
            commands.push(command);
            continue;
        }
        let mut note = redis::cmd("ZADD");
        note.arg(name::SUM_HOURS).arg(hour).arg(hour);
        let mut command = redis::cmd("HSET");
        command.arg(list).arg(field).arg(figures);
        commands.extend([note, command]);
    }
    commands
}

/// Sets counters of one group that stand where they are said to stand.
pub(super) fn correct(group: &GroupId, changes: &[&Booked], time: TimeSource) -> Cmd {
    let mut command = Script::Correct.call(name::group(group));
    time.add_to(Timestamp::default(), &mut command);
    for Booked { counter, span: Span { start, end }, before, after, .. } in changes {
        let end = end_text(*end);
        command.arg(counter.as_str()).arg(start.as_millis()).arg(end).arg(before);
        command.arg(i64::try_from(*after).unwrap_or(i64::MAX));
    }
    command
}
