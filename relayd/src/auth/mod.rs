//! The presented API key to the key's entry, from the headers alone. Whether the key may have what it asks for
//! is judged later, when the model is known.

pub mod address;
mod throttle;

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName};
use shared::domain::key::Unusable;
use shared::domain::{ApiKey, Timestamp};

pub use throttle::Throttle;

use throttle::Refusal;

use crate::directory::{Directory, EditError, KeyEntry};
use crate::percent::decode;

const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const X_GOOG_API_KEY: HeaderName = HeaderName::from_static("x-goog-api-key");
const API_KEY: HeaderName = HeaderName::from_static("api-key");

/// Why a client may not come in.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// No key was presented.
    #[error(
        "no API key was sent: send it as \"x-api-key\", \"x-goog-api-key\", \"api-key\" or \"authorization: Bearer\""
    )]
    Missing,
    /// No such key.
    #[error("this API key is not known here")]
    Unknown,
    /// The key was switched off.
    #[error("this API key is disabled")]
    Disabled,
    /// Its life is over.
    #[error("this API key expired at {0}")]
    Expired(Timestamp),
    /// Too many unknown keys came from this address.
    #[error("too many failed attempts from this address")]
    Throttled {
        /// When the next attempt is judged.
        retry_at: Timestamp,
    },
    /// The first use could not be written down.
    #[error("the key's first use cannot be stored")]
    Activation(#[source] EditError),
}

/// Finds the key that a client presents. A valid key is never throttled by address.
pub async fn authenticate(
    directory: &Arc<Directory>,
    throttle: &Throttle,
    request: Presented<'_>,
    now: Timestamp,
) -> Result<Arc<KeyEntry>, AuthError> {
    let presented = presented(request.headers, request.query).ok_or(AuthError::Missing)?;
    let Some(entry) = directory.find_key(&presented) else {
        return Err(match throttle.failed(request.address, now) {
            Some(Refusal { retry_at, is_first }) => {
                if is_first {
                    tracing::warn!(address = %request.address, until = %retry_at, "keys are guessed from an address");
                }
                AuthError::Throttled { retry_at }
            }
            None => AuthError::Unknown,
        });
    };
    admitted(directory, entry, now).await
}

/// The key's entry if it may be used now. The first use settles the end of its life; whatever else became of the key
/// meanwhile counts.
async fn admitted(
    directory: &Arc<Directory>,
    entry: Arc<KeyEntry>,
    now: Timestamp,
) -> Result<Arc<KeyEntry>, AuthError> {
    check(&entry.key, now)?;
    if entry.key.activated_at(now).is_none() {
        return Ok(entry);
    }
    let entry = directory.activate(&entry, now).await.map_err(AuthError::Activation)?;
    check(&entry.key, now)?;
    Ok(entry)
}

/// Whether a key may be used now.
pub fn check(key: &ApiKey, now: Timestamp) -> Result<(), AuthError> {
    match key.unusable(now) {
        None => Ok(()),
        Some(Unusable::Deleted) => Err(AuthError::Unknown),
        Some(Unusable::Disabled) => Err(AuthError::Disabled),
        Some(Unusable::Expired(at)) => Err(AuthError::Expired(at)),
    }
}

/// What a request shows of its client.
#[derive(Clone, Copy)]
pub struct Presented<'a> {
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// Its query string.
    pub query: Option<&'a str>,
    /// The client's address.
    pub address: IpAddr,
}

/// The key from the first of the five places that holds one.
fn presented<'a>(headers: &'a HeaderMap, query: Option<&'a str>) -> Option<Cow<'a, str>> {
    let header = |name: &HeaderName| {
        let value = headers.get(name)?.to_str().ok()?.trim();
        (!value.is_empty()).then_some(value)
    };
    let authorization = || {
        let value = header(&AUTHORIZATION)?;
        let token = match value.split_once(' ') {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim(),
            _ => value,
        };
        (!token.is_empty()).then_some(token)
    };
    let found = header(&X_API_KEY)
        .or_else(|| header(&X_GOOG_API_KEY))
        .or_else(authorization)
        .or_else(|| header(&API_KEY));
    if let Some(key) = found {
        return Some(Cow::Borrowed(key));
    }
    let value = query?.split('&').find_map(|pair| pair.strip_prefix("key="))?;
    (!value.is_empty()).then(|| decode(value))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::HeaderValue;
    use shared::crypto::{Sealer, SealingKey};
    use shared::domain::Zone;
    use shared::redact::Secret;

    use super::*;
    use crate::directory::Sessions;
    use crate::store::contract::Folder;
    use crate::store::embedded::Embedded;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value));
        pairs.iter().map(pair).collect()
    }

    /// Between the look-up and the end of the key's first use, an operator switches it off.
    #[tokio::test]
    async fn a_key_that_is_disabled_meanwhile_is_not_let_in() {
        let folder = Folder::new();
        let store = Arc::new(Embedded::open(folder.path()).unwrap());
        let sealer = Sealer::new(&SealingKey::generate().unwrap());
        let sessions = Sessions::new(Duration::from_secs(60), 16);
        let directory = Arc::new(Directory::load(store, sealer, sessions, Zone::UTC).await.unwrap());
        let (digest, pepper_id) = directory.digest(&Secret::new("cr_1"));
        let key = serde_json::json!({
            "id": "key_1", "name": "alice", "hint": "cr_1", "digest": digest, "pepper_id": pepper_id,
            "created_at": Timestamp::from_millis(0), "valid_s_from_first_use": 60,
        });
        let key: ApiKey = serde_json::from_value(key).unwrap();
        let found = directory.put_key(key.clone(), None, None).await.unwrap();
        let now = Timestamp::from_millis(1_000);
        directory.put_key(ApiKey { disabled: true, ..key }, Some(found.version), None).await.unwrap();
        let admitted = admitted(&directory, found, now).await;
        assert!(matches!(admitted, Err(AuthError::Disabled)), "{:?}", admitted.map(|entry| entry.version));
    }

    #[test]
    fn keys_are_taken_from_five_places_in_order() {
        for (sent, query, expected) in [
            (&[][..], None, None),
            (&[("x-api-key", "a")], None, Some("a")),
            (&[("x-goog-api-key", "b")], None, Some("b")),
            (&[("authorization", "Bearer c")], None, Some("c")),
            (&[("authorization", "bearer  c")], None, Some("c")),
            (&[("authorization", "c")], None, Some("c")),
            (&[("authorization", "Bearer ")], None, Some("Bearer")),
            (&[("api-key", "d")], None, Some("d")),
            (&[], Some("alt=sse&key=e%5F1"), Some("e_1")),
            (&[], Some("key="), None),
            (&[], Some("monkey=1"), None),
            (&[("api-key", "d"), ("x-api-key", "a")], Some("key=e"), Some("a")),
            (&[("x-api-key", " "), ("api-key", "d")], None, Some("d")),
        ] {
            assert_eq!(presented(&headers(sent), query).as_deref(), expected, "{sent:?} {query:?}");
        }
    }
}
