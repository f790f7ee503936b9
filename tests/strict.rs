//! Strict limits hold the worst case: whatever a client writes, a call that may use more than is left does not pass.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use shared::admin::{AddAccount, CreateKey};
use shared::domain::{AccountKind, Protocol};

use crate::support::{Call, Client, Rig, Setup, admin};

async fn strict(rig: &Rig, limit: &str) -> Client {
    rig.client_of(&CreateKey { limits: vec![limit.parse().unwrap()], ..admin::key("strict") }).await
}

/// The model that is sent writes the answer, whatever the client calls it.
#[tokio::test]
async fn the_worst_case_is_that_of_the_model_that_is_sent() {
    let rig = Rig::bare(Setup::default()).await;
    let names = [("gpt-4o", "claude-opus-5"), ("claude-opus-4-8", "gpt-4o"), ("alias", "gpt-4o")];
    let model_map: BTreeMap<_, _> = names.map(|(name, sent)| (name.to_owned(), sent.to_owned())).into();
    rig.daemon.call(&AddAccount { model_map, ..rig.account(AccountKind::OpenaiResponses, "openai") }).await;
    let client = strict(&rig, "100k tokens per hour strict").await;
    for protocol in [Protocol::ChatCompletions, Protocol::Responses] {
        client.call(&Call::new(protocol, "claude-opus-4-8")).await.expect(200);
        client.call(&Call::new(protocol, "alias")).await.expect(200);
        let refused = client.call(&Call::new(protocol, "gpt-4o")).await.expect(429);
        let message = refused.error_message(protocol);
        assert!(message.contains("this call may need 128"), "{message}");
        rig.daemon.settled().await;
    }
}

/// A call that allows an answer of 64 tokens, with something in it.
fn with(protocol: Protocol, member: &str, value: &Value) -> String {
    let text = |part: &str| format!(r#"{{{part},{member}:{value}}}"#);
    match protocol {
        Protocol::Messages => {
            let block = text(r#""type":"image""#);
            format!(r#"{{"model":"m","max_tokens":64,"messages":[{{"role":"user","content":[{block}]}}]}}"#)
        }
        Protocol::ChatCompletions => {
            let part = text(r#""type":"file""#);
            format!(r#"{{"model":"m","max_tokens":64,"messages":[{{"role":"user","content":[{part}]}}]}}"#)
        }
        Protocol::Responses => {
            let item = text(r#""type":"input_file""#);
            format!(r#"{{"model":"m","max_output_tokens":64,"input":[{item}]}}"#)
        }
        Protocol::GenerateContent => {
            let part = text(r#""text":"a""#);
            format!(r#"{{"generationConfig":{{"maxOutputTokens":64}},"contents":[{{"parts":[{part}]}}]}}"#)
        }
    }
}

/// The same call with a field of its own.
fn beside(protocol: Protocol, member: &str, value: &Value) -> String {
    let body = with(protocol, "\"x\"", &json!(1));
    format!("{{{member}:{value},{}", &body[1..])
}

async fn status(client: &Client, protocol: Protocol, body: &str) -> u16 {
    client.post(&Call::new(protocol, "m").path(), body.to_owned()).await.status
}

#[tokio::test]
async fn what_lies_elsewhere_counts_as_the_longest_prompt() {
    use Protocol::{ChatCompletions, GenerateContent, Messages, Responses};
    let rig = Rig::start().await;
    let client = strict(&rig, "500k tokens per hour strict").await;
    let id = json!("elsewhere");
    let nested = [
        (Messages, "\"url\"", id.clone()),
        (Messages, "\"file_id\"", id.clone()),
        (Messages, r#""file\u005fid""#, id.clone()),
        (Messages, r#""\u0075rl""#, id.clone()),
        (Messages, "\"FILE_ID\"", id.clone()),
        (ChatCompletions, "\"image_url\"", json!({"url": "https://a.test/a.png"})),
        (ChatCompletions, "\"image_url\"", id.clone()),
        (ChatCompletions, "\"file\"", json!({"file_id": "file-1"})),
        (ChatCompletions, "\"audio\"", json!({"id": "audio_1"})),
        (Responses, "\"file_url\"", id.clone()),
        (Responses, "\"file_id\"", id.clone()),
        (Responses, "\"id\"", id.clone()),
        (Responses, "\"file_ids\"", json!(["file-1"])),
        (GenerateContent, "\"fileData\"", json!({"mimeType": "a/b", "fileUri": "https://a.test"})),
        (GenerateContent, "\"file_data\"", json!({"file_uri": "https://a.test"})),
    ];
    let beside_others = [
        (Messages, "\"container\"", id.clone()),
        (Responses, "\"previous_response_id\"", id.clone()),
        (Responses, r#""previous_response\u005fid""#, id.clone()),
        (Responses, "\"conversation\"", id.clone()),
        (Responses, "\"conversation\"", json!({"id": "conv_1"})),
        (Responses, "\"prompt\"", json!({"id": "pmpt_1"})),
        (GenerateContent, "\"cachedContent\"", id.clone()),
        (GenerateContent, "\"cached_content\"", id.clone()),
    ];
    for (protocol, member, value) in nested {
        let body = with(protocol, member, &value);
        assert_eq!(status(&client, protocol, &body).await, 429, "{body}");
    }
    for (protocol, member, value) in beside_others {
        let body = beside(protocol, member, &value);
        assert_eq!(status(&client, protocol, &body).await, 429, "{body}");
    }
    assert_eq!(rig.upstream.count(), 0);
}

/// Else a strict limit would be of no use to clients with tools.
#[tokio::test]
async fn what_only_looks_like_a_reference_does_not() {
    use Protocol::{ChatCompletions, GenerateContent, Messages, Responses};
    let rig = Rig::start().await;
    let client = strict(&rig, "500k tokens per hour strict").await;
    let schema = json!({"properties": {
        "url": {"type": "string"}, "prompt": {"type": "string"}, "id": {"type": "string"},
        "file_id": {"type": "string"},
    }});
    for protocol in Protocol::ALL {
        let body = with(protocol, "\"schema\"", &schema);
        assert_eq!(status(&client, protocol, &body).await, 200, "{body}");
    }
    let text = json!("url\": \"file_id\" previous_response_id\"");
    for (protocol, body) in [
        (Messages, with(Messages, "\"id\"", &json!("toolu_1"))),
        (Messages, with(Messages, "\"text\"", &text)),
        (ChatCompletions, with(ChatCompletions, "\"id\"", &json!("call_1"))),
        (ChatCompletions, beside(ChatCompletions, "\"audio\"", &json!({"voice": "ash", "format": "wav"}))),
        (Responses, with(Responses, "\"call_id\"", &json!("call_1"))),
        (Responses, beside(Responses, "\"previous_response_id\"", &Value::Null)),
        (Responses, beside(Responses, "\"conversation\"", &Value::Null)),
        (GenerateContent, with(GenerateContent, "\"id\"", &json!("a"))),
    ] {
        assert_eq!(status(&client, protocol, &body).await, 200, "{body}");
    }
}
