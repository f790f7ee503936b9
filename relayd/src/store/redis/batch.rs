//! A batch of closed requests, cut into calls for each hour and each group that it touches.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ahash::RandomState;
use redis::{Cmd, Value};
use shared::domain::{RequestId, Timestamp};

use super::link::LinkError;
use super::name;
use super::reserving::{TimeSource, end_text, parse, span};
use super::script::Script;
use super::sums;
use crate::store::id_span::hour_of;
use crate::store::{Booked, Booking, Closed, CounterId, Entry, GroupId, Mark};

/// Entries that one call carries at most: while a script runs, the server does nothing else.
pub(super) const ENTRIES_MAX: usize = 100;

/// How records are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grain {
    /// Those of a writer summed up, as is possible where none of them was applied before, or all were.
    Runs,
    /// One by one.
    Records,
}

/// Entries of one writer in the order in which it wrote them.
type Run<'a, T> = Vec<&'a T>;

/// Puts together what is to be summed up.
fn runs<'a, T>(entries: &'a [T], mark: impl Fn(&T) -> Mark, grain: Grain) -> Vec<Run<'a, T>> {
    if grain == Grain::Records {
        return entries.iter().map(|entry| vec![entry]).collect();
    }
    let mut runs: BTreeMap<(u32, u32), Run<'a, T>> = BTreeMap::new();
    for entry in entries {
        runs.entry(mark(entry).writer()).or_default().push(entry);
    }
    runs.into_values().collect()
}

/// Of each writer, the last record that was sent of a batch: whatever follows must not be applied without it.
#[derive(Default)]
struct Forerunners(BTreeMap<(u32, u32), Mark>);

impl Forerunners {
    /// Adds who wrote a run, the mark before it, its first and its last.
    fn add_marks(&mut self, marks: impl Iterator<Item = Mark> + Clone, command: &mut Cmd) {
        let ends = marks.clone().min().zip(marks.max());
        let Some((first, last)) = ends else { return };
        let before = self.0.insert(last.writer(), last);
        let (epoch, sequence) = before.map_or((0, 0), |before| (before.epoch, before.sequence));
        command.arg(writer(first)).arg(epoch).arg(sequence);
        command.arg(first.epoch).arg(first.sequence).arg(last.epoch).arg(last.sequence);
    }
}

/// Who wrote a record, as scripts know it.
pub(super) fn writer(mark: Mark) -> String {
    format!("{:08x}:{}", mark.node, mark.lane)
}

/// Reads marks, each under its writer.
pub(super) fn marks(found: &HashMap<String, String>) -> Result<BTreeMap<(u32, u32), Mark>, LinkError> {
    let marks = found.iter().map(|(writer, value)| mark(writer, value));
    marks.map(|mark| mark.map(|mark| (mark.writer(), mark))).collect()
}

/// Reads a mark out of its parts.
pub(super) fn mark(writer: &str, value: &str) -> Result<Mark, LinkError> {
    let (node, lane) = writer.split_once(':').ok_or(LinkError::Unexpected)?;
    let (epoch, sequence) = value.split_once(':').ok_or(LinkError::Unexpected)?;
    let node = u32::from_str_radix(node, 16).map_err(|_| LinkError::Unexpected)?;
    Ok(Mark { node, lane: parse(lane)?, epoch: parse(epoch)?, sequence: parse(sequence)? })
}

/// The last mark of each writer.
pub(super) fn last_marks(entries: &[Entry]) -> BTreeMap<(u32, u32), Mark> {
    let mut last: BTreeMap<_, Mark> = BTreeMap::new();
    for Entry { mark, .. } in entries {
        last.entry(mark.writer()).and_modify(|known| *known = (*known).max(*mark)).or_insert(*mark);
    }
    last
}

/// The hours that a batch has rows and sums of, and the groups that it books in, are noted before anything else.
pub(super) fn begin(entries: &[&Entry]) -> Cmd {
    let rows: BTreeSet<i64> = entries.iter().map(|entry| row_hour(entry).as_millis()).collect();
    let sums: BTreeSet<i64> = entries.iter().map(|entry| entry.closed.hour.as_millis()).collect();
    let bookings = entries.iter().flat_map(|entry| &entry.closed.bookings);
    let groups: BTreeSet<&str> = bookings.map(|booking| booking.group.as_str()).collect();
    let keys = [name::MARKS, name::ROW_HOURS, name::SUM_HOURS, name::GROUPS, name::ID];
    let mut command = Script::Begin.call(keys);
    command.arg(rows.len()).arg(sums.len());
    for hour in rows.into_iter().chain(sums) {
        command.arg(hour);
    }
    for group in groups {
        command.arg(group);
    }
    command
}

