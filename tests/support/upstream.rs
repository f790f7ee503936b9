//! The scripted upstream: a server of raw HTTP/1.1 on a thread of its own, so that a test decides every byte
//! and every pause of a reply, also such that no HTTP library would send. The first segment of a path names
//! the account that called; the rest is the vendor's own path.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use serde_json::{Value, json};
use shared::domain::Protocol;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::OwnedReadHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};

use super::wire::{self, Content};

const STALL_MAX: Duration = Duration::from_secs(120);

/// A request as the upstream received it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The first segment of the path.
    pub account: String,
    pub method: String,
    /// The path after the account's segment, percent signs and all.
    pub path: String,
    pub query: Option<String>,
    /// Names in lower case, in the order of arrival.
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
}

/// What a request asks for, judged by its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    Generate(Protocol),
    CountTokens(Protocol),
    Embed(Protocol),
    Models,
    Other,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    pub fn ask(&self) -> Ask {
        let method_of_model = self.path.rsplit_once(':').map(|(_, method)| method);
        match self.path.as_str() {
            path if path.ends_with("/messages") => Ask::Generate(Protocol::Messages),
            path if path.ends_with("/count_tokens") => Ask::CountTokens(Protocol::Messages),
            path if path.ends_with("/chat/completions") => Ask::Generate(Protocol::ChatCompletions),
            path if path.ends_with("/responses") => Ask::Generate(Protocol::Responses),
            path if path.ends_with("/embeddings") => Ask::Embed(Protocol::ChatCompletions),
            path if path.ends_with("/models") => Ask::Models,
            _ => match method_of_model {
                Some("generateContent" | "streamGenerateContent") => Ask::Generate(Protocol::GenerateContent),
                Some("countTokens") => Ask::CountTokens(Protocol::GenerateContent),
                Some("embedContent" | "batchEmbedContents") => Ask::Embed(Protocol::GenerateContent),
                _ => Ask::Other,
            },
        }
    }

    /// The protocol of the request; Messages where the path does not tell.
    pub fn protocol(&self) -> Protocol {
        match self.ask() {
            Ask::Generate(protocol) | Ask::CountTokens(protocol) | Ask::Embed(protocol) => protocol,
            Ask::Models | Ask::Other => Protocol::Messages,
        }
    }

    /// The model: from the path where the path has one, else from the body.
    pub fn model(&self) -> String {
        let after = |mark: &str| self.path.split_once(mark).map(|(_, rest)| rest);
        if let Some(rest) = after("/deployments/") {
            return rest.split('/').next().unwrap_or_default().to_owned();
        }
        if self.protocol() == Protocol::GenerateContent
            && let Some((model, _)) = after("/models/").and_then(|rest| rest.rsplit_once(':'))
        {
            return model.to_owned();
        }
        self.json()["model"].as_str().unwrap_or_default().to_owned()
    }

    pub fn is_stream(&self) -> bool {
        self.path.ends_with(":streamGenerateContent") || self.json()["stream"] == true
    }

    fn content(&self) -> Content {
        if self.json().get("tools").is_some() { Content::Tool } else { Content::Text }
    }

    fn asks_for_usage(&self) -> bool {
        self.json()["stream_options"]["include_usage"] == true
    }

    /// The events of a normal streamed answer to this request.
    pub fn events(&self) -> Vec<Bytes> {
        let sse = self.query.as_deref().is_some_and(|query| query.contains("alt=sse"));
        match self.protocol() {
            Protocol::GenerateContent if !sse => wire::gemini_array(&self.model(), self.content()),
            protocol => wire::events(protocol, &self.model(), self.content(), self.asks_for_usage()),
        }
    }
}

