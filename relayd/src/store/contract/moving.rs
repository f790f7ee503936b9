//! Chunks of a store: what goes out comes in elsewhere as it was, and coming in twice changes nothing.

use std::collections::BTreeMap;

use shared::admin::AuditEntry;
use shared::domain::RequestId;

use super::{
    CONCURRENT, IN_TOTAL, PER_MINUTE, Subject, ask, at, booking, closed, counter, entry, request_id,
};
use crate::store::{
    AuditRow, Booking, Census, Chunk, Cursor, Entry, GroupId, GroupState, Kept, Mark, Record, RecordKind,
    Rollup, RollupKey, RowQuery, Store, Write,
};

/// All that a store has, in one order.
#[derive(Debug, Default, PartialEq)]
pub(in crate::store) struct Everything {
    records: BTreeMap<(RecordKind, String), Record>,
    audit: Vec<AuditRow>,
    groups: BTreeMap<GroupId, GroupState>,
    rows: BTreeMap<RequestId, Box<[u8]>>,
    sums: BTreeMap<RollupKey, Rollup>,
    kept: Kept,
    marks: Vec<Mark>,
    epoch: u64,
}

impl Everything {
    fn add(&mut self, chunk: Chunk) {
        match chunk {
            Chunk::Records(records) => {
                let place = |(kind, record): (RecordKind, Record)| ((kind, record.id.clone()), record);
                self.records.extend(records.into_iter().map(place));
            }
            Chunk::Gone(_) => panic!("it is never exported"),
            Chunk::Audit(rows) => self.audit.extend(rows),
            Chunk::Groups(groups) => {
                self.groups.extend(groups.into_iter().map(|state| (state.group.clone(), state)));
            }
            Chunk::Rows(rows) => self.rows.extend(rows.into_iter().map(|row| (row.request, row.cbor))),
            Chunk::Sums(sums) => self.sums.extend(sums),
            Chunk::Kept(mut kept) => {
                let place = |one: &Booking| (one.group.clone(), one.counter.clone(), one.span.start);
                kept.balances.sort_by_key(place);
                self.kept = kept;
            }
            Chunk::Marks { mut marks, epoch } => {
                marks.sort_unstable();
                (self.marks, self.epoch) = (marks, epoch);
            }
        }
    }

    pub(in crate::store) fn census(&self) -> Census {
        Census {
            records: self.records.len() as u64,
            audit: self.audit.len() as u64,
            groups: self.groups.len() as u64,
            rows: self.rows.len() as u64,
            sums: self.sums.len() as u64,
            writers: self.marks.len() as u64,
        }
    }
}

/// Every part from its beginning on.
pub(in crate::store) async fn chunks(store: &dyn Store) -> Vec<Chunk> {
    let mut chunks = Vec::new();
    for first in [
        Cursor::Records,
        Cursor::Audit(None),
        Cursor::Groups(None),
        Cursor::Rows(None),
        Cursor::Sums(None),
        Cursor::Kept,
        Cursor::Marks,
    ] {
        let mut next = Some(first);
        while let Some(cursor) = next {
            let (chunk, then) = store.export(cursor).await.unwrap();
            chunks.push(chunk);
            next = then;
        }
    }
    chunks
}

pub(in crate::store) async fn everything(store: &dyn Store) -> Everything {
    let mut all = Everything::default();
    chunks(store).await.into_iter().for_each(|chunk| all.add(chunk));
    all
}

