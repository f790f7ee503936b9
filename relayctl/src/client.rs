//! The admin API's client: one connection per call over the daemon's Unix socket, every wait bounded.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use shared::admin::{AdminCall, Problem};
use shared::progress::{Line, LongCall, Progress};
use tokio::net::UnixStream;
use tokio::time::timeout;

const CONNECT_WITHIN: Duration = Duration::from_secs(5);
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// Nothing says where a daemon could be: the daemon itself says the same then.
    #[error("there is no home folder to keep data in; name one with --data")]
    Nowhere,
    /// Nobody listens there.
    #[error(
        "no relayd answers at {}; start it with `relayd`, or say where it is with --socket or --data",
        .0.display()
    )]
    NoAnswer(PathBuf),
    /// The socket belongs to somebody else.
    #[error("you may not use {}; run relayctl as the user that runs relayd, or join its group", .0.display())]
    Denied(PathBuf),
    /// The socket cannot be used for another reason.
    #[error("cannot connect to {}", .socket.display())]
    Connect {
        socket: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The daemon says no.
    #[error(transparent)]
    Refused(#[from] Problem),
    /// The daemon takes too long.
    #[error("relayd did not answer within {} seconds", .0.as_secs())]
    TooLate(Duration),
    /// The connection broke.
    #[error("relayd broke off")]
    BrokenOff(#[source] hyper::Error),
    /// The answer ends before its last line.
    #[error("relayd broke off before it was done")]
    Unfinished,
    /// The answer is too large.
    #[error("relayd's answer has more than {} MiB", ANSWER_BYTES_MAX >> 20)]
    TooLarge,
    /// The call or the answer is not what this version knows.
    #[error("relayd's answer cannot be read; relayctl and relayd may be of different versions")]
    Unreadable(#[source] serde_json::Error),
    /// The status says failure and the body is no problem that this version knows.
    #[error("relayd answered with status {0}; relayctl and relayd may be of different versions")]
    Status(StatusCode),
    /// The call cannot be written as a request.
    #[error("the call cannot be written as a request")]
    Request(#[from] hyper::http::Error),
}

/// Calls the daemon that listens at one socket.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    socket: Option<PathBuf>,
}

impl Client {
    /// Names the socket; nothing is opened yet.
    pub(crate) fn new(socket: Option<PathBuf>) -> Self {
        Self { socket }
    }

    /// The socket that calls go to, if there is any.
    pub(crate) fn socket(&self) -> Option<&Path> {
        self.socket.as_deref()
    }

    /// Makes a call and reads its reply.
    pub(crate) async fn call<C: AdminCall>(&self, call: &C) -> Result<C::Reply, ClientError> {
        self.call_within(ANSWER_WITHIN, call).await
    }

    /// Makes a call that has its own deadline.
    pub(crate) async fn call_within<C: AdminCall>(
        &self,
        deadline: Duration,
        call: &C,
    ) -> Result<C::Reply, ClientError> {
        let body = serde_json::to_vec(call).map_err(ClientError::Unreadable)?;
        let answer = timeout(deadline, self.post(C::PATH, body.into()));
        let (status, body) = answer.await.map_err(|_| ClientError::TooLate(deadline))??;
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(ClientError::Unreadable);
        }
        Err(problem(status, &body))
    }

    /// Makes a call that takes long, and hears how far it is; each line of its answer is waited for as long as a
    /// whole answer of another.
    pub(crate) async fn call_long<C: LongCall>(
        &self,
        call: &C,
        mut hear: impl FnMut(Progress),
    ) -> Result<C::Reply, ClientError> {
        let body = serde_json::to_vec(call).map_err(ClientError::Unreadable)?;
        let late = |_| ClientError::TooLate(ANSWER_WITHIN);
        let reply = timeout(ANSWER_WITHIN, self.send(C::PATH, body.into())).await.map_err(late)??;
        let status = reply.status();
        if !status.is_success() {
            let body = timeout(ANSWER_WITHIN, whole(reply.into_body())).await.map_err(late)??;
            return Err(problem(status, &body));
        }
        let (mut body, mut read) = (reply.into_body(), Vec::new());
        loop {
            for line in lines(&mut read) {
                match serde_json::from_slice(&line).map_err(ClientError::Unreadable)? {
                    Line::Progress(progress) => hear(progress),
                    Line::Reply(reply) => return Ok(reply),
                    Line::Problem(problem) => return Err(ClientError::Refused(problem)),
                }
            }
            let frame = timeout(ANSWER_WITHIN, body.frame()).await.map_err(late)?;
            let frame = frame.ok_or(ClientError::Unfinished)?.map_err(ClientError::BrokenOff)?;
            read.extend_from_slice(frame.data_ref().map_or(&[][..], Bytes::as_ref));
            if read.len() > ANSWER_BYTES_MAX {
                return Err(ClientError::TooLarge);
            }
        }
    }

    async fn post(&self, path: &str, body: Bytes) -> Result<(StatusCode, Bytes), ClientError> {
        let reply = self.send(path, body).await?;
        let status = reply.status();
        Ok((status, whole(reply.into_body()).await?))
    }

    async fn send(&self, path: &str, body: Bytes) -> Result<Response<Incoming>, ClientError> {
        let stream = TokioIo::new(self.connect().await?);
        let (mut sender, connection) = http1::handshake(stream).await.map_err(ClientError::BrokenOff)?;
        // It ends by itself once `sender` and the reply are gone; its errors reach the sender too.
        tokio::spawn(connection);
        let request = Request::post(path)
            .header(header::HOST, "relayd")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))?;
        sender.send_request(request).await.map_err(ClientError::BrokenOff)
    }

    async fn connect(&self) -> Result<UnixStream, ClientError> {
        let socket = self.socket().ok_or(ClientError::Nowhere)?;
        let connected = timeout(CONNECT_WITHIN, UnixStream::connect(socket)).await;
        let connected = connected.map_err(|_| ClientError::TooLate(CONNECT_WITHIN))?;
        connected.map_err(|source| {
            let socket = socket.to_owned();
            match source.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ClientError::NoAnswer(socket),
                io::ErrorKind::PermissionDenied => ClientError::Denied(socket),
                _ => ClientError::Connect { socket, source },
            }
        })
    }
}

/// What the daemon says of a call that it did not make.
fn problem(status: StatusCode, body: &[u8]) -> ClientError {
    serde_json::from_slice::<Problem>(body).map_or(ClientError::Status(status), ClientError::Refused)
}

async fn whole(body: Incoming) -> Result<Bytes, ClientError> {
    let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
    let body = body.map_err(|error| match error.downcast::<hyper::Error>() {
        Ok(error) => ClientError::BrokenOff(*error),
        Err(_) => ClientError::TooLarge,
    })?;
    Ok(body.to_bytes())
}

/// Takes the whole lines out of what was read.
fn lines(read: &mut Vec<u8>) -> Vec<Vec<u8>> {
    let end = read.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let whole: Vec<u8> = read.drain(..end).collect();
    whole.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_taken_when_they_are_whole() {
        let mut read = Vec::new();
        for (more, expected, left) in
            [("{", vec![], "{"), ("}\n{1", vec!["{}"], "{1"), ("}\n\n{2}\n", vec!["{1}", "{2}"], "")]
        {
            read.extend_from_slice(more.as_bytes());
            let taken = lines(&mut read);
            assert_eq!(taken, expected.iter().map(|line| line.as_bytes().to_vec()).collect::<Vec<_>>());
            assert_eq!(read, left.as_bytes());
        }
    }
}
