//! The load: a fixed number of calls over a fixed number of connections, each sending its next call when its
//! last one is answered.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::LocalSet;

use super::upstream;

/// Connections of the load that is measured in bulk.
pub const CONNECTIONS: usize = 32;

/// Where calls go, and with which key.
#[derive(Clone)]
pub struct Target {
    pub address: SocketAddr,
    pub key: String,
}

/// A bulk of equal calls.
#[derive(Clone)]
pub struct Load {
    pub calls: usize,
    pub connections: usize,
    pub body: Bytes,
}

impl Load {
    pub fn new(calls: usize, body: Bytes) -> Self {
        Self { calls, connections: CONNECTIONS, body }
    }

    pub fn over(self, connections: usize) -> Self {
        Self { connections, ..self }
    }
}

/// How it went.
pub struct Outcome {
    pub total: Duration,
    latencies: Vec<Duration>,
}

impl Outcome {
    /// The latency that `percent` of the calls did not exceed.
    pub fn percentile(&self, percent: usize) -> Duration {
        let at = (self.latencies.len() * percent / 100).min(self.latencies.len().saturating_sub(1));
        self.latencies.get(at).copied().unwrap_or_default()
    }
}

/// Sends every call of the load; each must be answered with 200 and a whole body.
pub async fn run(target: &Target, load: &Load) -> Result<Outcome> {
    let left = Rc::new(Cell::new(load.calls));
    let local = LocalSet::new();
    let start = Instant::now();
    let connections: Vec<_> = (0..load.connections)
        .map(|_| local.spawn_local(calls(target.clone(), load.body.clone(), Rc::clone(&left))))
        .collect();
    local.await;
    let total = start.elapsed();
    let mut latencies = Vec::with_capacity(load.calls);
    for connection in connections {
        latencies.extend(connection.await??);
    }
    latencies.sort_unstable();
    Ok(Outcome { total, latencies })
}

async fn calls(target: Target, body: Bytes, left: Rc<Cell<usize>>) -> Result<Vec<Duration>> {
    let mut sender = connect(target.address).await?;
    let mut latencies = Vec::new();
    while left.get() > 0 {
        left.set(left.get() - 1);
        let start = Instant::now();
        let mut reply = send(&mut sender, &target, body.clone()).await?;
        while let Some(frame) = reply.frame().await {
            frame?;
        }
        latencies.push(start.elapsed());
    }
    Ok(latencies)
}

async fn connect(address: SocketAddr) -> Result<SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

async fn send(sender: &mut SendRequest<Full<Bytes>>, target: &Target, body: Bytes) -> Result<Incoming> {
    sender.ready().await?;
    let request = Request::post("/v1/messages")
        .header("host", "relay")
        .header("content-type", "application/json")
        .header("anthropic-version", "2023-06-01")
        .header("user-agent", "relayd-bench/1")
        .header("x-api-key", target.key.as_str())
        .body(Full::new(body))?;
    let reply = sender.send_request(request).await?;
    ensure!(reply.status() == 200, "a call was answered with {}", reply.status());
    Ok(reply.into_body())
}

/// A stream that has begun and says nothing more, with its connection.
pub struct Held {
    _sender: SendRequest<Full<Bytes>>,
    _body: Incoming,
}

/// Opens streams that stay open.
pub async fn hold(target: &Target, streams: usize) -> Result<Vec<Held>> {
    let body = body(upstream::HOLD, 400);
    let mut held = Vec::with_capacity(streams);
    for _ in 0..streams {
        let mut sender = connect(target.address).await?;
        let mut reply = send(&mut sender, target, body.clone()).await?;
        reply.frame().await.context("a held stream ended")??;
        held.push(Held { _sender: sender, _body: reply });
    }
    Ok(held)
}

/// A chat of about so many bytes: prose, code, quotes, line ends and letters beyond ASCII, escaped as usual.
pub fn body(beginning: &str, bytes: usize) -> Bytes {
    const TURNS: [(&str, &str); 2] = [
        (
            "user",
            r#"Please look at this:\n\n```rust\nfn main() {\n\tprintln!(\"Gr\u00fc\u00dfe, {}\", \"Welt\");\n}\n```\n\nWhy does \"cargo build\" say `unused`? I have read C:\\src\\main.rs twice – no idea."#,
        ),
        (
            "assistant",
            r#"Let us see. The call `println!(\"...\")` is fine; what the compiler means is the line before it.\n\n1. Look at the path \/src\/main.rs.\n2. Run `cargo check 2>&1 | head -n 5`.\n\nDas wär's – das Ergebnis ist dann leer."#,
        ),
    ];
    let mut text = format!("{beginning}\"max_tokens\":1024,\"messages\":[");
    for (role, content) in TURNS.iter().cycle() {
        text.push_str(&format!("{{\"role\":\"{role}\",\"content\":\"{content}\"}},"));
        if text.len() >= bytes {
            break;
        }
    }
    text.push_str("{\"role\":\"user\",\"content\":\"And now?\"}]}");
    text.into()
}
