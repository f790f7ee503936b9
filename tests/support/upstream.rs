//! The scripted upstream: a server of raw HTTP/1.1 on a thread of its own, so that a test decides every byte
//! and every pause of a reply, also such that no HTTP library would send. The first segment of a path names
//! the account that called; the rest is the vendor's own path.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use bytes::{Bytes, BytesMut};
use serde_json::{Value, json};
use shared::domain::Protocol;
use tokio::io::AsyncReadExt;
use tokio::net::tcp::OwnedReadHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use super::reply::{End, Reply, perform};
use super::seen::{Ask, Seen, read_request};
use super::wire;

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

/// Ends when the peer closes its side; what it sends meanwhile is kept.
async fn gone(reader: &mut OwnedReadHalf, buffer: &mut BytesMut) {
    while matches!(reader.read_buf(buffer).await, Ok(1..)) {}
}