/// Notes groups in which something is about to be booked.
pub(super) fn note_groups<'a>(groups: impl Iterator<Item = &'a GroupId>) -> Cmd {
    let mut command = redis::cmd("ZADD");
    command.arg(name::GROUPS);
    groups.for_each(|group| {
        command.arg(0).arg(group.as_str());
    });
    command
}

/// Everything up to these marks is applied in the store of this id.
pub(super) fn finish<'a>(id: &str, marks: impl IntoIterator<Item = &'a Mark>) -> Cmd {
    let mut command = Script::Finish.call([name::MARKS, name::ID]);
    command.arg(id);
    for mark in marks {
        command.arg(writer(*mark)).arg(mark.epoch).arg(mark.sequence);
    }
    command
}

/// Rows, whose they are, and sums.
pub(super) fn facts(entries: &[&Entry], grain: Grain) -> Vec<Cmd> {
    let (mut by_row_hour, mut by_sum_hour) = (BTreeMap::<_, Vec<_>>::new(), BTreeMap::<_, Vec<_>>::new());
    for entry in entries {
        by_row_hour.entry(row_hour(entry)).or_default().push(*entry);
        by_sum_hour.entry(entry.closed.hour).or_default().push(*entry);
    }
    let mut commands = Vec::new();
    for (hour, entries) in by_row_hour {
        commands.extend(subjects(hour, entries.iter().map(|entry| &entry.closed)));
        commands.extend(
            entries
                .chunks(ENTRIES_MAX)
                .map(|entries| rows(hour, entries.iter().map(|entry| (entry.closed.request, entry.row())))),
        );
    }
    for (hour, entries) in by_sum_hour {
        let mut sent = Forerunners::default();
        commands.extend(entries.chunks(ENTRIES_MAX).map(|entries| add_sums(hour, entries, grain, &mut sent)));
    }
    commands
}

/// The hour in which a row lies.
fn row_hour(entry: &Entry) -> Timestamp {
    hour_of(entry.closed.request.as_u128())
}

/// Adds rows of an hour; those that are there stay.
fn rows<'a>(hour: Timestamp, rows: impl Iterator<Item = (RequestId, &'a [u8])>) -> Cmd {
    add_rows(hour, "", rows)
}

/// Puts rows of an hour in the places of those that are there.
pub(super) fn put_rows<'a>(hour: Timestamp, rows: impl Iterator<Item = (RequestId, &'a [u8])>) -> Cmd {
    add_rows(hour, "1", rows)
}

fn add_rows<'a>(hour: Timestamp, replaces: &str, rows: impl Iterator<Item = (RequestId, &'a [u8])>) -> Cmd {
    let [list, _] = name::rows(hour);
    let mut command = Script::Rows.call([list]);
    command.arg(replaces);
    let mut row = Vec::new();
    for (request, cbor) in rows {
        row.clear();
        row.extend(request.as_u128().to_be_bytes());
        row.extend_from_slice(cbor);
        command.arg(row.as_slice());
    }
    command
}

/// Notes the hour with each key and account that has rows in it, and them with the hour.
pub(super) fn subjects<'a>(hour: Timestamp, rows: impl Iterator<Item = &'a Closed>) -> Vec<Cmd> {
    let mut subjects = BTreeSet::new();
    for closed in rows {
        subjects.insert(GroupId::of_key(&closed.key));
        subjects.extend(closed.account.iter().map(GroupId::of_account));
    }
    let [_, of_hour] = name::rows(hour);
    let mut all = redis::cmd("SADD");
    all.arg(of_hour);
    let mut commands = Vec::with_capacity(subjects.len() + 1);
    for subject in &subjects {
        all.arg(subject.as_str());
        let mut hours = redis::cmd("ZADD");
        hours.arg(name::hours_of(subject.as_str())).arg(hour.as_millis()).arg(hour.as_millis());
        commands.push(hours);
    }
    commands.push(all);
    commands
}

fn add_sums(hour: Timestamp, entries: &[&Entry], grain: Grain, sent: &mut Forerunners) -> Cmd {
    let mut command = Script::Sums.call(name::sums(hour));
    for run in runs(entries, |entry| entry.mark, grain) {
        sent.add_marks(run.iter().map(|entry| entry.mark), &mut command);
        let sums: Vec<_> = sums::of(run.iter().map(|entry| &entry.closed)).collect();
        command.arg(sums.len());
        for (field, figures) in sums {
            command.arg(field).arg(figures);
        }
    }
    command
}

