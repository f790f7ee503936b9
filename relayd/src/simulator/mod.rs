//! An upstream that answers by itself, in all four protocols and in their exact wire forms, reached over an
//! in-memory connection by the same HTTP client as any vendor. What it answers and counts follows from the
//! request alone, so that limits, alarms and load can be tried without a network. It checks no credential,
//! stops at no stop sequence and gives one choice, whatever number is asked for.

mod answer;
mod chat_completions;
mod embeddings;
mod fault;
mod figures;
mod form;
mod generate_content;
mod messages;
mod model;
mod prompt;
mod reply;
mod responses;
mod route;
mod schema;
mod serve;
#[cfg(test)]
mod tests;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::DuplexStream;

use serve::service;

/// What may lie unread in either direction of a connection.
const PIPE_BYTES_MAX: usize = 64 * 1024;

/// Opens a connection to the simulator; HTTP/1.1 is spoken at the other end until either side lets go.
/// Must be called within a tokio runtime.
pub fn connect() -> DuplexStream {
    let (near, far) = tokio::io::duplex(PIPE_BYTES_MAX);
    let served = http1::Builder::new()
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(far), service_fn(service));
    // An error here means that the relay dropped its end in the middle of a call, which is its right.
    tokio::spawn(async move { drop(served.await) });
    near
}
