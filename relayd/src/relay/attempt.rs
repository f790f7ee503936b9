//! One call to one account: build, send, read the head of the reply, and hold it until the reply shows substance.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use shared::domain::Timestamp;
use tokio::time::{Instant, timeout, timeout_at};

use super::Worker;
use super::call::Call;
use super::encoded::Reader;
use crate::causes::Causes;
use crate::directory::AccountEntry;
use crate::protocol::{Meter, Opening, ReplyForm};
use crate::provider::{self, ErrorReply};
use crate::scheduler::health::{Failure, Outcome};
use crate::upstream::{Egress, UpstreamError};

/// How much of an error reply is read, and for how long: it is only looked at and passed on.
const ERROR_BYTES_MAX: usize = 64 << 10;
const ERROR_TIMEOUT: Duration = Duration::from_secs(10);

/// A reply that goes to the client.
pub(super) struct Reply {
    pub(super) parts: http::response::Parts,
    pub(super) body: Incoming,
    pub(super) held: Vec<Bytes>,
    pub(super) reader: Reader,
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

/// Calls one account.
pub(super) async fn attempt(worker: &Worker, call: &Call, entry: &AccountEntry) -> Attempted {
    let upstream_call = provider::Call {
        protocol: call.target.protocol,
        operation: call.target.operation,
        model: entry.account.upstream_model(&call.model),
        gemini: call.target.gemini,
        headers: &call.headers,
        query: call.query.as_deref(),
        body: call.body_for(&entry.account),
    };
    let request = entry.caller().and_then(|caller| Ok(entry.provider.request(caller, upstream_call)?));
    let request = match request {
        Ok(request) => request,
        Err(error) => {
            tracing::error!(account = %entry.account.id, error = %Causes(&*error), "account is not set up right");
            // The settings are wrong, not the upstream: the account's health says nothing of it.
            let (outcome, told) = (Outcome::Refused, Told::Misconfigured);
            return Attempted::Failed(Fault { outcome, told, may_have_worked: false });
        }
    };
    let response = match worker.upstream.send(Egress::of(entry.account.kind), request).await {
        Ok(response) => response,
        Err(error) => return Attempted::Failed(unanswered(&error, call, entry)),
    };
    if !response.status().is_success() {
        return refused(worker, call, entry, response).await;
    }
    hold(worker, call, entry, response).await
}

fn unanswered(error: &UpstreamError, call: &Call, entry: &AccountEntry) -> Fault {
    tracing::debug!(account = %entry.account.id, error = %Causes(error), "attempt failed");
    let suspect = |failure| Outcome::Suspect { failure, fingerprint: call.fingerprint() };
    let (outcome, told, may_have_worked) = match error {
        UpstreamError::Unreachable(_) => (Outcome::Unreachable, Told::Unreachable, false),
        UpstreamError::Timeout => (suspect(Failure::Timeout), Told::Failed(Failure::Timeout), true),
        UpstreamError::Broken(_) => (suspect(Failure::Broken), Told::Failed(Failure::Broken), false),
    };
    Fault { outcome, told, may_have_worked }
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
        (outcome, told) => Attempted::Failed(Fault { outcome, told, may_have_worked: false }),
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

/// Holds the head of a good reply until its first piece, for a stream until its first event of substance, so
/// that a failure up to then is not the client's problem.
async fn hold(worker: &Worker, call: &Call, entry: &AccountEntry, response: Response<Incoming>) -> Attempted {
    let settings = &worker.relay.settings;
    let (parts, mut body) = response.into_parts();
    let form = form(call, &parts);
    let meter = Meter::new(call.target.protocol, call.target.operation, form).expecting(call.choices());
    let mut reader = Reader::new(&parts.headers, meter);
    let first_byte_at = worker.relay.clock.now();
    let mut held = Vec::new();
    let mut held_bytes = 0;
    let mut has_ended = false;
    let deadline = Instant::now() + settings.hold;
    while held_bytes < settings.hold_bytes_max {
        let Ok(frame) = timeout_at(deadline, body.frame()).await else { break };
        match frame {
            Some(Ok(frame)) => {
                let Ok(data) = frame.into_data() else { continue };
                reader.feed(&data);
                held_bytes += data.len();
                held.push(data);
            }
            Some(Err(_)) => return broken(call, Failure::Broken),
            None => {
                reader.finish();
                has_ended = true;
                break;
            }
        }
        if form == ReplyForm::Json || !reader.is_plain() {
            break;
        }
        match reader.opening() {
            Opening::Nothing | Opening::Announcing => {}
            Opening::Substance => break,
            Opening::Error => match stream_error(worker, call, entry, &reader) {
                Some(fault) => return Attempted::Failed(fault),
                None => break,
            },
        }
    }
    let is_stream = form != ReplyForm::Json && reader.is_plain();
    if has_ended && is_stream && reader.opening() != Opening::Substance && !reader.reading().terminal {
        return broken(call, Failure::Broken);
    }
    Attempted::Replied(Box::new(Reply { parts, body, held, reader, form, first_byte_at }))
}

fn form(call: &Call, parts: &http::response::Parts) -> ReplyForm {
    let content_type = parts.headers.get(http::header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    ReplyForm::of(call.target.protocol, call.is_stream(), content_type.unwrap_or_default())
}

fn broken(call: &Call, failure: Failure) -> Attempted {
    let outcome = Outcome::Suspect { failure, fingerprint: call.fingerprint() };
    Attempted::Failed(Fault { outcome, told: Told::Failed(failure), may_have_worked: true })
}

/// A stream that began with an error is judged like an error reply with the status that the error stands for.
/// `None` if the error is the client's own mistake, which it shall read as it came.
fn stream_error(worker: &Worker, call: &Call, entry: &AccountEntry, reader: &Reader) -> Option<Fault> {
    let error = reader.reading().error.as_ref();
    let status = error.and_then(|error| error.status).filter(|status| *status >= 400);
    let headers = http::HeaderMap::new();
    let outcome = entry.provider.outcome(&ErrorReply {
        status: status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR.as_u16()),
        headers: &headers,
        body: error.map_or(&[], |error| error.message.as_bytes()),
        now: worker.relay.clock.now(),
        fingerprint: call.fingerprint(),
    });
    let failure = status.map_or(Failure::StreamError, Failure::Status);
    (outcome != Outcome::Refused).then_some(Fault {
        outcome,
        told: Told::Failed(failure),
        may_have_worked: false,
    })
}
