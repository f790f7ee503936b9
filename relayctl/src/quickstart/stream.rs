//! One streaming request through the relay's front door, as a client would send it, and its reply read piece
//! by piece. All four protocols frame their streams as server-sent events.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use shared::domain::RequestId;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::failure::Failure;

const CONNECT_WITHIN: Duration = Duration::from_secs(5);
const HEAD_WITHIN: Duration = Duration::from_secs(180);
const IDLE_MAX: Duration = Duration::from_secs(120);
const ERROR_BYTES_MAX: usize = 64 << 10;
const LINE_BYTES_MAX: usize = 1 << 20;
const REQUEST_ID: &str = "x-relay-request-id";

/// Why the request has no complete reply.
#[derive(Debug, thiserror::Error)]
pub(super) enum StreamError {
    #[error("cannot connect to {0}")]
    Connect(SocketAddr, #[source] io::Error),
    #[error("{0} did not come in time")]
    TooLate(&'static str),
    #[error("the connection broke")]
    BrokenOff(#[from] hyper::Error),
    #[error("status {status}: {message}")]
    Refused { status: StatusCode, message: String },
    #[error("the reply broke off with an error: {0}")]
    FailedMidway(String),
    #[error("the reply ended before it was complete")]
    EndedEarly,
    #[error("a line of the reply is longer than {} MiB", LINE_BYTES_MAX >> 20)]
    LineTooLong,
    #[error("the request cannot be written")]
    Request(#[from] hyper::http::Error),
    #[error(transparent)]
    Show(Failure),
}

/// A complete reply.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) request: Option<RequestId>,
    pub(super) text: String,
}

/// Sends the request and hands each piece of the answer's text to `show` as it arrives.
pub(super) async fn send(
    relay: SocketAddr,
    key: &str,
    (path, body): (String, Value),
    mut show: impl FnMut(&str) -> Result<(), Failure>,
) -> Result<Reply, StreamError> {
    let reply = head(relay, key, &path, body.to_string().into()).await?;
    let id = reply.headers().get(REQUEST_ID).and_then(|id| id.to_str().ok()?.parse().ok());
    if !reply.status().is_success() {
        return Err(refusal(reply).await);
    }
    let (mut text, mut lines, mut is_complete) = (String::new(), Lines::default(), false);
    let mut body = reply.into_body();
    while let Some(frame) = next(body.frame()).await? {
        let Ok(data) = frame?.into_data() else { continue };
        for line in lines.feed(&data)? {
            match read_line(&line) {
                Piece::Text(piece) => {
                    show(&piece).map_err(StreamError::Show)?;
                    text.push_str(&piece);
                }
                Piece::LastText(piece) => {
                    show(&piece).map_err(StreamError::Show)?;
                    text.push_str(&piece);
                    is_complete = true;
                }
                Piece::Error(message) => return Err(StreamError::FailedMidway(message)),
                Piece::Nothing => {}
            }
        }
    }
    if is_complete { Ok(Reply { request: id, text }) } else { Err(StreamError::EndedEarly) }
}

async fn next<T>(frame: impl Future<Output = T>) -> Result<T, StreamError> {
    timeout(IDLE_MAX, frame).await.map_err(|_| StreamError::TooLate("the next piece of the reply"))
}

async fn head(
    relay: SocketAddr,
    key: &str,
    path: &str,
    body: Bytes,
) -> Result<Response<Incoming>, StreamError> {
    let connected = timeout(CONNECT_WITHIN, TcpStream::connect(relay)).await;
    let connected = connected.map_err(|_| StreamError::TooLate("the connection"))?;
    let stream = connected.map_err(|error| StreamError::Connect(relay, error))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // It ends by itself once the reply is read or dropped; its errors reach the reply too.
    tokio::spawn(connection);
    let request = Request::post(path)
        .header(header::HOST, relay.to_string())
        .header(header::AUTHORIZATION, format!("Bearer {key}"))
        .header(header::CONTENT_TYPE, "application/json")
        .header("anthropic-version", "2023-06-01")
        .body(Full::new(body))?;
    let reply = timeout(HEAD_WITHIN, sender.send_request(request)).await;
    Ok(reply.map_err(|_| StreamError::TooLate("the reply"))??)
}

/// The message of an error reply; every protocol has it under `error.message`.
async fn refusal(reply: Response<Incoming>) -> StreamError {
    let status = reply.status();
    let body = timeout(IDLE_MAX, Limited::new(reply.into_body(), ERROR_BYTES_MAX).collect()).await;
    let json = match body {
        Ok(Ok(body)) => serde_json::from_slice(&body.to_bytes()).unwrap_or(Value::Null),
        _ => Value::Null,
    };
    StreamError::Refused { status, message: message(&json["error"]) }
}

fn message(error: &Value) -> String {
    let text = error["message"].as_str().or_else(|| error.as_str());
    text.unwrap_or("the reply says no more").to_owned()
}

/// Cuts bytes into lines, wherever they were cut before.
#[derive(Default)]
struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    fn feed(&mut self, data: &[u8]) -> Result<Vec<Vec<u8>>, StreamError> {
        let mut complete = Vec::new();
        for piece in data.split_inclusive(|&byte| byte == b'\n') {
            if self.partial.len() + piece.len() > LINE_BYTES_MAX {
                return Err(StreamError::LineTooLong);
            }
            self.partial.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                complete.push(std::mem::take(&mut self.partial));
            }
        }
        Ok(complete)
    }
}

/// What a line of the stream brings.
#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Nothing,
    Text(String),
    /// Some text, perhaps none, and the word that the answer is complete.
    LastText(String),
    Error(String),
}