/// One step of a reply.
#[derive(Clone)]
pub enum Step {
    /// Written and flushed by itself.
    Send(Bytes),
    Pause(Duration),
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

/// The normal answer to any request, with the usage of [`wire::usage`].
pub fn answer(seen: &Seen) -> Reply {
    let protocol = seen.protocol();
    match seen.ask() {
        Ask::Generate(_) if seen.is_stream() => stream_of(seen.events()),
        Ask::Generate(_) => Reply::json(200, &wire::whole(protocol, &seen.model(), seen.content())),
        Ask::CountTokens(Protocol::GenerateContent) => Reply::json(200, &json!({"totalTokens": 65})),
        Ask::CountTokens(_) => Reply::json(200, &json!({"input_tokens": 65})),
        Ask::Embed(Protocol::GenerateContent) if seen.path.ends_with(":batchEmbedContents") => {
            Reply::json(200, &json!({"embeddings": [{"values": [0.5, -0.25]}]}))
        }
        Ask::Embed(Protocol::GenerateContent) => {
            Reply::json(200, &json!({"embedding": {"values": [0.5, -0.25]}}))
        }
        Ask::Embed(_) => Reply::json(200, &embeddings(&seen.model())),
        Ask::Models => Reply::json(200, &json!({"object": "list", "data": [], "models": []})),
        Ask::Other => Reply::error(protocol, 404, &[]),
    }
}

/// A stream of the given events, as JSON when they form an array.
pub fn stream_of(events: Vec<Bytes>) -> Reply {
    let array = events.first().is_some_and(|event| event.starts_with(b"["));
    Reply::stream(if array { "application/json" } else { "text/event-stream" }, events)
}

fn embeddings(model: &str) -> Value {
    // Little-endian floats 0.5 and -0.25 in base64: the form that OpenAI's SDK asks for.
    json!({
        "object": "list", "model": model,
        "data": [{"object": "embedding", "index": 0, "embedding": "AAAAPwAAgL4="}],
        "usage": {"prompt_tokens": 25, "total_tokens": 25},
    })
}

/// What decides the reply to a request.
pub type Script = Arc<dyn Fn(&Seen) -> Reply + Send + Sync>;

struct State {
    script: Mutex<Script>,
    seen: Mutex<Vec<Arc<Seen>>>,
    answering: AtomicUsize,
    gone: AtomicUsize,
}

/// The running server; dropping it ends it and every connection.
pub struct Upstream {
    address: SocketAddr,
    state: Arc<State>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Upstream {
    /// Starts with [`answer`] as its script.
    pub fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            script: Mutex::new(Arc::new(answer)),
            seen: Mutex::default(),
            answering: AtomicUsize::new(0),
            gone: AtomicUsize::new(0),
        });
        let (stop, stopped) = oneshot::channel();
        let serving = Arc::clone(&state);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                tokio::select! {
                    () = accept(TcpListener::from_std(listener).unwrap(), serving) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { address, state, stop: Some(stop), thread: Some(thread) }
    }

    /// The base URL of an account; its requests bear the account's name.
    pub fn base_url(&self, account: &str) -> String {
        format!("http://{}/{account}", self.address)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn script(&self, script: impl Fn(&Seen) -> Reply + Send + Sync + 'static) {
        *self.state.script.lock().unwrap() = Arc::new(script);
    }

    /// Every request so far.
    pub fn seen(&self) -> Vec<Arc<Seen>> {
        self.state.seen.lock().unwrap().clone()
    }

    /// Takes the requests out of the log.
    pub fn take_seen(&self) -> Vec<Arc<Seen>> {
        std::mem::take(&mut *self.state.seen.lock().unwrap())
    }

    /// Number of requests so far.
    pub fn count(&self) -> usize {
        self.state.seen.lock().unwrap().len()
    }

    /// Replies that are being given.
    pub fn answering(&self) -> usize {
        self.state.answering.load(Ordering::SeqCst)
    }

    /// Replies that the peer broke off.
    pub fn gone(&self) -> usize {
        self.state.gone.load(Ordering::SeqCst)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            let state = Arc::clone(&state);
            tokio::spawn(async move {
                // A peer that goes away is part of the tests.
                let _ = serve(stream, &state).await;
            });
        }
    }
}

