//! A key or an account in the snapshot, with what the request path would otherwise compute each time.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shared::domain::{Account, ApiKey, Operation, Protocol, Timestamp, Zone};
use shared::redact::Secret;

use super::limits::{LimitSet, SharedLimits};
use super::pace::{Pace, TooLong, Turn};
use super::seats::{Figures, Seat};
use crate::limits::Scope;
use crate::provider::{Access, Caller, Provider, ProviderError, provider};
use crate::scheduler::health::{Cooldowns, Incident, Outcome};
use crate::scheduler::{Candidate, Health, Purpose, Vitals};
use crate::store::GroupId;

/// A key with the limits that hold for it.
pub struct KeyEntry {
    /// The key.
    pub key: ApiKey,
    /// Version of its record.
    pub version: u64,
    /// Its own limits.
    pub limits: LimitSet,
    /// Limits that it shares: with the other keys of its owner, with all.
    pub shared: Vec<Arc<LimitSet>>,
}

impl KeyEntry {
    pub(super) fn new(key: ApiKey, version: u64, shared: &SharedLimits, zone: &Zone) -> Self {
        let limits = LimitSet::new(Scope::Key, GroupId::of_key(&key.id), &key.limits, zone);
        let shared = shared.of(key.owner.as_deref());
        Self { key, version, limits, shared }
    }

    /// All limits that hold for its calls, in the order in which a refusal is told.
    pub fn limit_sets(&self) -> impl Iterator<Item = &LimitSet> {
        std::iter::once(&self.limits).chain(self.shared.iter().map(|set| &**set))
    }
}

/// An account with its credential, its limits and its state.
pub struct AccountEntry {
    /// The account.
    pub account: Account,
    /// Version of its record.
    pub version: u64,
    /// Who serves it.
    pub provider: &'static dyn Provider,
    /// How it is reached.
    access: Result<Access, Arc<ProviderError>>,
    /// Its limits.
    pub limits: LimitSet,
    /// What ages by itself.
    pub state: Arc<AccountState>,
}

impl AccountEntry {
    pub(super) fn new(
        account: Account,
        version: u64,
        secret: &Secret,
        zone: &Zone,
        state: Arc<AccountState>,
    ) -> Self {
        let group = GroupId::of_account(&account.id);
        let limits = LimitSet::new(Scope::Account, group, &account.limits, zone);
        let provider = provider(account.kind);
        let access = provider.access(&account, secret).map_err(Arc::new);
        Self { provider, access, account, version, limits, state }
    }

    /// What its provider needs of it.
    ///
    /// # Errors
    ///
    /// Its address or its credential make no valid request.
    pub fn caller(&self) -> Result<Caller<'_>, Arc<ProviderError>> {
        let access = self.access.as_ref().map_err(Arc::clone)?;
        Ok(Caller { account: &self.account, access })
    }

    /// Joins the line of the calls that wait to be started; there is none where no gap is to be kept.
    pub fn line_up(&self, delay_max: Duration) -> Result<Option<Turn>, TooLong> {
        self.gap().map(|gap| self.state.pace.line_up(gap, delay_max)).transpose()
    }

    /// Calls that wait to be started.
    pub fn waiting(&self) -> usize {
        self.state.pace.waiting()
    }

    /// What is to be between the starts of two calls.
    fn gap(&self) -> Option<Duration> {
        (self.account.gap_ms > 0).then(|| Duration::from_millis(self.account.gap_ms))
    }

    /// What a call is to it that names the model so.
    pub fn purpose<'a>(&'a self, operation: Operation, model: &'a str) -> Purpose<'a> {
        Purpose { operation, model: self.account.upstream_model(model) }
    }

    /// Whether its provider speaks a protocol for an operation.
    pub(super) fn speaks(&self, operation: Operation, protocol: Protocol) -> bool {
        self.provider.speaks(operation).contains(&protocol)
    }

    /// What the scheduler sees of it for a call.
    pub fn candidate(&self, operation: Operation, protocol: Protocol, model: &str) -> Candidate<'_> {
        Candidate {
            account: &self.account,
            speaks: self.speaks(operation, protocol),
            passed: None,
            health: self.state.health(self.purpose(operation, model)),
            delay: self.gap().map_or(Duration::ZERO, |gap| self.state.pace.delay(gap)),
            in_flight: self.state.in_flight(),
            last_used: self.state.last_used(),
        }
    }
}

