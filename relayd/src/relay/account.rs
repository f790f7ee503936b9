//! What calls tell of their accounts: errors in replies are judged by the provider, and the account's state
//! learns what came of it.

use std::sync::Arc;

use http::{HeaderMap, StatusCode};
use shared::domain::Operation;

use super::{Relay, ReplyError};
use crate::directory::AccountEntry;
use crate::protocol::Reading;
use crate::provider::ErrorReply;
use crate::scheduler::Purpose;
use crate::scheduler::health::{Failure, Outcome};

/// Takes note of what a call told about an account; tells the log when it failed, and when it has to rest for it.
pub(super) fn learn(relay: &Relay, entry: &AccountEntry, purpose: Purpose<'_>, outcome: &Outcome) {
    let now = relay.clock.now();
    let (before, after) = entry.state.learn(purpose, outcome, now, &relay.settings.cooldowns);
    if before.cooling(now).is_none()
        && let (Some(cooling), Some(incident)) = (after.cooling(now), after.last())
    {
        tracing::warn!(
            account = %entry.account.id,
            name = entry.account.name,
            operation = purpose.operation.name(),
            model = purpose.model,
            cause = incident.cause.describe(),
            until = %cooling.until,
            "account rests"
        );
    } else if let Some(failure) =
        after.last_failure().filter(|_| after.last_failure() != before.last_failure())
    {
        tracing::info!(
            account = %entry.account.id,
            name = entry.account.name,
            status = failure.cause.status(),
            cause = failure.cause.describe(),
            "account failed"
        );
    }
}

/// An account works, as far as the outcome says: what it was suspected of may be settled.
pub(super) fn clear(relay: &Relay, entry: &AccountEntry, purpose: Purpose<'_>, outcome: &Outcome) {
    if entry.state.health(purpose).is_suspected() {
        learn(relay, entry, purpose, outcome);
    }
}

/// An error within a reply is judged like an error reply with the status that it stands for, or 500.
pub(super) fn judge(
    relay: &Relay,
    entry: &AccountEntry,
    model: &str,
    reading: &Reading,
    fingerprint: u64,
) -> (Outcome, Failure) {
    let error = reading.error.as_ref();
    let status = error.and_then(|error| error.status).filter(|status| *status >= 400);
    let outcome = entry.provider.outcome(&ErrorReply {
        status: status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR.as_u16()),
        headers: &HeaderMap::new(),
        body: error.map_or(&[], |error| error.message.as_bytes()),
        now: relay.clock.now(),
        model,
        fingerprint,
    });
    (outcome, status.map_or(Failure::StreamError, Failure::Status))
}

/// The account that a reply comes from. It is told once how the reply ended; a client that leaves tells nothing.
pub(super) struct Origin {
    pub(super) relay: Arc<Relay>,
    pub(super) entry: Arc<AccountEntry>,
    pub(super) operation: Operation,
    /// As it was sent.
    pub(super) model: String,
    /// Tells calls of different content apart.
    pub(super) fingerprint: u64,
}

impl Origin {
    /// The reply went on to its end.
    pub(super) fn served(self) {
        clear(&self.relay, &self.entry, self.purpose(), &Outcome::Served);
    }

    /// The reply held an error.
    pub(super) fn erred(self, reading: &Reading) {
        let outcome = match judge(&self.relay, &self.entry, &self.model, reading, self.fingerprint) {
            (Outcome::Suspect { failure, fingerprint }, _) => Outcome::BrokeOff { failure, fingerprint },
            (outcome, _) => outcome,
        };
        learn(&self.relay, &self.entry, self.purpose(), &outcome);
    }

    /// The reply ended too early.
    pub(super) fn broke_off(self, how: &ReplyError) {
        let failure = match how {
            ReplyError::Stalled => Failure::Stalled,
            ReplyError::Broken(_) | ReplyError::Truncated => Failure::Broken,
        };
        let outcome = Outcome::BrokeOff { failure, fingerprint: self.fingerprint };
        learn(&self.relay, &self.entry, self.purpose(), &outcome);
    }

    fn purpose(&self) -> Purpose<'_> {
        Purpose { operation: self.operation, model: &self.model }
    }
}
