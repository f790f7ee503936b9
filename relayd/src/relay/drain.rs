//! Replies whose clients leave: with `on_disconnect = "drain"`, they are read to their ends within bounds, so that
//! what was used is known. What is not drained is dropped, which settles it as it stands.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};

use super::tap::Tap;
use super::{Relay, ReplyError, Worker};

/// How much is drained.
#[derive(Clone, Copy, Debug)]
pub struct DrainBounds {
    /// Calls at the same time.
    pub calls_max: usize,
    /// How long after the client left.
    pub time: Duration,
    /// Tokens of the answer that come after the client left, as far as the reply tells before its end.
    pub tokens_max: u64,
    /// Bytes of the reply that come after the client left.
    pub bytes_max: u64,
}

/// The calls that are drained.
pub struct Drains {
    bounds: DrainBounds,
    free: Arc<Semaphore>,
}

impl Drains {
    /// Allows so much.
    pub fn new(bounds: DrainBounds) -> Self {
        let calls_max = bounds.calls_max.min(Semaphore::MAX_PERMITS);
        Self { bounds: DrainBounds { calls_max, ..bounds }, free: Arc::new(Semaphore::new(calls_max)) }
    }

    /// How much each may be.
    pub(super) const fn bounds(&self) -> DrainBounds {
        self.bounds
    }

    /// How many there are now.
    pub fn running(&self) -> u64 {
        self.bounds.calls_max.saturating_sub(self.free.available_permits()) as u64
    }
}

/// A reply that its client reads. Dropping it before its end is how the client leaves.
pub struct AttendedReply {
    worker: Arc<Worker>,
    tap: Option<Box<Tap>>,
}

impl AttendedReply {
    pub(super) fn new(worker: Arc<Worker>, tap: Box<Tap>) -> Self {
        Self { worker, tap: Some(tap) }
    }

    /// Reads it for a client that has left already.
    pub(super) async fn read_out(mut self, bounds: DrainBounds) -> Option<Bound> {
        read_out(self.tap.take()?, bounds).await
    }

    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ReplyError>>> {
        match &mut self.tap {
            Some(tap) => Pin::new(&mut **tap).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.tap.as_ref().is_none_or(|tap| tap.is_end_stream())
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.tap.as_ref().map_or_else(SizeHint::default, |tap| tap.size_hint())
    }
}

impl Drop for AttendedReply {
    fn drop(&mut self) {
        let Some(tap) = self.tap.take().filter(|tap| !tap.is_over()) else { return };
        let relay = &self.worker.relay;
        let Some(grant) = Grant::of(relay) else { return };
        tap.leave();
        self.worker.spawn(grant.spend(read_out(tap, relay.drains.bounds)));
    }
}

/// A place among the drains, for one call.
pub(super) struct Grant {
    relay: Arc<Relay>,
    deadline: Instant,
    _permit: OwnedSemaphorePermit,
}

impl Grant {
    /// Gives a place from now on, if there is one. When nobody waits any longer, there is none.
    pub(super) fn of(relay: &Arc<Relay>) -> Option<Self> {
        if relay.abort.is_cancelled() {
            return None;
        }
        let Ok(permit) = relay.drains.free.clone().try_acquire_owned() else {
            tracing::debug!(bound = "drains_max", "a call is not drained");
            return None;
        };
        let deadline = Instant::now() + relay.drains.bounds.time;
        Some(Self { relay: relay.clone(), deadline, _permit: permit })
    }

    /// Goes on until the work is done, or beyond a bound; dropping the work settles the call.
    pub(super) async fn spend(self, work: impl Future<Output = Option<Bound>>) {
        let bound = tokio::select! {
            biased;
            () = self.relay.abort.cancelled() => Some("server.drain_timeout_ms"),
            () = sleep_until(self.deadline) => Some("drain_ms"),
            bound = work => bound,
        };
        if let Some(bound) = bound {
            tracing::debug!(bound, "a drain was cut off");
        }
    }
}

/// The setting that ended a drain.
pub(super) type Bound = &'static str;

/// Reads a reply to its end for what it says of itself.
async fn read_out(mut tap: Box<Tap>, bounds: DrainBounds) -> Option<Bound> {
    let tokens_max = tap.answer_tokens().saturating_add(bounds.tokens_max);
    let mut bytes_left = bounds.bytes_max;
    while !tap.is_over() {
        if tap.answer_tokens() > tokens_max {
            return Some("drain_tokens_max");
        }
        let frame = std::future::poll_fn(|cx| Pin::new(&mut *tap).poll_frame(cx)).await?.ok()?;
        let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
        match bytes_left.checked_sub(bytes) {
            Some(left) => bytes_left = left,
            None if tap.is_over() => {}
            None => return Some("drain_bytes_max"),
        }
    }
    None
}
