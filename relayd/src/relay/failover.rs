//! Which account is called next, until one serves the call or none is left. Nothing has gone to the client
//! while this runs.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_LENGTH, RETRY_AFTER};
use http::{HeaderMap, Response};
use shared::domain::limit::Metric;
use shared::domain::{Operation, Timestamp};
use tokio::time::timeout;

use super::account::Origin;
use super::admission::{Admission, Asker};
use super::attempt::{Attempt, Attempted, Fault, Refusal, Reply, Told};
use super::call::Call;
use super::drain::AttendedReply;
use super::failure::seconds_until;
use super::patience::{Patience, Start, Waited};
use super::queue::Full;
use super::reply::{self, ReplyBody};
use super::settlement::Settlement;
use super::tap::{Source, Tap};
use super::{Queued, RelayError, Worker, account};
use crate::auth::{self, AuthError};
use crate::directory::{AccountEntry, Errand, Snapshot, TooLong, Turn};
use crate::limits::{LimitExceeded, Scope};
use crate::protocol::{Left, UsageChunkFilter, left_headers};
use crate::scheduler::health::{Failure, Outcome};
use crate::scheduler::{Ask, Candidate, NoAccount, Passed, Purpose, rule_out};

/// What a call came to.
enum Delivery {
    Reply(Box<Reply>, Arc<AccountEntry>),
    /// An upstream's error.
    Refusal(Refusal),
    /// An upstream's error about a mistake of the client's own.
    Mistake(Refusal),
}

/// Serves a call with the account that can, and gives the books to the reply.
pub(super) async fn run(
    worker: &Arc<Worker>,
    call: &mut Call,
    mut settlement: Settlement,
) -> Result<Response<ReplyBody>, RelayError> {
    let patience = Patience::of(&worker.relay, &call.key.key);
    let mut run = Run {
        worker,
        call,
        snapshot: worker.relay.directory.snapshot(),
        passed: Vec::new(),
        faults: Vec::new(),
        full: Vec::new(),
        unpriced: None,
        patience,
        queued: Queued::No,
        began: worker.relay.clock.now(),
    };
    match run.deliver(&mut settlement).await {
        Ok(Delivery::Reply(reply, entry)) => {
            let origin = Origin {
                relay: worker.relay.clone(),
                operation: call.target.operation,
                model: entry.account.upstream_model(&call.model).to_owned(),
                fingerprint: call.fingerprint(),
                entry,
            };
            let is_attended = settlement.is_attended();
            Ok(tapped(call, *reply, origin, settlement).map(|tap| match is_attended {
                true => ReplyBody::Attended(AttendedReply::new(worker.clone(), tap)),
                false => ReplyBody::Tap(tap),
            }))
        }
        Ok(Delivery::Refusal(refusal)) => {
            settlement.failed(refusal.parts.status.as_u16());
            Ok(passed_on(refusal))
        }
        Ok(Delivery::Mistake(refusal)) => {
            settlement.refused(refusal.parts.status.as_u16());
            Ok(passed_on(refusal))
        }
        Err(error) => {
            settlement.failed(error.problem(call.target.protocol).status);
            Err(error)
        }
    }
}

struct Run<'a> {
    worker: &'a Arc<Worker>,
    call: &'a mut Call,
    snapshot: Arc<Snapshot>,
    /// Accounts that this call does not go to any more, by position.
    passed: Vec<(usize, Passed)>,
    faults: Vec<(Arc<AccountEntry>, Fault)>,
    /// What accounts that could serve the call have no room by.
    full: Vec<Full>,
    /// Whose money is limited, where accounts were passed over because the call has no price there.
    unpriced: Option<Scope>,
    patience: Patience,
    /// How the waiting for room ended.
    queued: Queued,
    /// When the attempt began that is the last.
    began: Timestamp,
}

