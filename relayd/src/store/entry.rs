//! What the ledger hands to the store: closed requests, numbered so that each is applied once, and the sums that
//! are kept of them.

use std::ops::AddAssign;

use minicbor::{Decode, Encode};
use shared::domain::{
    AccountId, KeyId, Multiplier, NanoUsd, Operation, Protocol, Provenance, RequestId, ServiceTier,
    Timestamp, Usage,
};

pub use shared::domain::Rates;

use super::{CounterId, GroupId, Span};

/// Where a record stands in the journal. Within a node's lane, marks grow by (epoch, sequence).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Mark {
    /// The node that wrote it, as its data folder is numbered.
    #[n(0)]
    pub node: u32,
    /// The writing thread's lane; no two live processes of a node share one.
    #[n(1)]
    pub lane: u32,
    /// The start of the daemon that wrote it.
    #[n(2)]
    pub epoch: u64,
    /// Its number within lane and epoch, from 1.
    #[n(3)]
    pub sequence: u64,
}

impl Mark {
    /// Whose marks it is to be compared with: node and lane.
    pub const fn writer(self) -> (u32, u32) {
        (self.node, self.lane)
    }
}

/// A closed request at its place in the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its place.
    pub mark: Mark,
    /// The request.
    pub closed: Closed,
    pub(super) row: Box<[u8]>,
}

impl Entry {
    /// Reads the CBOR of a [`Closed`], and keeps it.
    ///
    /// # Errors
    ///
    /// It is none that this version understands.
    pub fn read(mark: Mark, row: &[u8]) -> Result<Self, minicbor::decode::Error> {
        Ok(Self { mark, closed: minicbor::decode(row)?, row: row.into() })
    }

    /// The request as it lies in the journal, also what a newer version wrote into it: this is what is stored.
    pub fn row(&self) -> &[u8] {
        &self.row
    }
}

/// The end of a request: its ledger row, and what is to be booked. CBOR array, which only grows at its end;
/// what is not known there is skipped.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Closed {
    /// The request.
    #[n(0)]
    pub request: RequestId,
    /// When it was opened.
    #[n(1)]
    pub opened_at: Timestamp,
    /// When the first byte of the reply came.
    #[n(2)]
    pub first_byte_at: Option<Timestamp>,
    /// When it ended.
    #[n(3)]
    pub closed_at: Timestamp,
    /// The key that asked.
    #[n(4)]
    pub key: KeyId,
    /// The account that served it, if one was called.
    #[n(5)]
    pub account: Option<AccountId>,
    /// Protocol of the client.
    #[n(6)]
    pub protocol: Protocol,
    /// What was asked for.
    #[n(7)]
    pub operation: Operation,
    /// The model that the client asked for, at most 256 bytes.
    #[n(8)]
    pub model: String,
    /// The model that was priced, if another: the reply's, else the one sent.
    #[n(9)]
    pub priced_model: Option<String>,
    /// HTTP status that the client got; 499 when it went before a head was sent, 0 when it got none or that is not
    /// known.
    #[n(10)]
    pub status: u16,
    /// How it ended.
    #[n(11)]
    pub end: End,
    /// Accounts that were tried.
    #[n(12)]
    pub attempts: u32,
    /// Amounts by class.
    #[n(13)]
    pub usage: Usage,
    /// Where they come from.
    #[n(14)]
    pub provenance: Provenance,
    /// What they cost.
    #[n(15)]
    pub cost: NanoUsd,
    /// Whether some of the usage has no price.
    #[n(16)]
    pub unpriced: bool,
    /// Version of the price list that was in force at opening.
    #[n(17)]
    pub price_version: u64,
    /// The prices used, so that the cost can be recomputed.
    #[n(18)]
    pub rates: Rates,
    /// What is booked in the counters.
    #[n(19)]
    pub bookings: Vec<Booking>,
    /// Attempts that were given up although the upstream may have worked: charged to their accounts alone.
    #[n(20)]
    pub given_up: Vec<GivenUp>,
    /// The session that the call belongs to, as a hash.
    #[n(21)]
    pub session: Option<u64>,
    /// What the key's holder is charged: the cost times the multiplier.
    #[n(22)]
    pub rated: NanoUsd,
    /// The multiplier of the family and the key, so that it can be recomputed.
    #[n(23)]
    pub multiplier: Multiplier,
    /// The start of the hour, of the configured zone, that the sums count it in.
    #[n(24)]
    pub hour: Timestamp,
    /// Milliseconds that it waited for room or for its turn.
    #[n(25)]
    #[cbor(default)]
    pub queued_ms: u64,
    /// The service tier that the usage is priced in, where that is not the standard one.
    #[n(26)]
    pub tier: Option<ServiceTier>,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum End {
    /// The whole reply went to the client.
    #[n(0)]
    Complete,
    /// The upstream's reply broke off.
    #[n(1)]
    Truncated,
    /// The client went before the end.
    #[n(2)]
    ClientGone,
    /// The client got an error.
    #[n(3)]
    Failed,
    /// The daemon died before the end.
    #[n(4)]
    Orphaned,
    /// The daemon stopped before the end.
    #[n(5)]
    Aborted,
    /// The upstream found a mistake of the client's own, and the client got to read it.
    #[n(6)]
    Refused,
}

