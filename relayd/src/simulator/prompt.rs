//! What the simulator reads of a request. Its text is every string under `text`, `content`, `output` and
//! `parts` in the system instructions and in the messages, and the JSON of Gemini's function responses; images,
//! tool definitions and tool calls are none.

use serde_json::Value;

use super::fault::Fault;
use super::figures::tokens;
use super::route::Dialect;

/// Characters of the last text that are kept.
const SAID_CHARS_MAX: usize = 2_000;

/// A request as far as the answer depends on it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Prompt {
    /// The model as it was asked for.
    pub(super) model: String,
    /// Tokens of all text.
    pub(super) tokens: u64,
    /// The beginning of the last text of the user or of a tool; empty if there is none.
    pub(super) said: String,
    /// The tool that may be called.
    pub(super) tool: Option<Tool>,
    /// Whether the last message brings a tool's result.
    pub(super) brings_result: bool,
    /// Where the client wants the answer cut.
    pub(super) output_tokens_max: Option<u64>,
}

/// A tool that the client offers.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tool {
    /// Its name.
    pub(super) name: String,
    /// The JSON Schema of its arguments, or Gemini's dialect of it.
    pub(super) schema: Value,
}

impl Prompt {
    /// Reads the body of a request to generate.
    pub(super) fn read(dialect: Dialect<'_>, body: &Value) -> Result<Self, Fault> {
        if let (Dialect::Messages, None) = (dialect, body["max_tokens"].as_u64()) {
            return Err(Fault::Missing("max_tokens"));
        }
        Self::read_to_count(dialect, body)
    }

    /// Reads the body of a request to count, which needs less.
    pub(super) fn read_to_count(dialect: Dialect<'_>, body: &Value) -> Result<Self, Fault> {
        let model = match dialect {
            Dialect::GenerateContent { model, .. } => model,
            _ => body["model"].as_str().ok_or(Fault::Missing("model"))?,
        };
        let (system, turns) = turns(dialect, body)?;
        let (mut bytes, mut said) = (0_usize, String::new());
        each_text(system, &mut |text| bytes += text.len());
        for turn in turns {
            let is_said = is_said(turn);
            each_text(turn, &mut |text| {
                bytes += text.len();
                if is_said && !text.is_empty() {
                    said.clear();
                    said.extend(text.chars().take(SAID_CHARS_MAX));
                }
            });
        }
        let last = turns.last().unwrap_or(&Value::Null);
        Ok(Self {
            model: model.to_owned(),
            tokens: tokens(bytes).max(1),
            said,
            tool: tool(dialect, body),
            brings_result: brings_result(last),
            output_tokens_max: output_tokens_max(dialect, body),
        })
    }
}

/// The system instructions and the messages.
fn turns<'a>(dialect: Dialect<'_>, body: &'a Value) -> Result<(&'a Value, &'a [Value]), Fault> {
    let (system, turns, name) = match dialect {
        Dialect::Messages => (&body["system"], &body["messages"], "messages"),
        Dialect::ChatCompletions => (&Value::Null, &body["messages"], "messages"),
        Dialect::Responses => (&body["instructions"], &body["input"], "input"),
        Dialect::GenerateContent { .. } => {
            let body = body.get("generateContentRequest").unwrap_or(body);
            (either(body, "systemInstruction", "system_instruction"), &body["contents"], "contents")
        }
    };
    match turns {
        Value::Array(turns) if !turns.is_empty() => Ok((system, turns)),
        // Only the Responses API takes a bare text.
        Value::String(_) if dialect == Dialect::Responses => Ok((system, std::slice::from_ref(turns))),
        _ => Err(Fault::Missing(name)),
    }
}

