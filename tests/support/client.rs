//! Clients of the relay: calls in each protocol over pooled connections, and raw bytes over a plain socket.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{HeaderMap, Method, Request};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use shared::domain::Protocol;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// No call of a test takes longer, whatever is broken.
pub const CALL_MAX: Duration = Duration::from_secs(90);

/// A call for an answer from a model.
#[derive(Clone, Debug)]
pub struct Call {
    pub protocol: Protocol,
    pub model: String,
    pub stream: bool,
    pub prompt: String,
    pub with_tool: bool,
    pub include_usage: bool,
}

impl Call {
    pub fn new(protocol: Protocol, model: impl Into<String>) -> Self {
        let prompt = "What is up?".to_owned();
        let model = model.into();
        Self { protocol, model, stream: false, prompt, with_tool: false, include_usage: false }
    }

    pub fn streamed(self) -> Self {
        Self { stream: true, ..self }
    }

    pub fn prompt(self, prompt: impl Into<String>) -> Self {
        Self { prompt: prompt.into(), ..self }
    }

    pub fn path(&self) -> String {
        match (self.protocol, self.stream) {
            (Protocol::Messages, _) => "/v1/messages".to_owned(),
            (Protocol::ChatCompletions, _) => "/v1/chat/completions".to_owned(),
            (Protocol::Responses, _) => "/v1/responses".to_owned(),
            (Protocol::GenerateContent, false) => format!("/v1beta/models/{}:generateContent", self.model),
            (Protocol::GenerateContent, true) => {
                format!("/v1beta/models/{}:streamGenerateContent?alt=sse", self.model)
            }
        }
    }

    pub fn body(&self) -> Bytes {
        let message = json!({"role": "user", "content": self.prompt});
        let mut body = match self.protocol {
            Protocol::Messages => json!({"model": self.model, "max_tokens": 64, "messages": [message]}),
            Protocol::ChatCompletions => json!({"model": self.model, "messages": [message]}),
            Protocol::Responses => json!({"model": self.model, "input": self.prompt}),
            Protocol::GenerateContent => {
                json!({"contents": [{"role": "user", "parts": [{"text": self.prompt}]}]})
            }
        };
        if self.stream && self.protocol != Protocol::GenerateContent {
            body["stream"] = json!(true);
        }
        if self.include_usage {
            body["stream_options"] = json!({"include_usage": true});
        }
        if self.with_tool {
            body["tools"] = json!([{"type": "function", "function": {"name": "get_weather"}}]);
        }
        body.to_string().into()
    }
}

/// A reply with its whole body.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// The body ended with an error of the connection.
    pub is_broken: bool,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Panics unless the status is the given one; shows the body then.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text());
        self
    }

    /// The error's message in whichever protocol; panics when the body has not that protocol's shape.
    #[track_caller]
    pub fn error_message(&self, protocol: Protocol) -> String {
        let body = self.json();
        let error = &body["error"];
        let fits = match protocol {
            Protocol::Messages => body["type"] == "error" && error["type"].is_string(),
            Protocol::ChatCompletions | Protocol::Responses => {
                error["type"].is_string() && error.get("param").is_some() && error.get("code").is_some()
            }
            Protocol::GenerateContent => {
                error["code"].as_u64() == Some(self.status.into()) && error["status"].is_string()
            }
        };
        assert!(fits, "not an error of {}: {body}", protocol.name());
        error["message"].as_str().unwrap_or_else(|| panic!("no message: {body}")).to_owned()
    }
}

/// A reply whose body is still to be read.
pub struct Open {
    pub status: u16,
    pub headers: HeaderMap,
    body: Incoming,
}

impl Open {
    /// The next bytes; `None` at the end.
    pub async fn next(&mut self) -> Option<Result<Bytes, hyper::Error>> {
        loop {
            let frame = tokio::time::timeout(CALL_MAX, self.body.frame()).await.expect("a silent body")?;
            match frame.map(|frame| frame.into_data()) {
                Ok(Ok(data)) => return Some(Ok(data)),
                Ok(Err(_trailers)) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// Reads on until the bytes have gone by; panics if the body ends before.
    pub async fn read_past(&mut self, mark: &[u8]) -> Bytes {
        let mut read = BytesMut::new();
        while !read.windows(mark.len()).any(|window| window == mark) {
            read.extend_from_slice(&self.next().await.expect("the body ended").unwrap());
        }
        read.freeze()
    }

    pub async fn rest(mut self) -> Answer {
        let (mut body, mut is_broken) = (BytesMut::new(), false);
        while let Some(data) = self.next().await {
            match data {
                Ok(data) => body.extend_from_slice(&data),
                Err(_) => is_broken = true,
            }
        }
        Answer { status: self.status, headers: self.headers, body: body.freeze(), is_broken }
    }
}

/// A client with a key and a connection pool.
#[derive(Clone)]
pub struct Client {
    http: legacy::Client<HttpConnector, Full<Bytes>>,
    address: SocketAddr,
    key: String,
}

impl Client {
    pub fn new(address: SocketAddr, key: &str) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let http = legacy::Client::builder(TokioExecutor::new()).build(connector);
        Self { http, address, key: key.to_owned() }
    }

    /// A request with the key as a Bearer token.
    pub fn request(&self, method: Method, path: &str) -> hyper::http::request::Builder {
        let request = Request::builder().method(method).uri(format!("http://{}{path}", self.address));
        request.header("authorization", format!("Bearer {}", self.key))
    }

    pub async fn try_send(&self, request: Request<Full<Bytes>>) -> Result<Open, legacy::Error> {
        let reply = tokio::time::timeout(CALL_MAX, self.http.request(request)).await.expect("no reply");
        let (head, body) = reply?.into_parts();
        Ok(Open { status: head.status.as_u16(), headers: head.headers, body })
    }

    pub async fn send(&self, request: Request<Full<Bytes>>) -> Open {
        self.try_send(request).await.unwrap()
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path).body(Full::default()).unwrap()).await.rest().await
    }

