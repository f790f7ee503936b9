//! What the journal says of a request before it is closed: enough to book it if it never is.

use std::borrow::Cow;

use minicbor::{Decode, Encode};
use shared::domain::{
    AccountId, KeyId, MODEL_BYTES_MAX, Multiplier, NanoUsd, Operation, Protocol, Provenance, RequestId,
    ServiceTier, Timestamp, Usage,
};

use crate::store::{Booking, Closed, End, Rates};

/// A request that was admitted. CBOR array, which only grows at its end; what is not known there
/// is skipped.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Opened {
    /// The request.
    #[n(0)]
    pub request: RequestId,
    /// When it was opened.
    #[n(1)]
    pub opened_at: Timestamp,
    /// The key that asked.
    #[n(2)]
    pub key: KeyId,
    /// Protocol of the client.
    #[n(3)]
    pub protocol: Protocol,
    /// What was asked for.
    #[n(4)]
    pub operation: Operation,
    /// The model that the client asked for.
    #[n(5)]
    pub model: String,
    /// The session that the call belongs to, as a hash.
    #[n(6)]
    pub session: Option<u64>,
    /// What it may use: booked if the process dies.
    #[n(7)]
    pub estimate: Usage,
    /// What that costs.
    #[n(8)]
    pub estimate_cost: NanoUsd,
    /// Whether some of that has no price.
    #[n(9)]
    pub unpriced: bool,
    /// Version of the price list in force.
    #[n(10)]
    pub price_version: u64,
    /// The prices that the estimate was made with.
    #[n(11)]
    pub rates: Rates,
    /// What is held in the counters of the key, its owner and everything.
    #[n(12)]
    pub bookings: Vec<Booking>,
    /// What the estimate costs the key's holder.
    #[n(13)]
    pub estimate_rated: NanoUsd,
    /// The multiplier of the account's family and the key.
    #[n(14)]
    pub multiplier: Multiplier,
    /// The start of the hour that the sums count it in.
    #[n(15)]
    pub hour: Timestamp,
    /// Milliseconds that it waited before.
    #[n(16)]
    #[cbor(default)]
    pub queued_ms: u64,
    /// The service tier that the estimate is priced in.
    #[n(17)]
    pub tier: Option<ServiceTier>,
}

/// An account that is about to be tried. CBOR array, which only grows at its end; what is not known there
/// is skipped.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Attempt {
    /// The request.
    #[n(0)]
    pub request: RequestId,
    /// Counts the request's attempts from 1.
    #[n(1)]
    pub number: u32,
    /// The account.
    #[n(2)]
    pub account: AccountId,
    /// The model that is sent.
    #[n(3)]
    pub model: String,
    /// When it begins.
    #[n(4)]
    pub at: Timestamp,
    /// What is held in the account's counters.
    #[n(5)]
    pub bookings: Vec<Booking>,
}

/// A request without its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OpenRequest {
    pub(super) opened: Opened,
    /// By their numbers.
    pub(super) attempts: Vec<Attempt>,
}

impl OpenRequest {
    pub(super) fn add(&mut self, attempt: Attempt) {
        match self.attempts.binary_search_by_key(&attempt.number, |known| known.number) {
            Ok(place) => self.attempts[place] = attempt,
            Err(place) => self.attempts.insert(place, attempt),
        }
    }

    /// The end of a request whose process died. If an account was called, the estimate stands in for what it
    /// used; it says nothing of when, so that closing it again says the same.
    pub(super) fn orphaned(self) -> Closed {
        let Self { opened, attempts } = self;
        let mut bookings = opened.bookings;
        let mut left = attempts.len();
        for attempt in &attempts {
            left -= 1;
            bookings.extend(attempt.bookings.iter().cloned().map(|held| spent(held, left == 0)));
        }
        let was_sent = !attempts.is_empty();
        let count = u32::try_from(attempts.len()).unwrap_or(u32::MAX);
        let last = attempts.into_iter().next_back();
        let closed_at = last.as_ref().map_or(opened.opened_at, |last| last.at);
        let (account, sent) = last.map(|last| (last.account, last.model)).unzip();
        Closed {
            request: opened.request,
            opened_at: opened.opened_at,
            first_byte_at: None,
            closed_at,
            key: opened.key,
            account,
            protocol: opened.protocol,
            operation: opened.operation,
            priced_model: sent.filter(|sent| *sent != opened.model),
            model: opened.model,
            status: 0,
            end: if was_sent { End::Orphaned } else { End::Failed },
            attempts: count,
            usage: if was_sent { opened.estimate } else { Usage::default() },
            provenance: if was_sent { Provenance::Orphaned } else { Provenance::Unused },
            cost: if was_sent { opened.estimate_cost } else { NanoUsd::ZERO },
            unpriced: was_sent && opened.unpriced,
            price_version: opened.price_version,
            rates: opened.rates,
            bookings,
            given_up: Vec::new(),
            session: opened.session,
            rated: if was_sent { opened.estimate_rated } else { NanoUsd::ZERO },
            multiplier: opened.multiplier,
            hour: opened.hour,
            queued_ms: opened.queued_ms,
            tier: opened.tier,
        }
    }
}

/// What an account's counter books of what was held in it. An account that had failed before the last was tried
/// served its call, and nothing that the call used.
fn spent(held: Booking, was_last: bool) -> Booking {
    let amount = if was_last || held.counter.metric().is_exact() { held.amount } else { 0 };
    Booking { amount, ..held }
}

/// A record whose model names may be too long to be written as they are: they are cut.
pub(super) trait Bounded: Clone {
    /// The names.
    fn models(&mut self, visit: &mut dyn FnMut(&mut String));

    /// Whether all of them fit.
    fn fits(&self) -> bool;

    /// The record with names that fit.
    fn bounded(&self) -> Cow<'_, Self> {
        if self.fits() {
            return Cow::Borrowed(self);
        }
        let mut record = self.clone();
        record.models(&mut |model| model.truncate(model.floor_char_boundary(MODEL_BYTES_MAX)));
        Cow::Owned(record)
    }
}

fn is_short(model: &str) -> bool {
    model.len() <= MODEL_BYTES_MAX
}

impl Bounded for Opened {
    fn models(&mut self, visit: &mut dyn FnMut(&mut String)) {
        visit(&mut self.model);
    }

    fn fits(&self) -> bool {
        is_short(&self.model)
    }
}

impl Bounded for Attempt {
    fn models(&mut self, visit: &mut dyn FnMut(&mut String)) {
        visit(&mut self.model);
    }

    fn fits(&self) -> bool {
        is_short(&self.model)
    }
}

impl Bounded for Closed {
    fn models(&mut self, visit: &mut dyn FnMut(&mut String)) {
        visit(&mut self.model);
        self.priced_model.iter_mut().for_each(&mut *visit);
        self.given_up.iter_mut().for_each(|attempt| visit(&mut attempt.model));
    }

    fn fits(&self) -> bool {
        is_short(&self.model)
            && self.priced_model.as_deref().is_none_or(is_short)
            && self.given_up.iter().all(|attempt| is_short(&attempt.model))
    }
}
