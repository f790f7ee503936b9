//! Whether the server can be used. While it cannot, nobody asks it but the keeper, and calls wait for nothing.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

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
    /// The calls that were admitted without it and are not held there.
    unheld: Vec<RequestId>,
}

impl Health {
    /// It is not known yet.
    pub(super) fn unknown() -> Self {
        let state = State { cause: Some("it was not asked yet".to_owned()), unheld: Vec::new() };
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
        self.is_away.store(true, Ordering::Release);
        drop(state);
        self.wanted.notify_one();
    }

    /// Has it looked at, and tells whether it is alive.
    pub(super) async fn is_alive(&self) -> bool {
        let mut looks = self.looks.subscribe();
        self.wanted.notify_one();
        looks.changed().await.is_ok() && !self.is_away()
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

    /// Judges a call without the server, unless it is back by now. What is judged so is remembered, to be held
    /// there when it is back.
    pub(super) fn while_away<T>(&self, request: RequestId, judge: impl FnOnce() -> T) -> Option<T> {
        let mut state = self.lock();
        state.cause.as_ref()?;
        let verdict = judge();
        state.unheld.push(request);
        Some(verdict)
    }

    /// The calls that are to be held; when there are none left, the server is in use again.
    pub(super) fn come_back(&self) -> Option<Vec<RequestId>> {
        let mut state = self.lock();
        if !state.unheld.is_empty() {
            return Some(std::mem::take(&mut state.unheld));
        }
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
