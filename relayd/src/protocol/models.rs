//! Renders lists of models, and single ones, as each protocol's clients expect them.

use bytes::Bytes;
use serde_json::{Value, json};
use shared::domain::{Protocol, Timestamp};

/// A model as it is listed.
#[derive(Clone, Copy, Debug)]
pub struct ListedModel<'a> {
    /// The name that clients ask for.
    pub id: &'a str,
    /// When it came to be.
    pub created_at: Timestamp,
}

/// The body of a reply that lists all models: one page, and no more after it.
pub fn model_list(protocol: Protocol, models: &[ListedModel<'_>]) -> Bytes {
    let entries: Vec<_> = models.iter().map(|model| entry(protocol, model)).collect();
    let list = match protocol {
        Protocol::Messages => json!({
            "data": entries,
            "has_more": false,
            "first_id": models.first().map(|model| model.id),
            "last_id": models.last().map(|model| model.id),
        }),
        Protocol::ChatCompletions | Protocol::Responses => json!({"object": "list", "data": entries}),
        Protocol::GenerateContent => json!({ "models": entries }),
    };
    list.to_string().into()
}

/// The body of a reply about one model.
pub fn single_model(protocol: Protocol, model: &ListedModel<'_>) -> Bytes {
    entry(protocol, model).to_string().into()
}

fn entry(protocol: Protocol, model: &ListedModel<'_>) -> Value {
    let id = model.id;
    match protocol {
        Protocol::Messages => json!({
            "type": "model",
            "id": id,
            "display_name": id,
            // Whole seconds: not every client reads fractions.
            "created_at": Timestamp::from_millis(model.created_at.as_millis().div_euclid(1000) * 1000).to_string(),
        }),
        Protocol::ChatCompletions | Protocol::Responses => json!({
            "id": id,
            "object": "model",
            "created": model.created_at.as_millis().div_euclid(1000),
            "owned_by": "system",
        }),
        Protocol::GenerateContent => json!({
            "name": format!("models/{id}"),
            "version": "001",
            "displayName": id,
            "supportedGenerationMethods": ["generateContent", "streamGenerateContent", "countTokens"],
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODELS: [ListedModel<'_>; 2] = [
        ListedModel { id: "claude-opus-4-8", created_at: Timestamp::from_millis(1_770_163_200_000) },
        ListedModel { id: "x\"y", created_at: Timestamp::from_millis(1_715_367_049_999) },
    ];

    fn parsed(body: &Bytes) -> Value {
        serde_json::from_slice(body).unwrap()
    }

    #[test]
    fn lists_have_each_protocols_shape() {
        assert_eq!(
            parsed(&model_list(Protocol::Messages, &MODELS)),
            json!({"data": [
                {"type": "model", "id": "claude-opus-4-8", "display_name": "claude-opus-4-8", "created_at": "2026-02-04T00:00:00Z"},
                {"type": "model", "id": "x\"y", "display_name": "x\"y", "created_at": "2024-05-10T18:50:49Z"},
            ], "has_more": false, "first_id": "claude-opus-4-8", "last_id": "x\"y"})
        );
        assert_eq!(
            parsed(&model_list(Protocol::Messages, &[])),
            json!({"data": [], "has_more": false, "first_id": null, "last_id": null})
        );
        assert_eq!(
            parsed(&model_list(Protocol::Responses, &MODELS[..1])),
            json!({"object": "list", "data": [
                {"id": "claude-opus-4-8", "object": "model", "created": 1_770_163_200, "owned_by": "system"}]})
        );
        let gemini = parsed(&model_list(Protocol::GenerateContent, &MODELS));
        assert_eq!(gemini["models"][0]["name"], "models/claude-opus-4-8");
    }

    #[test]
    fn one_model_is_its_entry() {
        let one = parsed(&single_model(Protocol::ChatCompletions, &MODELS[1]));
        assert_eq!(one, parsed(&model_list(Protocol::ChatCompletions, &MODELS[1..]))["data"][0]);
        assert_eq!(one["created"], 1_715_367_049);
    }
}
