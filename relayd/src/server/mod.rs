//! The client side of the relay: accepts connections, finds out what is wanted and by whom, and answers
//! everything that needs no upstream itself.

mod cors;
mod error;
mod ids;
mod listener;
mod models;
mod owner;
pub mod router;
mod stall;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use shared::domain::{Protocol, RequestId, Timestamp};
use tokio::time::timeout;

pub use ids::RequestIds;
pub use listener::{Connections, serve};
pub use owner::Views;

use crate::auth::address::client_address;
use crate::auth::{self, Presented, Throttle};
use crate::config::{Cors, Network};
use crate::directory::KeyEntry;
use crate::relay::{self, Incomer, ReplyBody, Worker};
use crate::store::StoreState;
use error::ServerError;
use router::Route;

/// Our id of a request, on every reply.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-relay-request-id");
/// How much telemetry is read before it is thrown away.
const TELEMETRY_BYTES_MAX: usize = 1 << 20;
/// How much is read of what a refused client sends, and for how long.
const LINGER_BYTES_MAX: usize = 64 << 20;
const LINGER: Duration = Duration::from_secs(5);

/// Settings of the client side.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Until the head of a request is there; also how long a connection may be idle.
    pub header_read_timeout: Duration,
    /// The head's size.
    pub headers_bytes_max: usize,
    /// How long a client may refuse to take what it asked for.
    pub write_stall_timeout: Duration,
    /// Proxies whose `x-forwarded-for` is believed.
    pub trusted_proxies: Vec<Network>,
    /// Which web pages may call.
    pub cors: Cors,
}

/// The client side of one worker.
pub struct Server {
    /// What relays.
    pub worker: Arc<Worker>,
    /// Where request ids come from, shared by all workers.
    pub ids: Arc<RequestIds>,
    /// Failed attempts by address, shared by all workers.
    pub throttle: Arc<Throttle>,
    /// Settings.
    pub settings: Settings,
    /// What the owners of keys read.
    pub views: Views,
}

/// A request's head and where it came from.
struct Asked {
    id: RequestId,
    now: Timestamp,
    address: IpAddr,
    parts: http::request::Parts,
}

impl Server {
    /// Answers one request; whatever goes wrong is an answer too.
    async fn answer(&self, request: Request<Incoming>, peer: SocketAddr) -> Response<ReplyBody> {
        let relay = &self.worker.relay;
        let now = relay.clock.now();
        let id = self.ids.next(now);
        let (parts, mut body) = request.into_parts();
        let address = client_address(peer.ip(), &parts.headers, &self.settings.trusted_proxies);
        let origin = cors::allowed(&self.settings.cors, &parts.headers);
        let mut response = if parts.method == Method::OPTIONS && origin.is_some() {
            cors::preflight(&parts.headers)
        } else {
            let mut asked = Asked { id, now, address, parts };
            match self.dispatch(&mut asked, &mut body).await {
                Ok(response) => response,
                Err(error) => {
                    linger(body);
                    let protocol = spoken(asked.parts.uri.path(), &asked.parts.headers);
                    error.render(protocol, id, relay.clock.now())
                }
            }
        };
        let headers = response.headers_mut();
        if let Ok(value) = HeaderValue::from_bytes(&id.to_ascii()) {
            headers.insert(REQUEST_ID, value);
        }
        if let Some(origin) = origin {
            cors::allow(headers, origin);
        }
        response
    }

    async fn dispatch(
        &self,
        asked: &mut Asked,
        body: &mut Incoming,
    ) -> Result<Response<ReplyBody>, ServerError> {
        let parts = &asked.parts;
        if asks_for_web_socket(&parts.headers) {
            return Err(ServerError::Upgrade);
        }
        match router::route(&parts.method, parts.uri.path(), &parts.headers)? {
            Route::Greeting => Ok(json(&serde_json::json!({
                "service": "relayd", "version": env!("CARGO_PKG_VERSION"),
            }))),
            Route::Health => Ok(self.health()),
            Route::EventLogging => {
                // Read, so that the connection can be used again, but not kept.
                discard(body, TELEMETRY_BYTES_MAX).await;
                Ok(json(&serde_json::json!({"success": true})))
            }
            Route::Models(listing) => {
                let key = self.authenticate(asked).await?;
                Ok(models::list(&self.worker.relay, &key, listing))
            }
            Route::Model(listing, id) => {
                let key = self.authenticate(asked).await?;
                models::one(&self.worker.relay, &key, listing, &id)
            }
            Route::KeyInfo(view) => {
                let key = self.authenticate(asked).await?;
                Ok(owner::view((&self.worker.relay, &self.views), &key, view, asked.now).await?)
            }
            Route::Relay(target) => {
                let key = self.authenticate(asked).await?;
                // For an error, the path alone tells the protocol of such a route.
                let headers = std::mem::take(&mut asked.parts.headers);
                let query = asked.parts.uri.query().map(str::to_owned);
                let incomer = Incomer { id: asked.id, target, key, headers, query, body };
                Ok(relay::relay(&self.worker, incomer).await?)
            }
        }
    }

