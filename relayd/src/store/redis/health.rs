//! Whether the server can be used. While it cannot, nobody asks it but the keeper, and calls wait for nothing.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shared::domain::RequestId;
use tokio::sync::{Notify, watch};

use crate::causes::Causes;
use crate::store::{StoreError, StoreState};

/// What is known of the server.
pub(super) struct Health {
    is_away: AtomicBool,
    state: Mutex<State>,
    /// Somebody wants the server to be looked at.
    wanted: Notify,
    /// How often it was looked at.
    looks: watch::Sender<u64>,
}

struct State {
    /// Why it cannot be used; `None` while it can.
    cause: Option<String>,
    /// What is held here is being held there again.
    is_returning: bool,
    /// The calls that were admitted without it meanwhile, and are not held there.
    unheld: Vec<RequestId>,
}

impl Health {
    /// It is not known yet.
    pub(super) fn unknown() -> Self {
        let state =
            State { cause: Some("it was not asked yet".to_owned()), is_returning: false, unheld: Vec::new() };
        Self {
            is_away: AtomicBool::new(true),
            state: Mutex::new(state),
            wanted: Notify::new(),
            looks: watch::Sender::default(),
        }
    }

    pub(super) fn is_away(&self) -> bool {
        self.is_away.load(Ordering::Acquire)
    }

    pub(super) fn state(&self) -> StoreState {
        self.lock().cause.clone().map_or(StoreState::Ok, StoreState::Failing)
    }

    /// It failed. Told once, until it is back or fails otherwise.
    pub(super) fn failed(&self, error: &StoreError) {
        let cause = error.innermost();
        let mut state = self.lock();
        if state.cause.as_ref() != Some(&cause) {
            tracing::error!(error = %Causes(error), "the store cannot be used");
            state.cause = Some(cause);
        }
        let was_away = self.is_away.swap(true, Ordering::AcqRel);
        drop(state);
        // While it is away it is looked at from time to time.
        if !was_away {
            self.wanted.notify_one();
        }
    }

    /// Has it looked at, and tells whether it is alive; what takes longer than `timeout` is not.
    pub(super) async fn is_alive(&self, timeout: Duration) -> bool {
        let mut looks = self.looks.subscribe();
        self.wanted.notify_one();
        let looked = tokio::time::timeout(timeout, looks.changed()).await;
        looked.is_ok_and(|looked| looked.is_ok()) && !self.is_away()
    }

    /// It may be of use again: whoever watches shall look soon.
    pub(super) fn look_soon(&self) {
        self.wanted.notify_one();
    }

    /// Waits until somebody wants it to be looked at.
    pub(super) async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// It was looked at.
    pub(super) fn looked(&self) {
        self.looks.send_modify(|looks| *looks = looks.wrapping_add(1));
    }

    /// Judges a call without the server, unless it is back by now.
    pub(super) fn while_away<T>(&self, request: RequestId, judge: impl FnOnce() -> T) -> Option<T> {
        let mut state = self.lock();
        state.cause.as_ref()?;
        let verdict = judge();
        if state.is_returning {
            state.unheld.push(request);
        }
        Some(verdict)
    }

    /// What is held here is about to be held there: calls that are admitted from now on are remembered.
    pub(super) fn return_begins(&self) {
        let mut state = self.lock();
        state.is_returning = true;
        state.unheld.clear();
    }

    /// The calls that are to be held; when there are none left, the server is in use again.
    pub(super) fn come_back(&self) -> Option<Vec<RequestId>> {
        let mut state = self.lock();
        if !state.unheld.is_empty() {
            return Some(std::mem::take(&mut state.unheld));
        }
        state.is_returning = false;
        if state.cause.take().is_some() {
            tracing::info!("the store can be used");
        }
        self.is_away.store(false, Ordering::Release);
        None
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
