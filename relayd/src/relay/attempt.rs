//! One call to one account: build, send, read the head of the reply, and hold it until the reply shows substance.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming};
use shared::domain::Timestamp;
use tokio::time::{Instant, timeout, timeout_at};

use super::call::Call;
use super::encoded::Reader;
use super::settlement::Settlement;
use super::{Worker, account};
use crate::causes::Causes;
use crate::directory::AccountEntry;
use crate::protocol::{Meter, Opening, ReplyForm, Splice};
use crate::provider::{self, ErrorReply, ProviderError};
use crate::scheduler::health::{Failure, Outcome};
use crate::upstream::{Egress, Handover, UpstreamError};

/// How much of an error reply is read, and for how long: it is only looked at and passed on.
const ERROR_BYTES_MAX: usize = 64 << 10;
const ERROR_TIMEOUT: Duration = Duration::from_secs(10);

/// A reply that goes to the client. Its reader is in the settlement.
pub(super) struct Reply {
    pub(super) parts: http::response::Parts,
    pub(super) body: Incoming,
    pub(super) held: Vec<Bytes>,
    /// Whether the bytes are what the protocol says, not encoded.
    pub(super) is_plain: bool,
    pub(super) form: ReplyForm,
    pub(super) first_byte_at: Timestamp,
}

/// An error reply, read as far as it goes.
pub(super) struct Refusal {
    pub(super) parts: http::response::Parts,
    pub(super) body: Bytes,
}

/// A failed attempt.
pub(super) struct Fault {
    /// What it says about the account.
    pub(super) outcome: Outcome,
    /// What the client would be told.
    pub(super) told: Told,
    /// Whether the upstream may have worked, and want money for it.
    pub(super) may_have_worked: bool,
    /// How long the account said nothing, where that is what failed.
    pub(super) silence: Duration,
}

impl Fault {
    const fn new(outcome: Outcome, told: Told, may_have_worked: bool) -> Self {
        Self { outcome, told, may_have_worked, silence: Duration::ZERO }
    }
}

/// What a client would be told of a failed attempt.
pub(super) enum Told {
    /// The upstream's own error.
    Reply(Refusal),
    /// That it failed.
    Failed(Failure),
    /// That it cannot be reached.
    Unreachable,
    /// That the account's settings make no valid request.
    Misconfigured,
}

/// How an attempt ended.
pub(super) enum Attempted {
    /// With a reply for the client.
    Replied(Box<Reply>),
    /// With an error that is the client's own mistake.
    Refused(Refusal),
    /// With a failure that another account may not have.
    Failed(Fault),
}

/// One call to one account.
pub(super) struct Attempt<'a> {
    pub(super) worker: &'a Worker,
    pub(super) call: &'a Call,
    pub(super) entry: &'a AccountEntry,
    /// Whatever is read of a reply is booked, also if the client goes meanwhile.
    pub(super) settlement: &'a mut Settlement,
}

impl Attempt<'_> {
    /// Calls the account, and waits for the head of its reply.
    pub(super) async fn send(&self) -> Result<Response<Incoming>, Fault> {
        let Self { worker, call, entry, .. } = *self;
        let request = request(call, entry).map_err(|error| {
            tracing::error!(account = %entry.account.id, error = %Causes(&*error), "account is not set up right");
            // The settings are wrong, not the upstream: the account's health says nothing of it.
            Fault::new(Outcome::Refused, Told::Misconfigured, false)
        })?;
        let egress = Egress::of(entry.account.kind);
        let handover = self.settlement.handover();
        let sent = worker.upstream.send(egress, request, handover.clone()).await;
        sent.map_err(|error| unanswered(&error, call, entry, &handover))
    }

    /// The account said nothing for too long.
    pub(super) fn given_up(&self) -> Fault {
        unanswered(&UpstreamError::Timeout, self.call, self.entry, &self.settlement.handover())
    }

    /// Reads of a reply what it takes to know that it is for the client.
    pub(super) async fn read(self, response: Response<Incoming>) -> Attempted {
        let Self { worker, call, entry, .. } = self;
        if !response.status().is_success() {
            return refused(worker, call, entry, response).await;
        }
        self.hold(response).await
    }

    /// Holds the head of a good reply until its first piece, for a stream until its first event of substance, so
    /// that a failure up to then is not the client's problem.
    async fn hold(self, response: Response<Incoming>) -> Attempted {
        let Self { worker, call, entry, settlement } = self;
        let settings = &worker.relay.settings;
        let (parts, mut body) = response.into_parts();
        let form = form(call, &parts);
        let meter = Meter::new(call.target.protocol, form).expecting(call.choices());
        let first_byte_at = worker.relay.clock.now();
        let reader = settlement.answered(Reader::new(&parts.headers, Box::new(meter)), form, first_byte_at);
        let is_stream = form != ReplyForm::Json && reader.is_plain();
        let mut held = Vec::new();
        let mut held_bytes = 0;
        let deadline = Instant::now() + settings.hold;
        while held_bytes < settings.hold_bytes_max {
            let Ok(frame) = timeout_at(deadline, body.frame()).await else { break };
            let (is_over, is_cut) = (!matches!(frame, Some(Ok(_))), matches!(frame, Some(Err(_))));
            match frame.map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => {
                    reader.feed(&data);
                    held_bytes += data.len();
                    held.push(data);
                }
                Some(Ok(Err(_trailers))) => continue,
                Some(Err(_)) if !is_stream => return broken(call, Failure::Broken),
                // The last of what came may be understood only now.
                Some(Err(_)) | None => reader.finish(),
            }
            if !is_stream {
                break;
            }
            match reader.opening() {
                Opening::Error => match stream_error(worker, call, entry, reader) {
                    Some(fault) => return Attempted::Failed(fault),
                    None => break,
                },
                _ if is_cut => return broken(call, Failure::Broken),
                Opening::Nothing | Opening::Announcing if !is_over => {}
                Opening::Nothing | Opening::Announcing if !reader.reading().terminal => {
                    return broken(call, Failure::Broken);
                }
                Opening::Nothing | Opening::Announcing | Opening::Substance => break,
            }
        }
        let is_plain = reader.is_plain();
        Attempted::Replied(Box::new(Reply { parts, body, held, is_plain, form, first_byte_at }))
    }
}