async fn serve(stream: TcpStream, state: &State) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut reader, mut writer) = stream.into_split();
    let mut buffer = BytesMut::new();
    while let Some(seen) = read_request(&mut reader, &mut writer, &mut buffer).await? {
        let seen = Arc::new(seen);
        let script = Arc::clone(&state.script.lock().unwrap());
        state.seen.lock().unwrap().push(Arc::clone(&seen));
        let reply = script(&seen);
        state.answering.fetch_add(1, Ordering::SeqCst);
        let end = tokio::select! {
            end = perform(reply, &mut writer) => end,
            () = gone(&mut reader, &mut buffer) => Ok(End::PeerGone),
        };
        state.answering.fetch_sub(1, Ordering::SeqCst);
        match end {
            Ok(End::KeepAlive) => {}
            Ok(End::Close) => return Ok(()),
            Ok(End::PeerGone) | Err(_) => {
                state.gone.fetch_add(1, Ordering::SeqCst);
                return Ok(());
            }
            Ok(End::Reset) => {
                let stream = reader.reunite(writer).map_err(io::Error::other)?;
                return stream.set_zero_linger();
            }
        }
    }
    Ok(())
}

enum End {
    KeepAlive,
    Close,
    Reset,
    PeerGone,
}

async fn perform(reply: Reply, writer: &mut (impl AsyncWriteExt + Unpin)) -> io::Result<End> {
    for step in reply.0 {
        match step {
            Step::Send(bytes) => writer.write_all(&bytes).await?,
            Step::Pause(time) => tokio::time::sleep(time).await,
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

/// Ends when the peer closes its side; what it sends meanwhile is kept.
async fn gone(reader: &mut OwnedReadHalf, buffer: &mut BytesMut) {
    while matches!(reader.read_buf(buffer).await, Ok(1..)) {}
}

async fn read_request(
    reader: &mut OwnedReadHalf,
    writer: &mut (impl AsyncWriteExt + Unpin),
    buffer: &mut BytesMut,
) -> io::Result<Option<Seen>> {
    let (mut seen, framing) = loop {
        if let Some(head) = parse_head(buffer)? {
            break head;
        }
        if reader.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    };
    if seen.header("expect").is_some() {
        writer.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
    }
    seen.body = match framing {
        Framing::Length(length) => take(reader, buffer, length).await?,
        Framing::Chunked => read_chunks(reader, buffer).await?,
    };
    Ok(Some(seen))
}

enum Framing {
    Length(usize),
    Chunked,
}

fn parse_head(buffer: &mut BytesMut) -> io::Result<Option<(Seen, Framing)>> {
    let mut headers = [httparse::EMPTY_HEADER; 128];
    let mut request = httparse::Request::new(&mut headers);
    let status = request.parse(buffer).map_err(io::Error::other)?;
    let httparse::Status::Complete(length) = status else { return Ok(None) };
    let target = request.path.unwrap_or_default().trim_start_matches('/').to_owned();
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query.to_owned())),
        None => (target.as_str(), None),
    };
    let (account, path) = path.split_once('/').unwrap_or((path, ""));
    let headers = request.headers.iter();
    let headers: Vec<(String, String)> = headers
        .map(|h| (h.name.to_ascii_lowercase(), String::from_utf8_lossy(h.value).into_owned()))
        .collect();
    let seen = Seen {
        account: account.to_owned(),
        method: request.method.unwrap_or_default().to_owned(),
        path: format!("/{path}"),
        query,
        headers,
        body: Bytes::new(),
    };
    let framing = match (seen.header("transfer-encoding"), seen.header("content-length")) {
        (Some(_), _) => Framing::Chunked,
        (None, length) => Framing::Length(length.and_then(|text| text.parse().ok()).unwrap_or(0)),
    };
    drop(buffer.split_to(length));
    Ok(Some((seen, framing)))
}

async fn take(reader: &mut OwnedReadHalf, buffer: &mut BytesMut, length: usize) -> io::Result<Bytes> {
    while buffer.len() < length {
        if reader.read_buf(buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(buffer.split_to(length).freeze())
}

async fn read_chunks(reader: &mut OwnedReadHalf, buffer: &mut BytesMut) -> io::Result<Bytes> {
    let mut body = BytesMut::new();
    loop {
        let parsed = httparse::parse_chunk_size(buffer).map_err(|_| io::ErrorKind::InvalidData)?;
        let httparse::Status::Complete((line, size)) = parsed else {
            if reader.read_buf(buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            continue;
        };
        drop(buffer.split_to(line));
        let size = usize::try_from(size).map_err(io::Error::other)?;
        let chunk = take(reader, buffer, size + 2).await?;
        if size == 0 {
            return Ok(body.freeze());
        }
        body.extend_from_slice(&chunk[..size]);
    }
}
