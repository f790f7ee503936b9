//! Everything that can die dies under load, one thing after the other: the daemon, its Redis, the answers of that, the
//! room of the journal. Whatever the upstream saw has exactly one row, and counters are the sums of rows.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use shared::admin::{CreateKey, RequestRow, ShowKey, SumUsage, UsageBy};
use shared::domain::{Protocol, Provenance};
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::support::daemon::{setting, temporary_folder};
use crate::support::{Call, Client, RedisServer, Rig, Setup, answer, until};

const CLIENTS: usize = 8;
/// Of the file system that the data folder lies on where it is to run full.
const ROOM_BYTES: u64 = 96 << 20;

/// Rounds of the normal run; `RELAYD_TEST_FULL=1` asks for all fifty.
fn rounds() -> usize {
    if std::env::var_os("RELAYD_TEST_FULL").is_some_and(|value| value == "1") { 50 } else { 6 }
}

/// What dies in a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    KillDaemon,
    KillRedis,
    PauseRedis,
    FillDisk,
    KillBoth,
}

impl Fault {
    /// Any sequence will do, as long as it is the same each time and has all of them in the first rounds.
    fn of(round: usize) -> Self {
        let all = [Self::KillRedis, Self::KillDaemon, Self::PauseRedis, Self::FillDisk, Self::KillBoth];
        if round < all.len() { all[round] } else { all[(round * 7 + round / 5) % all.len()] }
    }
}

/// Whoever runs the tests is to see it, also if all is well.
fn tell(text: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Where the daemon's data lies: on a small file system of its own, which only root can make.
struct Room {
    folder: Arc<TempDir>,
    is_small: bool,
}

impl Room {
    fn make() -> Self {
        let folder = Arc::new(temporary_folder());
        let size = format!("size={ROOM_BYTES},mode=0700");
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder.path()).output();
        let is_small = mount.is_ok_and(|output| output.status.success());
        if !is_small {
            // It is told: nothing is left out silently.
            tell("only root can make a small file system: the disk is not filled in this run");
        }
        Self { folder, is_small }
    }

    fn filler(&self) -> std::path::PathBuf {
        self.folder.path().join("filler")
    }

    /// Takes all the room there is.
    fn fill(&self) {
        use std::io::Write as _;
        let mut file = fs::File::create(self.filler()).unwrap();
        let piece = vec![7_u8; 64 << 10];
        while file.write_all(&piece).is_ok() {}
    }

    fn empty(&self) {
        // It may not have been made.
        let _ = fs::remove_file(self.filler());
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if self.is_small {
            let _ = Command::new("umount").arg("--lazy").arg(self.folder.path()).status();
        }
    }
}

/// What is asked of the daemon all the time: calls with a model of their own each.
struct Load {
    clients: JoinSet<()>,
    end: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
}

