//! The guard of a call's books: what it holds, what the journal has of it, and what is written when it ends.
//! Dropping it settles, at whatever point the call ends; nothing in that waits or can fail.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use shared::domain::limit::CalendarUnit;
use shared::domain::{
    AccountId, Multiplier, NanoUsd, Operation, Protocol, Provenance, Rates, RequestId, Timestamp, Usage,
    UsageClass, Zone,
};

use super::admission::{Admission, Asker};
use super::book::Book;
use super::call::Call;
use super::departure::Departure;
use super::encoded::Reader;
use super::tariff::{Charge, Tariff};
use super::{Relay, RelayError, Worker, book};
use crate::directory::{AccountEntry, InFlight};
use crate::ledger::{Attempt, JournalError, Opened};
use crate::limits;
use crate::protocol::{Left, ReplyForm};
use crate::scheduler::affinity::Session;
use crate::store::{Closed, End, GivenUp, GroupId};
use crate::upstream::Handover;

/// The status that stands in a row when the client went before it got a head.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// The books of one call.
pub(super) struct Settlement {
    worker: Arc<Worker>,
    in_flight: Option<InFlight>,
    /// The counters of the account that is asked.
    account: Option<GroupId>,
    /// Of the request to it.
    handover: Handover,
    /// Reads what its reply used.
    reader: Option<(Reader, ReplyForm)>,
    book: Option<Box<Book>>,
    /// Of the client, if the call goes on without it.
    departure: Option<Arc<Departure>>,
}

impl Settlement {
    /// Books a call: every end of it becomes a row.
    pub(super) fn booked(worker: Arc<Worker>, call: &Call) -> Self {
        let book = Book {
            closed: unopened(call, worker.relay.directory.zone()),
            groups: Vec::new(),
            is_opened: false,
            estimate: Usage::default(),
            asked_tier: call.tier(),
            estimated: Charge::default(),
            tariff: None,
            left: Vec::new(),
        };
        Self::new(worker, Some(Box::new(book)))
    }

    /// A call that costs nothing and leaves no row.
    pub(super) fn unbooked(worker: Arc<Worker>) -> Self {
        Self::new(worker, None)
    }

    fn new(worker: Arc<Worker>, book: Option<Box<Book>>) -> Self {
        worker.relay.in_flight.fetch_add(1, Ordering::Relaxed);
        let (account, handover) = (None, Handover::default());
        Self { worker, in_flight: None, account, handover, reader: None, book, departure: None }
    }

    /// The call goes on if its client leaves.
    pub(super) fn attend(&mut self, departure: Arc<Departure>) {
        self.departure = Some(departure);
    }

    /// Whether it does.
    pub(super) const fn is_attended(&self) -> bool {
        self.departure.is_some()
    }

    /// Whether its client has left, and the call went on.
    pub(super) fn is_abandoned(&self) -> bool {
        self.departure.as_ref().is_some_and(|departure| departure.has_left())
    }

    /// The client leaves, and the call goes on.
    pub(super) fn leave(&self) {
        self.departure.iter().for_each(|departure| departure.leave());
    }

    /// Another request is asked, or none.
    fn ask(&mut self) {
        self.handover = Handover::default();
        let answer_tokens = self.book.as_ref().map_or(0, |book| book.estimate[UsageClass::Output]);
        self.departure.iter().for_each(|departure| departure.ask(self.handover.clone(), answer_tokens));
    }

    /// Holds what the call may need of an account, and of its key the first time.
    pub(super) async fn reserve(
        &mut self,
        asker: Asker<'_>,
        entry: &AccountEntry,
        now: Timestamp,
    ) -> Result<Admission, RelayError> {
        match &mut self.book {
            Some(book) => book.reserve(&self.worker, asker, entry, now).await,
            None => Ok(Admission::Admitted),
        }
    }

