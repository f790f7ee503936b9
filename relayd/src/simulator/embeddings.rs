//! Vectors for texts: of length one, the same for the same text, and of no meaning.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::Value;

use super::fault::Fault;
use super::figures::tokens;
use super::prompt::{each_text, either};

/// Numbers in a vector when the client does not say.
const DIMENSIONS_DEFAULT: usize = 8;
/// Numbers in a vector at most.
const DIMENSIONS_MAX: usize = 4_096;
/// Texts in one call at most, which is OpenAI's bound.
const INPUTS_MAX: usize = 2_048;
/// Numbers in one reply at most.
const NUMBERS_MAX: usize = 1 << 20;

/// A reply in OpenAI's form.
#[derive(Debug, Serialize)]
pub(super) struct Embeddings {
    object: &'static str,
    data: Vec<Embedding>,
    model: String,
    usage: EmbeddingsUsage,
}

#[derive(Debug, Serialize)]
struct Embedding {
    object: &'static str,
    index: usize,
    embedding: Vector,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Vector {
    Numbers(Vec<f32>),
    /// Little-endian numbers, which OpenAI's SDKs ask for unless told otherwise.
    Base64(String),
}

#[derive(Debug, Serialize)]
struct EmbeddingsUsage {
    prompt_tokens: u64,
    total_tokens: u64,
}

impl Embeddings {
    /// Answers a request for a model.
    pub(super) fn to(model: &str, body: &Value) -> Result<Self, Fault> {
        let dimensions = dimensions(&body["dimensions"], "dimensions")?;
        let inputs = match &body["input"] {
            Value::Array(items) if !items.is_empty() && !items.iter().all(Value::is_number) => items,
            one => std::slice::from_ref(one),
        };
        check_count(inputs.len(), dimensions, "input")?;
        let inputs = inputs.iter().map(Input::read).collect::<Result<Vec<_>, _>>()?;
        let prompt_tokens = inputs.iter().map(|input| input.tokens).sum::<u64>().max(1);
        let is_base64 = body["encoding_format"] == "base64";
        let data = inputs.iter().enumerate().map(|(index, input)| {
            let numbers = unit_vector(input.seed, dimensions);
            let embedding = if is_base64 { base64(&numbers) } else { Vector::Numbers(numbers) };
            Embedding { object: "embedding", index, embedding }
        });
        let usage = EmbeddingsUsage { prompt_tokens, total_tokens: prompt_tokens };
        Ok(Self { object: "list", data: data.collect(), model: model.to_owned(), usage })
    }
}

/// A text, or the tokens of one.
struct Input {
    seed: u64,
    tokens: u64,
}

impl Input {
    fn read(value: &Value) -> Result<Self, Fault> {
        match value {
            Value::String(text) => Ok(Self { seed: seed(text), tokens: tokens(text.len()) }),
            Value::Array(ids) if !ids.is_empty() && ids.iter().all(Value::is_number) => {
                let tokens = u64::try_from(ids.len()).unwrap_or(u64::MAX);
                Ok(Self { seed: seed(&value.to_string()), tokens })
            }
            _ => Err(Fault::Missing("input")),
        }
    }
}

/// A reply of Gemini's `embedContent`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EmbedContent {
    embedding: Values,
    usage_metadata: UsageMetadata,
}

/// A reply of Gemini's `batchEmbedContents`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct BatchEmbedContents {
    embeddings: Vec<Values>,
    usage_metadata: UsageMetadata,
}