/// Shows every text below a value to `visit`.
pub(super) fn each_text(value: &Value, visit: &mut dyn FnMut(&str)) {
    match value {
        Value::String(text) => visit(text),
        Value::Array(items) => items.iter().for_each(|item| each_text(item, visit)),
        Value::Object(fields) => {
            for key in ["text", "content", "output", "parts"] {
                fields.get(key).into_iter().for_each(|field| each_text(field, visit));
            }
            if let Some(response) = function_response(value) {
                visit(&response["response"].to_string());
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Whether a message comes from the user or from a tool.
fn is_said(turn: &Value) -> bool {
    match turn["role"].as_str() {
        Some(role) => matches!(role, "user" | "tool" | "function"),
        None => turn.is_string() || turn["parts"].is_array() || is_call_output(turn),
    }
}

/// Whether a message brings what a tool came back with.
fn brings_result(turn: &Value) -> bool {
    let has = |key: &str, is_result: fn(&Value) -> bool| {
        turn[key].as_array().is_some_and(|items| items.iter().any(is_result))
    };
    matches!(turn["role"].as_str(), Some("tool" | "function"))
        || is_call_output(turn)
        || has("content", |block| block["type"] == "tool_result")
        || has("parts", |part| function_response(part).is_some())
}

fn is_call_output(item: &Value) -> bool {
    item["type"].as_str().is_some_and(|kind| kind.ends_with("_call_output"))
}

fn function_response(part: &Value) -> Option<&Value> {
    part.get("functionResponse").or_else(|| part.get("function_response"))
}

/// The tool that the client wants called, else the first; `None` if there is none or the client forbids it.
fn tool(dialect: Dialect<'_>, body: &Value) -> Option<Tool> {
    let (wanted, forbidden) = match dialect {
        Dialect::GenerateContent { .. } => {
            let config = either(body, "toolConfig", "tool_config");
            let config = either(config, "functionCallingConfig", "function_calling_config");
            (&either(config, "allowedFunctionNames", "allowed_function_names")[0], config["mode"] == "NONE")
        }
        Dialect::Messages | Dialect::ChatCompletions | Dialect::Responses => {
            let choice = &body["tool_choice"];
            let name = choice.get("name").unwrap_or(&choice["function"]["name"]);
            (name, choice == "none" || choice["type"] == "none")
        }
    };
    if forbidden {
        return None;
    }
    let tools = tools(dialect, body);
    let chosen = tools.iter().find(|(name, _)| wanted == name).or_else(|| tools.first());
    chosen.map(|&(name, schema)| Tool { name: name.to_owned(), schema: schema.clone() })
}

/// The names and schemas of the functions on offer; tools that run at the vendor's are left out.
fn tools<'a>(dialect: Dialect<'_>, body: &'a Value) -> Vec<(&'a str, &'a Value)> {
    let offered = body["tools"].as_array().map_or(&[][..], Vec::as_slice).iter();
    let functions: Vec<(&Value, &Value)> = match dialect {
        Dialect::Messages => {
            offered.filter_map(|tool| Some((&tool["name"], tool.get("input_schema")?))).collect()
        }
        Dialect::ChatCompletions => offered
            .filter_map(|tool| tool.get("function"))
            .map(|function| (&function["name"], &function["parameters"]))
            .collect(),
        Dialect::Responses => offered
            .filter(|tool| tool["type"] == "function")
            .map(|tool| (&tool["name"], &tool["parameters"]))
            .collect(),
        Dialect::GenerateContent { .. } => offered
            .filter_map(|tool| either(tool, "functionDeclarations", "function_declarations").as_array())
            .flatten()
            .map(|function| (&function["name"], gemini_schema(function)))
            .collect(),
    };
    functions.into_iter().filter_map(|(name, schema)| Some((name.as_str()?, schema))).collect()
}

fn gemini_schema(function: &Value) -> &Value {
    let schema = either(function, "parametersJsonSchema", "parameters_json_schema");
    if schema.is_null() { &function["parameters"] } else { schema }
}

fn output_tokens_max(dialect: Dialect<'_>, body: &Value) -> Option<u64> {
    match dialect {
        Dialect::Messages => body["max_tokens"].as_u64(),
        Dialect::ChatCompletions => either(body, "max_completion_tokens", "max_tokens").as_u64(),
        Dialect::Responses => body["max_output_tokens"].as_u64(),
        Dialect::GenerateContent { .. } => {
            let config = either(body, "generationConfig", "generation_config");
            either(config, "maxOutputTokens", "max_output_tokens").as_u64()
        }
    }
}

/// A field under one of two names; null where it has neither. Gemini takes both spellings of each name.
pub(super) fn either<'a>(object: &'a Value, name: &str, other: &str) -> &'a Value {
    object.get(name).filter(|value| !value.is_null()).unwrap_or(&object[other])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::route::Delivery;
    use super::*;

    const GEMINI: Dialect<'_> = Dialect::GenerateContent { model: "m", delivery: Delivery::Whole };

    fn check(dialect: Dialect<'_>, body: &Value, bytes: usize, said: &str, brings_result: bool) {
        let prompt = Prompt::read(dialect, body).unwrap();
        assert_eq!(prompt.tokens, tokens(bytes), "{body}");
        assert_eq!((prompt.said.as_str(), prompt.brings_result), (said, brings_result), "{body}");
    }

    #[test]
    fn all_text_of_messages_counts_and_the_last_is_heard() {
        for (dialect, body, bytes, said, brings_result) in [
            (
                Dialect::Messages,
                json!({ "model": "m", "max_tokens": 9, "system": "abcd", "messages": [
                    { "role": "user", "content": "hello" },
                    { "role": "assistant", "content": [{ "type": "text", "text": "yes" }] },
                    { "role": "user", "content": [
                        { "type": "image", "source": { "type": "base64", "data": "AAAA" } },
                        { "type": "text", "text": "first" },
                        { "type": "text", "text": "grüß" },
                    ] },
                ] }),
                4 + 5 + 3 + 5 + 6,
                "grüß",
                false,
            ),
            (
                Dialect::Messages,
                json!({ "model": "m", "max_tokens": 9, "system": [{ "type": "text", "text": "ab" }], "messages": [
                    { "role": "user", "content": "go" },
                    { "role": "assistant", "content": [
                        { "type": "tool_use", "id": "t", "name": "f", "input": { "text": "no" } },
                    ] },
                    { "role": "user", "content": [
                        { "type": "tool_result", "tool_use_id": "t", "content": [{ "type": "text", "text": "done" }] },
                    ] },
                ] }),
                2 + 2 + 4,
                "done",
                true,
            ),
            (
                Dialect::ChatCompletions,
                json!({ "model": "m", "messages": [
                    { "role": "system", "content": "abc" },
                    { "role": "user", "content": [{ "type": "text", "text": "hello" }] },
                    { "role": "assistant", "content": null, "tool_calls": [{ "function": { "arguments": "{}" } }] },
                    { "role": "tool", "tool_call_id": "c", "content": "42" },
                ] }),
                3 + 5 + 2,
                "42",
                true,
            ),
            (
                Dialect::ChatCompletions,
                json!({ "model": "m", "messages": [{ "role": "assistant", "content": "" }] }),
                1,
                "",
                false,
            ),
        ] {
            check(dialect, &body, bytes, said, brings_result);
        }
    }

    #[test]
    fn all_text_of_items_and_contents_counts_and_the_last_is_heard() {
        for (dialect, body, bytes, said, brings_result) in [
            (Dialect::Responses, json!({ "model": "m", "input": "hello" }), 5, "hello", false),
            (
                Dialect::Responses,
                json!({ "model": "m", "instructions": "abc", "input": [
                    { "role": "user", "content": [{ "type": "input_text", "text": "hello" }] },
                    { "type": "message", "role": "assistant", "content": [{ "type": "output_text", "text": "x" }] },
                    { "type": "function_call", "call_id": "c", "name": "f", "arguments": "{}" },
                    { "type": "function_call_output", "call_id": "c", "output": "42" },
                ] }),
                3 + 5 + 1 + 2,
                "42",
                true,
            ),
            (
                GEMINI,
                json!({ "system_instruction": { "parts": [{ "text": "abc" }] }, "contents": [
                    { "parts": [{ "text": "hello" }] },
                    { "role": "model", "parts": [{ "functionCall": { "name": "f", "args": {} } }] },
                    { "role": "user", "parts": [
                        { "functionResponse": { "name": "f", "response": { "output": 42 } } },
                    ] },
                ] }),
                3 + 5 + r#"{"output":42}"#.len(),
                r#"{"output":42}"#,
                true,
            ),
            (
                GEMINI,
                json!({ "generateContentRequest": { "contents": [{ "parts": [{ "text": "hello" }] }] } }),
                5,
                "hello",
                false,
            ),
        ] {
            check(dialect, &body, bytes, said, brings_result);
        }
    }

    #[test]
    fn only_the_beginning_of_a_long_text_is_kept() {
        let body = json!({ "model": "m", "input": "ä".repeat(5_000) });
        let prompt = Prompt::read(Dialect::Responses, &body).unwrap();
        assert_eq!(prompt.said.chars().count(), 2_000);
        assert_eq!(prompt.tokens, 2_500);
    }

    #[test]
    fn what_a_protocol_requires_is_missed_by_name() {
        for (dialect, body, field) in [
            (Dialect::Messages, json!({ "model": "m", "messages": ["hi"] }), "max_tokens"),
            (Dialect::Messages, json!({ "max_tokens": 1, "messages": ["hi"] }), "model"),
            (Dialect::Messages, json!({ "max_tokens": 1, "model": "m", "messages": [] }), "messages"),
            (Dialect::ChatCompletions, json!({ "model": "m", "messages": "hi" }), "messages"),
            (Dialect::ChatCompletions, json!({ "model": 7, "messages": ["hi"] }), "model"),
            (Dialect::Responses, json!({ "model": "m" }), "input"),
            (GEMINI, json!({}), "contents"),
        ] {
            assert_eq!(Prompt::read(dialect, &body), Err(Fault::Missing(field)), "{body}");
        }
        let counted = json!({ "model": "m", "messages": [{ "role": "user", "content": "hello" }] });
        assert_eq!(Prompt::read_to_count(Dialect::Messages, &counted).unwrap().tokens, 2);
    }

    #[test]
    fn the_first_or_the_named_function_is_the_tool() {
        let messages = json!([
            { "type": "web_search_20250305", "name": "web_search" },
            { "name": "a", "input_schema": {} },
            { "name": "b", "input_schema": {} },
        ]);
        let chat = json!([{ "type": "custom", "custom": { "name": "c" } },
            { "type": "function", "function": { "name": "a" } },
            { "type": "function", "function": { "name": "b" } }]);
        let responses = json!([{ "type": "web_search" }, { "type": "function", "name": "a" },
            { "type": "function", "name": "b" }]);
        let gemini =
            json!([{ "googleSearch": {} }, { "functionDeclarations": [{ "name": "a" }, { "name": "b" }] }]);
        for (dialect, tools, name, choice, expected) in [
            (Dialect::Messages, &messages, "tool_choice", json!({ "type": "auto" }), Some("a")),
            (Dialect::Messages, &messages, "tool_choice", json!({ "type": "tool", "name": "b" }), Some("b")),
            (Dialect::Messages, &messages, "tool_choice", json!({ "type": "none" }), None),
            (Dialect::ChatCompletions, &chat, "tool_choice", json!("required"), Some("a")),
            (
                Dialect::ChatCompletions,
                &chat,
                "tool_choice",
                json!({ "function": { "name": "b" } }),
                Some("b"),
            ),
            (Dialect::ChatCompletions, &chat, "tool_choice", json!("none"), None),
            (Dialect::Responses, &responses, "tool_choice", json!(null), Some("a")),
            (
                Dialect::Responses,
                &responses,
                "tool_choice",
                json!({ "type": "function", "name": "b" }),
                Some("b"),
            ),
            (
                GEMINI,
                &gemini,
                "toolConfig",
                json!({ "functionCallingConfig": { "mode": "AUTO" } }),
                Some("a"),
            ),
            (
                GEMINI,
                &gemini,
                "toolConfig",
                json!({ "functionCallingConfig": { "mode": "ANY", "allowedFunctionNames": ["b"] } }),
                Some("b"),
            ),
            (GEMINI, &gemini, "tool_config", json!({ "function_calling_config": { "mode": "NONE" } }), None),
            (GEMINI, &json!([]), "toolConfig", json!(null), None),
        ] {
            let mut body = json!({ "tools": tools });
            body[name] = choice;
            let found = tool(dialect, &body).map(|tool| tool.name);
            assert_eq!(found.as_deref(), expected, "{body}");
        }
    }

    #[test]
    fn each_protocol_names_the_limit_its_own_way() {
        for (dialect, body) in [
            (Dialect::Messages, json!({ "max_tokens": 5 })),
            (Dialect::ChatCompletions, json!({ "max_completion_tokens": 5, "max_tokens": 9 })),
            (Dialect::ChatCompletions, json!({ "max_completion_tokens": null, "max_tokens": 5 })),
            (Dialect::Responses, json!({ "max_output_tokens": 5 })),
            (GEMINI, json!({ "generationConfig": { "maxOutputTokens": 5 } })),
            (GEMINI, json!({ "generation_config": { "max_output_tokens": 5 } })),
        ] {
            assert_eq!(output_tokens_max(dialect, &body), Some(5), "{body}");
        }
    }
}
