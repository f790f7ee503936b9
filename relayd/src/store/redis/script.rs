//! The scripts that run inside the server, each known by its digest once a connection has loaded it.

use std::sync::LazyLock;

use redis::Cmd;

/// A script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Script {
    /// Judges a call and holds what it may need.
    Reserve,
    /// Where counters of a group stand.
    Standings,
    /// Lets holds live on.
    Renew,
    /// Books closed requests in a group.
    Settle,
    /// Adds rows of an hour.
    Rows,
    /// Adds to the sums of an hour.
    Sums,
    /// Drops rows of an hour.
    Drop,
    /// Puts rows in the places of others.
    Replace,
    /// Puts counters right.
    Correct,
    /// Begins a batch.
    Begin,
    /// Ends a batch.
    Finish,
    /// Changes records.
    Write,
    /// Takes an epoch.
    Epoch,
    /// Says who the store is.
    Pulse,
    /// Puts what is booked in a group in place of what is there.
    Adopt,
}

/// What every script over groups begins with.
const GROUP: &str = include_str!("lua/group.lua");

/// What scripts that compare marks begin with.
const MARKS: &str = include_str!("lua/marks.lua");

/// In the order of the enumeration.
const SOURCES: [(Script, &[&str]); 15] = [
    (Script::Reserve, &[GROUP, include_str!("lua/reserve.lua")]),
    (Script::Standings, &[GROUP, include_str!("lua/standings.lua")]),
    (Script::Renew, &[GROUP, include_str!("lua/renew.lua")]),
    (Script::Settle, &[GROUP, MARKS, include_str!("lua/settle.lua")]),
    (Script::Rows, &[include_str!("lua/rows.lua")]),
    (Script::Sums, &[MARKS, include_str!("lua/sums.lua")]),
    (Script::Drop, &[include_str!("lua/drop.lua")]),
    (Script::Replace, &[include_str!("lua/replace.lua")]),
    (Script::Correct, &[GROUP, include_str!("lua/correct.lua")]),
    (Script::Begin, &[include_str!("lua/begin.lua")]),
    (Script::Finish, &[MARKS, include_str!("lua/finish.lua")]),
    (Script::Write, &[include_str!("lua/write.lua")]),
    (Script::Epoch, &[include_str!("lua/epoch.lua")]),
    (Script::Pulse, &[include_str!("lua/pulse.lua")]),
    (Script::Adopt, &[GROUP, include_str!("lua/adopt.lua")]),
];

static SCRIPTS: LazyLock<Vec<redis::Script>> =
    LazyLock::new(|| SOURCES.iter().map(|(_, parts)| redis::Script::new(&parts.concat())).collect());

impl Script {
    /// A call of it, to which the arguments are still to be added.
    pub(super) fn call<K: AsRef<[u8]>>(
        self,
        keys: impl IntoIterator<Item = K, IntoIter: ExactSizeIterator>,
    ) -> Cmd {
        let keys = keys.into_iter();
        let mut command = redis::cmd("EVALSHA");
        command.arg(SCRIPTS[self as usize].get_hash()).arg(keys.len());
        for key in keys {
            command.arg(key.as_ref());
        }
        command
    }
}

/// What makes a server know all of them.
pub(super) fn loading() -> redis::Pipeline {
    let mut pipeline = redis::pipe();
    for (_, parts) in &SOURCES {
        pipeline.cmd("SCRIPT").arg("LOAD").arg(parts.concat());
    }
    pipeline
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_script_is_at_its_place() {
        for (place, (script, _)) in SOURCES.iter().enumerate() {
            assert_eq!(*script as usize, place, "{script:?}");
        }
    }
}