    pub async fn post(&self, path: &str, body: impl Into<Bytes>) -> Answer {
        self.open_post(path, body).await.rest().await
    }

    pub async fn open_post(&self, path: &str, body: impl Into<Bytes>) -> Open {
        let request = self.request(Method::POST, path).header("content-type", "application/json");
        self.send(request.body(Full::new(body.into())).unwrap()).await
    }

    pub async fn try_open(&self, call: &Call) -> Result<Open, legacy::Error> {
        let request = self.request(Method::POST, &call.path()).header("content-type", "application/json");
        self.try_send(request.body(Full::new(call.body())).unwrap()).await
    }

    pub async fn open(&self, call: &Call) -> Open {
        self.try_open(call).await.unwrap()
    }

    pub async fn call(&self, call: &Call) -> Answer {
        self.open(call).await.rest().await
    }
}

/// A plain connection: for what no HTTP library would send.
pub struct Raw(TcpStream);

impl Raw {
    pub async fn connect(address: SocketAddr) -> Self {
        Self(TcpStream::connect(address).await.unwrap())
    }

    /// Sends bytes; the peer may have closed already, which the reply tells.
    pub async fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.0.write_all(bytes).await
    }

    /// Whether nothing came that was not read.
    pub fn is_silent(&self) -> bool {
        let read = self.0.try_read(&mut [0]);
        read.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    }

    /// Sends pieces until the peer answers or hangs up; gives the head of its answer. Whoever reads only after having
    /// sent everything may find the answer gone, taken along by the reset.
    pub async fn send_until_answered(&mut self, pieces: impl IntoIterator<Item = &[u8]>) -> String {
        let (mut reader, mut writer) = self.0.split();
        let send = async {
            for piece in pieces {
                if writer.write_all(piece).await.is_err() {
                    break;
                }
            }
            std::future::pending::<()>().await;
        };
        let mut head = Vec::new();
        let read = async {
            while !head.windows(4).any(|window| window == b"\r\n\r\n") {
                if !matches!(reader.read_buf(&mut head).await, Ok(1..)) {
                    break;
                }
            }
        };
        let answered = async {
            tokio::select! {
                () = send => {}
                () = read => {}
            }
        };
        tokio::time::timeout(CALL_MAX, answered).await.expect("no answer");
        String::from_utf8_lossy(&head).into_owned()
    }

    /// Everything until the peer closes, or an error of the connection.
    pub async fn read_to_end(&mut self) -> String {
        let mut bytes = Vec::new();
        let read = self.0.read_to_end(&mut bytes);
        // A reset after the reply is as good as a close.
        let _ = tokio::time::timeout(CALL_MAX, read).await.expect("the connection was not closed");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Reads until the head of a reply has ended; returns what came, at most at the end of the connection.
    pub async fn read_head(&mut self) -> String {
        self.read_until(|bytes| bytes.windows(4).any(|window| window == b"\r\n\r\n")).await
    }

    /// Reads a reply with its body.
    pub async fn read_reply(&mut self) -> String {
        self.read_until(is_whole).await
    }

    async fn read_until(&mut self, is_enough: impl Fn(&[u8]) -> bool) -> String {
        let mut bytes = Vec::new();
        let read = async {
            while !is_enough(&bytes) {
                if !matches!(self.0.read_buf(&mut bytes).await, Ok(1..)) {
                    break;
                }
            }
        };
        tokio::time::timeout(CALL_MAX, read).await.expect("no reply");
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// Whether a reply is whole, as its head tells its length.
fn is_whole(reply: &[u8]) -> bool {
    let text = String::from_utf8_lossy(reply);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    body.len() >= length.map_or(0, |length| length.parse().unwrap())
}

/// The status in the first line of a raw reply; zero when there is none.
pub fn status_of(reply: &str) -> u16 {
    reply.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
}
