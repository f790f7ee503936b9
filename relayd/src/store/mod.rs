//! What must outlive the process: records, counters with their holds, ledger rows, rollups, the audit log.
//! The store knows counters and no rules; `limits` knows rules and no counters.

mod amend;
pub mod cbor;
#[cfg(test)]
pub(crate) mod contract;
#[cfg(feature = "embedded")]
pub mod embedded;
pub mod entry;
mod id_span;
mod memory;
#[cfg(feature = "redis")]
pub mod redis;
mod switch;
mod transfer;

use std::pin::Pin;
use std::sync::Arc;

use shared::admin::AuditEntry;
use shared::domain::{AccountId, KeyId, RequestId, Timestamp};

pub use memory::HeldGroup;
pub use switch::{Frozen, Switch, SwitchError, Touched};
pub use transfer::{
    Adopted, Adoption, AdoptionError, AuditRow, Census, Chunk, Cursor, Exported, GroupState, Row, Stranger,
};

pub use entry::{Booking, Closed, End, Entry, GivenUp, Mark, Rates, Rollup, RollupKey};

pub use crate::limits::counter::{CounterAsk, CounterId, Span, Standing, WindowRule};
pub use crate::limits::counter::{LIMITS_MAX, NAMES_BYTES_MAX};

/// What an operation of the store comes back with.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// Why an operation of the store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Somebody else changed the record since it was read.
    #[error("the record was changed meanwhile")]
    Changed,
    /// A stored value is not what this version writes.
    #[error("a stored {what} cannot be read")]
    Damaged {
        /// What was being read.
        what: &'static str,
        /// Why it could not be.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Nobody is admitted for a moment, because the store is being moved.
    #[error("the store is being moved")]
    Moving {
        /// When it makes sense to try again.
        retry_at: Timestamp,
    },
    /// The store came back without some of what had been applied to it: that must be applied again.
    #[error("the store came back older than it was")]
    Older,
    /// Another server's data is not taken so.
    #[error(transparent)]
    Refused(AdoptionError),
    /// The engine cannot serve: disk full, file locked, server gone.
    #[error("the store cannot be reached")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl StoreError {
    /// The innermost cause, which says what the system said.
    pub fn innermost(&self) -> String {
        let mut error: &dyn std::error::Error = self;
        while let Some(source) = error.source() {
            error = source;
        }
        error.to_string()
    }
}

/// The kinds of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecordKind {
    /// [`shared::domain::ApiKey`] by its id.
    Key,
    /// [`shared::domain::Account`] by its id.
    Account,
    /// Limits that keys share, by whom they hold for.
    Limits,
    /// Price lists and prices set by hand.
    Price,
    /// Single values such as the sealed pepper.
    Setting,
}

impl RecordKind {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Key, Self::Account, Self::Limits, Self::Price, Self::Setting];
}

/// A record as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its id within its kind.
    pub id: String,
    /// Grows by one with every change; 1 at first.
    pub version: u64,
    /// JSON.
    pub value: Vec<u8>,
}

/// A change of one record, made only if nobody changed it since it was read.
#[derive(Clone, Debug)]
pub struct Write {
    /// The record's kind.
    pub kind: RecordKind,
    /// The record's id.
    pub id: String,
    /// The version that was read; `None` for a record that must not exist yet.
    pub expected: Option<u64>,
    /// The new value; `None` deletes the record.
    pub value: Option<Vec<u8>>,
    /// What the audit log shall say of it; written with the record or not at all.
    pub audit: Option<AuditEntry>,
}

/// Names a group of counters: the unit of atomicity and of idempotency.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(Arc<str>);

impl GroupId {
    const ALL: &str = "all";

    /// The counters of one API key.
    pub fn of_key(key: &KeyId) -> Self {
        Self(format!("key:{key}").into())
    }

    /// The counters of all keys with the same owner.
    pub fn of_owner(owner: &str) -> Self {
        Self(format!("owner:{owner}").into())
    }

    /// The counters of everything.
    pub fn of_all() -> Self {
        Self(Self::ALL.into())
    }

    /// The counters of one account.
    pub fn of_account(account: &AccountId) -> Self {
        Self(format!("account:{account}").into())
    }

    /// Whether these are the counters of everything.
    pub fn is_all(&self) -> bool {
        &*self.0 == Self::ALL
    }

    /// Whether these are the counters of an account.
    pub fn is_account(&self) -> bool {
        self.0.starts_with("account:")
    }

    /// The group's name as it is stored.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for GroupId {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

/// What a call asks of one group: all of it or nothing.
#[derive(Clone, Copy, Debug)]
pub struct GroupAsk<'a> {
    /// The group.
    pub group: &'a GroupId,
    /// Its counters, each at most once; one that is asked twice must fit both times and is
    /// held once, with the larger amount.
    pub counters: &'a [CounterAsk],
}