impl End {
    /// The end as it is written in JSON and tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Truncated => "truncated",
            Self::ClientGone => "client_gone",
            Self::Failed => "failed",
            Self::Orphaned => "orphaned",
            Self::Aborted => "aborted",
            Self::Refused => "refused",
        }
    }

    /// The client did not get what it asked for, and was not to blame for it.
    pub const fn is_failure(self) -> bool {
        matches!(self, Self::Truncated | Self::Failed | Self::Aborted)
    }
}

/// An amount to add to one window of one counter.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Booking {
    /// The group, by name.
    #[n(0)]
    #[cbor(with = "group_name")]
    pub group: GroupId,
    /// The counter, by name.
    #[n(1)]
    #[cbor(with = "counter_name")]
    pub counter: CounterId,
    /// The window in which the amount was held.
    #[n(2)]
    #[cbor(with = "span_times")]
    pub span: Span,
    /// How much.
    #[n(3)]
    pub amount: u64,
}

/// An attempt that was given up.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct GivenUp {
    /// The account that was called.
    #[n(0)]
    pub account: AccountId,
    /// The model that was sent.
    #[n(1)]
    pub model: String,
    /// The held estimate.
    #[n(2)]
    pub usage: Usage,
    /// What that costs.
    #[n(3)]
    pub cost: NanoUsd,
    /// The service tier that it is priced in, where that is not the standard one.
    #[n(4)]
    pub tier: Option<ServiceTier>,
}

/// What hourly sums are kept by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RollupKey {
    /// Start of the hour in which the calls were opened: of the zone that was configured then.
    pub hour: Timestamp,
    /// The key; `None` for given-up attempts, which no key is charged for.
    pub key: Option<KeyId>,
    /// The account that served.
    pub account: Option<AccountId>,
    /// The priced model, else the one asked for.
    pub model: String,
}

impl RollupKey {
    /// What a request's own sum is kept by.
    pub fn of(closed: &Closed) -> Self {
        Self {
            hour: closed.hour,
            key: Some(closed.key.clone()),
            account: closed.account.clone(),
            model: closed.priced_model.as_ref().unwrap_or(&closed.model).clone(),
        }
    }

    /// What the sum is kept by of an attempt that a request gave up.
    pub fn of_given_up(closed: &Closed, attempt: &GivenUp) -> Self {
        let (hour, account) = (closed.hour, Some(attempt.account.clone()));
        Self { hour, key: None, account, model: attempt.model.clone() }
    }
}

/// Sums over calls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rollup {
    /// Calls.
    pub requests: u64,
    /// Calls among them that failed.
    pub failed: u64,
    /// Calls with usage that has no price.
    pub unpriced: u64,
    /// Amounts by class.
    pub usage: Usage,
    /// What they cost, in nano-dollars.
    pub cost_nanos: i128,
    /// What the keys' holders are charged for them, in nano-dollars.
    pub rated_nanos: i128,
    /// Calls by provenance, in the order of [`Provenance::ALL`].
    pub provenance: [u64; Provenance::ALL.len()],
}

impl Rollup {
    /// Counts a closed request, without the attempts that were given up.
    pub fn add(&mut self, closed: &Closed) {
        self.failed = self.failed.saturating_add(u64::from(closed.end.is_failure()));
        self.unpriced = self.unpriced.saturating_add(u64::from(closed.unpriced));
        self.rated_nanos = self.rated_nanos.saturating_add(i128::from(closed.rated.as_nanos()));
        self.add_call(closed.usage, closed.cost, closed.provenance);
    }