impl Run<'_> {
    async fn deliver(&mut self, settlement: &mut Settlement) -> Result<Delivery, RelayError> {
        let relay = &self.worker.relay;
        loop {
            let position = match self.admit(settlement).await? {
                Ok(position) => position,
                Err(none) => return self.hopeless(Some(none), relay.clock.now()),
            };
            let entry = self.snapshot.accounts()[position].clone();
            settlement.waited(self.patience.waited());
            self.began = relay.clock.now();
            settlement.attempt(self.call, &entry, self.began)?;
            match self.attempt(position, &entry, settlement).await {
                Attempted::Replied(reply) => {
                    self.served(&entry, reply.first_byte_at);
                    return Ok(Delivery::Reply(reply, entry));
                }
                Attempted::Refused(refusal) => return Ok(Delivery::Mistake(refusal)),
                Attempted::Failed(fault) => {
                    settlement.attempt_failed(&entry, fault.may_have_worked);
                    account::learn(relay, &entry, self.purpose(&entry), &fault.outcome);
                    self.passed.push((position, Passed::Tried));
                    self.faults.push((entry, fault));
                }
            }
            let now = relay.clock.now();
            let is_enough = self.faults.len() >= relay.settings.attempts_max || settlement.is_abandoned();
            if self.is_late(now) || is_enough {
                return self.hopeless(None, now);
            }
        }
    }

    /// Whether no other account is asked any more. Waiting is no work: neither for room, nor for accounts that said
    /// nothing, of which there are few anyway.
    fn is_late(&self, now: Timestamp) -> bool {
        let silence: Duration = self.faults.iter().map(|(_, fault)| fault.silence).sum();
        let taken = now.since(self.call.opened_at).saturating_sub(self.patience.waited() + silence);
        taken >= self.worker.relay.settings.failover_total
    }

    /// Calls an account. One that says nothing is left once another could serve the call.
    async fn attempt(&self, position: usize, entry: &AccountEntry, settlement: &mut Settlement) -> Attempted {
        let relay = &self.worker.relay;
        let attempt = Attempt { worker: self.worker, call: self.call, entry, settlement };
        let silence = self.call.silence(&relay.settings);
        let sent = {
            let mut sending = pin!(attempt.send());
            loop {
                match timeout(silence, sending.as_mut()).await {
                    Ok(sent) => break sent,
                    // Nobody waits any longer for a call whose client went.
                    Err(_) if attempt.settlement.is_abandoned() => {}
                    Err(_) if self.could_move(position, entry).await => break Err(attempt.given_up()),
                    Err(_) => {}
                }
            }
        };
        match sent {
            Ok(response) => attempt.read(response).await,
            Err(fault) if matches!(fault.told, Told::Failed(Failure::Timeout)) => {
                let silence = relay.clock.now().since(self.began);
                Attempted::Failed(Fault { silence, ..fault })
            }
            Err(fault) => Attempted::Failed(fault),
        }
    }

    /// Whether the call is better off elsewhere than with an account that says nothing. A whole answer says nothing
    /// until it is written: where the account answers others meanwhile, it is at work.
    async fn could_move(&self, silent: usize, entry: &AccountEntry) -> bool {
        let relay = &self.worker.relay;
        let now = relay.clock.now();
        let is_last = self.faults.len() + 1 >= relay.settings.attempts_max;
        let is_at_work = self.call.is_whole_answer() && entry.state.has_answered_after(self.began);
        if is_last || is_at_work {
            return false;
        }
        let (errand, store) = (self.errand(now), relay.directory.store());
        let wanted = (self.call.model.as_str(), self.call.target.operation);
        let accounts = self.snapshot.accounts();
        for position in (0..accounts.len()).filter(|&position| position != silent) {
            if rule_out(&self.snapshot.candidate(position, &errand), &errand.ask).is_none()
                && accounts[position]
                    .limits
                    .spent(&**store, wanted, now)
                    .await
                    .is_ok_and(|spent| spent.is_none())
            {
                return true;
            }
        }
        false
    }

    /// Finds the account to call, and holds what the call needs. Where it alone or all that could serve the call
    /// have no room, the call waits for it, if it may.
    async fn admit(&mut self, settlement: &mut Settlement) -> Result<Result<usize, NoAccount>, RelayError> {
        loop {
            let now = self.worker.relay.clock.now();
            let position = match self.snapshot.choose(&self.errand(now)) {
                Ok((position, _)) => position,
                Err(none) => match self.wait_for_accounts().await? {
                    Waited::Look => continue,
                    Waited::Enough(queued) => {
                        self.queued = queued;
                        return Ok(Err(none));
                    }
                },
            };
            let entry = self.snapshot.accounts()[position].clone();
            // Whoever is too late for a place in the line finds it crowded when it looks again.
            let Ok(turn) = self.line_up(&entry) else { continue };
            let asker = Asker { call: self.call, ticket: self.patience.ticket() };
            match settlement.reserve(asker, &entry, now).await? {
                Admission::Admitted => {
                    self.patience.leave();
                    match self.start(turn, &entry, position).await? {
                        Some(position) => return Ok(Ok(position)),
                        None => settlement.withdraw(&entry),
                    }
                }
                Admission::AccountFull(full) => {
                    self.passed.push((position, Passed::Full));
                    self.full.push(full);
                }
                Admission::Unpriced(scope) => {
                    self.passed.push((position, Passed::Full));
                    // What an account lacks can be mended without the client.
                    self.unpriced = self.unpriced.filter(|_| scope != Scope::Account).or(Some(scope));
                }
                Admission::Full(full) => match self.wait(std::slice::from_ref(&full)).await? {
                    Waited::Look => {}
                    Waited::Enough(queued) => {
                        let now = self.worker.relay.clock.now();
                        return Err(RelayError::limit(full.exceeded, queued, now));
                    }
                },
            }
        }
    }

    /// Calls that are not counted are not kept apart either.
    fn line_up(&self, entry: &AccountEntry) -> Result<Option<Turn>, TooLong> {
        match self.call.is_booked() {
            true => entry.line_up(self.patience.left()),
            false => Ok(None),
        }
    }

    /// Waits for the call's turn at an account. Gives where the account is then, if it still may serve the call.
    async fn start(
        &mut self,
        turn: Option<Turn>,
        entry: &AccountEntry,
        position: usize,
    ) -> Result<Option<usize>, RelayError> {
        let Some(turn) = turn else { return Ok(Some(position)) };
        match self.patience.start(&self.worker.relay, turn).await? {
            Start::Now => return Ok(Some(position)),
            Start::Later => {}
            Start::Never => return Ok(None),
        }
        self.look_again()?;
        let position = self.snapshot.position(&entry.account.id);
        let errand = self.errand(self.worker.relay.clock.now());
        Ok(position.filter(|&position| {
            let seen = self.snapshot.candidate(position, &errand);
            rule_out(&Candidate { delay: Duration::ZERO, ..seen }, &errand.ask).is_none()
        }))
    }

    /// Waits for the first account to have room of those that lack nothing else.
    async fn wait_for_accounts(&mut self) -> Result<Waited, RelayError> {
        let leases = self.full.iter().filter(|full| full.counter.metric() == Metric::Concurrent);
        let leases: Vec<Full> = leases.cloned().collect();
        self.wait(&leases).await
    }

    async fn wait(&mut self, full: &[Full]) -> Result<Waited, RelayError> {
        let waited = self.patience.wait(&self.worker.relay, full).await?;
        if matches!(waited, Waited::Look) {
            self.look_again()?;
        }
        Ok(waited)
    }

    /// Whatever changed while the call waited counts: its key, the accounts, what they have room for.
    fn look_again(&mut self) -> Result<(), RelayError> {
        let directory = &self.worker.relay.directory;
        self.snapshot = directory.snapshot();
        let key = self.snapshot.key_of(&self.call.key.key.digest).ok_or(AuthError::Unknown)?;
        auth::check(&key.key, self.worker.relay.clock.now())?;
        if !key.key.may_ask_for(&self.call.model) {
            return Err(RelayError::ModelDenied(self.call.model.clone()));
        }
        self.call.key = key.clone();
        let tried = self.faults.iter().filter_map(|(entry, _)| self.snapshot.position(&entry.account.id));
        self.passed = tried.map(|position| (position, Passed::Tried)).collect();
        self.full.clear();
        self.unpriced = None;
        Ok(())
    }

    /// What the call asks of an account.
    fn errand(&self, now: Timestamp) -> Errand<'_> {
        let call = &*self.call;
        let ask = Ask {
            key: &call.key.key,
            model: &call.model,
            protocol: call.target.protocol,
            only: call.target.only,
            affinity: call.bound.as_ref().and_then(|bound| self.snapshot.position(bound)),
            delay_max: if call.is_booked() { self.patience.left() } else { Duration::MAX },
            now,
        };
        Errand { ask, operation: call.target.operation, passed: &self.passed }
    }

    /// What the call is to an account.
    fn purpose<'b>(&'b self, entry: &'b AccountEntry) -> Purpose<'b> {
        entry.purpose(self.call.target.operation, &self.call.model)
    }

    /// An account serves the call: whoever failed it before is at fault, and the session follows.
    fn served(&self, entry: &AccountEntry, now: Timestamp) {
        let relay = &self.worker.relay;
        account::clear(relay, entry, self.purpose(entry), &Outcome::Began);
        if self.call.target.operation == Operation::Generate {
            entry.state.answered(now);
        }
        // What takes as long here is no fault of the account that was left for it.
        let is_slower = |fault: &Fault| fault.silence.is_zero() || fault.silence > now.since(self.began);
        for (failed, fault) in self.faults.iter().filter(|(_, fault)| is_slower(fault)) {
            if let Outcome::Suspect { failure, .. } = fault.outcome {
                account::learn(relay, failed, self.purpose(failed), &Outcome::Confirmed { failure });
            }
        }
        if let Some(session) = &self.call.session {
            let sessions = relay.directory.sessions();
            sessions.bind(session, self.call.bound.as_ref(), &entry.account.id, now);
        }
    }

    /// Nothing is left: the client gets the most hopeful of the errors.
    fn hopeless(&mut self, none: Option<NoAccount>, now: Timestamp) -> Result<Delivery, RelayError> {
        if self.faults.is_empty() {
            return Err(self.not_sent(none.unwrap_or(NoAccount::Unavailable { cooling: None }), now));
        }
        let retry_at = self.retry_at(none, now);
        let best = (0..self.faults.len()).max_by_key(|&at| hope(&self.faults[at].1)).unwrap_or(0);
        let (_, fault) = self.faults.swap_remove(best);
        match fault.told {
            Told::Reply(mut refusal) if !is_about_our_credential(&fault.outcome, &refusal) => {
                if let Some(at) = retry_at {
                    // SDKs look at the milliseconds first.
                    refusal.parts.headers.remove("retry-after-ms");
                    refusal.parts.headers.insert(RETRY_AFTER, seconds_until(at, now).into());
                }
                Ok(Delivery::Refusal(refusal))
            }
            Told::Reply(_) => Err(RelayError::Credential { retry_at }),
            Told::Failed(failure) => Err(RelayError::Failed { failure, retry_at }),
            Told::Unreachable => Err(RelayError::Unreachable { retry_at }),
            Told::Misconfigured => Err(RelayError::Misconfigured),
        }
    }

    /// Why no account was asked: room and health come back, so they are told before a price that lacks.
    fn not_sent(&mut self, none: NoAccount, now: Timestamp) -> RelayError {
        let model = self.call.model.clone();
        let full = first_to_end(std::mem::take(&mut self.full));
        match (full, none, self.unpriced) {
            (Some(exceeded), ..) => RelayError::limit(exceeded, self.queued, now),
            (None, NoAccount::Unavailable { cooling: None }, Some(Scope::Account)) => {
                RelayError::AccountUnpriced(model)
            }
            (None, NoAccount::Unavailable { cooling: None }, Some(_)) => RelayError::Unpriced(model),
            (None, none, _) => RelayError::Schedule { none, model, protocol: self.call.target.protocol },
        }
    }

    /// When the first of the accounts that are resting now may be asked again.
    fn retry_at(&self, none: Option<NoAccount>, now: Timestamp) -> Option<Timestamp> {
        let known = match none {
            Some(NoAccount::Unavailable { cooling }) => cooling.map(|cooling| cooling.until),
            Some(NoAccount::Crowded { until }) => Some(until),
            _ => None,
        };
        let health = |entry: &AccountEntry| entry.state.health(self.purpose(entry));
        let resting = self.faults.iter().filter_map(|(entry, _)| health(entry).cooling(now));
        resting.map(|cooling| cooling.until).chain(known).min()
    }
}