    async fn authenticate(&self, asked: &Asked) -> Result<Arc<KeyEntry>, ServerError> {
        let presented = Presented {
            headers: &asked.parts.headers,
            query: asked.parts.uri.query(),
            address: asked.address,
        };
        let directory = &self.worker.relay.directory;
        Ok(auth::authenticate(directory, &self.throttle, presented, asked.now).await?)
    }

    /// 503 while calls cannot be booked or judged, so that a balancer looks elsewhere. While the store fails and
    /// calls are served without it, the journal keeps them until it is back.
    fn health(&self) -> Response<ReplyBody> {
        let engine = self.worker.relay.directory.store();
        let store = match engine.state() {
            StoreState::Ok => "ok".to_owned(),
            StoreState::Failing(cause) => cause,
        };
        let refusal = self.worker.lane.refusal();
        let (status, word) = match (refusal, store.as_str()) {
            (Some(_), _) => (StatusCode::SERVICE_UNAVAILABLE, "failing"),
            (None, "ok") => (StatusCode::OK, "ok"),
            (None, _) if engine.serves() => (StatusCode::OK, "degraded"),
            (None, _) => (StatusCode::SERVICE_UNAVAILABLE, "failing"),
        };
        let journal = refusal.unwrap_or("ok");
        let mut response = json(&serde_json::json!({
            "status": word, "version": env!("CARGO_PKG_VERSION"), "store": store, "journal": journal,
        }));
        *response.status_mut() = status;
        response
    }
}

/// Other protocols may be offered in passing, and are not taken up; a WebSocket is all that its client wants.
fn asks_for_web_socket(headers: &HeaderMap) -> bool {
    let upgrade = headers.get(UPGRADE).map(HeaderValue::as_bytes);
    upgrade.is_some_and(|value| value.to_ascii_lowercase().starts_with(b"websocket"))
}

/// Reads on what a refused client still sends, within bounds, while it gets its answer: a connection that is
/// closed with bytes unread is reset, and the client may never see why.
fn linger(mut body: Incoming) {
    if hyper::body::Body::is_end_stream(&body) {
        return;
    }
    tokio::spawn(async move { discard(&mut body, LINGER_BYTES_MAX).await });
}

/// Reads a body within bounds and keeps nothing of it.
async fn discard(body: &mut Incoming, bytes_max: usize) {
    let mut left = bytes_max;
    let reading = async {
        while let Some(Ok(frame)) = body.frame().await {
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
            if left == 0 {
                break;
            }
        }
    };
    // Out of time is out of luck.
    drop(timeout(LINGER, reading).await);
}

/// A reply of our own.
fn json(value: &serde_json::Value) -> Response<ReplyBody> {
    reply(StatusCode::OK, Bytes::from(value.to_string()))
}

fn reply(status: StatusCode, body: Bytes) -> Response<ReplyBody> {
    let mut response = Response::new(ReplyBody::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The protocol that a request's path and headers speak, for errors that happen before it is routed.
fn spoken(path: &str, headers: &HeaderMap) -> Protocol {
    let has = |part: &str| path.contains(part);
    if has("/messages") || headers.contains_key("anthropic-version") {
        Protocol::Messages
    } else if has("/responses") {
        Protocol::Responses
    } else if has("/v1beta") || has("/gemini") || has(":") || headers.contains_key("x-goog-api-key") {
        Protocol::GenerateContent
    } else if has("/chat") || has("/openai") || has("/azure") || has("/embeddings") {
        Protocol::ChatCompletions
    } else if headers.contains_key("x-api-key") || has("/api") || has("/claude") {
        Protocol::Messages
    } else {
        Protocol::ChatCompletions
    }
}