    /// Counts an attempt that was given up: a failed call of its account.
    pub fn add_given_up(&mut self, attempt: &GivenUp) {
        self.failed = self.failed.saturating_add(1);
        self.add_call(attempt.usage, attempt.cost, Provenance::Estimated);
    }

    /// What the calls cost, at most what an amount can say.
    pub fn cost(&self) -> NanoUsd {
        amount(self.cost_nanos)
    }

    /// What the keys' holders are charged, at most what an amount can say.
    pub fn rated(&self) -> NanoUsd {
        amount(self.rated_nanos)
    }

    fn add_call(&mut self, usage: Usage, cost: NanoUsd, provenance: Provenance) {
        self.requests = self.requests.saturating_add(1);
        self.usage += usage;
        self.cost_nanos = self.cost_nanos.saturating_add(i128::from(cost.as_nanos()));
        let calls = &mut self.provenance[provenance as usize];
        *calls = calls.saturating_add(1);
    }
}

fn amount(nanos: i128) -> NanoUsd {
    let most = if nanos < 0 { i64::MIN } else { i64::MAX };
    NanoUsd::from_nanos(i64::try_from(nanos).unwrap_or(most))
}

impl AddAssign<&Self> for Rollup {
    fn add_assign(&mut self, other: &Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.failed = self.failed.saturating_add(other.failed);
        self.unpriced = self.unpriced.saturating_add(other.unpriced);
        self.usage += other.usage;
        self.cost_nanos = self.cost_nanos.saturating_add(other.cost_nanos);
        self.rated_nanos = self.rated_nanos.saturating_add(other.rated_nanos);
        for (sum, calls) in self.provenance.iter_mut().zip(other.provenance) {
            *sum = sum.saturating_add(calls);
        }
    }
}

mod group_name {
    use minicbor::decode::Error as DecodeError;
    use minicbor::encode::{Error as EncodeError, Write};
    use minicbor::{Decoder, Encoder};

    use super::GroupId;

    pub(super) fn encode<C, W: Write>(
        group: &GroupId,
        encoder: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        encoder.str(group.as_str())?.ok()
    }

    pub(super) fn decode<C>(decoder: &mut Decoder<'_>, _: &mut C) -> Result<GroupId, DecodeError> {
        Ok(decoder.str()?.into())
    }
}

pub(super) mod counter_name {
    use minicbor::decode::Error as DecodeError;
    use minicbor::encode::{Error as EncodeError, Write};
    use minicbor::{Decoder, Encoder};

    use super::CounterId;

    pub(in crate::store) fn encode<C, W: Write>(
        counter: &CounterId,
        encoder: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        encoder.str(counter.as_str())?.ok()
    }

    pub(in crate::store) fn decode<C>(
        decoder: &mut Decoder<'_>,
        _: &mut C,
    ) -> Result<CounterId, DecodeError> {
        CounterId::named(decoder.str()?).ok_or_else(|| DecodeError::message("unknown metric"))
    }
}

/// A span as an array of its start and, if it has one, its end.
pub(super) mod span_times {
    use minicbor::decode::Error as DecodeError;
    use minicbor::encode::{Error as EncodeError, Write};
    use minicbor::{Decoder, Encoder};

    use super::{Span, Timestamp};

    pub(in crate::store) fn encode<C, W: Write>(
        span: &Span,
        encoder: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        encoder.array(1 + u64::from(span.end.is_some()))?.i64(span.start.as_millis())?;
        if let Some(end) = span.end {
            encoder.i64(end.as_millis())?;
        }
        encoder.ok()
    }

    pub(in crate::store) fn decode<C>(decoder: &mut Decoder<'_>, _: &mut C) -> Result<Span, DecodeError> {
        let times = decoder.array()?;
        let start = Timestamp::from_millis(decoder.i64()?);
        match times {
            Some(1) => Ok(Span { start, end: None }),
            Some(2) => Ok(Span { start, end: Some(Timestamp::from_millis(decoder.i64()?)) }),
            _ => Err(DecodeError::message("a window has a start and maybe an end")),
        }
    }
}
