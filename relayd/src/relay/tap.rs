//! Forwards an upstream's reply frame by frame while the reader looks at the same bytes. It adds to a reply in
//! one case only: a stream that broke off is ended by an error of its protocol, never by silence.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use shared::domain::Protocol;
use tokio::time::{Instant, Sleep};

use super::ReplyError;
use super::account::Origin;
use super::settlement::Settlement;
use crate::protocol::{ReplyForm, UsageChunkFilter, truncation_event};
use crate::store::End;

/// A reply on its way to the client.
pub struct Tap {
    body: Incoming,
    /// Pieces that were read ahead, and what the filter lets through.
    ready: VecDeque<Bytes>,
    filter: Option<UsageChunkFilter>,
    protocol: Protocol,
    form: ReplyForm,
    idle: IdleClock,
    state: State,
    /// Until the account has been told how the reply ended.
    origin: Option<Origin>,
    settlement: Settlement,
}

enum State {
    Streaming,
    /// Told the client in band; the connection is to be broken once that is flushed.
    Breaking(ReplyError),
    Ended,
}

/// What a tap is made of.
pub(super) struct Source {
    pub(super) body: Incoming,
    /// Pieces of the body that were read, and looked at, while the head was held.
    pub(super) held: Vec<Bytes>,
    pub(super) filter: Option<UsageChunkFilter>,
    pub(super) protocol: Protocol,
    pub(super) form: ReplyForm,
    pub(super) idle_timeout: Duration,
}

impl Tap {
    pub(super) fn new(source: Source, origin: Origin, settlement: Settlement) -> Self {
        let Source { body, held, filter, protocol, form, idle_timeout } = source;
        let mut tap = Self {
            body,
            ready: VecDeque::with_capacity(held.len()),
            filter,
            protocol,
            form,
            idle: IdleClock::new(idle_timeout),
            state: State::Streaming,
            origin: Some(origin),
            settlement,
        };
        held.into_iter().for_each(|piece| tap.forward(piece));
        if tap.body.is_end_stream() {
            tap.finish(None);
        }
        tap
    }

    fn forward(&mut self, piece: Bytes) {
        match &mut self.filter {
            Some(filter) => {
                filter.push(&piece);
                self.ready.extend(std::iter::from_fn(|| filter.pop()));
            }
            None => self.ready.push_back(piece),
        }
    }

    /// The upstream's side is over: well, or by a failure.
    fn finish(&mut self, failure: Option<ReplyError>) {
        if let Some(filter) = &mut self.filter {
            filter.finish();
            self.ready.extend(std::iter::from_fn(|| filter.pop()));
        }
        let mut failure = failure;
        let mut is_told = false;
        let mut is_plain = true;
        if let Some(reader) = self.settlement.reader() {
            reader.finish();
            is_told = reader.reading().error.is_some();
            is_plain = reader.is_plain();
            let may_break_off = self.form != ReplyForm::Json && is_plain && !is_told;
            if failure.is_none() && may_break_off && !reader.reading().terminal {
                failure = Some(ReplyError::Truncated);
            }
        }
        self.settlement.ended(if failure.is_some() || is_told { End::Truncated } else { End::Complete });
        self.tell_account(failure.as_ref());
        let Some(failure) = failure else {
            self.state = State::Ended;
            return;
        };
        let event = truncation_event(self.protocol, self.form);
        if is_plain && !is_told && !event.is_empty() {
            self.ready.push_back(event);
        }
        self.state = State::Breaking(failure);
    }

    /// What the reply says of itself comes before how its connection ended.
    fn tell_account(&mut self, failure: Option<&ReplyError>) {
        let Some(origin) = self.origin.take() else { return };
        let reading = self.settlement.reader().map(|reader| reader.reading());
        match (reading.filter(|reading| reading.error.is_some()), failure) {
            (Some(reading), _) => origin.erred(reading),
            (None, Some(failure)) => origin.broke_off(failure),
            (None, None) => origin.served(),
        }
    }

    /// Whether the upstream has nothing more to tell.
    pub(super) fn is_over(&self) -> bool {
        self.settlement.has_told() || !matches!(self.state, State::Streaming)
    }

    /// Tokens of the answer that came so far, as far as a stream tells before its end.
    pub(super) fn answer_tokens(&self) -> u64 {
        self.settlement.answer_tokens(self.protocol)
    }

    /// The client leaves, and the reply is read on.
    pub(super) fn leave(&self) {
        self.settlement.leave();
    }

    fn poll_upstream(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
            ready!(self.idle.poll_expired(cx));
            self.finish(Some(ReplyError::Stalled));
            return Poll::Ready(None);
        };
        self.idle.restart();
        let data = match frame {
            None => {
                self.finish(None);
                return Poll::Ready(None);
            }
            Some(Err(error)) => {
                self.finish(Some(ReplyError::Broken(error)));
                return Poll::Ready(None);
            }
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => data,
                // They belong to the hop. Passed on, they would be the last that the server asks for.
                Err(_trailers) => {
                    self.finish(None);
                    return Poll::Ready(None);
                }
            },
        };
        if let Some(reader) = self.settlement.reader() {
            reader.feed(&data);
        }
        // A body of known length is not polled again after its last byte.
        let is_last = self.body.is_end_stream();
        if self.filter.is_none() && !is_last {
            return Poll::Ready(Some(data));
        }
        self.forward(data);
        if is_last {
            self.finish(None);
        }
        Poll::Ready(None)
    }
}

impl Drop for Tap {
    /// A client that leaves is nothing to the account; that the reply had ended or failed before is.
    fn drop(&mut self) {
        let reading = self.settlement.reader().map(|reader| reader.reading());
        if reading.is_some_and(|reading| reading.terminal || reading.error.is_some()) {
            self.tell_account(None);
        }
    }
}

impl Body for Tap {
    type Data = Bytes;
    type Error = ReplyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ReplyError>>> {
        let tap = self.get_mut();
        loop {
            if let Some(piece) = tap.ready.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            match std::mem::replace(&mut tap.state, State::Ended) {
                State::Ended => return Poll::Ready(None),
                State::Breaking(failure) => return tap.break_off(failure, cx),
                State::Streaming => tap.state = State::Streaming,
            }
            if let Some(data) = ready!(tap.poll_upstream(cx)) {
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.state, State::Ended) && self.ready.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.filter, &self.state) {
            (None, State::Streaming) if self.ready.is_empty() => self.body.size_hint(),
            _ => SizeHint::default(),
        }
    }
}

impl Tap {
    /// The server flushes what it has when a body pauses, and drops it when a body fails: so pause once.
    fn break_off(
        &mut self,
        failure: ReplyError,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ReplyError>>> {
        if self.idle.has_paused() {
            return Poll::Ready(Some(Err(failure)));
        }
        self.idle.pause();
        self.state = State::Breaking(failure);
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Runs only while the upstream is being waited for: a client that does not read is not the upstream's fault.
/// The timer is set once and set again when it fires too early, so that a chunk costs no timer operation.
struct IdleClock {
    timeout: Duration,
    deadline: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
    paused: bool,
}

impl IdleClock {
    const fn new(timeout: Duration) -> Self {
        Self { timeout, deadline: None, timer: None, paused: false }
    }

    const fn restart(&mut self) {
        self.deadline = None;
    }

    fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = *self.deadline.get_or_insert_with(|| Instant::now() + self.timeout);
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        loop {
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() >= deadline {
                return Poll::Ready(());
            }
            timer.as_mut().reset(deadline);
        }
    }

    const fn has_paused(&self) -> bool {
        self.paused
    }

    const fn pause(&mut self) {
        self.paused = true;
    }
}