/// What a record means for a group: whose hold it ends, and what it books.
struct Record<'a> {
    mark: Mark,
    request: RequestId,
    bookings: Vec<&'a Booking>,
}

/// What a batch books in one group, and whose holds there it ends.
pub(super) struct GroupSettlement<'a> {
    pub(super) group: GroupId,
    records: Vec<Record<'a>>,
}

impl GroupSettlement<'_> {
    /// The requests whose holds end.
    pub(super) fn requests(&self) -> Vec<RequestId> {
        self.records.iter().map(|record| record.request).collect()
    }

    /// One call for every hundred records.
    pub(super) fn calls(&self, now: Timestamp, time: TimeSource, grain: Grain) -> impl Iterator<Item = Cmd> {
        let mut sent = Forerunners::default();
        self.records.chunks(ENTRIES_MAX).map(move |records| {
            let mut command = Script::Settle.call(name::group(&self.group));
            time.add_to(now, &mut command);
            let runs = runs(records, |record| record.mark, grain);
            runs.iter().for_each(|run| add_run(run, &mut sent, &mut command));
            command
        })
    }
}

/// Bookings of one window of one counter are one. Earlier windows come first: a later one ends them.
fn add_run(run: &[&Record<'_>], sent: &mut Forerunners, command: &mut Cmd) {
    sent.add_marks(run.iter().map(|record| record.mark), command);
    command.arg(run.len());
    let mut booked: BTreeMap<(i64, &str), (Option<Timestamp>, u64)> = BTreeMap::new();
    for Record { request, bookings, .. } in run {
        command.arg(&request.as_u128().to_be_bytes());
        for Booking { counter, span, amount, .. } in bookings {
            let sum = booked.entry((span.start.as_millis(), counter.as_str())).or_insert((span.end, 0));
            sum.1 = sum.1.saturating_add(*amount);
        }
    }
    command.arg(booked.len());
    for ((start, counter), (end, amount)) in booked {
        command.arg(counter).arg(start).arg(end_text(end)).arg(i64::try_from(amount).unwrap_or(i64::MAX));
    }
}

/// What a batch means for each group: those that it books in, and those that `holding` says its requests hold
/// something in.
pub(super) fn settlements<'a>(
    entries: &[&'a Entry],
    holding: impl Fn(&'a Entry) -> Vec<GroupId>,
) -> Vec<GroupSettlement<'a>> {
    let mut places: HashMap<GroupId, usize, RandomState> = HashMap::default();
    let mut settlements: Vec<GroupSettlement<'a>> = Vec::new();
    for &entry in entries {
        let mut groups = holding(entry);
        groups.extend(entry.closed.bookings.iter().map(|booking| booking.group.clone()));
        groups.sort_unstable();
        groups.dedup();
        for group in groups {
            let bookings = entry.closed.bookings.iter().filter(|booking| booking.group == group).collect();
            let place = *places.entry(group.clone()).or_insert_with(|| {
                settlements.push(GroupSettlement { group, records: Vec::new() });
                settlements.len() - 1
            });
            let (mark, request) = (entry.mark, entry.closed.request);
            settlements[place].records.push(Record { mark, request, bookings });
        }
    }
    settlements
}

/// Reads what [`Script::Settle`] said of a group.
pub(super) fn moved(group: &GroupId, reply: Value) -> Result<Vec<Booked>, LinkError> {
    let reply: Vec<String> = redis::from_redis_value(reply).map_err(|_| LinkError::Unexpected)?;
    let read = |parts: &[String]| {
        let [counter, start, end, before, after] = parts else { return Err(LinkError::Unexpected) };
        Ok(Booked {
            group: group.clone(),
            counter: CounterId::named(counter).ok_or(LinkError::Unexpected)?,
            span: span(start, end)?,
            before: parse(before)?,
            after: parse(after)?,
        })
    };
    reply.chunks(5).map(read).collect()
}

/// Of several moves of one counter in one window, the whole way.
pub(super) fn joined(moves: Vec<Booked>) -> Vec<Booked> {
    let mut joined: Vec<Booked> = Vec::with_capacity(moves.len());
    for moved in moves {
        match joined.iter_mut().find(|known| known.group == moved.group && known.counter == moved.counter) {
            Some(known) if known.span.start == moved.span.start => known.after = moved.after,
            Some(known) => *known = moved,
            None => joined.push(moved),
        }
    }
    joined
}
