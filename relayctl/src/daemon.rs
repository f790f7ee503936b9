//! `relayctl status`, `stop` and `audit`: the daemon itself.

use std::time::Duration;

use clap::Args;
use shared::admin::{AuditEntry, Done, ListAudit, ShowStatus, StatusView, StopDaemon};
use tokio::time::{Instant, sleep};

use crate::Ctl;
use crate::account;
use crate::client::{Client, ClientError};
use crate::failure::Failure;
use crate::format;
use crate::output::{Cell, Grid, Look, Tone};
use crate::prompt;
use crate::when::When;

/// Open calls may take long to drain; after this time relayctl leaves the daemon to it.
const DRAIN_WATCHED: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);
/// A daemon that is about to end may take a connection and answer no more.
const PROBE_WITHIN: Duration = Duration::from_secs(2);

#[derive(Debug, Args)]
pub(crate) struct AuditArgs {
    /// From this time on: a date, an RFC 3339 time, or a length ago (12h, 7d)
    #[arg(long, value_name = "TIME")]
    since: Option<When>,
    /// At most so many entries [default: 100]
    #[arg(long, value_name = "ENTRIES", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: Option<u32>,
}

/// Shows how the daemon is.
pub(crate) async fn status(ctl: &Ctl) -> Result<(), Failure> {
    ctl.out.print(&ctl.client.call(&ShowStatus {}).await?, status_text)
}

/// Ends the daemon after asking.
pub(crate) async fn stop(ctl: &Ctl) -> Result<(), Failure> {
    let status = ctl.client.call(&ShowStatus {}).await?;
    ctl.prompt.confirm(&format!(
        "stop relayd (process {}, {})",
        status.pid,
        format::several(status.in_flight, "open call")
    ))?;
    let end = stop_and_watch(&ctl.client, &status).await?;
    ctl.out.print(&Done {}, |_, _| end.told(status.pid))
}

/// How a stop went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stopped {
    /// The daemon has ended.
    Ended,
    /// It still drains open calls and will end by itself.
    Draining,
}

impl Stopped {
    /// One sentence.
    pub(crate) fn told(self, pid: u32) -> String {
        match self {
            Self::Ended => format!("relayd (process {pid}) has ended"),
            Self::Draining => format!("relayd (process {pid}) drains its open calls and ends by itself"),
        }
    }
}

/// Tells the daemon to stop, and watches until its socket no longer answers and its process is gone.
pub(crate) async fn stop_and_watch(client: &Client, status: &StatusView) -> Result<Stopped, Failure> {
    client.call(&StopDaemon {}).await?;
    let waiting = prompt::spinner("waiting for open calls to end");
    let deadline = Instant::now() + DRAIN_WATCHED;
    let mut ended = has_ended(client, status).await;
    while !ended && Instant::now() < deadline {
        sleep(POLL).await;
        ended = has_ended(client, status).await;
    }
    waiting.finish_and_clear();
    Ok(if ended { Stopped::Ended } else { Stopped::Draining })
}

async fn has_ended(client: &Client, status: &StatusView) -> bool {
    match client.call_within(PROBE_WITHIN, &ShowStatus {}).await {
        // A service manager may have started the next one already.
        Ok(now) => now.pid != status.pid || now.started_at != status.started_at,
        Err(ClientError::NoAnswer(_)) => !process_lives(status.pid),
        Err(_) => false,
    }
}

/// Whether a process exists and still runs; one that only waits for its parent to take note does not.
fn process_lives(pid: u32) -> bool {
    let Some(process) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) else {
        return false;
    };
    if rustix::process::test_kill_process(process) == Err(rustix::io::Errno::SRCH) {
        return false;
    }
    // Only Linux has this file. Its third field follows the name, which stands in parentheses.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.rsplit_once(") ").is_some_and(|(_, fields)| fields.starts_with('Z'))
}

/// Shows what was changed through the admin API.
pub(crate) async fn audit(ctl: &Ctl, args: AuditArgs) -> Result<(), Failure> {
    let call = ListAudit { since: args.since.map(|since| since.past(ctl.out.now())), limit: args.limit };
    ctl.out.print(&*ctl.client.call(&call).await?, audit_table)
}