    /// The account will not be called after all: what was held for it is given back, and of a call that was not
    /// opened all that was held.
    pub(super) fn withdraw(&mut self, entry: &AccountEntry) {
        let Some(book) = &mut self.book else { return };
        let is_opened = book.is_opened;
        let given_back: Vec<_> =
            book.groups.extract_if(.., |group| !is_opened || *group == entry.limits.group).collect();
        book.closed.bookings.retain(|booking| !given_back.contains(&booking.group));
        self.worker.relay.give_back(book.closed.request, &given_back);
        if !is_opened {
            book.left.clear();
        }
    }

    /// How long the call has waited by now.
    pub(super) fn waited(&mut self, time: Duration) {
        if let Some(book) = &mut self.book {
            book.closed.queued_ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
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
        self.ask();
        let Some(book) = &mut self.book else { return Ok(()) };
        let group = &entry.limits.group;
        let attempt = Attempt {
            request: call.id,
            number: book.closed.attempts + 1,
            account: entry.account.id.clone(),
            model: entry.account.upstream_model(&call.model).to_owned(),
            at: now,
            bookings: book.bookings(group, true),
        };
        if book.is_opened {
            self.worker.lane.attempt(&attempt)?;
        } else {
            self.worker.lane.open(&opened(call, book, group), &attempt)?;
            book.is_opened = true;
        }
        book.count_attempt(attempt.account);
        self.account = Some(group.clone());
        Ok(())
    }

    /// What is to take note when the request to the account is handed over.
    pub(super) fn handover(&self) -> Handover {
        self.handover.clone()
    }

    /// The head of a good reply came. What the reader finds is booked, also if the client goes before it gets it.
    pub(super) fn answered(&mut self, reader: Reader, form: ReplyForm, now: Timestamp) -> &mut Reader {
        if let Some(book) = &mut self.book {
            book.closed.first_byte_at = Some(now);
        }
        &mut self.reader.insert((reader, form)).0
    }

    /// An attempt failed: the account's leases go back at once. If the upstream may have worked all the same,
    /// the account (not the key) is charged for it.
    pub(super) fn attempt_failed(&mut self, entry: &AccountEntry, may_have_worked: bool) {
        self.in_flight = None;
        self.account = None;
        self.ask();
        self.reader = None;
        let Some(book) = &mut self.book else { return };
        book.closed.first_byte_at = None;
        if book.groups.contains(&entry.limits.group) {
            self.worker.relay.release(book.closed.request, std::slice::from_ref(&entry.limits.group));
        }
        if may_have_worked && let Some(tariff) = &book.tariff {
            book.closed.given_up.push(GivenUp {
                account: entry.account.id.clone(),
                model: tariff.model().to_owned(),
                usage: book.estimate,
                cost: book.estimated.cost.total,
                tier: book.asked_tier,
            });
        }
    }

    /// The client is told an error. If it has left, nothing was used for it all the same.
    pub(super) fn failed(&mut self, status: u16) {
        self.answered_without(status, End::Failed);
    }

    /// The client is told of a mistake of its own. If it has left, nothing was used for it all the same.
    pub(super) fn refused(&mut self, status: u16) {
        self.answered_without(status, End::Refused);
    }

    fn answered_without(&mut self, status: u16, end: End) {
        if self.is_abandoned() {
            return self.ask();
        }
        if let Some(book) = &mut self.book {
            book.closed.status = status;
            book.closed.end = end;
        }
    }

    /// The head of a good reply goes to the client, if it is still there.
    pub(super) fn replied(&mut self, status: u16) {
        let is_abandoned = self.is_abandoned();
        if let Some(book) = self.book.as_mut().filter(|_| !is_abandoned) {
            book.closed.status = status;
        }
    }

    /// The reader of the reply, while there is one.
    pub(super) fn reader(&mut self) -> Option<&mut Reader> {
        self.reader.as_mut().map(|(reader, _)| reader)
    }

    /// Whether the reply has told all that there is to be known, or is in an encoding that tells nothing.
    pub(super) fn has_told(&self) -> bool {
        let Some((reader, _)) = &self.reader else { return false };
        let reading = reader.reading();
        !reader.is_read() || reading.error.is_some() || (reading.terminal && reading.usage.is_some())
    }

    /// Tokens of the answer that came so far, as far as a stream tells before its end.
    pub(super) fn answer_tokens(&self, protocol: Protocol) -> u64 {
        let reader = self.reader.as_ref();
        reader.map_or(0, |(reader, form)| book::answer_tokens(protocol, reader.reading(), *form))
    }

    /// What is left of the key's limits.
    pub(super) fn left(&self) -> &[Left] {
        self.book.as_ref().map_or(&[], |book| &book.left)
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
        let is_abandoned = self.is_abandoned();
        let relay = &self.worker.relay;
        relay.in_flight.fetch_sub(1, Ordering::Relaxed);
        let Some(book) = &mut self.book else { return };
        if !book.is_opened {
            relay.give_back(book.closed.request, &book.groups);
            return;
        }
        let now = relay.clock.now();
        book.finish(now, self.account.as_ref(), self.reader.as_ref(), self.handover.is_done());
        if is_abandoned {
            // Whatever became of the rest, the client has not had it.
            book.closed.end = End::ClientGone;
        } else if relay.abort.is_cancelled() {
            cut_off(&mut book.closed);
        }
        self.worker.lane.close(&book.closed);
        relay.release(book.closed.request, &book.groups);
        let closed = &book.closed;
        if closed.provenance == Provenance::Measured && closed.operation == Operation::Generate {
            let sent = book.tariff.as_ref().map_or(closed.model.as_str(), Tariff::model);
            relay.directory.averages().note(sent, closed.usage[UsageClass::Output]);
        }
        if relay.settings.log_requests {
            log(closed);
        }
    }
}

impl Relay {
    /// Lets go of what a call holds in these groups by leases; whoever waits there looks for room.
    fn release(&self, request: RequestId, groups: &[GroupId]) {
        let store = self.directory.store();
        groups.iter().for_each(|group| store.release(request, group));
        groups.iter().for_each(|group| self.queues.released(group));
    }

