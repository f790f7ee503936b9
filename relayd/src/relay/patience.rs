//! Whether and for how long a call waits for room, and what it says when that was in vain.

use std::fmt;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use shared::domain::limit::Metric;
use shared::domain::{ApiKey, KeyQueue, QueueBounds};
use tokio::time::{Instant, sleep_until};

use super::queue::{Full, Place, Ticket};
use super::{Relay, RelayError};
use crate::directory::Turn;

/// Whoever lines up knows how long it will be; those before it may be this much slower.
const LATE_MAX: Duration = Duration::from_secs(1);

/// Whether calls wait for limits of concurrency, where their keys say nothing of it.
#[derive(Clone, Copy, Debug)]
pub struct Queueing {
    /// They do.
    pub is_enabled: bool,
    /// Within these bounds.
    pub bounds: QueueBounds,
}

impl Queueing {
    /// The bounds within which calls of a key wait, if they do, and how long they may wait to be started at an
    /// account that keeps its calls apart: the operator asked for that one, so it waits unless the key never does.
    fn of(&self, key: &ApiKey) -> (Option<QueueBounds>, Duration) {
        match key.queue {
            Some(KeyQueue::Own(bounds)) => (Some(bounds), bounds.wait.duration()),
            Some(KeyQueue::Off) => (None, Duration::ZERO),
            None => (self.is_enabled.then_some(self.bounds), self.bounds.wait.duration()),
        }
    }
}

/// What a refused call waited for the room that there was not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queued {
    /// It was not to wait.
    No,
    /// So many waited already, as many as may.
    Crowded(u32),
    /// As long as it may.
    For(Duration),
}

/// The end of a sentence.
impl fmt::Display for Queued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::No => Ok(()),
            Self::Crowded(1) => f.write_str("; another call waits already"),
            Self::Crowded(others) => write!(f, "; {others} calls wait already"),
            Self::For(time) => write!(f, "; this call waited {:.1} s", time.as_secs_f64()),
        }
    }
}

/// What waiting came to.
pub(super) enum Waited {
    /// There may be room now.
    Look,
    /// There is no more waiting.
    Enough(Queued),
}

/// How a wait to be started ended.
pub(super) enum Start {
    /// At once.
    Now,
    /// After a while, in which things may have changed.
    Later,
    /// Not within the time that the call may wait.
    Never,
}

/// How long a call still waits.
pub(super) struct Patience {
    bounds: Option<QueueBounds>,
    wait_max: Duration,
    place: Option<Place>,
    deadline: Option<Instant>,
    waited: Duration,
}

impl Patience {
    pub(super) fn of(relay: &Relay, key: &ApiKey) -> Self {
        let (bounds, wait_max) = relay.settings.queueing.of(key);
        Self { bounds, wait_max, place: None, deadline: None, waited: Duration::ZERO }
    }

    /// The call's place among those that wait, once it does.
    pub(super) fn ticket(&self) -> Option<Ticket> {
        self.place.as_ref().map(Place::ticket)
    }

    /// How long it has waited by now.
    pub(super) const fn waited(&self) -> Duration {
        self.waited
    }

    /// How long it may still wait.
    pub(super) fn left(&self) -> Duration {
        self.deadline.map_or(self.wait_max, |deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// There was room: makes way for the next.
    pub(super) fn leave(&mut self) {
        self.place = None;
    }

    /// Waits until one of these limits may have room. Whoever comes to wait looks once more first, for what was
    /// released meanwhile.
    pub(super) async fn wait(&mut self, relay: &Relay, full: &[Full]) -> Result<Waited, RelayError> {
        let Some(bounds) = self.bounds.filter(|_| can_wait_for(full)) else {
            return Ok(Waited::Enough(Queued::No));
        };
        let began = Instant::now();
        let deadline = *self.deadline.get_or_insert(began + self.wait_max);
        if began >= deadline {
            return Ok(Waited::Enough(Queued::For(self.waited)));
        }
        let size_max = bounds.size_max as usize;
        self.place = match self.place.take() {
            None => relay.queues.join(full, size_max),
            Some(mut place) => place.stand(full, size_max).then_some(place),
        };
        let Some(place) = &self.place else {
            return Ok(Waited::Enough(Queued::Crowded(bounds.size_max)));
        };
        let stopped = tokio::select! {
            biased;
            () = relay.stop.cancelled() => true,
            () = place.turn(deadline) => false,
        };
        self.waited += began.elapsed();
        if stopped { Err(RelayError::Stopping) } else { Ok(Waited::Look) }
    }

    /// Waits for its turn to be started.
    pub(super) async fn start(&mut self, relay: &Relay, turn: Turn) -> Result<Start, RelayError> {
        let mut start = pin!(turn.start());
        if is_ready(start.as_mut()).await {
            return Ok(Start::Now);
        }
        let began = Instant::now();
        let deadline = *self.deadline.get_or_insert(began + self.wait_max) + LATE_MAX;
        let end = tokio::select! {
            biased;
            () = start => Ok(Start::Later),
            () = relay.stop.cancelled() => Err(RelayError::Stopping),
            () = sleep_until(deadline) => Ok(Start::Never),
        };
        self.waited += began.elapsed();
        end
    }
}

/// Looks at a future once.
async fn is_ready(mut future: Pin<&mut impl Future<Output = ()>>) -> bool {
    std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_ready())).await
}

/// Only what open calls hold comes back by itself.
fn can_wait_for(full: &[Full]) -> bool {
    !full.is_empty() && full.iter().all(|full| full.counter.metric() == Metric::Concurrent)
}
