//! The end of a daemon that was asked to end, and what the next one knows.

use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use shared::admin::{ListAccounts, ListKeys, StopDaemon, SumUsage, UsageBy};
use shared::domain::{AccountKind, Protocol, Provenance};
use tokio::net::{TcpStream, UnixDatagram};

use crate::support::daemon::{relayd, setting, temporary_folder};
use crate::support::{Call, Gate, Reply, Rig, Setup, Step, until, wire};

#[tokio::test]
async fn an_open_stream_is_drained_and_new_connections_are_refused() {
    let mut rig = Rig::start().await;
    let gate = Gate::closed();
    let held = gate.clone();
    rig.upstream.script(move |seen| {
        let events = seen.events();
        Reply::open_stream("text/event-stream")
            .pieces(events[..3].to_vec())
            .then(Step::Wait(held.clone()))
            .pieces(events[3..].to_vec())
            .end()
    });
    let call = Call::new(Protocol::Messages, "drained").streamed();
    let mut open = rig.client.open(&call).await;
    let begin = open.read_past(b"event: ping").await;
    rig.daemon.terminate();
    let address = rig.daemon.address();
    until("connections are refused", async || TcpStream::connect(address).await.is_err().then_some(())).await;
    assert!(rig.daemon.is_running());
    gate.open();
    let rest = open.rest().await;
    assert!(!rest.is_broken);
    let expected = wire::events(Protocol::Messages, "drained", wire::Content::Text, false).concat();
    assert_eq!([begin, rest.body].concat(), expected);
    assert!(rig.daemon.ended().await.success());

    rig.start_again().await;
    let row = rig.daemon.row("drained").await;
    assert_eq!((row.end.as_str(), row.provenance), ("complete", Provenance::Measured));
    assert_eq!(row.usage, wire::usage(Protocol::Messages));
}

/// Nobody takes them for clients that left.
#[tokio::test]
async fn calls_that_outlast_the_drain_are_booked_as_cut_off() {
    let mut rig = Rig::bare(Setup::default().set(setting::DRAIN_TIMEOUT_MS, 1_000)).await;
    rig.add(AccountKind::ClaudeConsole, "claude").await;
    rig.upstream.script(|seen| {
        let pieces = seen.events().into_iter().take(4);
        let begun = Reply::open_stream("text/event-stream").pieces(pieces);
        if seen.is_stream() { begun.then(Step::Stall) } else { Reply::raw(vec![Step::Stall]) }
    });
    let call = |model: &str| Call::new(Protocol::Messages, model);
    let mut begun = rig.client.open(&call("begun").streamed()).await;
    begun.read_past(b"text_delta").await;
    let mut left = rig.client.open(&call("left").streamed()).await;
    left.read_past(b"text_delta").await;
    let client = rig.client.clone();
    let waiting =
        tokio::spawn(async move { client.try_open(&Call::new(Protocol::Messages, "waiting")).await });
    until("the upstream has all", async || (rig.upstream.answering() == 3).then_some(())).await;
    drop(left);
    until("the upstream is let go", async || (rig.upstream.gone() == 1).then_some(())).await;
    rig.daemon.terminate();
    assert!(rig.daemon.ended().await.success());
    assert!(begun.rest().await.is_broken, "the client was told that all is well");
    assert!(waiting.await.unwrap().is_err());

    rig.start_again().await;
    for (model, status, end, provenance) in [
        ("begun", 200, "aborted", Provenance::Partial),
        ("waiting", 0, "aborted", Provenance::Estimated),
        ("left", 200, "client_gone", Provenance::Partial),
    ] {
        let row = rig.daemon.row(model).await;
        assert_eq!((row.status, row.end.as_str(), row.provenance), (status, end, provenance), "{row:?}");
        assert!(!row.usage.is_empty(), "{row:?}");
    }
    let by = UsageBy::Key;
    let sum = SumUsage { by, since: None, until: None, key: None, account: None, model: None };
    let sums = rig.daemon.call(&sum).await;
    assert_eq!((sums[0].requests, sums[0].failed), (3, 2));
}