fn request(call: &Call, entry: &AccountEntry) -> Result<Request<Splice>, Arc<ProviderError>> {
    let caller = entry.caller()?;
    let upstream_call = provider::Call {
        protocol: call.target.protocol,
        operation: call.target.operation,
        model: entry.account.upstream_model(&call.model),
        gemini: call.target.gemini,
        headers: &call.headers,
        query: call.query.as_deref(),
        body: call.body_for(entry),
    };
    Ok(entry.provider.request(caller, upstream_call)?)
}

/// Once the upstream may have had the request, it may have worked, whatever became of its answer.
fn unanswered(error: &UpstreamError, call: &Call, entry: &AccountEntry, handover: &Handover) -> Fault {
    tracing::debug!(account = %entry.account.id, error = %Causes(error), "attempt failed");
    let suspect = |failure| Outcome::Suspect { failure, fingerprint: call.fingerprint() };
    let (outcome, told) = match error {
        UpstreamError::Unreachable(_) => (Outcome::Unreachable, Told::Unreachable),
        UpstreamError::Timeout => (suspect(Failure::Timeout), Told::Failed(Failure::Timeout)),
        UpstreamError::Broken(_) => (suspect(Failure::Broken), Told::Failed(Failure::Broken)),
    };
    Fault::new(outcome, told, handover.is_done())
}

async fn refused(
    worker: &Worker,
    call: &Call,
    entry: &AccountEntry,
    response: Response<Incoming>,
) -> Attempted {
    let (parts, body) = response.into_parts();
    let body = timeout(ERROR_TIMEOUT, beginning(body)).await.unwrap_or_default();
    let reply = ErrorReply {
        status: parts.status.as_u16(),
        headers: &parts.headers,
        body: &body,
        now: worker.relay.clock.now(),
        model: entry.account.upstream_model(&call.model),
        fingerprint: call.fingerprint(),
    };
    let outcome = entry.provider.outcome(&reply);
    // A client that followed a redirection would carry its own key there.
    let told = match parts.status.as_u16() {
        status @ ..400 => Told::Failed(Failure::Status(status)),
        400.. => Told::Reply(Refusal { parts, body }),
    };
    match (outcome, told) {
        (Outcome::Refused | Outcome::Served, Told::Reply(refusal)) => Attempted::Refused(refusal),
        (outcome, told) => Attempted::Failed(Fault::new(outcome, told, false)),
    }
}

/// The first bytes of an error reply; what cannot be read counts as empty.
async fn beginning(mut body: Incoming) -> Bytes {
    let mut bytes = BytesMut::new();
    while let Some(Ok(frame)) = body.frame().await {
        if let Some(data) = frame.data_ref() {
            let room = ERROR_BYTES_MAX - bytes.len();
            bytes.extend_from_slice(&data[..data.len().min(room)]);
        }
        if bytes.len() == ERROR_BYTES_MAX {
            break;
        }
    }
    bytes.freeze()
}

fn form(call: &Call, parts: &http::response::Parts) -> ReplyForm {
    let content_type = parts.headers.get(http::header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    ReplyForm::of(call.target.protocol, call.is_stream(), content_type.unwrap_or_default())
}

fn broken(call: &Call, failure: Failure) -> Attempted {
    let outcome = Outcome::Suspect { failure, fingerprint: call.fingerprint() };
    Attempted::Failed(Fault::new(outcome, Told::Failed(failure), true))
}

/// A stream that began with an error. `None` if the error is the client's own mistake, which it shall read as it
/// came.
fn stream_error(worker: &Worker, call: &Call, entry: &AccountEntry, reader: &Reader) -> Option<Fault> {
    let model = entry.account.upstream_model(&call.model);
    let (outcome, failure) =
        account::judge(&worker.relay, entry, model, reader.reading(), call.fingerprint());
    (outcome != Outcome::Refused).then(|| Fault::new(outcome, Told::Failed(failure), false))
}
