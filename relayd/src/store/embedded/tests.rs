//! The contract, and what only files can do wrong.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use super::Embedded;
use crate::store::contract::Folder;
use crate::store::{Store, StoreError};

fn open(dir: &Path) -> Arc<dyn Store> {
    Arc::new(Embedded::open(dir).unwrap())
}

crate::store::contract::keeps_the_contract!(open);

#[test]
fn a_second_process_is_told_why_it_cannot_have_the_files() {
    let folder = Folder::new();
    let _first = open(folder.path());
    let Err(error @ StoreError::Unavailable(_)) = Embedded::open(folder.path()) else { panic!() };
    assert!(super::cause(&error).contains("another relayd"), "{}", super::cause(&error));
}

#[test]
fn the_files_are_their_owners_alone() {
    let folder = Folder::new();
    let _store = open(folder.path());
    for name in ["state.redb", "ledger.redb"] {
        let mode = folder.path().join(name).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[test]
fn what_is_no_database_is_not_opened() {
    let folder = Folder::new();
    std::fs::write(folder.path().join("state.redb"), b"this was never a database").unwrap();
    assert!(Embedded::open(folder.path()).is_err());
}
