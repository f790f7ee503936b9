//! The end of a daemon that was asked to end, and what the next one knows.

use std::time::{Duration, Instant};

use shared::admin::{ListAccounts, ListKeys, StopDaemon, SumUsage, UsageBy};
use shared::domain::{Protocol, Provenance};
use tokio::net::TcpStream;

use crate::support::{Call, Gate, Reply, Rig, Step, until, wire};

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
