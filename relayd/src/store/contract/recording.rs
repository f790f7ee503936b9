//! Records, the audit log, epochs.

use shared::admin::AuditEntry;

use super::{Subject, at};
use crate::store::{Record, RecordKind, StoreError, Write};

fn write(id: &str, expected: Option<u64>, value: Option<&str>) -> Write {
    let (kind, value) = (RecordKind::Key, value.map(|text| text.as_bytes().to_vec()));
    Write { kind, id: id.to_owned(), expected, value, audit: None }
}

fn audited(write: Write, time: i64, action: &str) -> Write {
    let entry = AuditEntry {
        at: at(time),
        uid: Some(7),
        pid: None,
        action: action.to_owned(),
        subject: write.id.clone(),
        name: "alice".to_owned(),
        fields: vec!["limits".to_owned()],
    };
    Write { audit: Some(entry), ..write }
}

fn is_changed<T>(result: &Result<T, StoreError>) -> bool {
    matches!(result, Err(StoreError::Changed))
}

pub(in crate::store) fn records_change_only_from_the_version_that_was_read(subject: &mut Subject) {
    let change = |subject: &Subject, expected, value| {
        subject.wait(subject.store().write(vec![write("a", expected, value)]))
    };
    let read = |subject: &Subject| subject.wait(subject.store().record(RecordKind::Key, "a")).unwrap();
    let stored =
        |version, value: &str| Some(Record { id: "a".to_owned(), version, value: value.as_bytes().to_vec() });
    assert_eq!(read(subject), None);
    assert!(is_changed(&change(subject, Some(1), Some("x"))), "it does not exist");
    assert_eq!(change(subject, None, Some("one")).unwrap(), [1]);
    assert!(is_changed(&change(subject, None, Some("x"))), "it exists");
    assert_eq!(change(subject, Some(1), Some("two")).unwrap(), [2]);
    assert!(is_changed(&change(subject, Some(1), Some("x"))), "it is at 2");
    assert_eq!(read(subject), stored(2, "two"));
    subject.reopen();
    assert_eq!(read(subject), stored(2, "two"));
    assert!(is_changed(&change(subject, Some(1), None)), "it is at 2");
    assert!(change(subject, Some(2), None).is_ok());
    assert_eq!(read(subject), None);
    assert!(is_changed(&change(subject, Some(3), Some("x"))), "it was deleted");
}

pub(in crate::store) fn a_batch_of_changes_is_made_wholly_or_not_at_all(subject: &mut Subject) {
    subject.wait(subject.store().write(vec![write("b", None, Some("one"))])).unwrap();
    let batch =
        vec![audited(write("a", None, Some("one")), 5, "key.create"), write("b", Some(9), Some("two"))];
    assert!(is_changed(&subject.wait(subject.store().write(batch))));
    subject.reopen();
    assert_eq!(subject.wait(subject.store().record(RecordKind::Key, "a")).unwrap(), None);
    assert_eq!(subject.wait(subject.store().audit(None, 10)).unwrap(), []);
    let batch =
        vec![audited(write("a", None, Some("one")), 5, "key.create"), write("b", Some(1), Some("two"))];
    assert_eq!(subject.wait(subject.store().write(batch)).unwrap(), [1, 2]);
    assert_eq!(subject.wait(subject.store().audit(None, 10)).unwrap().len(), 1);
}

pub(in crate::store) fn records_are_listed_by_kind(subject: &mut Subject) {
    let of_kind = |kind, id: &str| Write { kind, ..write(id, None, Some(id)) };
    let batch = vec![
        of_kind(RecordKind::Account, "c"),
        of_kind(RecordKind::Key, "b"),
        of_kind(RecordKind::Key, "a"),
        of_kind(RecordKind::Setting, ""),
    ];
    subject.wait(subject.store().write(batch)).unwrap();
    for (kind, expected) in [
        (RecordKind::Key, vec!["a", "b"]),
        (RecordKind::Account, vec!["c"]),
        (RecordKind::Price, vec![]),
        (RecordKind::Setting, vec![""]),
    ] {
        let records = subject.wait(subject.store().records(kind)).unwrap();
        let ids: Vec<&str> = records.iter().map(|record| record.id.as_str()).collect();
        assert_eq!(ids, expected, "{kind:?}");
        assert!(records.iter().all(|record| record.version == 1 && record.value == record.id.as_bytes()));
    }
}

pub(in crate::store) fn audit_entries_come_newest_first(subject: &mut Subject) {
    for (time, action) in [(20, "second"), (10, "first"), (20, "third"), (30, "fourth")] {
        let change = audited(write(action, None, Some("x")), time, action);
        subject.wait(subject.store().write(vec![change])).unwrap();
    }
    subject.reopen();
    for (since, limit, expected) in [
        (None, 10, vec!["fourth", "third", "second", "first"]),
        (Some(20), 10, vec!["fourth", "third", "second"]),
        (Some(21), 10, vec!["fourth"]),
        (None, 2, vec!["fourth", "third"]),
        (Some(31), 10, vec![]),
    ] {
        let entries = subject.wait(subject.store().audit(since.map(at), limit)).unwrap();
        let actions: Vec<&str> = entries.iter().map(|entry| entry.action.as_str()).collect();
        assert_eq!(actions, expected, "{since:?} {limit}");
    }
}

pub(in crate::store) fn epochs_only_grow(subject: &mut Subject) {
    let next = |subject: &Subject, seen| subject.wait(subject.store().next_epoch(seen)).unwrap();
    assert_eq!([next(subject, 0), next(subject, 0), next(subject, 7)], [1, 2, 8]);
    subject.reopen();
    assert_eq!([next(subject, 3), next(subject, 9)], [9, 10]);
}
