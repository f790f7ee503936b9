//! Telling the daemon to stop, and watching it end.

use std::time::Duration;

use shared::admin::{ShowStatus, StatusView, StopDaemon};
use tokio::time::{Instant, sleep};

use crate::client::{Client, ClientError};
use crate::failure::Failure;
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
        Err(ClientError::NoAnswer(_)) => !process::lives(status.pid),
        Err(_) => false,
    }
}
