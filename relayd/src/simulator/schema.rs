//! A value that fits a JSON Schema, or Gemini's dialect of it: the least that the schema's required properties
//! ask for. Patterns, formats beyond the common ones, and conditions are not followed.

use serde_json::{Map, Value, json};

/// Values made for one schema at most; what is beyond is null.
const VALUES_MAX: u32 = 1_000;
/// How deep a made value nests at most; references may go round in circles.
const DEPTH_MAX: u32 = 24;
/// Characters and items that a lower bound can make us produce.
const LENGTH_MAX: usize = 1_000;

/// Makes the arguments of a tool from the schema of its parameters.
pub(super) fn arguments(schema: &Value) -> Map<String, Value> {
    let mut maker = Maker { root: schema, values_left: VALUES_MAX };
    match maker.value(schema, 0) {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

struct Maker<'a> {
    root: &'a Value,
    values_left: u32,
}

impl<'a> Maker<'a> {
    fn value(&mut self, schema: &'a Value, depth: u32) -> Value {
        if depth >= DEPTH_MAX || self.values_left == 0 {
            return Value::Null;
        }
        self.values_left -= 1;
        if let Some(stated) = stated(schema) {
            return stated.clone();
        }
        if let Some(meant) = self.meant(schema) {
            return self.value(meant, depth + 1);
        }
        match kind(schema).as_str() {
            "object" => Value::Object(self.object(schema, depth)),
            "array" => Value::Array(self.array(schema, depth)),
            "integer" => json!(integer(schema)),
            "number" => json!(number(schema)),
            "boolean" => Value::Bool(true),
            "null" => Value::Null,
            _ => Value::String(string(schema)),
        }
    }

    /// The schema that stands behind a reference or is the first of several choices.
    fn meant(&self, schema: &'a Value) -> Option<&'a Value> {
        if let Some(reference) = schema["$ref"].as_str() {
            return self.root.pointer(reference.strip_prefix('#')?);
        }
        let choices = ["anyOf", "oneOf", "any_of"].iter().find_map(|key| schema[key].as_array())?;
        choices.iter().find(|choice| choice["type"] != "null").or_else(|| choices.first())
    }

    fn object(&mut self, schema: &'a Value, depth: u32) -> Map<String, Value> {
        let mut fields = Map::new();
        for part in std::iter::once(schema).chain(items(&schema["allOf"])) {
            let part = self.meant(part).unwrap_or(part);
            for name in items(&part["required"]).iter().filter_map(Value::as_str) {
                if self.values_left == 0 {
                    return fields;
                }
                let value = self.value(&part["properties"][name], depth + 1);
                fields.insert(name.to_owned(), value);
            }
        }
        fields
    }

    fn array(&mut self, schema: &'a Value, depth: u32) -> Vec<Value> {
        let mut values = Vec::new();
        while values.len() < length(schema, "minItems") && self.values_left > 0 {
            values.push(self.value(&schema["items"], depth + 1));
        }
        values
    }
}

/// A value that the schema itself names.
fn stated(schema: &Value) -> Option<&Value> {
    schema.get("const").or_else(|| schema["enum"].as_array()?.first())
}

/// The type, in lower case; told from the other keys where it is not said.
fn kind(schema: &Value) -> String {
    let named = match &schema["type"] {
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).find(|&kind| kind != "null"),
        kind => kind.as_str(),
    };
    match named {
        Some(kind) => kind.to_lowercase(),
        None if ["properties", "required", "allOf"].iter().any(|key| schema.get(key).is_some()) => {
            "object".to_owned()
        }
        None if schema.get("items").is_some() => "array".to_owned(),
        None => "string".to_owned(),
    }
}

/// One, or what is nearest to it within the bounds.
fn integer(schema: &Value) -> i64 {
    let bound = |key: &str| schema[key].as_i64();
    let least = bound("minimum").or_else(|| bound("exclusiveMinimum")?.checked_add(1)).unwrap_or(i64::MIN);
    let most = bound("maximum").or_else(|| bound("exclusiveMaximum")?.checked_sub(1)).unwrap_or(i64::MAX);
    1.min(most).max(least)
}

/// One, or a number well within the bounds, so that it matters little whether they are exclusive.
fn number(schema: &Value) -> f64 {
    let bound = |key: &str| schema[key].as_f64();
    let least = bound("minimum").or_else(|| bound("exclusiveMinimum"));
    let most = bound("maximum").or_else(|| bound("exclusiveMaximum"));
    match (least, most) {
        (Some(least), Some(most)) if least >= 1.0 || most <= 1.0 => least.midpoint(most),
        (Some(least), None) if least >= 1.0 => least + 1.0,
        (None, Some(most)) if most <= 1.0 => most - 1.0,
        _ => 1.0,
    }
}

fn string(schema: &Value) -> String {
    let text = match schema["format"].as_str() {
        Some("date-time") => "2026-01-01T00:00:00Z",
        Some("date") => "2026-01-01",
        Some("time") => "00:00:00Z",
        Some("email") => "simulator@example.com",
        Some("uri" | "url") => "https://example.com/",
        Some("uuid") => "00000000-0000-4000-8000-000000000000",
        _ => "simulated",
    };
    let least = length(schema, "minLength");
    let most = schema["maxLength"].as_u64().and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX);
    text.chars().chain(std::iter::repeat('.')).take(text.len().max(least).min(most)).collect()
}

