//! Calls that take long: their answers come in lines that tell how far they are.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame};
use serde::Serialize;
use shared::progress::{Line, LongCall, Progress};
use tokio::sync::mpsc;

use super::{Admin, AdminError, Invalid, told};

/// Lines that may wait for the caller to read them; of more, those that only tell of progress are left out.
const LINES_MAX: usize = 16;

/// Tells a caller how far its call is.
#[derive(Clone)]
pub(super) struct Teller(mpsc::Sender<Bytes>);

impl Teller {
    /// Tells it, unless the caller is slow to listen. Gives whether it listens at all.
    pub(super) fn tell(&self, progress: Progress) -> bool {
        // What does not fit is not missed: only the last line waits for its turn.
        drop(self.0.try_send(line(&Line::<()>::Progress(progress))));
        !self.0.is_closed()
    }
}

impl Admin {
    /// Makes a call as a task of its own, which does not end with its caller, and gives its answer line by line.
    pub(super) fn in_lines<C: LongCall + 'static, F>(
        self: &Arc<Self>,
        body: &[u8],
        make: impl FnOnce(C, Teller) -> F + Send + 'static,
    ) -> Result<Lines, AdminError>
    where
        F: Future<Output = Result<C::Reply, AdminError>> + Send + 'static,
    {
        let call: C = serde_json::from_slice(body).map_err(Invalid::Json)?;
        let (sender, lines) = mpsc::channel(LINES_MAX);
        self.tasks.spawn(async move {
            let last = match make(call, Teller(sender.clone())).await {
                Ok(reply) => Line::Reply(reply),
                Err(error) => Line::Problem(told(C::PATH, &error)),
            };
            // The caller may have gone.
            drop(sender.send(line(&last)).await);
        });
        Ok(Lines(lines))
    }
}

fn line<R: Serialize>(line: &Line<R>) -> Bytes {
    let mut json = serde_json::to_vec(line).unwrap_or_default();
    json.push(b'\n');
    json.into()
}

/// An answer in lines.
pub(super) struct Lines(mpsc::Receiver<Bytes>);

impl Body for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|line| line.map(|line| Ok(Frame::data(line))))
    }
}
