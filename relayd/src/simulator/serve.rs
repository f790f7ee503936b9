//! The simulator's edge: reads a request to its end, waits as the account says, and paces the stream.

use std::convert::Infallible;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, header};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use shared::domain::Protocol;
use shared::domain::account::SimulatorSettings;
use tokio::time::{Sleep, sleep};

use super::answer::{Answer, AnswerBody, Question, answer};
use super::form::Script;

/// The header that brings an account's [`SimulatorSettings`] as JSON. What cannot be read means the defaults.
pub const SETTINGS_HEADER: HeaderName = HeaderName::from_static("x-simulator-settings");

const CHUNKS_MAX: u32 = 10_000;
const WAIT_MAX: Duration = Duration::from_secs(600);
const PERCENT_MAX: u8 = 100;

/// Calls so far, by the error rate that they came with. Calls of one rate share a row, so that exactly that
/// many of each hundred fail however they are spread over connections.
static CALLS: [AtomicU64; PERCENT_MAX as usize + 1] = [const { AtomicU64::new(0) }; PERCENT_MAX as usize + 1];

/// Answers one request. The body is read whole: the relay bounds what it sends.
pub async fn service(request: Request<Incoming>) -> Result<Response<PacedBody>, hyper::Error> {
    let (head, body) = request.into_parts();
    let settings = settings(&head.headers);
    let body = body.collect().await?.to_bytes();
    let id = format!("{:016x}", RandomState::new().build_hasher().finish());
    let answer = answer(&Question {
        method: &head.method,
        uri: &head.uri,
        headers: &head.headers,
        body: &body,
        id: &id,
        chunks: usize::try_from(settings.chunks.clamp(1, CHUNKS_MAX)).unwrap_or(1),
        fails: fails_next(settings.error_percent),
    });
    drop(body);
    let latency = wait(settings.latency_ms, answer.slowness);
    if !latency.is_zero() {
        sleep(latency).await;
    }
    Ok(response(answer, settings.chunk_gap_ms, &id))
}

fn settings(headers: &HeaderMap) -> SimulatorSettings {
    let value = headers.get(SETTINGS_HEADER).map(HeaderValue::as_bytes);
    value.and_then(|json| serde_json::from_slice(json).ok()).unwrap_or_default()
}

fn wait(millis: u64, slowness: u32) -> Duration {
    Duration::from_millis(millis).saturating_mul(slowness).min(WAIT_MAX)
}

fn fails_next(percent: u8) -> bool {
    let percent = percent.min(PERCENT_MAX);
    let calls = CALLS.get(usize::from(percent)).map_or(0, |calls| calls.fetch_add(1, Ordering::Relaxed));
    fails(calls, percent)
}

/// Spreads the failures evenly: the call fails with which the sum of the percentages passes a full hundred.
const fn fails(calls: u64, percent: u8) -> bool {
    let percent = percent as u64;
    (calls % 100 * percent) % 100 + percent >= 100
}

fn response(answer: Answer, gap_ms: u64, id: &str) -> Response<PacedBody> {
    let gap = wait(gap_ms, answer.slowness);
    let (media_type, body) = match answer.content {
        AnswerBody::Whole(bytes) => ("application/json", Content::Whole(Some(bytes))),
        AnswerBody::Script(script) => (script.media_type(), Content::Paced(Pace { script, gap, held: None })),
    };
    let mut response = Response::new(PacedBody(body));
    *response.status_mut() = answer.status;
    let headers = response.headers_mut();
    if let Some(name) = id_header(answer.protocol) {
        headers.extend(HeaderValue::try_from(format!("req_{id}")).map(|value| (name, value)));
    }
    headers.extend(answer.retry_after_s.map(|seconds| (header::RETRY_AFTER, seconds.into())));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

/// Where a protocol's clients look for the request's id; Gemini has no such header.
const fn id_header(protocol: Protocol) -> Option<HeaderName> {
    match protocol {
        Protocol::Messages => Some(HeaderName::from_static("request-id")),
        Protocol::ChatCompletions | Protocol::Responses => Some(HeaderName::from_static("x-request-id")),
        Protocol::GenerateContent => None,
    }
}

/// The body of an answer; a stream waits before each piece but the first.
pub struct PacedBody(Content);

enum Content {
    /// Ready at once, in one frame.
    Whole(Option<Bytes>),
    /// Written piece by piece.
    Paced(Pace),
}

struct Pace {
    script: Box<Script>,
    gap: Duration,
    /// The piece that waits for its gap to pass.
    held: Option<(Pin<Box<Sleep>>, Bytes)>,
}

impl Pace {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if self.held.is_none() {
            match self.script.next() {
                Some(frame) if frame.comes_after_gap && !self.gap.is_zero() => {
                    self.held = Some((Box::pin(sleep(self.gap)), frame.bytes));
                }
                frame => return Poll::Ready(frame.map(|frame| frame.bytes)),
            }
        }
        if let Some((gap, _)) = &mut self.held {
            ready!(gap.as_mut().poll(cx));
        }
        Poll::Ready(self.held.take().map(|(_, bytes)| bytes))
    }
}

impl Body for PacedBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let bytes = match &mut self.0 {
            Content::Whole(bytes) => bytes.take(),
            Content::Paced(pace) => ready!(pace.poll_next(cx)),
        };
        Poll::Ready(bytes.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.0, Content::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Content::Whole(bytes) => {
                let length = bytes.as_ref().map_or(0, Bytes::len);
                SizeHint::with_exact(u64::try_from(length).unwrap_or(u64::MAX))
            }
            Content::Paced(_) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_exact_and_spread() {
        for percent in 0..=100 {
            for start in [0, 37, u64::MAX - 200] {
                let failed = (start..start + 100).filter(|&call| fails(call, percent)).count();
                assert_eq!(failed, usize::from(percent));
            }
        }
        let failed: Vec<u64> = (0..100).filter(|&call| fails(call, 10)).collect();
        assert_eq!(failed, [9, 19, 29, 39, 49, 59, 69, 79, 89, 99]);
    }

    #[test]
    fn waits_are_bounded() {
        for (millis, slowness, expected) in
            [(0, 1, 0), (20, 20, 400), (600_000, 20, 600_000), (u64::MAX, 20, 600_000)]
        {
            assert_eq!(wait(millis, slowness).as_millis(), expected);
        }
    }

    #[test]
    fn settings_that_cannot_be_read_mean_the_defaults() {
        let read = |value: &str| {
            settings(&HeaderMap::from_iter([(SETTINGS_HEADER, HeaderValue::from_str(value).unwrap())]))
        };
        let quick = SimulatorSettings { latency_ms: 0, ..SimulatorSettings::default() };
        assert_eq!(read(r#"{"latency_ms":0}"#), quick);
        for malformed in ["", "{", "[]", r#"{"latency_ms":-1}"#, r#"{"latency":1}"#] {
            assert_eq!(read(malformed), SimulatorSettings::default(), "{malformed}");
        }
        assert_eq!(settings(&HeaderMap::new()), SimulatorSettings::default());
    }
}