/// A lower bound on a length. Gemini writes such numbers as strings.
fn length(schema: &Value, key: &str) -> usize {
    let bound = schema[key].as_u64().or_else(|| schema[key].as_str()?.parse().ok()).unwrap_or(0);
    usize::try_from(bound).map_or(LENGTH_MAX, |bound| bound.min(LENGTH_MAX))
}

fn items(list: &Value) -> &[Value] {
    list.as_array().map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_fit_their_schemas() {
        for (schema, expected) in [
            (json!({ "type": "object", "properties": {} }), json!({})),
            (json!(null), json!({})),
            (json!({ "type": "string" }), json!({})),
            (
                json!({
                    "type": "object",
                    "properties": { "city": { "type": "string" }, "unit": { "enum": ["c", "f"] }, "days": {} },
                    "required": ["city", "unit"],
                }),
                json!({ "city": "simulated", "unit": "c" }),
            ),
            (
                json!({
                    "type": "OBJECT",
                    "properties": { "n": { "type": "INTEGER", "minimum": 5 }, "b": { "type": "BOOLEAN" } },
                    "required": ["n", "b"],
                }),
                json!({ "n": 5, "b": true }),
            ),
            (
                json!({
                    "properties": {
                        "list": { "type": "array", "items": { "type": "number", "maximum": 0.5 }, "minItems": 2 },
                        "maybe": { "type": ["null", "integer"], "exclusiveMaximum": 0 },
                        "either": { "anyOf": [{ "type": "null" }, { "const": 7 }] },
                        "when": { "type": "string", "format": "date" },
                        "code": { "type": "string", "minLength": 11, "maxLength": 12 },
                        "short": { "type": "string", "maxLength": 3 },
                        "share": { "type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1 },
                    },
                    "required": ["list", "maybe", "either", "when", "code", "short", "share", "undeclared"],
                }),
                json!({
                    "list": [-0.5, -0.5], "maybe": -1, "either": 7, "when": "2026-01-01",
                    "code": "simulated..", "short": "sim", "share": 0.5, "undeclared": "simulated",
                }),
            ),
            (
                json!({
                    "$defs": { "point": { "properties": { "x": { "type": "integer" } }, "required": ["x"] } },
                    "properties": { "at": { "$ref": "#/$defs/point" } },
                    "allOf": [{ "required": ["at"], "properties": { "at": { "$ref": "#/missing" } } }],
                    "required": ["at"],
                }),
                json!({ "at": "simulated" }),
            ),
        ] {
            assert_eq!(Value::Object(arguments(&schema)), expected, "{schema}");
        }
    }

    #[test]
    fn hostile_schemas_stay_small() {
        let round = json!({ "properties": { "a": { "$ref": "#" } }, "required": ["a"] });
        let mut wide = json!({ "type": "integer" });
        for _ in 0..8 {
            wide = json!({ "type": "array", "items": wide, "minItems": 1_000_000_000_u64 });
        }
        let wide = json!({ "properties": { "a": wide }, "required": ["a"] });
        let names: Vec<String> = (0..5_000).map(|n| n.to_string()).collect();
        let many = json!({ "required": names });
        let long = json!({ "properties": { "a": { "minLength": u64::MAX } }, "required": ["a"] });
        for schema in [round, wide, many, long] {
            assert!(Value::Object(arguments(&schema)).to_string().len() < 64 * 1024);
        }
    }
}
