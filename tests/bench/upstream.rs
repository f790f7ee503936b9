//! The upstream of the bench: answers Messages calls at once, with a stream of fifty events a little apart, or
//! with a stream that begins and then keeps silent. The first bytes of the body say which.

use std::convert::Infallible;
use std::io::Write;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use http_body_util::{BodyExt, Either, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::{Sleep, sleep};

/// Events of a stream.
pub const CHUNKS: usize = 50;
/// Time between two events: long enough that each is a write and a read of its own.
const GAP: Duration = Duration::from_millis(1);

/// What a body begins with.
pub const WHOLE: &str = r#"{"model":"claude-bench","#;
pub const STREAM: &str = r#"{"stream":true,"model":"claude-bench","#;
pub const HOLD: &str = r#"{"stream":true,"model":"claude-hold","#;

/// Answers for ever; prints its address first.
pub async fn serve() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{}", listener.local_addr()?)?;
    stdout.flush()?;
    let whole = Bytes::from(whole().to_string());
    let events: Vec<Bytes> = events().iter().map(event).collect();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (whole, events) = (whole.clone(), events.clone());
        let service = service_fn(move |request| answer(request, whole.clone(), events.clone()));
        tokio::spawn(async move {
            // Clients that go away are part of the bench.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

type Reply = Response<Either<Full<Bytes>, Paced>>;

async fn answer(request: Request<Incoming>, whole: Bytes, events: Vec<Bytes>) -> Result<Reply, Infallible> {
    let mut body = request.into_body();
    let mut beginning = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        if let Some(data) = frame.data_ref().filter(|_| beginning.len() < HOLD.len()) {
            beginning.extend_from_slice(data);
        }
    }
    let (content_type, body) = if beginning.starts_with(STREAM.as_bytes()) {
        ("text/event-stream", Either::Right(Paced::new(events, false)))
    } else if beginning.starts_with(HOLD.as_bytes()) {
        ("text/event-stream", Either::Right(Paced::new(events, true)))
    } else {
        ("application/json", Either::Left(Full::new(whole)))
    };
    let mut reply = Response::new(body);
    reply.headers_mut().insert("content-type", hyper::http::HeaderValue::from_static(content_type));
    Ok(reply)
}

/// Events with a gap after each; a held one says two and then nothing.
pub struct Paced {
    events: std::vec::IntoIter<Bytes>,
    gap: Option<Pin<Box<Sleep>>>,
    silent_at: usize,
}

impl Paced {
    fn new(events: Vec<Bytes>, is_held: bool) -> Self {
        let silent_at = if is_held { events.len() - 2 } else { 0 };
        Self { events: events.into_iter(), gap: None, silent_at }
    }
}

impl Body for Paced {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(gap) = &mut self.gap {
            ready!(gap.as_mut().poll(cx));
            self.gap = None;
        }
        if self.silent_at > 0 && self.events.len() <= self.silent_at {
            return Poll::Pending;
        }
        let next = self.events.next();
        self.gap = next.is_some().then(|| Box::pin(sleep(GAP)));
        Poll::Ready(next.map(|event| Ok(Frame::data(event))))
    }
}

fn usage(output: u64) -> Value {
    json!({"input_tokens": 25, "cache_read_input_tokens": 40, "cache_creation_input_tokens": 0, "output_tokens": output})
}

fn whole() -> Value {
    json!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-bench",
        "content": [{"type": "text", "text": "An answer of some words, as answers are. ".repeat(4)}],
        "stop_reason": "end_turn", "stop_sequence": null, "usage": usage(15),
    })
}

fn events() -> Vec<Value> {
    let message = json!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-bench", "content": [],
        "stop_reason": null, "stop_sequence": null, "usage": usage(1),
    });
    let delta = json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": " word or two"}});
    let mut events = vec![
        json!({"type": "message_start", "message": message}),
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
    ];
    events.resize(CHUNKS - 3, delta);
    events.push(json!({"type": "content_block_stop", "index": 0}));
    let end = json!({"stop_reason": "end_turn", "stop_sequence": null});
    events.push(json!({"type": "message_delta", "delta": end, "usage": usage(CHUNKS as u64)}));
    events.push(json!({"type": "message_stop"}));
    events
}

fn event(event: &Value) -> Bytes {
    format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap_or_default()).into()
}
