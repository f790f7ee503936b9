//! Who is asked, how we prove who we are, and what the replies mean. A provider is declared in one file as
//! functions without I/O; vendors never import vendors.

mod access;
mod anthropic;
mod azure;
mod gemini;
mod openai;
mod simulator;

use std::borrow::Cow;
use std::time::Duration;

use http::header::{self, HeaderValue};
use http::{HeaderMap, Method, Request};
use shared::domain::{Account, AccountKind, Operation, Protocol, Timestamp};
use shared::redact::Secret;

pub use self::access::Access;

use crate::percent::decode;
use crate::protocol::Splice;
use crate::scheduler::health::{Failure, Outcome};

/// A call as a provider gets it: in a protocol that it speaks, with the body as it shall be sent.
#[derive(Clone, Debug)]
pub struct Call<'a> {
    /// Protocol of client and upstream.
    pub protocol: Protocol,
    /// What is wanted.
    pub operation: Operation,
    /// The upstream's name for the model.
    pub model: &'a str,
    /// The ends of a Gemini path.
    pub gemini: Option<GeminiMethod>,
    /// The client's headers.
    pub headers: &'a HeaderMap,
    /// The client's query string.
    pub query: Option<&'a str>,
    /// The body.
    pub body: Splice,
}

/// The ends of a Gemini path: API version and method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GeminiMethod {
    /// `v1` or `v1beta`.
    pub version: &'static str,
    /// `generateContent`, `streamGenerateContent`, `countTokens`, …
    pub name: &'static str,
}

/// What a provider needs of the account that it calls.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    /// The account.
    pub account: &'a Account,
    /// How it is reached.
    pub access: &'a Access,
}

/// Why a request could not be built.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// The provider does not speak the protocol, or not for this operation.
    #[error("this kind of account does not speak {}", .0.name())]
    NotSpoken(Protocol),
    /// The account's address has no scheme or no host.
    #[error("the account's address is not absolute")]
    NotAbsolute,
    /// The account's address, a header or the model make no valid request.
    #[error("the account's settings make no valid request")]
    Invalid(#[from] http::Error),
}

/// A provider.
pub trait Provider: Sync {
    /// The protocols that it speaks for an operation.
    fn speaks(&self, operation: Operation) -> &'static [Protocol];

    /// Whether the path of a call names its model, so that what the body says of it does not count.
    fn names_model_in_path(&self, protocol: Protocol) -> bool {
        protocol == Protocol::GenerateContent
    }

    /// Reads how an account is reached with its credential, which is empty where the kind has none.
    fn access(&self, account: &Account, secret: &Secret) -> Result<Access, ProviderError>;

    /// Builds the request that carries a call to an account.
    fn request(&self, caller: Caller<'_>, call: Call<'_>) -> Result<Request<Splice>, ProviderError>;

    /// Builds a small request that costs nothing and shows whether the credential is good.
    fn probe(&self, caller: Caller<'_>) -> Result<Request<Splice>, ProviderError>;

    /// What an error reply says about the account: status, headers, and the beginning of the body.
    fn outcome(&self, reply: &ErrorReply<'_>) -> Outcome {
        outcome_by_status(reply)
    }
}

/// An error reply of an upstream.
#[derive(Clone, Copy, Debug)]
pub struct ErrorReply<'a> {
    /// Its status, none that says success.
    pub status: u16,
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// The beginning of its body.
    pub body: &'a [u8],
    /// Now.
    pub now: Timestamp,
    /// The model that was asked for, as it was sent.
    pub model: &'a str,
    /// Tells calls of different content apart.
    pub fingerprint: u64,
}

/// The provider of a kind of account.
pub fn provider(kind: AccountKind) -> &'static dyn Provider {
    match kind {
        AccountKind::ClaudeConsole | AccountKind::Ccr => &anthropic::Anthropic,
        AccountKind::OpenaiResponses => &openai::Openai,
        AccountKind::GeminiApi => &gemini::Gemini,
        AccountKind::AzureOpenai => &azure::Azure,
        AccountKind::Simulator => &simulator::Simulator,
    }
}

