//! Names of keys. What must change together has one hash tag, so that it lies in one slot of a cluster:
//!
//! | keys | what | life |
//! |---|---|---|
//! | `relayd:{store}:…` | records, audit log, log of changes, marks, epochs, closing balances, which hours and which groups there are | for ever, the logs bounded; the list of groups is cleaned when it is read |
//! | `relayd:{<group>}:counters`, `:lapses` | a group of counters and its holds | days after its last window; for ever with a lifetime limit |
//! | `relayd:{rows:<hour>}:rows`, `:subjects` | ledger rows of an hour, and whose they are | until pruned |
//! | `relayd:{sums:<hour>}:sums`, `:marks` | hourly sums | until pruned |
//! | `relayd:{<key or account>}:hours` | in which hours it has rows | until those are pruned |

use shared::domain::Timestamp;

use crate::store::{GroupId, RecordKind};

/// Who the store is: made once, by whoever finds it without.
pub(super) const ID: &str = "relayd:{store}:id";
/// Grows with every change of records.
pub(super) const VERSION: &str = "relayd:{store}:version";
/// The latest changes of records.
pub(super) const CHANGES: &str = "relayd:{store}:changes";
/// The audit log, by time.
pub(super) const AUDIT: &str = "relayd:{store}:audit";
/// The number of the last audit entry.
pub(super) const AUDITED: &str = "relayd:{store}:audited";
/// The last epoch that was given.
pub(super) const EPOCH: &str = "relayd:{store}:epoch";
/// Up to where the journals are applied.
pub(super) const MARKS: &str = "relayd:{store}:marks";
/// The hours that have rows.
pub(super) const ROW_HOURS: &str = "relayd:{store}:row-hours";
/// The hours that have sums.
pub(super) const SUM_HOURS: &str = "relayd:{store}:sum-hours";
/// The groups in which something was ever booked, all of one score, so that they lie in the order of their names. One
/// that is gone is taken out by whoever reads the list.
pub(super) const GROUPS: &str = "relayd:{store}:groups";

/// Closing balances: what rows that are gone had booked in windows that may still run.
pub(super) const BALANCES: &str = "relayd:{store}:balances";
/// Since when rows, sums and balances are whole.
pub(super) const KEPT: &str = "relayd:{store}:kept";

/// Kinds of records, in the order in which scripts know them.
pub(super) const KINDS: [RecordKind; 5] =
    [RecordKind::Key, RecordKind::Account, RecordKind::Limits, RecordKind::Price, RecordKind::Setting];

/// The records of a kind.
pub(super) const fn records(kind: RecordKind) -> &'static str {
    match kind {
        RecordKind::Key => "relayd:{store}:keys",
        RecordKind::Account => "relayd:{store}:accounts",
        RecordKind::Limits => "relayd:{store}:limits",
        RecordKind::Price => "relayd:{store}:prices",
        RecordKind::Setting => "relayd:{store}:settings",
    }
}

/// That a node is alive.
pub(super) fn beat(node: u32) -> String {
    format!("relayd:{{store}}:beat:{node:08x}")
}

/// The counters of a group, and when its holds lapse.
pub(super) fn group(group: &GroupId) -> [String; 2] {
    let name = group.as_str();
    [format!("relayd:{{{name}}}:counters"), format!("relayd:{{{name}}}:lapses")]
}

/// The rows of an hour, and whose they are.
pub(super) fn rows(hour: Timestamp) -> [String; 2] {
    let hour = hour.as_millis();
    [format!("relayd:{{rows:{hour}}}:rows"), format!("relayd:{{rows:{hour}}}:subjects")]
}

/// The sums of an hour, and up to where the journals are in them.
pub(super) fn sums(hour: Timestamp) -> [String; 2] {
    let hour = hour.as_millis();
    [format!("relayd:{{sums:{hour}}}:sums"), format!("relayd:{{sums:{hour}}}:marks")]
}

/// The hours in which a key or an account, named like its group, has rows.
pub(super) fn hours_of(subject: &str) -> String {
    format!("relayd:{{{subject}}}:hours")
}
