//! One request, start to end: read, pick, reserve, send, fail over, stream, settle. Data travels in arguments
//! and results; what must be undone when the client goes is in guards.

mod account;
mod admission;
mod attempt;
mod attended;
mod body;
mod book;
mod call;
mod departure;
mod drain;
mod encoded;
mod failover;
mod failure;
mod patience;
mod queue;
mod reply;
mod settlement;
mod tap;
mod tariff;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use http::{HeaderMap, Response};
use hyper::body::Incoming;
use shared::domain::{AccountKind, Family, Multiplier, OnDisconnect, Operation, Protocol, RequestId};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use body::{BodyBudget, BodyError};
pub use drain::{DrainBounds, Drains};
pub use failure::{Problem, RelayError};
pub use patience::{Queued, Queueing};
pub use queue::Queues;
pub use reply::{ReplyBody, ReplyError};

use settlement::Settlement;

use crate::clock::Clock;
use crate::directory::{Directory, KeyEntry};
use crate::ledger::Lane;
use crate::provider::GeminiMethod;
use crate::scheduler::health::Cooldowns;
use crate::upstream::Upstream;

/// What a client wants, as far as method and path tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The client's protocol.
    pub protocol: Protocol,
    /// What it wants done.
    pub operation: Operation,
    /// The only kind of account that the path allows.
    pub only: Option<AccountKind>,
    /// The model, where the path names it.
    pub model: Option<String>,
    /// The ends of a Gemini path.
    pub gemini: Option<GeminiMethod>,
}

/// Bounds and deadlines of a call.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Bytes of a request body, decoded.
    pub body_bytes_max: u64,
    /// How long a client may pause within its body.
    pub body_idle_timeout: Duration,
    /// Accounts that one call may try.
    pub attempts_max: usize,
    /// How long after its opening a call may still try another account, without what it waited for silent ones.
    pub failover_total: Duration,
    /// How long an account may say nothing before a call goes to another that could serve it.
    pub stream_silence: Duration,
    /// The same where the answer comes as a whole.
    pub whole_silence: Duration,
    /// How long a stream's head waits for its first event of substance.
    pub hold: Duration,
    /// How many bytes of a stream may wait with it.
    pub hold_bytes_max: usize,
    /// How long an upstream may pause within its reply.
    pub idle_timeout: Duration,
    /// How long accounts rest.
    pub cooldowns: Cooldowns,
    /// How long a hold lives without being renewed.
    pub hold_ttl: Duration,
    /// Whether calls wait for limits of concurrency.
    pub queueing: Queueing,
    /// What becomes of a call whose client leaves, where its key says nothing of it.
    pub on_disconnect: OnDisconnect,
    /// Whether limits of money let calls pass whose cost nobody knows.
    pub allows_unpriced: bool,
    /// What keys' holders are charged of each family's costs.
    pub rates: Rates,
    /// Whether each call is logged.
    pub log_requests: bool,
}

/// Multipliers by family; 1 where none is.
pub type Rates = BTreeMap<Family, Multiplier>;

/// What all workers share.
pub struct Relay {
    /// Bounds and deadlines.
    pub settings: Settings,
    /// The clock.
    pub clock: Clock,
    /// Keys and accounts.
    pub directory: Arc<Directory>,
    /// Room for request bodies.
    pub bodies: BodyBudget,
    /// Calls that are open now, streams included.
    pub in_flight: Arc<AtomicU64>,
    /// Calls among them that wait for a limit of concurrency.
    pub queues: Arc<Queues>,
    /// Calls among them whose clients have left.
    pub drains: Arc<Drains>,
    /// Told when the daemon begins to drain: nobody waits any longer then.
    pub stop: CancellationToken,
    /// Told when the daemon waits no longer: whatever is open then is cut off.
    pub abort: CancellationToken,
}

/// What one worker thread has of its own.
pub struct Worker {
    /// What it shares with the others.
    pub relay: Arc<Relay>,
    /// Its lane of the journal.
    pub lane: Arc<Lane>,
    /// Its connections to upstreams.
    pub upstream: Upstream,
    /// Its runtime.
    pub runtime: Handle,
    /// What it waits for before it ends.
    pub tasks: TaskTracker,
}

impl Worker {
    /// Runs a task of this worker. Whoever drops a call may be outside of the runtime.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn_on(task, &self.runtime);
    }
}

/// A client's call: authenticated, its body not yet read.
pub struct Incomer<'a> {
    /// Its id.
    pub id: RequestId,
    /// What it wants.
    pub target: Target,
    /// The key that asks.
    pub key: Arc<KeyEntry>,
    /// The client's headers.
    pub headers: HeaderMap,
    /// The client's query string.
    pub query: Option<String>,
    /// Its body; what is not read of it when the call fails is the server's to deal with.
    pub body: &'a mut Incoming,
}

/// Relays one call. The reply's body settles the call when it ends or is dropped.
pub async fn relay(worker: &Arc<Worker>, incomer: Incomer<'_>) -> Result<Response<ReplyBody>, RelayError> {
    let mut call = call::Call::read(&worker.relay, incomer).await?;
    let settlement = match call.is_booked() {
        true => Settlement::booked(worker.clone(), &call),
        false => Settlement::unbooked(worker.clone()),
    };
    if attended::is_wanted(&worker.relay, &call) {
        return attended::run(worker, call, settlement).await;
    }
    failover::run(worker, &mut call, settlement).await
}
