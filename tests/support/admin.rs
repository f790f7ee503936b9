//! Calls of the admin API over the daemon's socket, and short forms of those that most tests make.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper_util::rt::TokioIo;
use shared::admin::{AddAccount, AdminCall, CreateKey, Problem};
use shared::domain::AccountKind;
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
    let stream = UnixStream::connect(socket).await.map_err(lost)?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(lost)?;
    tokio::spawn(connection);
    let request = Request::post(C::PATH).header("host", "relayd").header("content-type", "application/json");
    let body = Full::new(Bytes::from(serde_json::to_vec(call).unwrap()));
    let reply = sender.send_request(request.body(body).unwrap()).await.map_err(lost)?;
    let status = reply.status();
    let body = reply.into_body().collect().await.map_err(lost)?.to_bytes();
    if status.is_success() {
        return Ok(read(&body));
    }
    Err(CallError::Problem(read(&body)))
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
