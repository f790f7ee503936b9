//! What was applied to the store since somebody began to copy it.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use shared::domain::{RequestId, Timestamp};

use crate::store::{Entry, GroupId};

/// Rows, sums and groups that changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Requests that have rows now.
    pub rows: Vec<RequestId>,
    /// Hours whose sums moved.
    pub hours: BTreeSet<Timestamp>,
    /// Groups in which something was booked.
    pub groups: BTreeSet<GroupId>,
}

impl Touched {
    /// How many things they are.
    pub fn len(&self) -> usize {
        self.rows.len() + self.hours.len() + self.groups.len()
    }
}

#[derive(Default)]
pub(super) struct Notes {
    is_on: AtomicBool,
    touched: Mutex<Touched>,
}

impl Notes {
    pub(super) fn begin(&self) {
        *self.touched() = Touched::default();
        self.is_on.store(true, Ordering::SeqCst);
    }

    pub(super) fn end(&self) {
        self.is_on.store(false, Ordering::SeqCst);
        *self.touched() = Touched::default();
    }

    pub(super) fn take(&self) -> Touched {
        std::mem::take(&mut *self.touched())
    }

    pub(super) fn add(&self, batch: &[Entry]) {
        if !self.is_on.load(Ordering::SeqCst) {
            return;
        }
        let mut touched = self.touched();
        for Entry { closed, .. } in batch {
            touched.rows.push(closed.request);
            touched.hours.insert(closed.hour);
            touched.groups.extend(closed.bookings.iter().map(|booking| booking.group.clone()));
        }
    }

    fn touched(&self) -> MutexGuard<'_, Touched> {
        self.touched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
