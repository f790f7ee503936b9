//! A gate that everybody passes who changes what is held. Shutting it waits for those who are in it: whoever comes
//! after that knows that it is shut.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

/// Threads count apart, so that none waits for another's cache line.
const LANES: usize = 16;
/// How often it is looked whether somebody is still in it.
const LOOK: Duration = Duration::from_millis(1);

thread_local! {
    static LANE: usize = {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed) % LANES
    };
}

/// A cache line for each.
#[derive(Default)]
#[repr(align(64))]
struct Count(AtomicU64);

#[derive(Default)]
pub(super) struct Gate {
    is_shut: AtomicBool,
    within: [Count; LANES],
    opened: Notify,
}

/// Somebody is in the gate.
pub(super) struct Pass<'a>(&'a Count);

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Gate {
    /// Goes in, shut or not; it is to be asked afterwards.
    pub(super) fn pass(&self) -> Pass<'_> {
        let count = &self.within[LANE.with(|lane| *lane)];
        count.0.fetch_add(1, Ordering::SeqCst);
        Pass(count)
    }

    pub(super) fn is_shut(&self) -> bool {
        self.is_shut.load(Ordering::SeqCst)
    }

    /// Shuts it; returns when everybody has left who came before.
    pub(super) async fn shut(&self) {
        self.is_shut.store(true, Ordering::SeqCst);
        for count in &self.within {
            while count.0.load(Ordering::SeqCst) > 0 {
                tokio::time::sleep(LOOK).await;
            }
        }
    }

    pub(super) fn open(&self) {
        self.is_shut.store(false, Ordering::SeqCst);
        self.opened.notify_waiters();
    }

    /// Goes in when it is open.
    pub(super) async fn opened(&self) -> Pass<'_> {
        loop {
            let opened = self.opened.notified();
            let pass = self.pass();
            if !self.is_shut() {
                return pass;
            }
            drop(pass);
            opened.await;
        }
    }
}