fn read_line(line: &[u8]) -> Piece {
    let Some(data) = line.strip_prefix(b"data:") else { return Piece::Nothing };
    let data = data.trim_ascii();
    if data == b"[DONE]" {
        return Piece::LastText(String::new());
    }
    let Ok(event) = serde_json::from_slice::<Value>(data) else { return Piece::Nothing };
    if event["error"].is_object() {
        return Piece::Error(message(&event["error"]));
    }
    let candidate = &event["candidates"][0];
    let text = [&event["delta"]["text"], &event["choices"][0]["delta"]["content"]];
    let mut text: String = text.into_iter().filter_map(Value::as_str).collect();
    let parts = candidate["content"]["parts"].as_array().map(Vec::as_slice).unwrap_or_default();
    text.extend(parts.iter().filter_map(|part| part["text"].as_str()));
    match event["type"] == "message_stop" || candidate["finishReason"].is_string() {
        true => Piece::LastText(text),
        false if text.is_empty() => Piece::Nothing,
        false => Piece::Text(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_every_protocol_is_found() {
        let text = |text: &str| Piece::Text(text.to_owned());
        let last = |text: &str| Piece::LastText(text.to_owned());
        for (line, expected) in [
            ("event: content_block_delta", Piece::Nothing),
            (": ping", Piece::Nothing),
            ("", Piece::Nothing),
            ("data: {broken", Piece::Nothing),
            ("data: 7", Piece::Nothing),
            (r#"data: {"type":"content_block_delta","delta":{"type":"text_delta","text":"Hi"}}"#, text("Hi")),
            (r#"data: {"type":"message_stop"}"#, last("")),
            (r#"data:{"choices":[{"delta":{"content":"Hi"}}]}"#, text("Hi")),
            ("data: [DONE]\r\n", last("")),
            (r#"data: {"candidates":[{"content":{"parts":[{"text":"H"},{"text":"i"}]}}]}"#, text("Hi")),
            (
                r#"data: {"candidates":[{"finishReason":"STOP","content":{"parts":[{"text":"."}]}}]}"#,
                last("."),
            ),
            (r#"data: {"type":"error","error":{"message":"busy"}}"#, Piece::Error("busy".to_owned())),
        ] {
            assert_eq!(read_line(line.as_bytes()), expected, "{line}");
        }
    }

    #[test]
    fn lines_are_found_wherever_they_are_cut() {
        let whole = "data: a\r\n\r\ndata: é\nrest".as_bytes();
        for cut in 0..=whole.len() {
            let mut lines = Lines::default();
            let mut found = lines.feed(&whole[..cut]).unwrap();
            found.extend(lines.feed(&whole[cut..]).unwrap());
            assert_eq!(found, ["data: a\r\n".as_bytes(), b"\r\n", "data: é\n".as_bytes()], "cut at {cut}");
        }
    }

    #[test]
    fn an_endless_line_is_given_up() {
        let mut lines = Lines::default();
        let piece = vec![b'x'; LINE_BYTES_MAX];
        assert!(lines.feed(&piece).is_ok());
        assert!(matches!(lines.feed(b"x"), Err(StreamError::LineTooLong)));
    }
}
