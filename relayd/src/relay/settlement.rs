//! The guard of a call's books: what it holds, what the journal has of it, and what is written when it ends.
//! Dropping it settles, at whatever point the call ends; nothing in that waits or can fail.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use shared::domain::{
    AccountId, AccountKind, NanoUsd, Operation, Protocol, Provenance, Rates, ServiceTier, Timestamp, Usage,
    UsageClass,
};

use super::call::Call;
use super::encoded::Reader;
use super::{RelayError, Worker};
use crate::directory::{AccountEntry, InFlight};
use crate::ledger::{Attempt, JournalError, Opened};
use crate::limits::Scope;
use crate::pricing::{Cost, PriceTable};
use crate::protocol::{Opening, Reading, ReplyForm};
use crate::scheduler::affinity::Session;
use crate::store::{Booking, Closed, End, GivenUp, GroupAsk, GroupId, Held, Refusal, Reservation, Verdict};

/// The status that stands in a row when the client went before it got a head.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// Whether an account may take a call.
pub(super) enum Admission {
    /// It may.
    Admitted,
    /// One of its own limits refused.
    AccountFull(Refusal),
}

/// The books of one call.
pub(super) struct Settlement {
    worker: Arc<Worker>,
    in_flight: Option<InFlight>,
    book: Option<Box<Book>>,
}

struct Book {
    closed: Closed,
    /// Groups in which something is held: the key's first, then those of the accounts.
    groups: Vec<GroupId>,
    is_opened: bool,
    prices: Arc<PriceTable>,
    estimate: Usage,
    estimate_cost: NanoUsd,
    /// The model that was sent last, what stands in for its price, and what Azure's prices have in front.
    sent_model: String,
    price_as: Option<String>,
    price_prefix: Option<&'static str>,
    reader: Option<(Reader, ReplyForm)>,
}

impl Settlement {
    /// Books a call: every end of it becomes a row.
    pub(super) fn booked(worker: Arc<Worker>, call: &Call) -> Self {
        let prices = worker.relay.directory.prices();
        let closed = Closed {
            request: call.id,
            opened_at: call.opened_at,
            first_byte_at: None,
            closed_at: call.opened_at,
            key: call.key.key.id.clone(),
            account: None,
            protocol: call.target.protocol,
            operation: call.target.operation,
            model: call.model.clone(),
            priced_model: None,
            status: CLIENT_CLOSED_REQUEST,
            end: End::ClientGone,
            attempts: 0,
            usage: Usage::default(),
            provenance: Provenance::Unused,
            cost: NanoUsd::ZERO,
            unpriced: false,
            price_version: prices.version(),
            rates: Rates::default(),
            bookings: Vec::new(),
            given_up: Vec::new(),
            session: call.session.map(Session::as_u64),
        };
        let book = Book {
            closed,
            groups: Vec::new(),
            is_opened: false,
            prices,
            estimate: call.estimate,
            estimate_cost: NanoUsd::ZERO,
            sent_model: String::new(),
            price_as: None,
            price_prefix: None,
            reader: None,
        };
        worker.relay.in_flight.fetch_add(1, Ordering::Relaxed);
        Self { worker, in_flight: None, book: Some(Box::new(book)) }
    }

    /// A call that costs nothing and leaves no row.
    pub(super) fn unbooked(worker: Arc<Worker>) -> Self {
        worker.relay.in_flight.fetch_add(1, Ordering::Relaxed);
        Self { worker, in_flight: None, book: None }
    }

