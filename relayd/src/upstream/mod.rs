//! All traffic to upstreams: one pooled HTTP client for each way out. It sends what it is given and says how
//! that failed; what a failure means for the account is judged elsewhere.

mod connector;
mod handover;
mod tls;

use std::error::Error;
use std::fmt;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use shared::domain::AccountKind;

pub use handover::Handover;
pub use tls::TlsError;

use crate::protocol::Splice;
use connector::{Direct, Simulated};
use handover::Watched;

/// The way out that an account's traffic takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Egress {
    /// From this host, straight to the upstream.
    Direct,
    /// To the simulator in this process.
    Simulator,
}

impl Egress {
    /// The way out of a kind of account.
    pub const fn of(kind: AccountKind) -> Self {
        match kind {
            AccountKind::Simulator => Self::Simulator,
            _ => Self::Direct,
        }
    }
}

/// Deadlines and bounds of upstream traffic.
#[derive(Clone, Debug)]
pub struct Settings {
    /// For name look-up, TCP and TLS together.
    pub connect_timeout: Duration,
    /// From the request to the head of the reply.
    pub first_byte_timeout: Duration,
    /// Idle connections kept for each host.
    pub pool_idle_per_host_max: usize,
    /// How long a connection may be idle.
    pub pool_idle_timeout: Duration,
}

/// Why no reply came.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// No connection came about.
    #[error("the upstream cannot be reached")]
    Unreachable(#[source] Cause),
    /// The head of the reply did not come in time.
    #[error("the upstream gave no answer in time")]
    Timeout,
    /// The connection broke, or what came was no HTTP.
    #[error("the upstream broke the connection")]
    Broken(#[source] Cause),
}

/// What the HTTP client met. Its own words ("client error (Connect)") say no more than those around it.
#[derive(Debug)]
pub struct Cause(hyper_util::client::legacy::Error);

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.source() {
            Some(source) => fmt::Display::fmt(source, f),
            None => fmt::Display::fmt(&self.0, f),
        }
    }
}

impl Error for Cause {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source().and_then(Error::source)
    }
}

/// What all ways out share: TLS settings with the trusted roots loaded once.
#[derive(Clone)]
pub struct Shared(std::sync::Arc<rustls::ClientConfig>);

impl Shared {
    /// Loads the operating system's trusted roots, or the built-in ones where it has none, and the operator's.
    pub fn load(extra_ca: &[std::path::PathBuf]) -> Result<Self, TlsError> {
        tls::client_config(extra_ca).map(Self)
    }
}

/// The clients of one worker; their connections live on its runtime.
#[derive(Clone)]
pub struct Upstream {
    direct: Client<Direct, Watched>,
    simulator: Client<Simulated, Watched>,
    first_byte_timeout: Duration,
}

impl Upstream {
    /// Makes the clients; connections are made when they are needed.
    pub fn new(settings: &Settings, shared: &Shared) -> Self {
        let mut builder = Client::builder(TokioExecutor::new());
        builder
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(settings.pool_idle_timeout)
            .pool_max_idle_per_host(settings.pool_idle_per_host_max);
        Self {
            direct: builder.build(Direct::new(shared.0.clone(), settings.connect_timeout)),
            simulator: builder.build(Simulated),
            first_byte_timeout: settings.first_byte_timeout,
        }
    }

    /// Sends a request and waits for the head of the reply.
    pub async fn send(
        &self,
        egress: Egress,
        request: Request<Splice>,
        handover: Handover,
    ) -> Result<Response<Incoming>, UpstreamError> {
        let request = request.map(|body| handover.watch(body));
        let reply = match egress {
            Egress::Direct => self.direct.request(request),
            Egress::Simulator => self.simulator.request(request),
        };
        match tokio::time::timeout(self.first_byte_timeout, reply).await {
            Err(_) => Err(UpstreamError::Timeout),
            Ok(Err(error)) if error.is_connect() => Err(UpstreamError::Unreachable(Cause(error))),
            Ok(Err(error)) => Err(UpstreamError::Broken(Cause(error))),
            Ok(Ok(reply)) => Ok(reply),
        }
    }
}