/// Whether a vendor's own API has a model, as far as its name tells.
pub fn is_made_by(kind: AccountKind, name: &str) -> bool {
    let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
    match kind {
        AccountKind::ClaudeConsole => starts(&["claude-"]),
        AccountKind::OpenaiResponses => {
            starts(&["gpt-", "o1", "o3", "o4", "chatgpt-", "text-embedding-"]) && !name.contains('/')
        }
        AccountKind::GeminiApi => starts(&["gemini-", "gemma-"]),
        AccountKind::AzureOpenai | AccountKind::Ccr | AccountKind::Simulator => false,
    }
}

/// What an HTTP status says about an account, for vendors that mean by it what the standards say.
pub fn outcome_by_status(reply: &ErrorReply<'_>) -> Outcome {
    let suspect = |failure| Outcome::Suspect { failure, fingerprint: reply.fingerprint };
    match reply.status {
        401 | 402 => Outcome::AuthFailed { status: reply.status },
        429 => Outcome::Limited { until: retry_at(reply), is_models: names(reply.body, reply.model) },
        503 | 529 => Outcome::Overloaded { until: retry_at(reply) },
        ..=399 | 403 | 408 | 500.. => suspect(Failure::Status(reply.status)),
        _ => Outcome::Refused,
    }
}

/// What an error says: its `message` where the body is JSON that has one, else the body.
fn error_message(body: &[u8]) -> Cow<'_, str> {
    let json: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    match json.as_ref().and_then(|json| json["error"]["message"].as_str()) {
        Some(message) => Cow::Owned(message.to_owned()),
        None => String::from_utf8_lossy(body),
    }
}

/// Whether a text names a model. Vendors keep limits of requests and tokens by model, and say so by naming it
/// (rate limits of Anthropic, OpenAI and Gemini); a limit of the whole account names none.
fn names(text: &[u8], model: &str) -> bool {
    let is_within = |byte: Option<&u8>| {
        byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
    };
    // A full stop may end a sentence.
    let goes_on = |rest: &[u8]| match rest {
        [b'.', after @ ..] => after.first().is_some_and(u8::is_ascii_alphanumeric),
        _ => is_within(rest.first()),
    };
    let stands_alone = |at: usize| {
        let before = at.checked_sub(1).and_then(|before| text.get(before));
        !is_within(before) && !goes_on(text.get(at + model.len()..).unwrap_or_default())
    };
    !model.is_empty() && memchr::memmem::find_iter(text, model).any(stands_alone)
}

/// When the upstream says that it may be asked again: the first that can be read of `retry-after-ms`,
/// `retry-after` (seconds or a date), and the `retryDelay` of a Google error (`"34s"` in `google.rpc.RetryInfo`).
pub fn retry_at(reply: &ErrorReply<'_>) -> Option<Timestamp> {
    let header = |name: &str| reply.headers.get(name).and_then(|value| value.to_str().ok());
    let millis =
        || Duration::try_from_secs_f64(header("retry-after-ms")?.trim().parse::<f64>().ok()? / 1e3).ok();
    let delay = || seconds(header("retry-after")?);
    let date = || jiff::fmt::rfc2822::parse(header("retry-after")?.trim()).ok();
    millis()
        .or_else(delay)
        .map(|delay| reply.now.after(delay))
        .or_else(|| date().map(|date| Timestamp::from_millis(date.timestamp().as_millisecond())))
        .or_else(|| retry_delay(reply.body).map(|delay| reply.now.after(delay)))
}

/// The text of `"retryDelay": "34s"`, wherever it stands.
fn retry_delay(body: &[u8]) -> Option<Duration> {
    const NAME: &[u8] = b"\"retryDelay\"";
    let rest = body.get(memchr::memmem::find(body, NAME)? + NAME.len()..)?;
    let value = rest.split(|&byte| byte == b'"').nth(1)?;
    seconds(std::str::from_utf8(value).ok()?.strip_suffix('s')?)
}

fn seconds(text: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(text.trim().parse().ok()?).ok()
}

