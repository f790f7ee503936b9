//! Notices when a request is handed to its connection. Before that, nobody but this process has seen it.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::protocol::Splice;

/// Whether a request has been handed to its connection. From then on the upstream may have it and be at work;
/// until then it can be neither.
#[derive(Clone, Debug, Default)]
pub struct Handover(Arc<AtomicBool>);

impl Handover {
    /// Whether it has been.
    pub fn is_done(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// The body, watched: the connection asks for it once it has written the head. A body without bytes is never
    /// asked for, so it counts as handed over.
    pub(super) fn watch(self, body: Splice) -> Watched {
        self.0.store(body.is_empty(), Ordering::Relaxed);
        Watched { body, handover: self }
    }
}

/// A request's body that notices when it is sent.
pub(super) struct Watched {
    body: Splice,
    handover: Handover,
}

impl Body for Watched {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.handover.0.store(true, Ordering::Relaxed);
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    #[test]
    fn a_body_is_handed_over_when_it_is_asked_for() {
        let handover = Handover::default();
        let mut watched = handover.clone().watch(Splice::whole(Bytes::from_static(b"{}")));
        assert_eq!((watched.size_hint().exact(), watched.is_end_stream()), (Some(2), false));
        assert!(!handover.is_done());
        let polled = Pin::new(&mut watched).poll_frame(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(polled, Poll::Ready(Some(Ok(frame))) if frame.data_ref().unwrap() == "{}"));
        assert!(handover.is_done() && watched.is_end_stream());
        let empty = Handover::default();
        assert!(empty.clone().watch(Splice::empty()).is_end_stream() && empty.is_done());
    }
}
