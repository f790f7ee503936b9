//! What a store is moved by: chunks of it, each of which may be taken in twice, and a count of all that there is.

use shared::admin::AuditEntry;
use shared::domain::{RequestId, Timestamp};

use super::memory::CounterRecord;
use super::{GroupId, Kept, Mark, Record, RecordKind, Rollup, RollupKey, StoreError};

/// How many rows, sums or entries a chunk has, roughly.
pub(super) const CHUNK: usize = 2_000;
/// How many groups a chunk has.
pub(super) const CHUNK_OF_GROUPS: usize = 500;

/// What is exported next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cursor {
    /// Records of all kinds, at once.
    Records,
    /// Audit entries behind this one, by time and number.
    Audit(Option<(Timestamp, u64)>),
    /// Groups behind this one, by name.
    Groups(Option<GroupId>),
    /// Some groups.
    TheseGroups(Vec<GroupId>),
    /// Ledger rows behind this one, by id.
    Rows(Option<RequestId>),
    /// Some rows; those that there are not are left out.
    TheseRows(Vec<RequestId>),
    /// Hourly sums from this hour on.
    Sums(Option<Timestamp>),
    /// The sums of some hours.
    TheseSums(Vec<Timestamp>),
    /// How far back it goes, and closing balances.
    Kept,
    /// Marks and the epoch.
    Marks,
}

/// A part of a store. Taking it in puts it in the place of what is there: taking it in twice changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chunk {
    /// Records, with their versions.
    Records(Vec<(RecordKind, Record)>),
    /// Records that there are not any more.
    Gone(Vec<(RecordKind, String)>),
    /// The audit log.
    Audit(Vec<AuditRow>),
    /// What is booked; what is held stays with the process that holds it.
    Groups(Vec<GroupState>),
    /// Ledger rows.
    Rows(Vec<Row>),
    /// Hourly sums.
    Sums(Vec<(RollupKey, Rollup)>),
    /// How far back it goes, and closing balances.
    Kept(Kept),
    /// Up to where the journals are applied, and the last epoch that was given.
    Marks {
        /// One for each writer.
        marks: Vec<Mark>,
        /// The epoch.
        epoch: u64,
    },
}

impl Chunk {
    /// How many things are in it.
    pub fn len(&self) -> usize {
        match self {
            Self::Records(records) => records.len(),
            Self::Gone(ids) => ids.len(),
            Self::Audit(rows) => rows.len(),
            Self::Groups(groups) => groups.len(),
            Self::Rows(rows) => rows.len(),
            Self::Sums(sums) => sums.len(),
            Self::Kept(kept) => kept.balances.len(),
            Self::Marks { marks, .. } => marks.len(),
        }
    }

    /// Nothing in it would change anything.
    pub fn is_empty(&self) -> bool {
        self.len() == 0 && !matches!(self, Self::Marks { .. } | Self::Kept(_))
    }
}

/// An audit entry at its place in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRow {
    /// Tells entries of one millisecond apart, in their order.
    pub number: u64,
    /// The entry.
    pub entry: AuditEntry,
}

impl AuditRow {
    /// Its place in the log.
    pub fn place(&self) -> (Timestamp, u64) {
        (self.entry.at, self.number)
    }
}

/// A group of counters as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupState {
    /// The group.
    pub group: GroupId,
    /// What is booked, by counter.
    pub counters: Vec<CounterRecord>,
    /// The last record of each writer that was applied to it, by writer.
    pub marks: Vec<Mark>,
}

/// A ledger row as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The request.
    pub request: RequestId,
    /// CBOR of a [`super::Closed`], also what a newer version wrote into it.
    pub cbor: Box<[u8]>,
}

/// A chunk, and where it goes on.
pub type Exported = (Chunk, Option<Cursor>);

/// How much there is of everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Records of all kinds.
    pub records: u64,
    /// Audit entries.
    pub audit: u64,
    /// Groups of counters in which something was booked.
    pub groups: u64,
    /// Ledger rows.
    pub rows: u64,
    /// Hourly sums.
    pub sums: u64,
    /// Writers of journals.
    pub writers: u64,
}

impl Census {
    /// The parts by name.
    pub const fn parts(&self) -> [(&'static str, u64); 6] {
        let Self { records, audit, groups, rows, sums, writers } = *self;
        [
            ("records", records),
            ("audit entries", audit),
            ("groups of counters", groups),
            ("rows", rows),
            ("hourly sums", sums),
            ("journal marks", writers),
        ]
    }

    /// There is nothing.
    pub fn is_empty(&self) -> bool {
        self.parts().iter().all(|(_, count)| *count == 0)
    }
}

/// What a server holds that is not the store which this node used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stranger {
    /// It is a store of its own; else it is empty, but for what was meant for the store that is missing.
    pub is_used: bool,
    /// How much is there.
    pub census: Census,
    /// Its settings.
    pub settings: Vec<Record>,
}

/// What a server is given, or what it gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adoption {
    /// An empty one gets what this process knows.
    Fill,
    /// What is there is the truth from now on.
    AsItIs,
}

/// What a server was given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Adopted {
    /// Records.
    pub records: u64,
    /// Groups of counters.
    pub groups: u64,
}

/// Why a server was not adopted.
#[derive(Debug, thiserror::Error)]
pub enum AdoptionError {
    /// It is the one that was used all along.
    #[error("the store is the one that this node uses: there is nothing to adopt")]
    Same,
    /// Nobody else's data can come in its place.
    #[error("this store is in files of the data folder: there is nothing to adopt")]
    Embedded,
    /// It is not empty.
    #[error("the server holds the data of another store")]
    Another,
}

impl From<AdoptionError> for StoreError {
    fn from(error: AdoptionError) -> Self {
        Self::Refused(error)
    }
}
