//! kill -9 under load: every request that the upstream saw has exactly one row, whatever was open.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use shared::admin::RequestRow;
use shared::domain::{Protocol, Provenance};
use tokio::task::JoinSet;

use crate::support::{Call, Client, Gate, Rig, Step, until, upstream, wire};

const CLIENTS: usize = 16;

/// Rounds of the normal run; `RELAYD_TEST_FULL=1` asks for all thirty.
fn rounds() -> usize {
    if std::env::var_os("RELAYD_TEST_FULL").is_some_and(|value| value == "1") { 30 } else { 4 }
}

/// Calls with a model of their own each, one after the other, until told to end.
async fn load(client: Client, round: usize, first: usize, done: Arc<AtomicUsize>) {
    for number in (first..).step_by(CLIENTS) {
        let protocol = Protocol::ALL[number % 4];
        let call = Call::new(protocol, format!("m-{round}-{number}"));
        let call = if number % 3 == 0 { call } else { call.streamed() };
        // An error means that the daemon is gone.
        let Ok(open) = client.try_open(&call).await else { return };
        if open.rest().await.is_broken {
            return;
        }
        done.fetch_add(1, Ordering::SeqCst);
    }
}

async fn kill_under_load(rig: &mut Rig, round: usize) {
    let done = Arc::new(AtomicUsize::new(0));
    let mut clients = JoinSet::new();
    for first in 0..CLIENTS {
        clients.spawn(load(rig.client.clone(), round, first, Arc::clone(&done)));
    }
    // A different moment in each round.
    let enough = 40 + round * 37 % 160;
    until("some calls are done", async || (done.load(Ordering::SeqCst) >= enough).then_some(())).await;
    rig.daemon.kill();
    while clients.join_next().await.is_some() {}
}

/// Models that the upstream saw, with the number of sightings.
fn sightings(rig: &Rig) -> BTreeMap<String, usize> {
    let mut sightings = BTreeMap::new();
    for seen in rig.upstream.seen() {
        *sightings.entry(seen.model()).or_default() += 1;
    }
    sightings
}

/// Rows once the requests that died open have been settled too.
async fn final_rows(rig: &Rig, sightings: &BTreeMap<String, usize>) -> Vec<RequestRow> {
    until("every sighting has a row", async || {
        let rows = rig.daemon.rows().await;
        let models: BTreeSet<&str> = rows.iter().map(|row| row.model.as_str()).collect();
        sightings.keys().all(|model| models.contains(model.as_str())).then_some(rows)
    })
    .await
}

/// Checks each row against what the upstream saw.
fn judge(rows: &[RequestRow], sightings: &BTreeMap<String, usize>) {
    let mut by_model: BTreeMap<&str, Vec<&RequestRow>> = BTreeMap::new();
    for row in rows {
        by_model.entry(&row.model).or_default().push(row);
    }
    let ids: BTreeSet<_> = rows.iter().map(|row| row.id).collect();
    assert_eq!(ids.len(), rows.len(), "a request id has two rows");
    for (model, rows) in by_model {
        assert_eq!(rows.len(), 1, "{model} has several rows");
        let row = rows[0];
        if !sightings.contains_key(model) {
            let is_nothing = row.end == "failed" && row.usage.is_empty();
            assert!(row.provenance == Provenance::Orphaned || is_nothing, "{model} was not sent: {row:?}");
        }
        if row.provenance == Provenance::Measured {
            assert_eq!(row.usage, wire::usage(row.protocol), "{model}");
        }
    }
}

fn orphans(rows: &[RequestRow], round: usize) -> usize {
    let prefix = format!("m-{round}-");
    let of_round = rows.iter().filter(|row| row.model.starts_with(&prefix));
    of_round.filter(|row| row.provenance == Provenance::Orphaned).count()
}

async fn rig() -> Rig {
    let rig = Rig::start().await;
    rig.upstream.script(|seen| upstream::answer(seen).with_gaps(Duration::from_millis(2)));
    rig
}