/// Puts some of everything into a store: records of several versions, audit entries of one moment, more groups, rows
/// and sums than a chunk has, a row of a newer version.
pub(in crate::store) async fn fill(store: &dyn Store) {
    let write = |id: &str, expected, value: Option<&str>, number: i64| Write {
        kind: if id.len() > 1 { RecordKind::Setting } else { RecordKind::Key },
        id: id.to_owned(),
        expected,
        value: value.map(|value| value.as_bytes().to_vec()),
        audit: Some(AuditEntry {
            at: at(number / 2),
            uid: None,
            pid: Some(7),
            action: format!("write {number}"),
            subject: id.to_owned(),
            name: String::new(),
            fields: Vec::new(),
        }),
    };
    store.write(vec![write("a", None, Some("1"), 0), write("bb", None, Some("\0ä"), 1)]).await.unwrap();
    store.write(vec![write("a", Some(1), Some("2"), 2), write("c", None, Some(""), 3)]).await.unwrap();
    store.write(vec![write("c", Some(1), None, 4)]).await.unwrap();
    let mut batch = Vec::new();
    for number in 0..2_400_u64 {
        let hour = i64::try_from(number / 50).unwrap();
        let id = RequestId::new(
            at(hour * 3_600_000 + 5),
            (u128::from(number).to_be_bytes())[6..].try_into().unwrap(),
        );
        let mut row = closed(id, Vec::new());
        row.model = format!("model {}", number % 50);
        row.key = format!("key_{}", number % 3).as_str().into();
        for name in [format!("key:{}", number % 600), "all".to_owned()] {
            let held = crate::store::Held {
                group: name.as_str().into(),
                counter: counter(if number % 2 == 0 { IN_TOTAL } else { PER_MINUTE }),
                span: if number % 2 == 0 {
                    crate::store::Span::ENDLESS
                } else {
                    crate::store::Span { start: at(60_000), end: Some(at(120_000)) }
                },
                amount: number,
                standing: crate::store::Standing::default(),
            };
            row.bookings.push(booking(&held));
        }
        batch.push(entry(u32::try_from(number % 2).unwrap(), 1 + number / 2, row));
    }
    batch.push(newer(&entry(0, 5_000, closed(last_id(), Vec::new()))));
    store.apply(batch.into()).await.unwrap();
    store.prune(at(3_600_000), Some(at(3_600_000))).await.unwrap();
    store.next_epoch(41).await.unwrap();
}

/// The request that a newer version wrote of.
fn last_id() -> RequestId {
    RequestId::new(at(99 * 3_600_000), [9; 10])
}

/// An entry with a field that this version does not know.
fn newer(entry: &Entry) -> Entry {
    let mut cbor = entry.row().to_vec();
    // An array of up to 65,535 elements; one more is appended.
    assert_eq!(cbor[0], 0x98, "an array whose length is in the next byte");
    cbor[1] += 1;
    cbor.push(0x18);
    cbor.push(42);
    Entry::read(entry.mark, &cbor).unwrap()
}

pub(in crate::store) fn what_goes_out_comes_in_as_it_was(subject: &mut Subject) {
    let store = subject.store().clone();
    subject.runtime.block_on(fill(&*store));
    let (chunks, all, census) = subject.runtime.block_on(async {
        (chunks(&*store).await, everything(&*store).await, store.census().await.unwrap())
    });
    assert_eq!(census, all.census());
    assert!(census.parts().iter().all(|(_, count)| *count > 0), "{census:?}");
    assert!(!all.kept.balances.is_empty() && all.kept.rows_since.is_some() && all.kept.sums_since.is_some());
    assert!(chunks.len() >= 10, "{} chunks", chunks.len());
    let standings = |subject: &Subject| {
        ["key:0", "key:1", "all"]
            .map(|group| [IN_TOTAL, PER_MINUTE].map(|of| subject.standing(group, of, 70_000)))
    };
    let expected = standings(subject);
    drop(store);
    subject.start_afresh();
    assert!(subject.wait(subject.store().census()).unwrap().is_empty());
    for _ in 0..2 {
        for chunk in &chunks {
            subject.wait(subject.store().import(chunk.clone())).unwrap();
        }
        let store = subject.store().clone();
        assert_eq!(subject.runtime.block_on(everything(&*store)), all);
        assert_eq!(subject.wait(store.census()).unwrap(), census);
        assert_eq!(standings(subject), expected);
    }
    subject.reopen();
    assert_eq!(standings(subject), expected);
    let of_key = RowQuery { key: Some("key_1".into()), limit: usize::MAX, ..RowQuery::default() };
    assert_eq!(subject.wait(subject.store().rows(of_key)).unwrap().len(), 783);
    let latest: Vec<_> = subject.wait(subject.store().audit(None, 2)).unwrap();
    assert_eq!(latest.iter().map(|entry| entry.action.as_str()).collect::<Vec<_>>(), ["write 4", "write 3"]);
    assert_eq!(subject.wait(subject.store().next_epoch(0)).unwrap(), 43);
}