    /// Holds what the call may need of an account, and of the key the first time. Groups without limits are not
    /// asked about, so that most calls need no store at all.
    pub(super) async fn reserve(
        &mut self,
        call: &Call,
        entry: &AccountEntry,
        now: Timestamp,
    ) -> Result<Admission, RelayError> {
        let Some(book) = &mut self.book else { return Ok(Admission::Admitted) };
        let key = GroupAsk { group: &call.key.group, counters: &call.key.counters };
        let account = GroupAsk { group: &entry.group, counters: &entry.counters };
        let asks: Vec<GroupAsk<'_>> = [key, account]
            .into_iter()
            .filter(|ask| !ask.counters.is_empty() && !book.groups.contains(ask.group))
            .collect();
        if asks.is_empty() {
            return Ok(Admission::Admitted);
        }
        let relay = &self.worker.relay;
        let lapses_at = now.after(relay.settings.hold_ttl);
        let reservation = Reservation { request: call.id, now, lapses_at, groups: &asks };
        match relay.directory.store().reserve(reservation).await? {
            Verdict::Admitted(held) => {
                book.groups.extend(asks.iter().map(|ask| ask.group.clone()));
                book.closed.bookings.extend(held.into_iter().map(booking));
                Ok(Admission::Admitted)
            }
            Verdict::Refused(refusal) if refusal.group == entry.group => Ok(Admission::AccountFull(refusal)),
            Verdict::Refused(refusal) => Err(RelayError::limit(Scope::Key, &refusal, now)),
        }
    }

    /// Writes down that an account is about to be called: the whole opening the first time.
    pub(super) fn attempt(
        &mut self,
        call: &Call,
        entry: &AccountEntry,
        now: Timestamp,
    ) -> Result<(), JournalError> {
        self.in_flight = Some(entry.state.enter(now));
        let Some(book) = &mut self.book else { return Ok(()) };
        let account = &entry.account;
        account.upstream_model(&call.model).clone_into(&mut book.sent_model);
        book.price_as.clone_from(&account.price_as);
        book.price_prefix = (account.kind == AccountKind::AzureOpenai).then_some("azure/");
        let cost = book.price(None, &book.estimate, None);
        book.estimate_cost = cost.total;
        let attempt = Attempt {
            request: call.id,
            number: book.closed.attempts + 1,
            account: account.id.clone(),
            model: book.sent_model.clone(),
            at: now,
            bookings: book.bookings_of(&entry.group),
        };
        if book.is_opened {
            self.worker.lane.attempt(&attempt)?;
            book.count_attempt(attempt.account);
            return Ok(());
        }
        let opened = Opened {
            request: call.id,
            opened_at: call.opened_at,
            key: book.closed.key.clone(),
            protocol: book.closed.protocol,
            operation: book.closed.operation,
            model: book.closed.model.clone(),
            session: book.closed.session,
            estimate: book.estimate,
            estimate_cost: cost.total,
            unpriced: cost.unpriced,
            price_version: book.closed.price_version,
            rates: cost.rates,
            bookings: book.bookings_of(&call.key.group),
        };
        self.worker.lane.open(&opened, &attempt)?;
        book.is_opened = true;
        book.count_attempt(attempt.account);
        Ok(())
    }

    /// An attempt failed: the account's leases go back at once. If the upstream may have worked all the same,
    /// the account (not the key) is charged for it.
    pub(super) fn attempt_failed(&mut self, entry: &AccountEntry, may_have_worked: bool) {
        self.in_flight = None;
        let Some(book) = &mut self.book else { return };
        if book.groups.contains(&entry.group) {
            self.worker.relay.directory.store().release(book.closed.request, &entry.group);
        }
        if may_have_worked {
            book.closed.given_up.push(GivenUp {
                account: entry.account.id.clone(),
                model: book.sent_model.clone(),
                usage: book.estimate,
                cost: book.estimate_cost,
            });
        }
    }

    /// The client is told an error.
    pub(super) fn failed(&mut self, status: u16) {
        if let Some(book) = &mut self.book {
            book.closed.status = status;
            book.closed.end = End::Failed;
        }
    }

    /// The head of a good reply goes to the client; the reader reads what it used.
    pub(super) fn replied(&mut self, status: u16, first_byte_at: Timestamp, reader: (Reader, ReplyForm)) {
        if let Some(book) = &mut self.book {
            book.closed.status = status;
            book.closed.first_byte_at = Some(first_byte_at);
            book.reader = Some(reader);
        }
    }

    /// The reader of the reply, while there is one.
    pub(super) fn reader(&mut self) -> Option<&mut Reader> {
        self.book.as_mut()?.reader.as_mut().map(|(reader, _)| reader)
    }

    /// How the reply ended, when it did not end by being dropped.
    pub(super) fn ended(&mut self, end: End) {
        if let Some(book) = &mut self.book {
            book.closed.end = end;
        }
    }
}

