//! A request as the scripted upstream received it: read from the wire, and what it asks for.

use std::io;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use serde_json::Value;
use shared::domain::Protocol;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::OwnedReadHalf;

use super::wire::{self, Content};

/// A request as the upstream received it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The first segment of the path.
    pub account: String,
    pub method: String,
    /// The path after the account's segment, percent signs and all.
    pub path: String,
    pub query: Option<String>,
    /// Names in lower case, in the order of arrival.
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
    /// When its head was read.
    pub at: Instant,
}

/// What a request asks for, judged by its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    Generate(Protocol),
    CountTokens(Protocol),
    Embed(Protocol),
    Models,
    Other,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    pub fn ask(&self) -> Ask {
        let method_of_model = self.path.rsplit_once(':').map(|(_, method)| method);
        match self.path.as_str() {
            path if path.ends_with("/messages") => Ask::Generate(Protocol::Messages),
            path if path.ends_with("/count_tokens") => Ask::CountTokens(Protocol::Messages),
            path if path.ends_with("/chat/completions") => Ask::Generate(Protocol::ChatCompletions),
            path if path.ends_with("/responses") => Ask::Generate(Protocol::Responses),
            path if path.ends_with("/embeddings") => Ask::Embed(Protocol::ChatCompletions),
            path if path.ends_with("/models") => Ask::Models,
            _ => match method_of_model {
                Some("generateContent" | "streamGenerateContent") => Ask::Generate(Protocol::GenerateContent),
                Some("countTokens") => Ask::CountTokens(Protocol::GenerateContent),
                Some("embedContent" | "batchEmbedContents") => Ask::Embed(Protocol::GenerateContent),
                _ => Ask::Other,
            },
        }
    }

    /// The protocol of the request; Messages where the path does not tell.
    pub fn protocol(&self) -> Protocol {
        match self.ask() {
            Ask::Generate(protocol) | Ask::CountTokens(protocol) | Ask::Embed(protocol) => protocol,
            Ask::Models | Ask::Other => Protocol::Messages,
        }
    }

    /// The model: from the path where the path has one, else from the body.
    pub fn model(&self) -> String {
        let after = |mark: &str| self.path.split_once(mark).map(|(_, rest)| rest);
        if let Some(rest) = after("/deployments/") {
            return rest.split('/').next().unwrap_or_default().to_owned();
        }
        if self.protocol() == Protocol::GenerateContent
            && let Some((model, _)) = after("/models/").and_then(|rest| rest.rsplit_once(':'))
        {
            return model.to_owned();
        }
        self.json()["model"].as_str().unwrap_or_default().to_owned()
    }

    pub fn is_stream(&self) -> bool {
        self.path.ends_with(":streamGenerateContent") || self.json()["stream"] == true
    }

    pub fn content(&self) -> Content {
        if self.json().get("tools").is_some() { Content::Tool } else { Content::Text }
    }

    fn asks_for_usage(&self) -> bool {
        self.json()["stream_options"]["include_usage"] == true
    }

    /// The events of a normal streamed answer to this request.
    pub fn events(&self) -> Vec<Bytes> {
        let sse = self.query.as_deref().is_some_and(|query| query.contains("alt=sse"));
        match self.protocol() {
            Protocol::GenerateContent if !sse => wire::gemini_array(&self.model(), self.content()),
            protocol => wire::events(protocol, &self.model(), self.content(), self.asks_for_usage()),
        }
    }
}

/// Reads the next request of a connection; `None` when there is none.
pub async fn read_request(
    reader: &mut OwnedReadHalf,
    writer: &mut (impl AsyncWriteExt + Unpin),
    buffer: &mut BytesMut,
) -> io::Result<Option<Seen>> {
    let (mut seen, framing) = loop {
        if let Some(head) = parse_head(buffer)? {
            break head;
        }
        if reader.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    };
    if seen.header("expect").is_some() {
        writer.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
    }
    seen.body = match framing {
        Framing::Length(length) => take(reader, buffer, length).await?,
        Framing::Chunked => read_chunks(reader, buffer).await?,
    };
    Ok(Some(seen))
}

enum Framing {
    Length(usize),
    Chunked,
}

fn parse_head(buffer: &mut BytesMut) -> io::Result<Option<(Seen, Framing)>> {
    let mut headers = [httparse::EMPTY_HEADER; 128];
    let mut request = httparse::Request::new(&mut headers);
    let status = request.parse(buffer).map_err(io::Error::other)?;
    let httparse::Status::Complete(length) = status else { return Ok(None) };
    let target = request.path.unwrap_or_default().trim_start_matches('/').to_owned();
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query.to_owned())),
        None => (target.as_str(), None),
    };
    let (account, path) = path.split_once('/').unwrap_or((path, ""));
    let headers = request.headers.iter();
    let headers: Vec<(String, String)> = headers
        .map(|h| (h.name.to_ascii_lowercase(), String::from_utf8_lossy(h.value).into_owned()))
        .collect();
    let seen = Seen {
        account: account.to_owned(),
        method: request.method.unwrap_or_default().to_owned(),
        path: format!("/{path}"),
        query,
        headers,
        body: Bytes::new(),
        at: Instant::now(),
    };
    let framing = match (seen.header("transfer-encoding"), seen.header("content-length")) {
        (Some(_), _) => Framing::Chunked,
        (None, length) => Framing::Length(length.and_then(|text| text.parse().ok()).unwrap_or(0)),
    };
    drop(buffer.split_to(length));
    Ok(Some((seen, framing)))
}

async fn take(reader: &mut OwnedReadHalf, buffer: &mut BytesMut, length: usize) -> io::Result<Bytes> {
    while buffer.len() < length {
        if reader.read_buf(buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(buffer.split_to(length).freeze())
}

async fn read_chunks(reader: &mut OwnedReadHalf, buffer: &mut BytesMut) -> io::Result<Bytes> {
    let mut body = BytesMut::new();
    loop {
        let parsed = httparse::parse_chunk_size(buffer).map_err(|_| io::ErrorKind::InvalidData)?;
        let httparse::Status::Complete((line, size)) = parsed else {
            if reader.read_buf(buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            continue;
        };
        drop(buffer.split_to(line));
        let size = usize::try_from(size).map_err(io::Error::other)?;
        let chunk = take(reader, buffer, size + 2).await?;
        if size == 0 {
            return Ok(body.freeze());
        }
        body.extend_from_slice(&chunk[..size]);
    }
}
