//! What is written of a call: the row with its usage and cost, and what its counters book in place of what was held.

use shared::domain::limit::Metric;
use shared::domain::{
    AccountId, MODEL_BYTES_MAX, NanoUsd, Operation, Protocol, Provenance, ServiceTier, Timestamp, Usage,
    UsageClass,
};

use super::encoded::Reader;
use super::tariff::{Charge, Tariff};
use crate::protocol::{Left, Opening, Reading, ReplyForm};
use crate::store::{Booking, Closed, End, GivenUp, GroupId};

/// The books of one call.
pub(super) struct Book {
    pub(super) closed: Closed,
    /// Groups in which something is held: the key's first, then those that it shares, then those of the accounts.
    pub(super) groups: Vec<GroupId>,
    pub(super) is_opened: bool,
    /// What it will probably use at the account that is asked last.
    pub(super) estimate: Usage,
    /// The tier that it is priced in.
    pub(super) asked_tier: Option<ServiceTier>,
    /// What that costs.
    pub(super) estimated: Charge,
    pub(super) tariff: Option<Tariff>,
    /// What is left of the key's limits.
    pub(super) left: Vec<Left>,
}

impl Book {
    /// The journal has it: the account will be called.
    pub(super) fn count_attempt(&mut self, account: AccountId) {
        self.closed.attempts += 1;
        self.closed.account = Some(account);
    }

    /// What is held in an account's counters, or in all others.
    pub(super) fn bookings(&self, account: &GroupId, is_account: bool) -> Vec<Booking> {
        let wanted = |booking: &&Booking| (booking.group == *account) == is_account;
        self.closed.bookings.iter().filter(wanted).cloned().collect()
    }

    /// How much is held in a counter.
    pub(super) fn held(&self, group: &GroupId, counter: &crate::store::CounterId) -> u64 {
        let is_it = |booking: &&Booking| booking.group == *group && booking.counter == *counter;
        self.closed.bookings.iter().find(is_it).map_or(0, |held| held.amount)
    }

    /// Settles what the call used and cost. `served` is the group of the account that served it; `reader` read
    /// its reply, if there was one.
    pub(super) fn finish(
        &mut self,
        now: Timestamp,
        served: Option<&GroupId>,
        reader: Option<&(Reader, ReplyForm)>,
        is_handed_over: bool,
    ) {
        self.closed.closed_at = now;
        let reading = reader.map(|(reader, _)| reader.reading());
        self.closed.end = reading.map_or(self.closed.end, |reading| end_told(self.closed.end, reading));
        let (usage, provenance) = match reader {
            Some((reader, form)) => self.measured(reader, *form),
            // The client went while an account was at work: it has read the prompt at least.
            None if self.closed.end == End::ClientGone && is_handed_over => {
                (prompt_of(&self.estimate), Provenance::Estimated)
            }
            None => (Usage::default(), Provenance::Unused),
        };
        let reply_model = reading.and_then(|reading| reading.model.as_deref());
        let tier = reading.and_then(|reading| reading.tier.as_deref()).and_then(ServiceTier::read);
        self.closed.usage = usage;
        self.closed.provenance = provenance;
        self.closed.tier = tier;
        if let Some(tariff) = &self.tariff {
            let Charge { cost, rated } = tariff.charge(reply_model, &usage, tier);
            let priced = reply_model.unwrap_or(tariff.model());
            self.closed.priced_model = (priced != self.closed.model).then(|| bounded(priced));
            self.closed.cost = cost.total;
            self.closed.rated = rated;
            self.closed.unpriced = cost.unpriced;
            self.closed.rates = cost.rates;
        }
        self.settle(served);
    }

    /// What the counters book: what was used in place of what was held.
    fn settle(&mut self, served: Option<&GroupId>) {
        let Closed { bookings, given_up, usage, cost, rated, .. } = &mut self.closed;
        for booking in bookings {
            let used = match Holder::of(&booking.group, served) {
                Holder::Keys => (usage.tokens(), *rated),
                Holder::All => (usage.tokens(), *cost),
                Holder::Account { served } => {
                    charged(&booking.group, given_up, served.then_some((usage, *cost)))
                }
            };
            booking.amount = match booking.counter.metric() {
                Metric::Requests | Metric::Concurrent => booking.amount,
                Metric::Tokens => used.0,
                Metric::Cost => used.1.as_counted(),
            };
        }
    }

