//! Holding back what is to be shipped, so that rows, sums and counters stand still.

use std::convert::Infallible;

use tokio::sync::oneshot;

/// While this lives, the store has every record that was synced before it was given, and gets no further one: calls
/// go on, and what they write waits in the journal.
#[derive(Debug)]
pub struct Held {
    _until_dropped: oneshot::Sender<Infallible>,
}

impl Held {
    /// A hold, and what ends when it is dropped.
    pub(super) fn new() -> (Self, oneshot::Receiver<Infallible>) {
        let (until_dropped, released) = oneshot::channel();
        (Self { _until_dropped: until_dropped }, released)
    }
}