/// A call's request to be admitted: every group, or none. A request may ask again later: further groups, or more
/// of a group (another account after a failover).
#[derive(Clone, Copy, Debug)]
pub struct Reservation<'a> {
    /// The call.
    pub request: RequestId,
    /// Now.
    pub now: Timestamp,
    /// When the holds lapse unless they are renewed.
    pub lapses_at: Timestamp,
    /// The groups, in the order in which a refusal is reported.
    pub groups: &'a [GroupAsk<'a>],
}

/// An amount held in one window of one counter. The window is fixed here: whatever is booked later goes there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The group.
    pub group: GroupId,
    /// The counter.
    pub counter: CounterId,
    /// The window.
    pub span: Span,
    /// How much is held.
    pub amount: u64,
    /// Where the counter stands with it.
    pub standing: Standing,
}

/// A counter that moved because something was booked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Booked {
    /// The group.
    pub group: GroupId,
    /// The counter.
    pub counter: CounterId,
    /// The window.
    pub span: Span,
    /// What was booked in it before.
    pub before: u64,
    /// What is booked in it now.
    pub after: u64,
}

/// Whether a call may go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may; leases ([`WindowRule::Now`]) are not listed, for nothing of them is ever booked.
    Admitted(Vec<Held>),
    /// It may not; nothing was held.
    Refused(Refusal),
}

/// Which counter refused a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The group.
    pub group: GroupId,
    /// The counter.
    pub ask: CounterAsk,
    /// Where it stands.
    pub standing: Standing,
}

/// Which ledger rows to read: newest first.
#[derive(Clone, Debug, Default)]
pub struct RowQuery {
    /// Opened at or after this time.
    pub since: Option<Timestamp>,
    /// Opened before this time.
    pub until: Option<Timestamp>,
    /// Only rows with ids below this one.
    pub before: Option<RequestId>,
    /// Only this row.
    pub id: Option<RequestId>,
    /// Only rows of this key.
    pub key: Option<KeyId>,
    /// Only rows of this account.
    pub account: Option<AccountId>,
    /// At most so many.
    pub limit: usize,
}

/// Which hourly sums to read, in the order of their keys.
#[derive(Clone, Debug, Default)]
pub struct RollupQuery {
    /// Hours from this time on.
    pub since: Option<Timestamp>,
    /// Hours before this time.
    pub until: Option<Timestamp>,
    /// Only sums of this key.
    pub key: Option<KeyId>,
    /// Only sums of this account.
    pub account: Option<AccountId>,
}

/// How far back the store can be asked. `None` is from its beginning on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Rows opened from this time on are all there.
    pub rows_since: Option<Timestamp>,
    /// Sums of hours from this time on are all there.
    pub sums_since: Option<Timestamp>,
    /// What was booked from this time on is all there, in rows and closing balances.
    pub balances_since: Option<Timestamp>,
    /// Closing balances: what rows that were dropped had booked in windows that may still run.
    pub balances: Vec<Booking>,
}

/// How the store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreState {
    /// It serves.
    Ok,
    /// It does not; a short cause.
    Failing(String),
}

/// What a store learns without having been asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// Somebody else changed records.
    Changed,
    /// It came back without some of what had been applied to it.
    Lost,
}