    /// What a reply used: the upstream's figures, or an estimate where it gave none.
    fn measured(&self, reader: &Reader, form: ReplyForm) -> (Usage, Provenance) {
        let reading = reader.reading();
        let answered = reading.answer_bytes.div_ceil(bytes_per_token(form));
        match reading.usage {
            Some(usage) if self.closed.end == End::Complete => (usage, Provenance::Measured),
            Some(mut usage) => {
                // Its count of the answer comes at the very end; until then, a token or two stand for it.
                if self.closed.protocol == Protocol::Messages {
                    usage[UsageClass::Output] = usage[UsageClass::Output].max(answered);
                }
                (usage, Provenance::Partial)
            }
            // Refused before anything was done for it.
            None if reader.opening() == Opening::Error => (Usage::default(), Provenance::Unused),
            None => {
                let mut usage = prompt_of(&self.estimate);
                if self.closed.operation == Operation::Generate {
                    usage[UsageClass::Output] = answered;
                }
                (usage, Provenance::Estimated)
            }
        }
    }
}

/// Whose counters a group's are.
enum Holder {
    /// A key's or an owner's, who are charged by the multipliers.
    Keys,
    /// Everything's.
    All,
    /// An account's.
    Account {
        /// It served the call.
        served: bool,
    },
}

impl Holder {
    fn of(group: &GroupId, served: Option<&GroupId>) -> Self {
        match group {
            _ if served == Some(group) => Self::Account { served: true },
            _ if group.is_account() => Self::Account { served: false },
            _ if group.is_all() => Self::All,
            _ => Self::Keys,
        }
    }
}

/// What an account is charged: the call if it served it, and attempts that it may have worked for in vain.
fn charged(group: &GroupId, given_up: &[GivenUp], served: Option<(&mut Usage, NanoUsd)>) -> (u64, NanoUsd) {
    let own = served.map_or((0, NanoUsd::ZERO), |(usage, cost)| (usage.tokens(), cost));
    let in_vain = given_up.iter().filter(|attempt| GroupId::of_account(&attempt.account) == *group);
    in_vain.fold(own, |(tokens, cost), attempt| {
        (tokens.saturating_add(attempt.usage.tokens()), cost + attempt.cost)
    })
}

/// How a reply ended whose client went: it may have read all that there was, and not have waited for the end of
/// the connection.
const fn end_told(end: End, reading: &Reading) -> End {
    match (end, reading) {
        (End::ClientGone, Reading { error: Some(_), .. }) => End::Truncated,
        (End::ClientGone, Reading { terminal: true, usage: Some(_), .. }) => End::Complete,
        _ => end,
    }
}

/// Tokens of a stream's answer so far: as many as would be booked if it ended now. Gemini's figures run along, and
/// count thoughts that are not shown; the others come when all is written.
pub(super) fn answer_tokens(protocol: Protocol, reading: &Reading, form: ReplyForm) -> u64 {
    let told = reading.usage.filter(|_| protocol == Protocol::GenerateContent);
    match form {
        ReplyForm::Json => 0,
        ReplyForm::EventStream | ReplyForm::JsonArrayStream => {
            let passed = reading.answer_bytes.div_ceil(bytes_per_token(form));
            passed.max(told.map_or(0, |usage| usage[UsageClass::Output]))
        }
    }
}

/// How many bytes of a reply stand for one token of its answer, roughly: in a stream, each event wraps a few
/// letters in a hundred bytes of JSON.
const fn bytes_per_token(form: ReplyForm) -> u64 {
    match form {
        ReplyForm::EventStream | ReplyForm::JsonArrayStream => 60,
        ReplyForm::Json => 5,
    }
}

fn prompt_of(estimate: &Usage) -> Usage {
    Usage::of(&[(UsageClass::Input, estimate.prompt_tokens())])
}

/// A name out of a reply, cut to the length that rows allow.
fn bounded(name: &str) -> String {
    name[..name.floor_char_boundary(MODEL_BYTES_MAX)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_of_streams_are_counted_as_they_come() {
        use Protocol::{ChatCompletions, GenerateContent, Messages, Responses};
        use ReplyForm::{EventStream, Json, JsonArrayStream};
        for (protocol, form, bytes, told, expected) in [
            (Messages, EventStream, 0, None, 0),
            (Messages, EventStream, 61, None, 2),
            // Its figures come when all is written: there is nothing left to be bounded.
            (Messages, EventStream, 600, Some(5_000), 10),
            (ChatCompletions, EventStream, 600, Some(5_000), 10),
            (Responses, EventStream, 600, Some(5_000), 10),
            // These run along, and tell of thoughts that are not shown.
            (GenerateContent, EventStream, 600, Some(5_000), 5_000),
            (GenerateContent, JsonArrayStream, 600, Some(5), 10),
            // It is all written when it comes.
            (GenerateContent, Json, 600_000, Some(5_000), 0),
        ] {
            let usage = told.map(|tokens| Usage::of(&[(UsageClass::Output, tokens)]));
            let reading = Reading { usage, answer_bytes: bytes, ..Reading::default() };
            assert_eq!(answer_tokens(protocol, &reading, form), expected, "{protocol:?} {form:?} {bytes}");
        }
    }
}