impl Load {
    fn start(client: &Client, round: usize) -> Self {
        let (end, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut clients = JoinSet::new();
        for first in 0..CLIENTS {
            clients.spawn(calls(client.clone(), (round, first), Arc::clone(&end), Arc::clone(&done)));
        }
        Self { clients, end, done }
    }

    /// Waits for some calls more.
    async fn more(&self, calls: usize) {
        let enough = self.done.load(Ordering::SeqCst) + calls;
        until("calls are done", async || (self.done.load(Ordering::SeqCst) >= enough).then_some(())).await;
    }

    async fn stop(mut self) {
        self.end.store(true, Ordering::SeqCst);
        while self.clients.join_next().await.is_some() {}
    }
}

async fn calls(client: Client, (round, first): (usize, usize), end: Arc<AtomicBool>, done: Arc<AtomicUsize>) {
    for number in (first..).step_by(CLIENTS) {
        if end.load(Ordering::SeqCst) {
            return;
        }
        let call = Call::new(Protocol::ALL[number % 4], format!("m-{round}-{number}"));
        let call = if number % 3 == 0 { call } else { call.streamed() };
        match client.try_open(&call).await {
            Ok(open) => {
                let answer = open.rest().await;
                if answer.status == 200 && !answer.is_broken {
                    done.fetch_add(1, Ordering::SeqCst);
                } else {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
            // The daemon is gone for a moment.
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

struct Rounds {
    rig: Rig,
    redis: RedisServer,
    room: Room,
    key: String,
    report: String,
}

impl Rounds {
    async fn start() -> Self {
        let (room, files) = (Room::make(), temporary_folder());
        // The server must not run out of room with the daemon.
        let redis = RedisServer::start_in(files);
        let setup = Setup::default()
            .in_folder(&room.folder)
            .set(setting::STORE_URL, redis.url().as_str())
            .set(setting::STORE_TIMEOUT_MS, 250)
            .set(setting::JOURNAL_SEGMENT_BYTES, 1 << 20)
            // What a process held that died before it wrote anything down lapses.
            .set(setting::HOLD_TTL_MS, 5_000);
        let rig = Rig::with(setup).await;
        rig.upstream.script(|seen| answer(seen).with_gaps(Duration::from_millis(1)));
        let limits = ["100m requests in total", "900000m tokens in total", "100 concurrent"];
        let limits = limits.iter().map(|text| text.parse().unwrap()).collect();
        let key = CreateKey { limits, ..crate::support::admin::key("counted") };
        let key = rig.daemon.call(&key).await.key.expose().to_owned();
        Self { rig, redis, room, key, report: String::new() }
    }

    fn client(&self) -> Client {
        self.rig.daemon.client(&self.key)
    }

    async fn round(&mut self, round: usize) {
        let fault = match Fault::of(round) {
            Fault::FillDisk if !self.room.is_small => Fault::PauseRedis,
            fault => fault,
        };
        let began = Instant::now();
        let load = Load::start(&self.client(), round);
        load.more(20 + round * 13 % 60).await;
        match fault {
            Fault::KillRedis => {
                self.redis.kill();
                // A machine that dies loses what was not synced.
                self.redis.lose_tail(round as u64 * 1_000);
                load.more(30).await;
                self.redis.start_again();
                load.more(10).await;
            }
            Fault::PauseRedis => {
                self.redis.pause(Duration::from_millis(300 + 400 * (round as u64 % 3)));
                load.more(60).await;
            }
            Fault::FillDisk => {
                self.room.fill();
                tokio::time::sleep(Duration::from_millis(300)).await;
                self.room.empty();
                load.more(20).await;
            }
            Fault::KillDaemon => self.kill_daemon().await,
            Fault::KillBoth => {
                self.redis.kill();
                self.rig.daemon.kill();
                self.redis.start_again();
                self.rig.start_again().await;
            }
        }
        load.stop().await;
        let sent = self.rig.upstream.count();
        let _ = writeln!(
            self.report,
            "round {round:>2}  {fault:<11?} {sent:>6} sent so far  {:.1?}",
            began.elapsed()
        );
    }

    async fn kill_daemon(&mut self) {
        self.rig.daemon.kill();
        self.rig.start_again().await;
    }

    /// Every sighting has one row, and rows without one are of calls that died before they were sent.
    async fn judge(&self) -> Vec<RequestRow> {
        let mut sightings: BTreeMap<String, usize> = BTreeMap::new();
        for seen in self.rig.upstream.seen() {
            *sightings.entry(seen.model()).or_default() += 1;
        }
        until("the store is back", async || {
            (self.rig.daemon.status().await.store.state == "ok").then_some(())
        })
        .await;
        let rows = until("every sighting has a row", async || {
            let rows = self.rig.daemon.rows().await;
            let models: std::collections::BTreeSet<&str> =
                rows.iter().map(|row| row.model.as_str()).collect();
            sightings.keys().all(|model| models.contains(model.as_str())).then_some(rows)
        })
        .await;
        let mut ids = std::collections::BTreeSet::new();
        let mut models: BTreeMap<&str, usize> = BTreeMap::new();
        for row in &rows {
            assert!(ids.insert(row.id), "{} has two rows", row.id);
            *models.entry(&row.model).or_default() += 1;
            let was_sent = sightings.contains_key(&row.model);
            let is_nothing = row.end == "failed" && row.usage.is_empty();
            assert!(was_sent || is_nothing || row.provenance == Provenance::Orphaned, "never sent: {row:?}");
        }
        for (model, count) in models {
            assert_eq!(count, 1, "{model} has several rows");
        }
        rows
    }

    /// What is booked is what the rows say, and nothing is held.
    async fn compare(&self, rows: &[RequestRow]) {
        let key = self.rig.daemon.call(&ShowKey { key: "counted".to_owned() }).await;
        let of_key: Vec<&RequestRow> = rows.iter().filter(|row| row.key == key.id).collect();
        let requests = of_key.iter().filter(|row| row.attempts > 0).count() as u64;
        let tokens: u64 = of_key.iter().map(|row| row.usage.tokens()).sum();
        let sums =
            SumUsage { by: UsageBy::Key, since: None, until: None, key: None, account: None, model: None };
        let sums = self.rig.daemon.call(&sums).await;
        let summed: u64 = sums.iter().filter(|sum| sum.id.is_some()).map(|sum| sum.requests).sum();
        assert_eq!(summed, rows.len() as u64, "sums are those of the rows");
        let used: Vec<u64> = key.limits.iter().map(|limit| limit.used).collect();
        assert_eq!(used[..2], [requests, tokens], "{key:?}");
        until("nothing is held", async || {
            let key = self.rig.daemon.call(&ShowKey { key: "counted".to_owned() }).await;
            key.limits.iter().all(|limit| limit.held == 0).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn whatever_dies_each_call_is_booked_exactly_once() {
    let mut rounds = Rounds::start().await;
    for round in 0..self::rounds() {
        rounds.round(round).await;
    }
    let rows = rounds.judge().await;
    rounds.compare(&rows).await;
    let by = |provenance| rows.iter().filter(|row| row.provenance == provenance).count();
    tell(&format!(
        "{}{} rows of {} sent: {} measured, {} partial, {} estimated, {} orphaned",
        rounds.report,
        rows.len(),
        rounds.rig.upstream.count(),
        by(Provenance::Measured),
        by(Provenance::Partial),
        by(Provenance::Estimated),
        by(Provenance::Orphaned),
    ));
    assert!(by(Provenance::Measured) > rows.len() / 2);
    assert!(Path::new(rounds.redis.dir()).exists());
}
