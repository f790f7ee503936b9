//! The simulator as the relay meets it: over an in-memory connection.

mod behaviour;
mod chat_completions;
mod generate_content;
mod messages;
mod responses;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};

use super::connect;
use super::serve::SETTINGS_HEADER;

/// No waiting, three pieces.
const QUICK: &str = r#"{"latency_ms":0,"chunk_gap_ms":0,"chunks":3}"#;

struct Received {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

impl Received {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap()
    }

    /// The data of each event; an event's name must be its type.
    fn events(&self) -> Vec<Value> {
        let events = self.text.split_terminator("\n\n").map(|event| {
            let (name, data) = match event.strip_prefix("event: ") {
                Some(named) => named.split_once('\n').map(|(name, data)| (Some(name), data)).unwrap(),
                None => (None, event),
            };
            let data = data.strip_prefix("data: ").unwrap();
            let data = if data == "[DONE]" { json!(data) } else { serde_json::from_str(data).unwrap() };
            assert!(name.is_none() || data["type"] == name.unwrap(), "{event}");
            data
        });
        events.collect()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

struct Caller(SendRequest<Full<Bytes>>);

impl Caller {
    async fn new() -> Self {
        let (sender, connection) = handshake(TokioIo::new(connect())).await.unwrap();
        tokio::spawn(connection);
        Self(sender)
    }

    async fn send(&mut self, request: Request<Full<Bytes>>) -> Received {
        self.0.ready().await.unwrap();
        let (head, body) = self.0.send_request(request).await.unwrap().into_parts();
        let text = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        Received { status: head.status, headers: head.headers, text }
    }

    async fn post(&mut self, path: &str, settings: &str, body: &Value) -> Received {
        let request = Request::post(path).header(SETTINGS_HEADER, settings);
        self.send(request.body(Bytes::from(body.to_string()).into()).unwrap()).await
    }
}

async fn post(path: &str, body: &Value) -> Received {
    Caller::new().await.post(path, QUICK, body).await
}

/// A body with more fields, or other ones.
fn with(mut body: Value, fields: &Value) -> Value {
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    body
}

/// The hexadecimal part of an id.
fn hex(id: &Value, prefix: &str) -> String {
    let hex = id.as_str().unwrap().strip_prefix(prefix).unwrap();
    assert!(hex.len() == 16 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
    hex.to_owned()
}

fn types(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["type"].as_str().unwrap()).collect()
}

/// What echoing models answer to "hi", whole and in three pieces; six tokens.
const HEARD: &str = "The simulator heard: hi";
const PIECES: [&str; 3] = ["The sim", "ulator h", "eard: hi"];
