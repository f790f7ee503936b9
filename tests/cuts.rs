//! Streams cut at every byte position: the same usage is metered, and the client gets the same bytes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use shared::domain::{Protocol, Provenance};
use tokio::task::JoinSet;

use crate::support::wire::{self, Content};
use crate::support::{Call, Client, Reply, Rig, Seen, cut};

const CLIENTS: usize = 8;

/// The stream of the protocol as an upstream writes it, for a model whose name has always the same length.
fn stream(seen: &Seen, line_end: LineEnd) -> Bytes {
    let bytes: Bytes = seen.events().concat().into();
    match line_end {
        LineEnd::AsIs => bytes,
        LineEnd::CrLf => with_crlf(&bytes),
    }
}

#[derive(Clone, Copy, PartialEq)]
enum LineEnd {
    AsIs,
    CrLf,
}

fn with_crlf(bytes: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(bytes.len() + 64);
    for &byte in bytes {
        if byte == b'\n' && out.last() != Some(&b'\r') {
            out.push(b'\r');
        }
        out.push(byte);
    }
    out.into()
}

/// Model `m-LLLL-MMMM`: cut at bytes L and M.
fn model(first: usize, second: usize) -> String {
    format!("m-{first:05}-{second:05}")
}

fn positions(model: &str) -> Vec<usize> {
    model.split('-').skip(1).map(|number| number.parse().unwrap()).collect()
}

struct Case {
    protocol: Protocol,
    /// The client itself asks for the usage chunk of Chat Completions.
    include_usage: bool,
    line_end: LineEnd,
}

impl Case {
    fn call(&self, model: String) -> Call {
        Call { include_usage: self.include_usage, ..Call::new(self.protocol, model).streamed() }
    }

    /// What the client must get: the upstream's bytes, without a usage chunk that it did not ask for.
    fn expected(&self, model: &str) -> Bytes {
        let is_chat = self.protocol == Protocol::ChatCompletions;
        let mut events = wire::events(self.protocol, model, Content::Text, is_chat);
        if is_chat && !self.include_usage {
            events.remove(events.len() - 2);
        }
        let bytes: Bytes = events.concat().into();
        if self.line_end == LineEnd::CrLf { with_crlf(&bytes) } else { bytes }
    }
}

async fn run(rig: &Rig, case: Case, models: Vec<String>) {
    let line_end = case.line_end;
    rig.upstream.script(move |seen| {
        let pieces = cut(&stream(seen, line_end), &positions(&seen.model()));
        Reply::stream("text/event-stream", pieces).with_gaps(Duration::from_millis(1))
    });
    let models = Arc::new(models);
    let case = Arc::new(case);
    let mut clients = JoinSet::new();
    for first in 0..CLIENTS {
        clients.spawn(calls(rig.client.clone(), Arc::clone(&case), Arc::clone(&models), first));
    }
    while let Some(done) = clients.join_next().await {
        done.unwrap();
    }
    let rows = rig.daemon.rows().await;
    let rows: BTreeMap<&str, _> = rows.iter().map(|row| (row.model.as_str(), row)).collect();
    for model in models.iter() {
        let row = rows.get(model.as_str()).unwrap_or_else(|| panic!("{model} has no row"));
        assert_eq!(row.usage, wire::usage(case.protocol), "{model}");
        assert_eq!((row.provenance, row.end.as_str()), (Provenance::Measured, "complete"), "{model}");
    }
}

async fn calls(client: Client, case: Arc<Case>, models: Arc<Vec<String>>, first: usize) {
    for model in models.iter().skip(first).step_by(CLIENTS) {
        let answer = client.call(&case.call(model.clone())).await.expect(200);
        assert!(!answer.is_broken, "{model}");
        assert_eq!(answer.body, case.expected(model), "{model}: {}", answer.text());
    }
}

/// Every position of the first and of the last kilobyte and a half; between them nothing new happens.
async fn cut_everywhere(protocol: Protocol, include_usage: bool, line_end: LineEnd) {
    let rig = Rig::start().await;
    let case = Case { protocol, include_usage, line_end };
    let usage = protocol == Protocol::ChatCompletions;
    let probe: Bytes = wire::events(protocol, &model(0, 0), Content::Text, usage).concat().into();
    let length = if line_end == LineEnd::CrLf { with_crlf(&probe).len() } else { probe.len() };
    let models = (1..length).filter(|at| *at < 1500 || length - at < 1500).map(|at| model(at, at)).collect();
    run(&rig, case, models).await;
}

#[tokio::test]
async fn messages_streams() {
    cut_everywhere(Protocol::Messages, false, LineEnd::AsIs).await;
}

#[tokio::test]
async fn chat_streams_with_usage_asked_for() {
    cut_everywhere(Protocol::ChatCompletions, true, LineEnd::AsIs).await;
}

#[tokio::test]
async fn chat_streams_with_usage_taken_out() {
    cut_everywhere(Protocol::ChatCompletions, false, LineEnd::AsIs).await;
}

#[tokio::test]
async fn chat_streams_with_crlf_and_usage_taken_out() {
    cut_everywhere(Protocol::ChatCompletions, false, LineEnd::CrLf).await;
}

#[tokio::test]
async fn responses_streams() {
    cut_everywhere(Protocol::Responses, false, LineEnd::AsIs).await;
}

#[tokio::test]
async fn gemini_streams() {
    cut_everywhere(Protocol::GenerateContent, false, LineEnd::AsIs).await;
}

#[tokio::test]
async fn messages_streams_with_crlf() {
    cut_everywhere(Protocol::Messages, false, LineEnd::CrLf).await;
}

#[tokio::test]
async fn single_bytes_of_every_protocol() {
    let rig = Rig::start().await;
    rig.upstream.script(|seen| {
        let bytes = stream(seen, LineEnd::AsIs);
        let every: Vec<usize> = (1..bytes.len()).collect();
        Reply::stream("text/event-stream", cut(&bytes, &every))
    });
    for protocol in Protocol::ALL {
        let case = Case { protocol, include_usage: true, line_end: LineEnd::AsIs };
        let model = format!("bytes-{}", protocol.name());
        let include_usage = protocol == Protocol::ChatCompletions;
        let call = Call { include_usage, ..case.call(model.clone()) };
        let answer = rig.client.call(&call).await.expect(200);
        assert_eq!(answer.body, case.expected(&model));
        assert_eq!(rig.daemon.row(&model).await.usage, wire::usage(protocol), "{model}");
    }
}

#[tokio::test]
async fn gemini_without_sse_is_a_json_array_and_is_metered() {
    let rig = Rig::start().await;
    let body = Call::new(Protocol::GenerateContent, "m").body();
    let length = wire::gemini_array("array-00000", Content::Text).concat().len();
    rig.upstream.script(|seen| {
        let bytes: Bytes = seen.events().concat().into();
        let at = seen.model()[6..].parse().unwrap();
        Reply::stream("application/json", cut(&bytes, &[at])).with_gaps(Duration::from_millis(1))
    });
    for at in (1..length).step_by(7) {
        let model = format!("array-{at:05}");
        let path = format!("/v1beta/models/{model}:streamGenerateContent");
        let answer = rig.client.post(&path, body.clone()).await.expect(200);
        assert_eq!(answer.body, wire::gemini_array(&model, Content::Text).concat());
    }
    for row in rig.daemon.rows().await {
        assert_eq!(row.usage, wire::usage(Protocol::GenerateContent), "{}", row.model);
        assert_eq!(row.provenance, Provenance::Measured, "{}", row.model);
    }
}