#[tokio::test]
async fn a_second_signal_cuts_off_at_once() {
    let mut rig = Rig::start().await;
    rig.upstream.script(|_| Reply::raw(vec![Step::Stall]));
    let client = rig.client.clone();
    let waiting =
        tokio::spawn(async move { client.try_open(&Call::new(Protocol::Messages, "waiting")).await });
    until("the upstream has it", async || (rig.upstream.answering() == 1).then_some(())).await;
    rig.daemon.terminate();
    let address = rig.daemon.address();
    until("it drains", async || TcpStream::connect(address).await.is_err().then_some(())).await;
    rig.daemon.terminate();
    assert!(rig.daemon.ended().await.success());
    assert!(waiting.await.unwrap().is_err());
    rig.start_again().await;
    assert_eq!(rig.daemon.row("waiting").await.end, "aborted");
}

#[tokio::test]
async fn an_idle_daemon_ends_soon() {
    let mut rig = Rig::start().await;
    // A connection that is kept alive holds nobody up.
    rig.client.call(&Call::new(Protocol::Messages, "m")).await.expect(200);
    let asked = Instant::now();
    rig.daemon.terminate();
    assert!(rig.daemon.ended().await.success());
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
}

#[tokio::test]
async fn the_admin_socket_can_end_it_too() {
    let mut rig = Rig::start().await;
    rig.daemon.call(&StopDaemon {}).await;
    assert!(rig.daemon.ended().await.success());
}

/// Nor one that does not take its answer.
#[tokio::test]
async fn an_admin_caller_that_stops_speaking_does_not_hold_it_up() {
    use std::io::Write;

    let mut rig = Rig::start().await;
    let mut caller = std::os::unix::net::UnixStream::connect(rig.daemon.socket()).unwrap();
    caller.write_all(b"POST /v1/status HTTP/1.1\r\nhost: relayd\r\ncontent-length: 2\r\n\r\n{").unwrap();
    // Answered after it on the same runtime: the first caller was read by then.
    rig.daemon.call(&ListAccounts {}).await;
    rig.daemon.terminate();
    assert!(rig.daemon.ended().await.success());
}

#[tokio::test]
async fn a_restart_keeps_keys_accounts_and_usage() {
    let mut rig = Rig::start().await;
    for protocol in Protocol::ALL {
        rig.client.call(&Call::new(protocol, "m")).await.expect(200);
    }
    let sum =
        SumUsage { by: UsageBy::Model, since: None, until: None, key: None, account: None, model: None };
    rig.daemon.settled().await;
    let before = rig.daemon.call(&sum).await;
    assert_eq!(before.iter().map(|row| row.requests).sum::<u64>(), 4);
    let rows = rig.daemon.rows().await.len();
    rig.daemon.terminate();
    assert!(rig.daemon.ended().await.success());
    rig.start_again().await;
    let after = rig.daemon.call(&sum).await;
    assert_eq!(after.len(), before.len());
    for (one, other) in before.iter().zip(&after) {
        assert_eq!((&one.name, one.requests, one.usage), (&other.name, other.requests, other.usage));
    }
    assert_eq!(rig.daemon.rows().await.len(), rows);
    assert_eq!(rig.daemon.call(&ListAccounts {}).await.len(), 3);
    assert_eq!(rig.daemon.call(&ListKeys { deleted: false }).await.len(), 1);
    rig.client.call(&Call::new(Protocol::Messages, "m")).await.expect(200);
}

/// The service manager may stop the daemon as soon as it hears that it is ready.
#[tokio::test]
async fn a_daemon_that_is_stopped_as_soon_as_it_is_ready_ends_in_order() {
    for _ in 0..3 {
        let data = temporary_folder();
        let path = data.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let mut command = relayd();
        command.arg("--data").arg(data.path()).args(["--listen", "127.0.0.1:0"]).env("NOTIFY_SOCKET", &path);
        let mut process =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let ready = async {
            let mut told = [0; 256];
            let mut bytes = 0;
            while !told[..bytes].starts_with(b"READY=1") {
                bytes = manager.recv(&mut told).await.unwrap();
            }
        };
        let heard = tokio::time::timeout(Duration::from_secs(30), ready).await;
        rustix::process::kill_process(Pid::from_child(&process), Signal::TERM).unwrap();
        let status = until("the daemon ends", async || process.try_wait().unwrap()).await;
        heard.expect("nobody was told that it is ready");
        assert!(status.success(), "{status}");
    }
}