/// A store engine. Every operation is atomic; none scans the key space.
pub trait Store: Send + Sync + 'static {
    /// The engine's name: `embedded`, `redis`.
    fn engine(&self) -> &'static str;

    /// How the last operation that wrote went.
    fn state(&self) -> StoreState;

    /// Whether calls can be judged now, by the store or without it.
    fn serves(&self) -> bool {
        true
    }

    /// Waits for news; those that come while nobody waits are told to the next who does. A store that nobody else
    /// can reach has none.
    fn news(&self) -> Pin<Box<dyn Future<Output = News> + Send + '_>> {
        Box::pin(std::future::pending())
    }

    /// All records of a kind, by id.
    fn records(&self, kind: RecordKind) -> Answer<'_, Vec<Record>>;

    /// One record.
    fn record(&self, kind: RecordKind, id: &str) -> Answer<'_, Option<Record>>;

    /// Changes several records at once, all or none, with their audit entries; gives the new versions.
    /// Fails with [`StoreError::Changed`] if one of them is not at its expected version.
    fn write(&self, writes: Vec<Write>) -> Answer<'_, Vec<u64>>;

    /// Audit entries since a time, newest first.
    fn audit(&self, since: Option<Timestamp>, limit: usize) -> Answer<'_, Vec<AuditEntry>>;

    /// Takes the next epoch number, durable before it is given: greater than any given before and than `seen`.
    fn next_epoch(&self, seen: u64) -> Answer<'_, u64>;

    /// Judges a call against counters and holds what it may need.
    fn reserve<'a>(&'a self, reservation: Reservation<'a>) -> Answer<'a, Verdict>;

    /// Gives back the leases that a request holds in a group. Its other amounts stay held until its
    /// [`Closed`] is applied. Never waits and never fails; releasing twice does no harm.
    fn release(&self, request: RequestId, group: &GroupId);

    /// Undoes a reservation wholly: for a call that was never opened. Never waits and never fails.
    fn give_back(&self, request: RequestId, group: &GroupId);

    /// Lets every hold of this process live on at least until then.
    fn renew_holds(&self, now: Timestamp, until: Timestamp) -> Answer<'_, ()>;

    /// Where counters of a group stand, in the order asked; amounts and limits do not count.
    fn standings<'a>(
        &'a self,
        group: &'a GroupId,
        counters: &'a [CounterAsk],
        now: Timestamp,
    ) -> Answer<'a, Vec<Standing>>;

    /// Applies closed requests: ledger row, rollups, bookings; the holds that they replace go, in whatever
    /// groups they are. Entries at or below a group's mark for their lane change nothing in that group, so a
    /// batch may be applied twice; the entries of a lane must come in the order of their marks. On an error
    /// any part may have been applied. Gives the counters that moved: each move is told once, though not after a
    /// failure.
    fn apply(&self, batch: Arc<[Entry]>) -> Answer<'_, Vec<Booked>>;

    /// The marks up to which everything of a lane is certainly applied.
    fn marks(&self) -> Answer<'_, Vec<Mark>>;

    /// Ledger rows, newest first.
    fn rows(&self, query: RowQuery) -> Answer<'_, Vec<Closed>>;

    /// Hourly sums.
    fn rollups(&self, query: RollupQuery) -> Answer<'_, Vec<(RollupKey, Rollup)>>;

    /// Drops ledger rows opened before a time and rollups of hours before another; gives how many rows went.
    /// What they had booked in windows that go beyond that time is added to closing balances together with
    /// their going, so that no booking is ever in both or in neither.
    fn prune(&self, rows_before: Timestamp, rollups_before: Option<Timestamp>) -> Answer<'_, u64>;

    /// How far back rows and sums go, and the closing balances of what went.
    fn kept(&self) -> Answer<'_, Kept>;

    /// What is booked in all counters of these groups, each in its last window.
    fn counters(&self, groups: Vec<GroupId>) -> Answer<'_, Vec<Booking>>;

    /// Puts rows in the places of those that have their ids; those that are gone stay gone. Sums and counters do
    /// not follow. Gives how many were there.
    fn amend_rows(&self, rows: Vec<Closed>) -> Answer<'_, u64>;

    /// Puts hourly sums in the places of those that have their keys; one without any call is taken away.
    fn put_sums(&self, sums: Vec<(RollupKey, Rollup)>) -> Answer<'_, ()>;

    /// Sets counters that stand at `before` in this window (at 0, if it has not begun) to `after`, group by group;
    /// the others stay, so that doing it twice changes nothing. What is held stays held, and what was applied before
    /// is not booked again, also in a group that was not there. Gives those that were set.
    fn correct(&self, counters: Vec<Booked>) -> Answer<'_, Vec<Booked>>;
    /// A part of the store, from a cursor on, and where it goes on; `None` at the part's end. What comes in
    /// meanwhile may be in it or not.
    fn export(&self, cursor: Cursor) -> Answer<'_, Exported>;

    /// Takes in a part of another store. On an error some of it may have been taken in.
    fn import(&self, chunk: Chunk) -> Answer<'_, ()>;

    /// How much there is of everything.
    fn census(&self) -> Answer<'_, Census>;

    /// What this process holds, with the time until which it is held.
    fn holds(&self) -> Vec<HeldGroup>;

    /// Holds what this process held in another store, in the windows in which it was held, at least until then.
    fn hold_again(&self, holds: Vec<HeldGroup>, now: Timestamp, until: Timestamp) -> Answer<'_, ()>;

    /// Lets go of files and connections: nobody will ask any more.
    fn close(&self) {}

    /// What a server holds that is not the store which this node used; `None` where it is that one.
    fn stranger(&self) -> Answer<'_, Option<Stranger>> {
        Box::pin(std::future::ready(Err(AdoptionError::Embedded.into())))
    }

    /// Takes a server in place of the store that this node used. On an error some of it may have been done; it
    /// may be done again.
    fn adopt(&self, _how: Adoption) -> Answer<'_, Adopted> {
        Box::pin(std::future::ready(Err(AdoptionError::Embedded.into())))
    }
}
