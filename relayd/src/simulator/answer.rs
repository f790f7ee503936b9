//! From a request to its planned answer, without waiting for anything: whole, or the script of a stream.

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, Uri};
use serde::Serialize;
use serde_json::{Value, json};
use shared::domain::Protocol;

use super::chat_completions::ChatCompletions;
use super::embeddings::{BatchEmbedContents, EmbedContent, Embeddings};
use super::fault::Fault;
use super::form::{Form, Script};
use super::generate_content::GenerateContent;
use super::messages::Messages;
use super::model::{self, Behaviour};
use super::prompt::Prompt;
use super::reply::Reply;
use super::responses::Responses;
use super::route::{Delivery, Dialect, Endpoint};

/// A request, read to its end.
pub(super) struct Question<'a> {
    /// Its method.
    pub(super) method: &'a Method,
    /// Its address.
    pub(super) uri: &'a Uri,
    /// Its headers.
    pub(super) headers: &'a HeaderMap,
    /// Its body.
    pub(super) body: &'a [u8],
    /// What the ids of the answer are made of.
    pub(super) id: &'a str,
    /// Pieces of a streamed answer.
    pub(super) chunks: usize,
    /// Whether the account's error rate hits this call.
    pub(super) fails: bool,
}

/// What is to be sent, and how slowly.
pub(super) struct Answer {
    /// The status.
    pub(super) status: StatusCode,
    /// The protocol, which has its own name for the header with the request's id.
    pub(super) protocol: Protocol,
    /// What a refused client is told to wait.
    pub(super) retry_after_s: Option<u32>,
    /// By what all waits are multiplied.
    pub(super) slowness: u32,
    /// The body.
    pub(super) content: AnswerBody,
}

/// A body that is ready, or one that comes piece by piece.
pub(super) enum AnswerBody {
    /// JSON.
    Whole(Bytes),
    /// A stream.
    Script(Box<Script>),
}

/// Answers a request.
pub(super) fn answer(question: &Question<'_>) -> Answer {
    let Some(endpoint) = Endpoint::of(question.method, question.uri, question.headers) else {
        return refusal(Fault::NoEndpoint, Protocol::ChatCompletions, question.id);
    };
    let answered = if question.fails { Err(Fault::Overloaded) } else { answer_at(endpoint, question) };
    match (answered, endpoint) {
        (Ok(answer), _) => answer,
        (Err(fault), Endpoint::Generate(Dialect::GenerateContent { delivery: Delivery::Array, .. })) => {
            let mut refusal = refusal(fault, Protocol::GenerateContent, question.id);
            refusal.content = json_body(&[fault.body(Protocol::GenerateContent, question.id)]);
            refusal
        }
        (Err(fault), endpoint) => refusal(fault, endpoint.protocol(), question.id),
    }
}

fn answer_at(endpoint: Endpoint<'_>, question: &Question<'_>) -> Result<Answer, Fault> {
    let read = || {
        let body = serde_json::from_slice::<Value>(question.body).ok();
        body.filter(Value::is_object).ok_or(Fault::NotJson)
    };
    let ready = |model: &str, body: AnswerBody| Ok(ready(endpoint.protocol(), able(model)?, body));
    match endpoint {
        Endpoint::Models(protocol) => ready("", json_body(&model::list(protocol))),
        Endpoint::Generate(dialect) => generate(dialect, &read()?, question),
        Endpoint::CountTokens(dialect) => {
            let prompt = Prompt::read_to_count(dialect, &read()?)?;
            ready(&prompt.model, json_body(&count(dialect, prompt.tokens)))
        }
        Endpoint::Embeddings => {
            let body = read()?;
            let model = body["model"].as_str().ok_or(Fault::Missing("model"))?;
            ready(model, json_body(&Embeddings::to(model, &body)?))
        }
        Endpoint::EmbedContent { model } => ready(model, json_body(&EmbedContent::to(&read()?)?)),
        Endpoint::BatchEmbedContents { model } => ready(model, json_body(&BatchEmbedContents::to(&read()?)?)),
    }
}

fn generate(dialect: Dialect<'_>, body: &Value, question: &Question<'_>) -> Result<Answer, Fault> {
    let prompt = Prompt::read(dialect, body)?;
    let behaviour = able(&prompt.model)?;
    let reply = Reply::to(prompt, behaviour, question.id.to_owned());
    let form = form(dialect, body);
    let content = if is_streamed(dialect, body) {
        AnswerBody::Script(Box::new(Script::new(form, reply, question.chunks)))
    } else {
        json_body(&form.whole(&reply))
    };
    Ok(ready(dialect.protocol(), behaviour, content))
}

fn form(dialect: Dialect<'_>, body: &Value) -> Box<dyn Form> {
    match dialect {
        Dialect::Messages => Box::new(Messages),
        Dialect::ChatCompletions => {
            Box::new(ChatCompletions { includes_usage: body["stream_options"]["include_usage"] == true })
        }
        Dialect::Responses => Box::new(Responses::repeating(body)),
        Dialect::GenerateContent { delivery, .. } => Box::new(GenerateContent { delivery }),
    }
}

fn is_streamed(dialect: Dialect<'_>, body: &Value) -> bool {
    match dialect {
        Dialect::GenerateContent { delivery, .. } => delivery != Delivery::Whole,
        Dialect::Messages | Dialect::ChatCompletions | Dialect::Responses => body["stream"] == true,
    }
}

fn count(dialect: Dialect<'_>, tokens: u64) -> Value {
    match dialect {
        Dialect::GenerateContent { .. } => json!({
            "totalTokens": tokens,
            "promptTokensDetails": [{ "modality": "TEXT", "tokenCount": tokens }],
        }),
        Dialect::Messages | Dialect::ChatCompletions | Dialect::Responses => {
            json!({ "input_tokens": tokens })
        }
    }
}

/// What the model does, unless it is to fail.
fn able(model: &str) -> Result<Behaviour, Fault> {
    match Behaviour::of(model) {
        Behaviour::Fail(status) => Err(Fault::Asked(status)),
        behaviour => Ok(behaviour),
    }
}

fn ready(protocol: Protocol, behaviour: Behaviour, content: AnswerBody) -> Answer {
    let slowness = behaviour.slowness();
    Answer { status: StatusCode::OK, protocol, retry_after_s: None, slowness, content }
}

fn refusal(fault: Fault, protocol: Protocol, id: &str) -> Answer {
    Answer {
        status: fault.status(),
        protocol,
        retry_after_s: fault.retry_after_s(),
        slowness: 1,
        content: json_body(&fault.body(protocol, id)),
    }
}

/// Writes JSON; what is made here has no keys but strings, so it always can be written.
fn json_body(value: &impl Serialize) -> AnswerBody {
    AnswerBody::Whole(serde_json::to_vec(value).unwrap_or_default().into())
}