/// The refusal that ends first, as far as that is known.
fn first_to_end(full: Vec<Full>) -> Option<LimitExceeded> {
    let ends_at = |full: &Full| {
        let resets_at = full.exceeded.standing.resets_at;
        (resets_at.is_none(), resets_at)
    };
    full.into_iter().min_by_key(ends_at).map(|full| full.exceeded)
}

/// How much an error lets the client hope: the more, the better the chance of a later call.
fn hope(fault: &Fault) -> u8 {
    match (&fault.told, &fault.outcome) {
        (Told::Reply(_), Outcome::Limited { .. } | Outcome::Overloaded { .. }) => 4,
        (Told::Reply(refusal), _) if !is_about_our_credential(&fault.outcome, refusal) => 3,
        (Told::Failed(Failure::Timeout), _) => 2,
        (Told::Failed(_) | Told::Unreachable, _) => 1,
        (Told::Reply(_) | Told::Misconfigured, _) => 0,
    }
}

/// 401, 402 and 403 mean the relay's credential, not the client's: a client that saw them would throw its own
/// key away.
fn is_about_our_credential(outcome: &Outcome, refusal: &Refusal) -> bool {
    matches!(outcome, Outcome::AuthFailed { .. }) || refusal.parts.status == http::StatusCode::FORBIDDEN
}