/// Client headers that go on to the upstream, whoever it is. Everything else stays here: credentials above all,
/// and whatever proxies on the way added.
fn is_forwarded(name: &str) -> bool {
    const PREFIXES: [&str; 4] = ["anthropic-", "openai-beta", "x-codex-", "x-stainless-"];
    let is_listed = matches!(
        name,
        "accept"
            | "accept-language"
            | "content-type"
            | "conversation_id"
            | "idempotency-key"
            | "originator"
            | "session-id"
            | "session_id"
            | "thread-id"
            | "user-agent"
            | "version"
            | "x-app"
            | "x-claude-code-session-id"
            | "x-client-request-id"
            | "x-goog-api-client"
    );
    is_listed || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

const USER_AGENT: HeaderValue = HeaderValue::from_static(concat!("relayd/", env!("CARGO_PKG_VERSION")));

/// A call to an account, with those fields of the client's query that are kept.
fn post(
    access: &Access,
    path: String,
    keeps: fn(&str) -> bool,
    call: Call<'_>,
) -> Result<Request<Splice>, ProviderError> {
    let mut request = start(access, with_query(path, call.query, keeps), call.headers)?.map(|()| call.body);
    *request.method_mut() = Method::POST;
    let content_type = request.headers_mut().entry(header::CONTENT_TYPE);
    content_type.or_insert(HeaderValue::from_static("application/json"));
    Ok(request)
}

/// A question of our own to an account.
fn get(access: &Access, path: String) -> Result<Request<Splice>, ProviderError> {
    Ok(start(access, path, &HeaderMap::new())?.map(|()| Splice::empty()))
}

/// Starts a request with the headers that every upstream gets: the client's by the list, ours where the client
/// has none, the account's own last.
fn start(access: &Access, path: String, client: &HeaderMap) -> Result<Request<()>, ProviderError> {
    let mut request = Request::new(());
    *request.uri_mut() = access.uri(path)?;
    let headers = request.headers_mut();
    headers.reserve(client.len() + access.headers() + 3);
    for (name, value) in client {
        if is_forwarded(name.as_str()) {
            headers.append(name, value.clone());
        }
    }
    headers.entry(header::USER_AGENT).or_insert(USER_AGENT);
    headers.entry(header::ACCEPT).or_insert(HeaderValue::from_static("*/*"));
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    access.sign(headers);
    Ok(request)
}

/// A header value that is never logged.
fn sensitive(text: &str) -> Result<HeaderValue, ProviderError> {
    let mut value = HeaderValue::try_from(text).map_err(http::Error::from)?;
    value.set_sensitive(true);
    Ok(value)
}

fn bearer(secret: &Secret) -> Result<HeaderValue, ProviderError> {
    sensitive(&["Bearer ", secret.expose()].concat())
}

/// Joins a path and what is kept of the client's query, without the places where a client may have put its key.
fn with_query(path: String, query: Option<&str>, keeps: fn(&str) -> bool) -> String {
    let Some(query) = query else { return path };
    let kept = query.split('&').filter(|pair| !pair.is_empty() && name_in(pair) != "key" && keeps(pair));
    kept.fold(path, |mut path, pair| {
        path.push(if path.contains('?') { '&' } else { '?' });
        path.push_str(pair);
        path
    })
}

/// The name in one field of a query.
fn name_in(pair: &str) -> Cow<'_, str> {
    decode(pair.split('=').next().unwrap_or_default())
}

/// Of the client's query, all is kept.
fn whole_query(_: &str) -> bool {
    true
}

/// All is kept but `api-version`: it comes from clients built for Azure, and means nothing elsewhere.
fn undated_query(pair: &str) -> bool {
    name_in(pair) != "api-version"
}

/// A model's name as one segment of a path.
fn path_segment(model: &str) -> String {
    use std::fmt::Write;
    model.bytes().fold(String::with_capacity(model.len()), |mut text, byte| {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                text.push(char::from(byte))
            }
            _ => drop(write!(text, "%{byte:02X}")),
        }
        text
    })
}

/// The base URL with its version at the end, whether the operator wrote that or not.
fn versioned(base_url: &str, version: &str) -> String {
    let base = base_url.trim_end_matches('/');
    let has_version = path(base).rsplit('/').next().is_some_and(is_version);
    if has_version { base.to_owned() } else { [base, "/", version].concat() }
}

/// `v1`, `v1beta`, `v4`, …
fn is_version(segment: &str) -> bool {
    segment.strip_prefix('v').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// What follows the host, without its first slash.
fn path(url: &str) -> &str {
    let authority = url.split_once("://").map_or(url, |(_, rest)| rest);
    authority.split_once('/').map_or("", |(_, path)| path)
}

#[cfg(test)]
mod tests;
