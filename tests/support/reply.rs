//! A scripted reply: steps that decide every byte, every write and every pause.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use serde_json::Value;
use shared::domain::Protocol;
use tokio::io::AsyncWriteExt;
use tokio::sync::watch;

use super::wire;

const STALL_MAX: Duration = Duration::from_secs(120);

/// One step of a reply.
#[derive(Clone)]
pub enum Step {
    /// Written and flushed by itself.
    Send(Bytes),
    Pause(Duration),
    /// Pauses, and is counted as being at work meanwhile.
    Work(Gauge, Duration),
    /// Waits until the test opens the gate.
    Wait(Gate),
    /// Says nothing until the peer goes away.
    Stall,
    /// Repeats the bytes until the peer goes away, at most so many times.
    Repeat(Bytes, usize),
    /// Ends the connection properly.
    Close,
    /// Ends the connection with a reset.
    Reset,
}

/// Holds replies back until it is opened; opening is once and for all.
#[derive(Clone)]
pub struct Gate(Arc<watch::Sender<bool>>);

impl Gate {
    pub fn closed() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }

    pub fn open(&self) {
        self.0.send_replace(true);
    }

    async fn passed(&self) {
        let _ = self.0.subscribe().wait_for(|open| *open).await;
    }
}

/// How many replies are at work at the same time. A reply is no longer when its next step begins, so that nobody can
/// have got it by then.
#[derive(Clone, Default)]
pub struct Gauge(Arc<(AtomicUsize, AtomicUsize)>);

impl Gauge {
    /// The most that there ever were.
    pub fn most(&self) -> usize {
        self.0.1.load(Ordering::SeqCst)
    }

    async fn work(&self, time: Duration) {
        struct Working<'a>(&'a AtomicUsize);
        impl Drop for Working<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::SeqCst);
            }
        }
        let (now, most) = &*self.0;
        most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        let _working = Working(now);
        tokio::time::sleep(time).await;
    }
}

/// A reply as a list of steps. A connection is kept alive when the steps end without `Close` or `Reset`.
#[derive(Clone, Default)]
pub struct Reply(Vec<Step>);

impl Reply {
    /// Steps and nothing else.
    pub fn raw(steps: Vec<Step>) -> Self {
        Self(steps)
    }

    /// A reply with a length.
    pub fn whole(status: u16, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Self {
        let body = body.into();
        let mut head = head(status, headers);
        head.extend_from_slice(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
        head.extend_from_slice(&body);
        Self(vec![Step::Send(head.freeze())])
    }

    pub fn json(status: u16, body: &Value) -> Self {
        Self::whole(status, &[("content-type", "application/json")], body.to_string())
    }

    /// An error in the protocol's own form.
    pub fn error(protocol: Protocol, status: u16, headers: &[(&str, &str)]) -> Self {
        let headers = [&[("content-type", "application/json")], headers].concat();
        let message = format!("scripted {status}");
        Self::whole(status, &headers, wire::error(protocol, status, &message).to_string())
    }

    /// A chunked body with a write of its own for each piece.
    pub fn stream(content_type: &str, pieces: impl IntoIterator<Item = Bytes>) -> Self {
        Self::open_stream(content_type).pieces(pieces).end()
    }

    /// The head of a chunked body.
    pub fn open_stream(content_type: &str) -> Self {
        let headers = [("content-type", content_type), ("transfer-encoding", "chunked")];
        let mut head = head(200, &headers);
        head.extend_from_slice(b"\r\n");
        Self(vec![Step::Send(head.freeze())])
    }

    pub fn pieces(mut self, pieces: impl IntoIterator<Item = Bytes>) -> Self {
        let pieces = pieces.into_iter().filter(|piece| !piece.is_empty());
        self.0.extend(pieces.map(|piece| Step::Send(chunk(&piece))));
        self
    }

    pub fn then(mut self, step: Step) -> Self {
        self.0.push(step);
        self
    }

    /// A pause before every write but the first.
    pub fn with_gaps(self, gap: Duration) -> Self {
        let mut steps = Vec::with_capacity(self.0.len() * 2);
        for (at, step) in self.0.into_iter().enumerate() {
            if at > 0 && matches!(step, Step::Send(_)) {
                steps.push(Step::Pause(gap));
            }
            steps.push(step);
        }
        Self(steps)
    }

    /// A step before all others.
    pub fn after(mut self, step: Step) -> Self {
        self.0.insert(0, step);
        self
    }

    /// The last chunk.
    pub fn end(self) -> Self {
        self.then(Step::Send(Bytes::from_static(b"0\r\n\r\n")))
    }
}

fn head(status: u16, headers: &[(&str, &str)]) -> BytesMut {
    let mut head = format!("HTTP/1.1 {status} Scripted\r\nx-request-id: req_upstream\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.as_bytes().into()
}

fn chunk(piece: &[u8]) -> Bytes {
    let mut framed = format!("{:x}\r\n", piece.len()).into_bytes();
    framed.extend_from_slice(piece);
    framed.extend_from_slice(b"\r\n");
    framed.into()
}

/// Cuts bytes at the given positions.
pub fn cut(bytes: &Bytes, positions: &[usize]) -> Vec<Bytes> {
    let ends = positions.iter().copied().chain([bytes.len()]);
    let starts = [0].into_iter().chain(positions.iter().copied());
    starts.zip(ends).map(|(start, end)| bytes.slice(start..end)).collect()
}

/// How the steps ended, and what becomes of the connection.
pub enum End {
    KeepAlive,
    Close,
    Reset,
    PeerGone,
}

/// Takes the steps one after the other.
pub async fn perform(reply: Reply, writer: &mut (impl AsyncWriteExt + Unpin)) -> io::Result<End> {
    for step in reply.0 {
        match step {
            Step::Send(bytes) => writer.write_all(&bytes).await?,
            Step::Pause(time) => tokio::time::sleep(time).await,
            Step::Work(gauge, time) => gauge.work(time).await,
            Step::Wait(gate) => gate.passed().await,
            Step::Stall => tokio::time::sleep(STALL_MAX).await,
            Step::Repeat(bytes, times) => {
                for _ in 0..times {
                    writer.write_all(&bytes).await?;
                }
            }
            Step::Close => return Ok(End::Close),
            Step::Reset => return Ok(End::Reset),
        }
    }
    Ok(End::KeepAlive)
}
