//! A client's call with everything that is read of it once: body, model, session, estimate.

use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName};
use shared::domain::key::UsageMode;
use shared::domain::{AccountId, Operation, Protocol, RequestId, ServiceTier, Timestamp, Usage};

use super::body::{self, Room};
use super::{Incomer, Relay, RelayError, Settings, Target};
use crate::directory::{AccountEntry, KeyEntry};
use crate::limits::estimate::{self, ModelSize, Sizes};
use crate::protocol::{Edits, Head, ProtocolError, Splice, check_model};
use crate::scheduler::affinity::Session;

/// A call whose body was read.
pub(super) struct Call {
    pub(super) id: RequestId,
    pub(super) opened_at: Timestamp,
    pub(super) target: Target,
    pub(super) key: Arc<KeyEntry>,
    pub(super) headers: HeaderMap,
    pub(super) query: Option<String>,
    /// The model as the client names it.
    pub(super) model: String,
    pub(super) session: Option<Session>,
    /// The account that served the session until now.
    pub(super) bound: Option<AccountId>,
    sizes: Sizes,
    head: Head,
    body: Bytes,
    _room: Room,
}

impl Call {
    pub(super) async fn read(relay: &Relay, incomer: Incomer<'_>) -> Result<Self, RelayError> {
        let Incomer { id, target, key, headers, query, body } = incomer;
        target.model.as_deref().map_or(Ok(()), check_model)?;
        let settings = &relay.settings;
        let (body, room) =
            body::read(&headers, body, &relay.bodies, settings.body_bytes_max, settings.body_idle_timeout)
                .await?;
        let (head, body) = read_head(&target, body).await?;
        let model = match &target.model {
            Some(model) => model.clone(),
            None => head.model()?.to_owned(),
        };
        if !key.key.may_ask_for(&model) {
            return Err(RelayError::ModelDenied(model));
        }
        let opened_at = relay.clock.now();
        let session = session_name(&headers, &head).map(|name| Session::of(&key.key.id, name));
        let bound = session.as_ref().and_then(|session| relay.directory.sessions().get(session, opened_at));
        // Vectors are no answer tokens.
        let output_max = match target.operation {
            Operation::Generate => head.output_tokens_max,
            Operation::CountTokens | Operation::Embed => Some(0),
        };
        let sizes = Sizes {
            body: body.len() as u64,
            media: head.binary_bytes,
            has_references: head.has_references,
            output_limit: output_max,
            choices: u64::from(head.choices.unwrap_or(1)),
        };
        Ok(Self {
            id,
            opened_at,
            target,
            key,
            headers,
            query,
            model,
            session,
            bound,
            sizes,
            head,
            body,
            _room: room,
        })
    }

    /// The body as an account shall get it: only the declared spans differ from what the client sent.
    pub(super) fn body_for(&self, entry: &AccountEntry) -> Splice {
        let injected = if self.injects_usage() { self.head.include_usage() } else { Edits::default() };
        self.model_for(entry).and(injected).apply(&self.body)
    }

    /// The body names the model that is sent. Where the path does so, the name in the body is the client's own
    /// affair, until the account maps the model: Google wants the two to agree, and writes `models/` before it.
    fn model_for(&self, entry: &AccountEntry) -> Edits {
        const COLLECTION: &str = "models/";
        let sent = entry.account.upstream_model(&self.model);
        let named = self.head.model.as_ref().map(|named| named.value.as_str());
        let is_in_path = entry.provider.names_model_in_path(self.target.protocol);
        let is_right = if is_in_path { named.is_none() || sent == self.model } else { named == Some(sent) };
        match named {
            _ if is_right => Edits::default(),
            None => self.head.add_model(sent),
            Some(named) if is_in_path && named.starts_with(COLLECTION) && !sent.starts_with(COLLECTION) => {
                self.head.set_model(&[COLLECTION, sent].concat())
            }
            Some(_) => self.head.set_model(sent),
        }
    }

    /// Whether `stream_options.include_usage` is added for our sake, so that its chunk is taken out again.
    pub(super) fn injects_usage(&self) -> bool {
        self.target.protocol == Protocol::ChatCompletions
            && self.target.operation == Operation::Generate
            && self.key.key.usage == UsageMode::Inject
            && self.head.stream
            && !self.head.include_usage
    }

    /// Whether a stream was asked for. Gemini says so in the path.
    pub(super) fn is_stream(&self) -> bool {
        self.target.gemini.map_or(self.head.stream, |method| method.name == "streamGenerateContent")
    }

    /// How long an account may say nothing before another is asked that could serve the call.
    pub(super) fn silence(&self, settings: &Settings) -> Duration {
        if self.is_whole_answer() { settings.whole_silence } else { settings.stream_silence }
    }