/// Health and load of an account. It outlasts changes of the record and ends with the process.
pub struct AccountState {
    vitals: Mutex<Vitals>,
    /// Something is known of its health; most accounts have never ailed, and are not locked to find that out.
    has_ailed: AtomicBool,
    last_answered: AtomicI64,
    pace: Arc<Pace>,
    /// Where the rest of it is.
    seat: Seat,
}

impl AccountState {
    /// That of an account of which nothing is known yet.
    pub(super) fn new(seat: Seat) -> Self {
        Self {
            vitals: Mutex::default(),
            has_ailed: AtomicBool::default(),
            last_answered: AtomicI64::default(),
            pace: Arc::default(),
            seat,
        }
    }

    /// The number of its seat.
    pub(super) const fn seat(&self) -> u32 {
        self.seat.number()
    }

    fn figures(&self) -> &Figures {
        self.seat.figures()
    }

    /// What ails the account, for such a call.
    pub fn health(&self, purpose: Purpose<'_>) -> Health {
        if self.has_ailed.load(Ordering::Acquire) { self.locked().of(purpose) } else { Health::default() }
    }

    /// What people are told of it, and for what alone that holds, if not for everything.
    pub fn told(&self, now: Timestamp) -> (Health, Option<String>) {
        self.locked().told(now)
    }

    /// What went wrong last, whether it counted or not.
    pub fn last_failure(&self) -> Option<Incident> {
        if self.has_ailed.load(Ordering::Acquire) { self.locked().last_failure() } else { None }
    }

    /// Calls that it is serving now.
    pub fn in_flight(&self) -> u64 {
        self.figures().in_flight()
    }

    /// When it was last chosen; the epoch if never.
    pub fn last_used(&self) -> Timestamp {
        self.figures().last_used()
    }

    /// It answers a call.
    pub fn answered(&self, now: Timestamp) {
        self.last_answered.fetch_max(now.as_millis(), Ordering::Relaxed);
    }

    /// Whether it answered any call after a time.
    pub fn has_answered_after(&self, time: Timestamp) -> bool {
        self.last_answered.load(Ordering::Relaxed) > time.as_millis()
    }

    /// Takes note of what a call told about the account; gives the health for such calls before and after.
    pub fn learn(
        &self,
        purpose: Purpose<'_>,
        outcome: &Outcome,
        now: Timestamp,
        cooldowns: &Cooldowns,
    ) -> (Health, Health) {
        let mut vitals = self.locked();
        let before = vitals.of(purpose);
        vitals.learn(purpose, outcome, now, cooldowns);
        self.note(&vitals);
        (before, vitals.of(purpose))
    }

    /// Forgets what ails the account.
    pub fn recover(&self) {
        let mut vitals = self.locked();
        *vitals = Vitals::default();
        self.note(&vitals);
    }

    /// What is to be known without the lock, written while it is held.
    fn note(&self, vitals: &Vitals) {
        self.has_ailed.store(*vitals != Vitals::default(), Ordering::Release);
        self.seat.rest(vitals.rests_until());
    }

    /// Counts a call as in flight until the guard is dropped.
    pub fn enter(self: &Arc<Self>, now: Timestamp) -> InFlight {
        self.figures().enter(now);
        InFlight(self.clone())
    }

    fn locked(&self) -> MutexGuard<'_, Vitals> {
        // Vitals are plain data, each of them replaced whole: a panic elsewhere cannot leave one half changed.
        self.vitals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call in flight on an account.
pub struct InFlight(Arc<AccountState>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.figures().leave();
    }
}
