//! Calls of the admin API over the daemon's socket, and short forms of those that most tests make.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use shared::admin::{AddAccount, AdminCall, CreateKey, Problem};
use shared::domain::{AccountKind, Limit};
use shared::progress::{Line, LongCall, Progress};
use shared::redact::Secret;
use tokio::net::UnixStream;

/// Why an admin call has no reply.
pub enum CallError {
    /// The daemon refused it.
    Problem(Problem),
    /// The socket does not answer.
    Connection(String),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Problem(problem) => write!(f, "{problem} ({:?})", problem.code),
            Self::Connection(error) => write!(f, "the admin socket does not answer: {error}"),
        }
    }
}

fn lost(error: impl fmt::Display) -> CallError {
    CallError::Connection(error.to_string())
}

/// Makes one call on a connection of its own.
pub async fn call<C: AdminCall>(socket: &Path, call: &C) -> Result<C::Reply, CallError> {
    let reply = send(socket, call).await?;
    let status = reply.status();
    let body = reply.into_body().collect().await.map_err(lost)?.to_bytes();
    if status.is_success() {
        return Ok(read(&body));
    }
    Err(CallError::Problem(read(&body)))
}

/// Makes one call that takes long, and hears how far it is.
pub async fn call_long<C: LongCall>(
    socket: &Path,
    call: &C,
    mut hear: impl FnMut(Progress),
) -> Result<C::Reply, CallError> {
    let reply = send(socket, call).await?;
    let is_success = reply.status().is_success();
    let (mut body, mut unread) = (reply.into_body(), Vec::new());
    while let Some(frame) = body.frame().await {
        unread.extend_from_slice(frame.map_err(lost)?.data_ref().map_or(&[][..], Bytes::as_ref));
        while let Some(end) = unread.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = unread.drain(..=end).collect();
            match read(&line) {
                Line::Progress(progress) => hear(progress),
                Line::Reply(reply) => return Ok(reply),
                Line::Problem(problem) => return Err(CallError::Problem(problem)),
            }
        }
    }
    if is_success { Err(lost("it broke off")) } else { Err(CallError::Problem(read(&unread))) }
}

async fn send<C: AdminCall>(socket: &Path, call: &C) -> Result<Response<Incoming>, CallError> {
    post(socket, C::PATH, serde_json::to_vec(call).unwrap().into()).await
}

async fn post(socket: &Path, path: &str, body: Bytes) -> Result<Response<Incoming>, CallError> {
    let stream = UnixStream::connect(socket).await.map_err(lost)?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(lost)?;
    tokio::spawn(connection);
    let request = Request::post(path).header("host", "relayd").header("content-type", "application/json");
    sender.send_request(request.body(Full::new(body)).unwrap()).await.map_err(lost)
}

/// POSTs something that may be no call, and gives what is answered.
pub async fn post_raw(socket: &Path, path: &str, call: &Value) -> Value {
    let reply = post(socket, path, call.to_string().into()).await.unwrap_or_else(|error| panic!("{error}"));
    read(&reply.into_body().collect().await.unwrap().to_bytes())
}

fn read<T: serde::de::DeserializeOwned>(body: &[u8]) -> T {
    serde_json::from_slice(body).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(body)))
}

/// The credential of an account: Anthropic's own keys begin with `sk-ant-` and are sent in their own header.
pub fn secret(kind: AccountKind, name: &str) -> String {
    let prefix = if kind == AccountKind::ClaudeConsole { "sk-ant-" } else { "sk-" };
    format!("{prefix}upstream-{name}")
}

/// An account as most tests add it.
pub fn account(kind: AccountKind, name: &str, base_url: &str) -> AddAccount {
    AddAccount {
        name: name.to_owned(),
        kind,
        base_url: (kind != AccountKind::Simulator).then(|| base_url.to_owned()),
        secret: kind.needs_secret().then(|| Secret::new(secret(kind, name))),
        api_version: None,
        models: Vec::new(),
        model_map: BTreeMap::new(),
        price_as: None,
        priority: None,
        weight: None,
        headers: BTreeMap::new(),
        limits: Vec::new(),
        gap_ms: 0,
        simulator: None,
    }
}

/// A key as most tests create it.
pub fn key(name: &str) -> CreateKey {
    CreateKey { name: name.to_owned(), ..CreateKey::default() }
}

/// Limits as operators write them.
pub fn limits(texts: &[&str]) -> Vec<Limit> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// A key with limits.
pub fn limited(name: &str, texts: &[&str]) -> CreateKey {
    CreateKey { limits: limits(texts), ..key(name) }
}