    /// Whether nothing comes until all is written. Counts and vectors never take long.
    pub(super) fn is_whole_answer(&self) -> bool {
        self.target.operation == Operation::Generate && !self.is_stream()
    }

    /// The service tier that was asked for.
    pub(super) fn tier(&self) -> Option<ServiceTier> {
        self.head.service_tier.as_deref().and_then(ServiceTier::read)
    }

    /// What it will probably use of a model.
    pub(super) fn likely(&self, model: &ModelSize) -> Usage {
        estimate::likely(&self.sizes, model)
    }

    /// What it will use of it at most.
    pub(super) fn worst(&self, model: &ModelSize) -> Usage {
        estimate::worst(&self.sizes, model)
    }

    /// Whether it is held and booked; counting tokens is not.
    pub(super) fn is_booked(&self) -> bool {
        self.target.operation != Operation::CountTokens
    }

    /// How many answers were asked for.
    pub(super) fn choices(&self) -> u32 {
        self.head.choices.unwrap_or(1)
    }

    /// Tells calls of different content apart.
    pub(super) fn fingerprint(&self) -> u64 {
        fingerprint(&self.model, &self.body)
    }
}

/// A number for what a call asks. Every reply that streams needs it, so a large body is not read whole for it:
/// its length tells it from most others, and samples all over it from most of the rest.
fn fingerprint(model: &str, body: &[u8]) -> u64 {
    const SAMPLES: usize = 16;
    const SAMPLE_BYTES: usize = 256;
    let mut hasher = ahash::RandomState::with_seeds(5, 6, 7, 8).build_hasher();
    (model, body.len()).hash(&mut hasher);
    let step = body.len().div_ceil(SAMPLES).max(SAMPLE_BYTES);
    body.chunks(step).for_each(|part| hasher.write(&part[..part.len().min(SAMPLE_BYTES)]));
    hasher.finish()
}

/// Reading the head of a large body takes more than a moment, so it leaves the worker's thread.
async fn read_head(target: &Target, body: Bytes) -> Result<(Head, Bytes), RelayError> {
    const INLINE_BYTES_MAX: usize = 4 << 20;
    let (protocol, operation) = (target.protocol, target.operation);
    if body.len() <= INLINE_BYTES_MAX {
        return Ok((Head::read(protocol, operation, &body)?, body));
    }
    off_thread(move || Head::read(protocol, operation, &body).map(|head| (head, body))).await
}

/// Reads where it holds nobody up. What goes wrong with that is no fault of the client's.
async fn off_thread<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, ProtocolError> + Send + 'static,
) -> Result<T, RelayError> {
    Ok(tokio::task::spawn_blocking(read).await.map_err(RelayError::Unread)??)
}

/// Headers in which clients name their session, the most telling first.
static SESSION_HEADERS: [HeaderName; 5] = [
    HeaderName::from_static("x-claude-code-session-id"),
    HeaderName::from_static("session-id"),
    HeaderName::from_static("session_id"),
    HeaderName::from_static("x-session-id"),
    HeaderName::from_static("thread-id"),
];

fn session_name<'a>(headers: &'a HeaderMap, head: &'a Head) -> Option<&'a str> {
    let header =
        |name: &'static HeaderName| headers.get(name)?.to_str().ok().filter(|value| !value.is_empty());
    head.session.as_deref().or_else(|| SESSION_HEADERS.iter().find_map(header))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_of_different_content_are_told_apart() {
        let small = vec![b'a'; 4_096];
        let large = vec![b'a'; 1 << 20];
        let changed = |body: &[u8], at: usize| {
            let mut body = body.to_vec();
            body[at] = b'b';
            body
        };
        assert_eq!(fingerprint("m", &large), fingerprint("m", &large.clone()));
        for (what, model, body) in [
            ("another model", "n", large.clone()),
            ("a longer one", "m", [&large[..], b"a"].concat()),
            ("another beginning", "m", changed(&large, 0)),
            ("another middle", "m", changed(&large, 1 << 19)),
        ] {
            assert_ne!(fingerprint("m", &large), fingerprint(model, &body), "{what}");
        }
        for at in 0..small.len() {
            assert_ne!(fingerprint("m", &small), fingerprint("m", &changed(&small, at)), "byte {at}");
        }
        assert_ne!(fingerprint("m", b""), fingerprint("m", b"a"));
    }

    #[tokio::test]
    async fn a_defect_of_the_relay_is_not_told_as_the_clients_slowness() {
        let failed = off_thread::<()>(|| panic!("a defect")).await.unwrap_err();
        assert_eq!(failed.problem(Protocol::Messages).status, 500);
        assert!(failed.is_ours(), "{failed}");
        let refused = off_thread::<()>(|| Err(ProtocolError::ModelMissing)).await.unwrap_err();
        assert_eq!(refused.problem(Protocol::Messages).status, 400);
    }
}