#[tokio::test]
async fn every_sighting_has_one_row_after_kills() {
    let mut rig = rig().await;
    for round in 0..rounds() {
        kill_under_load(&mut rig, round).await;
        rig.start_again().await;
        let sightings = sightings(&rig);
        let rows = final_rows(&rig, &sightings).await;
        judge(&rows, &sightings);
        // Each client has one call open at most.
        let orphans = orphans(&rows, round);
        assert!(orphans <= CLIENTS, "{orphans} orphans in round {round}");
    }
    let before = rig.daemon.rows().await.len();
    let after_all = Call::new(Protocol::Messages, "after-all");
    rig.client.call(&after_all).await.expect(200);
    assert_eq!(rig.daemon.row("after-all").await.provenance, Provenance::Measured);
    assert_eq!(rig.daemon.rows().await.len(), before + 1);
}

#[tokio::test]
async fn concurrency_held_by_the_dead_is_given_back() {
    let mut rig = rig().await;
    let gate = Gate::closed();
    let held = gate.clone();
    rig.upstream.script(move |seen| match seen.model().as_str() {
        "held" => upstream::answer(seen).after(Step::Wait(held.clone())),
        _ => upstream::answer(seen),
    });
    let key = shared::admin::CreateKey {
        limits: vec!["2 concurrent".parse().unwrap(), "5 requests in total".parse().unwrap()],
        ..crate::support::admin::key("limited")
    };
    let key = rig.daemon.call(&key).await.key.expose().to_owned();
    let client = rig.daemon.client(&key);
    let mut open = JoinSet::new();
    for _ in 0..2 {
        let client = client.clone();
        open.spawn(async move { client.try_open(&Call::new(Protocol::Messages, "held")).await.is_ok() });
    }
    until("both are open", async || (rig.upstream.answering() == 2).then_some(())).await;
    rig.daemon.kill();
    gate.open();
    while open.join_next().await.is_some() {}
    rig.start_again().await;

    let client = rig.daemon.client(&key);
    let free = Call::new(Protocol::Messages, "free");
    until("the leases are free", async || (client.call(&free).await.status == 200).then_some(())).await;
    let mut allowed = 1;
    while client.call(&free).await.status == 200 {
        allowed += 1;
    }
    // Two of five went with the process that died.
    assert_eq!(allowed, 3);
}

/// Bytes of a journal file before its first record.
const HEADER_BYTES: usize = 44;

/// Where the last record ends: each begins with its length, which counts neither itself nor the checksum.
fn records_end(bytes: &[u8]) -> usize {
    let mut end = HEADER_BYTES;
    while let Some(length) = bytes.get(end..).and_then(|rest| rest.first_chunk()) {
        match u32::from_le_bytes(*length) as usize {
            0 => break,
            length => end += 8 + length,
        }
    }
    end
}

/// The newest journal file that holds any record, with the end of the last.
fn journal_tail(folder: &Path) -> Option<(PathBuf, usize)> {
    let mut files = Vec::new();
    collect(folder, &mut files);
    let with_ends = files.into_iter().filter_map(|file| {
        let bytes = fs::read(&file).ok()?;
        let end = Some(records_end(&bytes)).filter(|end| *end > HEADER_BYTES)?;
        Some((fs::metadata(&file).ok()?.modified().ok()?, file, end))
    });
    with_ends.max().map(|(_, file, end)| (file, end))
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.metadata().unwrap().len() > 64 {
            files.push(path);
        }
    }
}

#[tokio::test]
async fn a_torn_journal_tail_is_repaired() {
    let mut rig = rig().await;
    for (round, torn) in [&b"\x2a\x00\x00\x00"[..], &[0xff; 13], &[0x5a; 500]].into_iter().enumerate() {
        kill_under_load(&mut rig, round).await;
        let (file, end) = journal_tail(&rig.daemon.data().join("journal")).expect("no journal");
        let mut file = fs::OpenOptions::new().write(true).open(file).unwrap();
        file.seek(SeekFrom::Start(end as u64)).unwrap();
        file.write_all(torn).unwrap();
        drop(file);
        rig.start_again().await;
        let sightings = sightings(&rig);
        let rows = final_rows(&rig, &sightings).await;
        judge(&rows, &sightings);
        let orphans = orphans(&rows, round);
        assert!(orphans <= CLIENTS, "{orphans} orphans in round {round}");
        let model = format!("after-{round}");
        rig.client.call(&Call::new(Protocol::Messages, model.as_str())).await.expect(200);
        assert_eq!(rig.daemon.row(&model).await.provenance, Provenance::Measured);
    }
}