fn tapped(call: &Call, reply: Reply, origin: Origin, mut settlement: Settlement) -> Response<Box<Tap>> {
    let Reply { parts, body, held, is_plain, form, first_byte_at } = reply;
    let injected = call.injects_usage() && is_plain;
    settlement.replied(parts.status.as_u16());
    let mut head = reply::head(parts);
    tell_what_is_left(head.headers_mut(), call, settlement.left(), first_byte_at);
    if injected {
        head.headers_mut().remove(CONTENT_LENGTH);
    }
    let source = Source {
        body,
        held,
        filter: injected.then(UsageChunkFilter::default),
        protocol: call.target.protocol,
        form,
        idle_timeout: origin.relay.settings.idle_timeout,
    };
    let tap = Tap::new(source, origin, settlement);
    head.map(|()| Box::new(tap))
}

/// What the upstream says of its account's limits is not what the client may use.
fn tell_what_is_left(headers: &mut HeaderMap, call: &Call, left: &[Left], now: Timestamp) {
    let told = left.iter().filter_map(|left| left_headers(call.target.protocol, left, now));
    for (name, value) in told.flatten() {
        match value {
            Some(value) => drop(headers.insert(name, value)),
            None => drop(headers.remove(name)),
        }
    }
}

fn passed_on(refusal: Refusal) -> Response<ReplyBody> {
    let mut head = reply::head(refusal.parts);
    // The body may have been cut.
    head.headers_mut().remove(CONTENT_LENGTH);
    head.map(|()| ReplyBody::from(refusal.body))
}