    /// Lets go of all that a call holds in these groups; whoever waits there looks for room.
    fn give_back(&self, request: RequestId, groups: &[GroupId]) {
        let store = self.directory.store();
        groups.iter().for_each(|group| store.give_back(request, group));
        groups.iter().for_each(|group| self.queues.released(group));
    }
}

/// The row of a call of which nothing is known yet: its client went before it got anything.
fn unopened(call: &Call, zone: &Zone) -> Closed {
    Closed {
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
        price_version: 0,
        rates: Rates::default(),
        bookings: Vec::new(),
        given_up: Vec::new(),
        session: call.session.as_ref().map(Session::as_u64),
        rated: NanoUsd::ZERO,
        multiplier: Multiplier::ONE,
        hour: limits::start_of(CalendarUnit::Hour, zone, call.opened_at),
        queued_ms: 0,
        tier: None,
    }
}

/// What looks like a client that went was the daemon, which stopped.
const fn cut_off(closed: &mut Closed) {
    if matches!(closed.end, End::ClientGone) {
        closed.end = End::Aborted;
        if closed.status == CLIENT_CLOSED_REQUEST {
            closed.status = 0;
        }
    }
}

fn opened(call: &Call, book: &Book, account: &GroupId) -> Opened {
    let Charge { cost, rated } = book.estimated;
    Opened {
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
        bookings: book.bookings(account, false),
        estimate_rated: rated,
        multiplier: book.closed.multiplier,
        hour: book.closed.hour,
        queued_ms: book.closed.queued_ms,
        tier: book.asked_tier,
    }
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
        queued_ms = closed.queued_ms,
        ms = u64::try_from(closed.closed_at.since(closed.opened_at).as_millis()).unwrap_or(u64::MAX),
        "request"
    );
}