pub(in crate::store) fn what_came_in_is_not_applied_again(subject: &mut Subject) {
    let asks = [ask(IN_TOTAL, 100)];
    let entries: Vec<Entry> = (1..=4)
        .map(|number| {
            let held = subject.admit(number, 0, &[("k", &asks)]);
            entry(0, number, closed(request_id(number), held.iter().map(booking).collect()))
        })
        .collect();
    subject.apply(&entries[..3]);
    let store = subject.store().clone();
    let chunks = subject.runtime.block_on(chunks(&*store));
    drop(store);
    subject.start_afresh();
    for chunk in chunks {
        subject.wait(subject.store().import(chunk)).unwrap();
    }
    assert_eq!(subject.apply(&entries[..3]), []);
    assert_eq!(subject.sums("k", IN_TOTAL, 0), (3, 0));
    assert_eq!(subject.apply(&entries).len(), 1);
    assert_eq!(subject.sums("k", IN_TOTAL, 0), (4, 0));
    let sums = subject.wait(subject.store().rollups(crate::store::RollupQuery::default())).unwrap();
    assert_eq!(sums.iter().map(|(_, sum)| sum.requests).sum::<u64>(), 4);
}

pub(in crate::store) fn some_of_it_is_exported_by_name(subject: &mut Subject) {
    let store = subject.store().clone();
    subject.runtime.block_on(async {
        fill(&*store).await;
        let (one, none) = (last_id(), request_id(999));
        let (Chunk::Rows(rows), None) = store.export(Cursor::TheseRows(vec![one, none])).await.unwrap()
        else {
            panic!()
        };
        assert_eq!(rows.iter().map(|row| row.request).collect::<Vec<_>>(), [one]);
        let groups = ["key:7", "nobody"].map(GroupId::from).to_vec();
        let (Chunk::Groups(groups), None) = store.export(Cursor::TheseGroups(groups)).await.unwrap() else {
            panic!()
        };
        assert_eq!(groups.iter().map(|state| state.group.as_str()).collect::<Vec<_>>(), ["key:7"]);
        let hours = vec![at(3_600_000), at(7_200_000), at(1)];
        let (Chunk::Sums(sums), None) = store.export(Cursor::TheseSums(hours)).await.unwrap() else {
            panic!()
        };
        assert_eq!(sums.len(), 100);
        let gone = vec![(RecordKind::Key, "a".to_owned()), (RecordKind::Key, "nobody".to_owned())];
        for _ in 0..2 {
            store.import(Chunk::Gone(gone.clone())).await.unwrap();
            assert_eq!(store.record(RecordKind::Key, "a").await.unwrap(), None);
        }
    });
}

pub(in crate::store) fn what_is_held_is_held_elsewhere(subject: &mut Subject) {
    let asks = [ask(CONCURRENT, 3), ask(IN_TOTAL, 3), ask(PER_MINUTE, 3)];
    let first = subject.admit(1, 5, &[("k", &asks), ("a", &asks)]);
    subject.admit(2, 6, &[("k", &asks)]);
    subject.release(2, "k");
    let holds = subject.store().holds();
    assert_eq!(holds.len(), 3);
    subject.start_afresh();
    for _ in 0..2 {
        subject.wait(subject.store().hold_again(holds.clone(), at(10), at(50_000))).unwrap();
        assert_eq!(subject.sums("k", CONCURRENT, 10), (0, 1));
        assert_eq!(subject.sums("k", IN_TOTAL, 10), (0, 2));
        assert_eq!(subject.sums("a", IN_TOTAL, 10), (0, 1));
    }
    let standing = subject.standing("k", PER_MINUTE, 10);
    assert_eq!((standing.held, standing.resets_at), (2, Some(at(60_005))), "the window began before");
    let row = closed(request_id(1), first.iter().map(booking).collect());
    subject.apply(&[entry(0, 1, row)]);
    assert_eq!(subject.sums("k", IN_TOTAL, 10), (1, 1));
    assert_eq!(subject.sums("a", CONCURRENT, 10), (0, 0));
    subject.give_back(2, "k");
    assert_eq!(subject.sums("k", PER_MINUTE, 10), (1, 0));
}
