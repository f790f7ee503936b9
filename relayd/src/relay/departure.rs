//! What a call and its client's end of it must both know once the client leaves.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::upstream::Handover;

/// Whether a client has left, and what was sent for it by then.
#[derive(Default)]
pub(super) struct Departure {
    has_left: AtomicBool,
    sent: Mutex<Handover>,
    answer_tokens: AtomicU64,
}

impl Departure {
    /// Whether the client has left, and the call goes on without it.
    pub(super) fn has_left(&self) -> bool {
        self.has_left.load(Ordering::Relaxed)
    }

    /// The request that the call waits for now, and how long the answer will probably be.
    pub(super) fn ask(&self, request: Handover, answer_tokens: u64) {
        self.answer_tokens.store(answer_tokens, Ordering::Relaxed);
        *self.sent.lock().unwrap_or_else(PoisonError::into_inner) = request;
    }

    /// How long the answer will probably be.
    pub(super) fn answer_tokens(&self) -> u64 {
        self.answer_tokens.load(Ordering::Relaxed)
    }

    /// The client leaves, and the call goes on.
    pub(super) fn leave(&self) {
        self.has_left.store(true, Ordering::Relaxed);
    }

    /// Whether the upstream may have it.
    pub(super) fn is_sent(&self) -> bool {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).is_done()
    }
}