impl Drop for Settlement {
    fn drop(&mut self) {
        let relay = &self.worker.relay;
        relay.in_flight.fetch_sub(1, Ordering::Relaxed);
        let Some(book) = &mut self.book else { return };
        let store = relay.directory.store();
        if !book.is_opened {
            book.groups.iter().for_each(|group| store.give_back(book.closed.request, group));
            return;
        }
        book.finish(relay.clock.now());
        self.worker.lane.close(&book.closed);
        book.groups.iter().for_each(|group| store.release(book.closed.request, group));
        if relay.settings.log_requests {
            log(&book.closed);
        }
    }
}

impl Book {
    fn price(&self, reply_model: Option<&str>, usage: &Usage, tier: Option<ServiceTier>) -> Cost {
        let stand_in = self.price_as.as_deref().unwrap_or(&self.sent_model);
        let reply_model = reply_model.unwrap_or(&self.sent_model);
        let Some(prefix) = self.price_prefix else {
            return self.prices.cost(&[reply_model, &self.sent_model, stand_in], usage, tier);
        };
        // Azure charges its own prices, under its own names, for models that have another maker's name.
        let own = [format!("{prefix}{reply_model}"), format!("{prefix}{}", self.sent_model)];
        self.prices.cost(&[&own[0], &own[1], reply_model, &self.sent_model, stand_in], usage, tier)
    }

    /// The journal has it: the account will be called.
    fn count_attempt(&mut self, account: AccountId) {
        self.closed.attempts += 1;
        self.closed.account = Some(account);
    }

    fn bookings_of(&self, group: &GroupId) -> Vec<Booking> {
        self.closed.bookings.iter().filter(|booking| booking.group == *group).cloned().collect()
    }

    /// Settles what the call used and cost.
    fn finish(&mut self, now: Timestamp) {
        self.closed.closed_at = now;
        let reader = self.reader.take();
        let reading = reader.as_ref().map(|(reader, _)| reader.reading());
        self.closed.end = reading.map_or(self.closed.end, |reading| end_told(self.closed.end, reading));
        let (usage, provenance) = match &reader {
            Some((reader, form)) => self.measured(reader, *form),
            // The client went while an account was at work: it has read the prompt at least.
            None if self.closed.end == End::ClientGone => (prompt_of(&self.estimate), Provenance::Estimated),
            None => (Usage::default(), Provenance::Unused),
        };
        let reply_model = reading.and_then(|reading| reading.model.as_deref());
        let tier = reading.and_then(|reading| reading.tier.as_deref()).and_then(ServiceTier::read);
        let cost = self.price(reply_model, &usage, tier);
        let priced = reply_model.unwrap_or(&self.sent_model);
        self.closed.priced_model = (priced != self.closed.model).then(|| bounded(priced));
        self.closed.usage = usage;
        self.closed.provenance = provenance;
        self.closed.cost = cost.total;
        self.closed.unpriced = cost.unpriced;
        self.closed.rates = cost.rates;
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

/// How a reply ended whose client went: it may have read all that there was, and not have waited for the end of
/// the connection.
const fn end_told(end: End, reading: &Reading) -> End {
    match (end, reading) {
        (End::ClientGone, Reading { error: Some(_), .. }) => End::Truncated,
        (End::ClientGone, Reading { terminal: true, usage: Some(_), .. }) => End::Complete,
        _ => end,
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
    const MODEL_BYTES_MAX: usize = 256;
    name.chars()
        .scan(0, |bytes, c| {
            *bytes += c.len_utf8();
            (*bytes <= MODEL_BYTES_MAX).then_some(c)
        })
        .collect()
}

fn booking(held: Held) -> Booking {
    Booking { group: held.group, counter: held.counter, window_start: held.window_start, amount: held.amount }
}

fn log(closed: &Closed) {
    tracing::info!(
        request = %closed.request,
        key = %closed.key,
        account = closed.account.as_ref().map(AccountId::as_str),
        model = closed.model,
        status = closed.status,
        end = closed.end.name(),
        tokens = closed.usage.tokens(),
        cost = %closed.cost,
        ms = u64::try_from(closed.closed_at.since(closed.opened_at).as_millis()).unwrap_or(u64::MAX),
        "request"
    );
}