#[derive(Debug, Serialize)]
struct Values {
    values: Vec<f32>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct UsageMetadata {
    prompt_token_count: u64,
}

impl EmbedContent {
    /// Answers a request.
    pub(super) fn to(body: &Value) -> Result<Self, Fault> {
        let (embedding, tokens) = values(body)?;
        Ok(Self { embedding, usage_metadata: UsageMetadata { prompt_token_count: tokens.max(1) } })
    }
}

impl BatchEmbedContents {
    /// Answers a request.
    pub(super) fn to(body: &Value) -> Result<Self, Fault> {
        let requests = body["requests"].as_array().ok_or(Fault::Missing("requests"))?;
        check_count(requests.len(), 1, "requests")?;
        let (mut embeddings, mut numbers, mut prompt_token_count) = (Vec::new(), 0, 0);
        for request in requests {
            let (embedding, tokens) = values(request)?;
            numbers += embedding.values.len();
            prompt_token_count += tokens;
            check_count(1, numbers, "requests")?;
            embeddings.push(embedding);
        }
        let prompt_token_count = prompt_token_count.max(1);
        Ok(Self { embeddings, usage_metadata: UsageMetadata { prompt_token_count } })
    }
}

/// The vector of a Gemini request, and its tokens.
fn values(request: &Value) -> Result<(Values, u64), Fault> {
    let content = request.get("content").ok_or(Fault::Missing("content"))?;
    let config = request.get("embedContentConfig").unwrap_or(request);
    let asked = either(config, "outputDimensionality", "output_dimensionality");
    let dimensions = dimensions(asked, "outputDimensionality")?;
    let mut text = String::new();
    each_text(content, &mut |part| text += part);
    Ok((Values { values: unit_vector(seed(&text), dimensions) }, tokens(text.len())))
}

fn dimensions(asked: &Value, name: &'static str) -> Result<usize, Fault> {
    if asked.is_null() {
        return Ok(DIMENSIONS_DEFAULT);
    }
    let asked = asked.as_u64().and_then(|asked| usize::try_from(asked).ok());
    asked.filter(|asked| (1..=DIMENSIONS_MAX).contains(asked)).ok_or(Fault::OutOfRange(name))
}

fn check_count(vectors: usize, dimensions: usize, name: &'static str) -> Result<(), Fault> {
    let fits = vectors <= INPUTS_MAX && vectors.saturating_mul(dimensions) <= NUMBERS_MAX;
    fits.then_some(()).ok_or(Fault::OutOfRange(name))
}

/// FNV-1a.
fn seed(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

/// A vector of length one that follows from the seed.
fn unit_vector(mut seed: u64, dimensions: usize) -> Vec<f32> {
    let numbers: Vec<f32> = std::iter::repeat_with(|| next(&mut seed)).take(dimensions).collect();
    let length = numbers.iter().map(|number| number * number).sum::<f32>().sqrt();
    numbers.iter().map(|number| number / length).collect()
}

/// The next number of a SplitMix64 row, between -1 and 1 and never 0.
fn next(state: &mut u64) -> f32 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let [high, low, ..] = mixed.to_be_bytes();
    (f32::from(u16::from_be_bytes([high, low])) + 0.5) / 32_768.0 - 1.0
}

fn base64(numbers: &[f32]) -> Vector {
    let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    Vector::Base64(STANDARD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn openai(body: &Value) -> Value {
        serde_json::to_value(Embeddings::to("m", body).unwrap()).unwrap()
    }

    #[test]
    fn vectors_have_length_one_and_follow_from_the_text() {
        for dimensions in [1, 8, 4_096] {
            let vector = unit_vector(seed("hello"), dimensions);
            let length: f32 = vector.iter().map(|number| number * number).sum();
            assert_eq!(vector.len(), dimensions);
            assert!((length - 1.0).abs() < 1e-3, "{length}");
            assert_eq!(vector, unit_vector(seed("hello"), dimensions));
        }
        assert_ne!(unit_vector(seed("hello"), 8), unit_vector(seed("hellp"), 8));
    }

    #[test]
    fn openai_inputs_are_texts_or_tokens_one_or_many() {
        for (input, vectors, tokens) in [
            (json!("hello"), 1, 2),
            (json!(["hello", "you"]), 2, 3),
            (json!([1, 2, 3]), 1, 3),
            (json!([[1, 2, 3], [4]]), 2, 4),
            (json!(""), 1, 1),
        ] {
            let reply = openai(&json!({ "input": input }));
            assert_eq!(reply["data"].as_array().unwrap().len(), vectors);
            assert_eq!(reply["data"][0]["embedding"].as_array().unwrap().len(), 8);
            assert_eq!(reply["usage"], json!({ "prompt_tokens": tokens, "total_tokens": tokens }));
        }
    }

    #[test]
    fn base64_holds_the_same_numbers() {
        let plain = openai(&json!({ "input": "a", "dimensions": 3 }));
        let coded = openai(&json!({ "input": "a", "dimensions": 3, "encoding_format": "base64" }));
        let bytes = STANDARD.decode(coded["data"][0]["embedding"].as_str().unwrap()).unwrap();
        let numbers: Vec<f32> =
            bytes.chunks(4).map(|chunk| f32::from_le_bytes(chunk.try_into().unwrap())).collect();
        assert_eq!(plain["data"][0]["embedding"], json!(numbers));
    }

    #[test]
    fn what_is_too_much_or_too_little_is_refused() {
        let many = vec!["a"; INPUTS_MAX + 1];
        for (body, expected) in [
            (json!({}), Fault::Missing("input")),
            (json!({ "input": [] }), Fault::Missing("input")),
            (json!({ "input": [{}] }), Fault::Missing("input")),
            (json!({ "input": "a", "dimensions": 0 }), Fault::OutOfRange("dimensions")),
            (json!({ "input": "a", "dimensions": 5_000 }), Fault::OutOfRange("dimensions")),
            (json!({ "input": many }), Fault::OutOfRange("input")),
            (json!({ "input": many[..1_000], "dimensions": 4_000 }), Fault::OutOfRange("input")),
        ] {
            assert_eq!(Embeddings::to("m", &body).unwrap_err(), expected);
        }
    }

    #[test]
    fn gemini_embeds_one_or_many() {
        let content = json!({ "parts": [{ "text": "hello" }] });
        let one = EmbedContent::to(&json!({ "content": content, "outputDimensionality": 3 })).unwrap();
        assert_eq!(one.embedding.values, unit_vector(seed("hello"), 3));
        let many = json!({ "requests": [{ "content": content }, { "content": content }] });
        let many = BatchEmbedContents::to(&many).unwrap();
        assert_eq!((many.embeddings.len(), many.usage_metadata.prompt_token_count), (2, 4));
        let wide = vec![json!({ "content": content, "outputDimensionality": 4_096 }); 257];
        let refused = BatchEmbedContents::to(&json!({ "requests": wide })).unwrap_err();
        assert_eq!(refused, Fault::OutOfRange("requests"));
    }
}
