//! Where an account is reached and how it proves itself: read once, and the same for every request to it.

use http::header::{HeaderName, HeaderValue};
use http::uri::{Authority, Parts, PathAndQuery, Scheme};
use http::{HeaderMap, Uri, header};
use shared::domain::Account;

use super::ProviderError;

/// An account's address, and the headers that every request to it bears.
#[derive(Clone, Debug)]
pub struct Access {
    scheme: Scheme,
    authority: Authority,
    /// What the path of every request begins with; no slash at its end.
    path: String,
    /// The host and the operator's headers, then the credential: what comes later stands.
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Access {
    /// For an account that is reached at this address.
    pub(super) fn new(account: &Account, url: &str) -> Result<Self, ProviderError> {
        let uri: Uri = url.parse().map_err(http::Error::from)?;
        let host = HeaderValue::try_from(host(&uri)).map_err(http::Error::from)?;
        let Parts { scheme: Some(scheme), authority: Some(authority), path_and_query, .. } = uri.into_parts()
        else {
            return Err(ProviderError::NotAbsolute);
        };
        let path = path_and_query.map_or(String::new(), |path| path.path().trim_end_matches('/').to_owned());
        let own = account.headers.iter();
        let own = own.filter_map(|(name, value)| Some((name.parse().ok()?, value.parse().ok()?)));
        let headers = std::iter::once((header::HOST, host)).chain(own).collect();
        Ok(Self { scheme, authority, path, headers })
    }

    /// The same with a further header.
    #[must_use]
    pub(super) fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// What the path of every request begins with.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// The address of a path and query at this host.
    pub(super) fn uri(&self, path: String) -> Result<Uri, ProviderError> {
        let mut parts = Parts::default();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = Some(PathAndQuery::try_from(path).map_err(http::Error::from)?);
        Ok(Uri::from_parts(parts).map_err(http::Error::from)?)
    }

    /// Adds what every request bears.
    pub(super) fn sign(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.headers {
            headers.insert(name, value.clone());
        }
    }

    /// How many headers [`Self::sign`] adds.
    pub(super) fn headers(&self) -> usize {
        self.headers.len()
    }
}

/// The `host` header of requests to an address: without the port that its scheme implies.
fn host(uri: &Uri) -> String {
    let host = uri.host().unwrap_or_default();
    match (uri.scheme_str(), uri.port_u16()) {
        (_, None) | (Some("http"), Some(80)) | (Some("https"), Some(443)) => host.to_owned(),
        (_, Some(port)) => format!("{host}:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_named_with_the_ports_that_need_it() {
        for (url, expected) in [
            ("https://a.test", "a.test"),
            ("https://a.test:443/v1", "a.test"),
            ("https://a.test:80", "a.test:80"),
            ("http://a.test:80", "a.test"),
            ("http://10.0.0.1:3456/x", "10.0.0.1:3456"),
            ("http://[::1]:8080", "[::1]:8080"),
        ] {
            assert_eq!(host(&url.parse().unwrap()), expected, "{url}");
        }
    }
}
