//! Telling the daemon to stop, and watching it end.

use std::time::Duration;

use shared::admin::{ShowStatus, StatusView, StopDaemon};
use tokio::time::{Instant, sleep};

use crate::client::{Client, ClientError};
use crate::failure::Failure;
use crate::format;
use crate::output::Output;
use crate::process;
use crate::prompt;

/// Open calls may take long to drain; after this time relayctl leaves the daemon to it.
const DRAIN_WATCHED: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);
/// A daemon that is about to end may take a connection and answer no more.
const PROBE_WITHIN: Duration = Duration::from_secs(2);

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
pub(crate) async fn stop_and_watch(
    client: &Client,
    out: &Output,
    status: &StatusView,
) -> Result<Stopped, Failure> {
    client.call(&StopDaemon {}).await?;
    if status.in_flight > 0 {
        out.remark(&waiting_for(status.in_flight));
    }
    let waiting = prompt::spinner(waiting_for(status.in_flight));
    let deadline = Instant::now() + DRAIN_WATCHED;
    let mut left = seen(client, status).await;
    while left != Left::Nothing && Instant::now() < deadline {
        if let Left::Calls(calls) = left {
            waiting.set_message(waiting_for(calls));
        }
        sleep(POLL).await;
        left = seen(client, status).await;
    }
    waiting.finish_and_clear();
    Ok(if left == Left::Nothing { Stopped::Ended } else { Stopped::Draining })
}

fn waiting_for(calls: u64) -> String {
    let watched = DRAIN_WATCHED.as_secs();
    match calls {
        0 => "waiting for relayd to end".to_owned(),
        calls => {
            let calls = format::several(calls, "open call");
            format!("waiting for {calls} to end, {watched} seconds at most; relayd drains on by itself")
        }
    }
}

/// What is left of a daemon that was told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    /// It has ended.
    Nothing,
    /// It has so many open calls.
    Calls(u64),
    /// It does not say.
    Something,
}

async fn seen(client: &Client, status: &StatusView) -> Left {
    match client.call_within(PROBE_WITHIN, &ShowStatus {}).await {
        // A service manager may have started the next one already.
        Ok(now) if now.pid != status.pid || now.started_at != status.started_at => Left::Nothing,
        Ok(now) => Left::Calls(now.in_flight),
        Err(ClientError::NoAnswer(_)) if !process::lives(status.pid) => Left::Nothing,
        Err(_) => Left::Something,
    }
}
