//! Calls that go on when their clients leave before they have a head. As long as nothing was sent, there is nothing
//! to be known and nothing to pay for, and such a call ends like any other.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::Response;
use shared::domain::OnDisconnect;

use super::call::Call;
use super::departure::Departure;
use super::drain::{Bound, DrainBounds, Grant};
use super::settlement::Settlement;
use super::{Relay, RelayError, ReplyBody, Worker, failover};

/// Whether a call goes on when its client leaves. What is not booked has nothing to be known.
pub(super) fn is_wanted(relay: &Relay, call: &Call) -> bool {
    let policy = call.key.key.on_disconnect.unwrap_or(relay.settings.on_disconnect);
    policy == OnDisconnect::Drain && call.is_booked()
}

/// Serves a call as [`failover::run`] does, and goes on with it if the client leaves.
pub(super) fn run(worker: &Arc<Worker>, mut call: Call, mut settlement: Settlement) -> Attended {
    let departure = Arc::new(Departure::default());
    settlement.attend(departure.clone());
    let is_whole = !call.is_stream();
    let server = worker.clone();
    let serving = async move { failover::run(&server, &mut call, settlement).await };
    Attended { worker: worker.clone(), departure, is_whole, serving: Some(Box::pin(serving)) }
}

type Served = Result<Response<ReplyBody>, RelayError>;

/// A call that its client waits for. Dropping it is how the client leaves.
pub(super) struct Attended {
    worker: Arc<Worker>,
    departure: Arc<Departure>,
    /// Its reply comes when it is written: no bound of tokens can stop it then.
    is_whole: bool,
    serving: Option<Pin<Box<dyn Future<Output = Served> + Send>>>,
}

impl Future for Attended {
    type Output = Served;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Served> {
        let Some(serving) = &mut self.serving else { return Poll::Pending };
        let served = ready!(serving.as_mut().poll(cx));
        self.serving = None;
        Poll::Ready(served)
    }
}

impl Drop for Attended {
    fn drop(&mut self) {
        let Some(serving) = self.serving.take() else { return };
        let relay = &self.worker.relay;
        let bounds = relay.drains.bounds();
        let is_too_long = self.is_whole && self.departure.answer_tokens() > bounds.tokens_max;
        if !self.departure.is_sent() || is_too_long {
            return;
        }
        let Some(grant) = Grant::of(relay) else { return };
        self.departure.leave();
        self.worker.spawn(grant.spend(answered(serving, bounds)));
    }
}

/// Waits for the reply, then reads it.
async fn answered(serving: impl Future<Output = Served>, bounds: DrainBounds) -> Option<Bound> {
    match serving.await.ok()?.into_body() {
        ReplyBody::Attended(reply) => reply.read_out(bounds).await,
        ReplyBody::Full(_) | ReplyBody::Tap(_) => None,
    }
}
