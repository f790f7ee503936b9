//! `relayctl status`, `stop` and `audit`: the daemon itself.

use clap::Args;
use shared::admin::{AuditEntry, Done, ListAudit, ShowStatus, StatusView};

use crate::account_table;
use crate::args;
use crate::ctl::Ctl;
use crate::failure::Failure;
use crate::format;
use crate::output::{Cell, Grid, Look, Tone};
use crate::stopping;
use crate::when::When;

#[derive(Debug, Args)]
pub(crate) struct AuditArgs {
    /// From this time on: a date, an RFC 3339 time, or a length ago (12h, 7d)
    #[arg(long, value_name = "TIME")]
    since: Option<When>,
    /// At most so many entries [default: 100]
    #[arg(long, value_name = "ENTRIES", value_parser = args::number::<u32>(1, 10_000))]
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
    let end = stopping::stop_and_watch(&ctl.client, &ctl.out, &status).await?;
    ctl.out.print(&Done {}, |_, _| end.told(status.pid))
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
        .pair("started", look.happened(status.started_at))
        .pair("listens on", format::list(&status.listen, "nothing"))
        .pair("data folder", status.data.as_str())
        .pair("store", Cell::toned(store_text, if is_well { Tone::Good } else { Tone::Bad }))
        .pair("journal", format!("{} in files, epoch {}", format::bytes(journal.bytes), journal.epoch))
        .pair("not in the store yet", format::several(journal.unshipped, "record"))
        .pair("open", format!("{}, {}", calls(status), format::several(status.connections, "connection")))
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
    format!("{}\n\n{}", grid.text(), account_table::table(&status.accounts, look))
}

fn calls(status: &StatusView) -> String {
    let open = format::several(status.in_flight, "call");
    let parts = [(status.waiting, "waiting"), (status.draining, "draining")];
    let parts = parts.into_iter().filter(|(calls, _)| *calls > 0);
    let parts: Vec<String> = parts.map(|(calls, what)| format!("{} {what}", format::count(calls))).collect();
    if parts.is_empty() { open } else { format!("{open} ({})", parts.join(", ")) }
}

fn audit_table(entries: &[AuditEntry], look: &Look) -> String {
    if entries.is_empty() {
        return "nothing was changed in this time".to_owned();
    }
    let mut grid = Grid::new(look, &["when", "???who", "action", "?name", "????id", "??~fields"]);
    for entry in entries {
        grid.row([
            look.ago(entry.at).into(),
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
    use crate::output::tests::{PIPE, fits};

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
            in_flight: 3,
            waiting: 2,
            draining: 1,
            connections: 1,
            keys: 2,
            damaged: damaged.iter().map(|id| (*id).to_owned()).collect(),
            accounts: Vec::new(),
        };
        let text = status_text(&status("ok", 0, &[]), &PIPE);
        assert!(text.contains("embedded, ok") && text.contains("2.0 KiB"), "{text}");
        assert!(!text.contains("set aside") && !text.contains("damaged"), "{text}");
        assert!(text.contains("3 calls (2 waiting, 1 draining), 1 connection"), "{text}");
        let text = status_text(&status("read only", 2, &["key_1"]), &PIPE);
        fits(|look| status_text(&status("read only", 2, &["key_1"]), look), &["/data"]);
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
        let entries = [entry(Some(1_000), Some(123_456))];
        fits(|look| audit_table(&entries, look), &["key.create", "alice"]);
        assert!(audit_table(&[entry(None, None)], &PIPE).contains("key.create"));
    }
}