fn status_text(status: &StatusView, look: &Look) -> String {
    let (store, journal) = (&status.store, &status.journal);
    let is_well = store.state == "ok";
    let store_text = format!("{}, {}", store.engine, store.state);
    let mut grid = Grid::bare(look);
    grid.pair("relayd", format!("{} on {}, process {}", status.version, status.node, status.pid))
        .pair(
            "started",
            format!("{} ({})", status.started_at, format::seen_from(look.now, status.started_at)),
        )
        .pair("listens on", format::list(&status.listen, "nothing"))
        .pair("data folder", status.data.as_str())
        .pair("store", Cell::toned(store_text, if is_well { Tone::Good } else { Tone::Bad }))
        .pair("journal", format!("{} in files, epoch {}", format::bytes(journal.bytes), journal.epoch))
        .pair("not in the store yet", format::several(journal.unshipped, "record"))
        .pair(
            "open",
            format!(
                "{}, {}",
                format::several(status.in_flight, "call"),
                format::several(status.connections, "connection")
            ),
        )
        .pair("keys", format::count(status.keys));
    if journal.set_aside > 0 {
        let text = format!(
            "{} could not be applied; the log says why",
            format::several(journal.set_aside, "record")
        );
        grid.pair("set aside", Cell::toned(text, Tone::Bad));
    }
    if !status.damaged.is_empty() {
        let records = format::several(status.damaged.len() as u64, "record");
        let text = format!("{records} cannot be read; the log says which and why");
        grid.pair("damaged", Cell::toned(text, Tone::Bad));
    }
    format!("{}\n\n{}", grid.text(), account::table(&status.accounts, look))
}

fn audit_table(entries: &[AuditEntry], look: &Look) -> String {
    if entries.is_empty() {
        return "nothing was changed in this time".to_owned();
    }
    let mut grid = Grid::new(look, &["when", "who", "action", "name", "id", "~fields"]);
    for entry in entries {
        grid.row([
            format::seen_from(look.now, entry.at).into(),
            who(entry).into(),
            entry.action.as_str().into(),
            entry.name.as_str().into(),
            entry.subject.as_str().into(),
            format::list(&entry.fields, format::NOTHING).into(),
        ]);
    }
    grid.text()
}

fn who(entry: &AuditEntry) -> String {
    match (entry.uid, entry.pid) {
        (Some(uid), Some(pid)) => format!("uid {uid}, process {pid}"),
        (Some(uid), None) => format!("uid {uid}"),
        (None, _) => "relayd".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use shared::admin::{JournalView, StoreView};

    use super::*;
    use crate::output::tests::PIPE;

    #[test]
    fn status_tells_what_needs_attention() {
        let status = |state: &str, set_aside, damaged: &[&str]| StatusView {
            version: "1.2.3".to_owned(),
            pid: 7,
            node: "n1".to_owned(),
            started_at: PIPE.now,
            listen: vec!["127.0.0.1:3000".to_owned()],
            data: "/data".to_owned(),
            store: StoreView { engine: "embedded".to_owned(), state: state.to_owned() },
            journal: JournalView { epoch: 3, unshipped: 0, bytes: 2_048, set_aside },
            in_flight: 0,
            connections: 1,
            keys: 2,
            damaged: damaged.iter().map(|id| (*id).to_owned()).collect(),
            accounts: Vec::new(),
        };
        let text = status_text(&status("ok", 0, &[]), &PIPE);
        assert!(text.contains("embedded, ok") && text.contains("2.0 KiB"), "{text}");
        assert!(!text.contains("set aside") && !text.contains("damaged"), "{text}");
        let text = status_text(&status("read only", 2, &["key_1"]), &PIPE);
        assert!(text.contains("embedded, read only") && text.contains("2 records could not"), "{text}");
        assert!(text.contains("1 record cannot be read"), "{text}");
    }

    #[test]
    fn audit_entries_name_who_did_it() {
        let entry = |uid, pid| AuditEntry {
            at: PIPE.now,
            uid,
            pid,
            action: "key.create".to_owned(),
            subject: "key_1".to_owned(),
            name: "alice".to_owned(),
            fields: Vec::new(),
        };
        for (uid, pid, expected) in
            [(Some(0), Some(9), "uid 0, process 9"), (Some(5), None, "uid 5"), (None, None, "relayd")]
        {
            assert_eq!(who(&entry(uid, pid)), expected);
        }
        assert!(audit_table(&[entry(None, None)], &PIPE).contains("key.create"));
    }

    #[test]
    fn processes_that_ended_do_not_live() {
        assert!(process_lives(std::process::id()));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        assert!(!process_lives(pid));
    }
}
