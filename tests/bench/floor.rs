//! The floor: the least that a proxy on the same libraries does. It reads a head, changes the address, sends
//! the body on frame by frame, and brings the reply back the same way, over pooled connections without delay.

use std::convert::Infallible;
use std::io::Write;
use std::net::SocketAddr;

use anyhow::Result;
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::body::Incoming;
use hyper::header::HOST;
use hyper::http::HeaderValue;
use hyper::http::uri::{Authority, Scheme};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

type Upstream = Client<HttpConnector, Incoming>;
type Reply = Response<BoxBody<bytes::Bytes, hyper::Error>>;

/// Forwards for ever; prints its address first.
pub async fn serve(upstream: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{}", listener.local_addr()?)?;
    stdout.flush()?;

    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client: Upstream = Client::builder(TokioExecutor::new()).build(connector);
    let authority: Authority = upstream.to_string().parse()?;
    let host = HeaderValue::from_str(authority.as_str())?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (client, authority, host) = (client.clone(), authority.clone(), host.clone());
        let service =
            service_fn(move |request| forward(client.clone(), authority.clone(), host.clone(), request));
        tokio::spawn(async move {
            // A client that goes away is no concern of a bare proxy.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn forward(
    client: Upstream,
    authority: Authority,
    host: HeaderValue,
    mut request: Request<Incoming>,
) -> Result<Reply, Infallible> {
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(authority);
    let Ok(uri) = Uri::from_parts(parts) else { return Ok(refused(StatusCode::BAD_REQUEST)) };
    *request.uri_mut() = uri;
    request.headers_mut().insert(HOST, host);
    match client.request(request).await {
        Ok(reply) => Ok(reply.map(BodyExt::boxed)),
        Err(_) => Ok(refused(StatusCode::BAD_GATEWAY)),
    }
}

fn refused(status: StatusCode) -> Reply {
    let body = Full::default().map_err(|never: Infallible| match never {});
    let mut reply = Response::new(body.boxed());
    *reply.status_mut() = status;
    reply
}
