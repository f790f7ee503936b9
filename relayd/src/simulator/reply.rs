//! What a model says to a prompt, before any protocol puts it into words, and how it is cut into pieces.

use serde_json::{Map, Value};

use super::figures::{BYTES_PER_TOKEN, LONG_TOKENS_MAX, tokens};
use super::model::Behaviour;
use super::prompt::{Prompt, Tool};
use super::schema;

/// Tokens that `sim-long` says to a client that sets no limit.
const LONG_TOKENS_DEFAULT: u32 = 4_096;
/// What `sim-long` repeats.
const LONG_SENTENCE: &str = "The simulator goes on and on. ";

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Reply {
    /// What its ids are made of; protocols put their prefixes in front.
    pub(super) id: String,
    /// The model as it was asked for.
    pub(super) model: String,
    /// What is said.
    pub(super) content: Content,
    /// Whether the client's limit cut it.
    pub(super) is_cut: bool,
    /// Tokens of the prompt.
    pub(super) input_tokens: u64,
    /// Tokens of the answer.
    pub(super) output_tokens: u64,
}

/// What an answer consists of.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Content {
    /// Words.
    Text(String),
    /// The call of a tool.
    Call {
        /// Its name.
        name: String,
        /// Its arguments.
        arguments: Map<String, Value>,
        /// The arguments as JSON.
        json: String,
    },
}

impl Content {
    /// What is streamed piece by piece: the words, or the arguments.
    pub(super) fn as_str(&self) -> &str {
        match self {
            Self::Text(text) => text,
            Self::Call { json, .. } => json,
        }
    }

    /// What is counted: the words, or a tool's name and its arguments.
    fn bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Call { name, json, .. } => name.len() + json.len(),
        }
    }
}

impl Reply {
    /// Answers a prompt.
    pub(super) fn to(prompt: Prompt, behaviour: Behaviour, id: String) -> Self {
        let bytes_max = match prompt.output_tokens_max {
            Some(tokens) => usize::try_from(tokens).unwrap_or(usize::MAX).saturating_mul(BYTES_PER_TOKEN),
            None => usize::MAX,
        };
        let whole = content(&prompt, behaviour);
        let is_cut = whole.bytes() > bytes_max;
        let content = match whole {
            Content::Text(text) if is_cut => Content::Text(cut(text, bytes_max)),
            // Half a call is of no use to anybody.
            Content::Call { .. } if is_cut => Content::Text(String::new()),
            whole => whole,
        };
        let output_tokens = tokens(content.bytes());
        Self { id, model: prompt.model, content, is_cut, input_tokens: prompt.tokens, output_tokens }
    }

    /// Input and output.
    pub(super) const fn total_tokens(&self) -> u64 {
        self.input_tokens.saturating_add(self.output_tokens)
    }
}

fn content(prompt: &Prompt, behaviour: Behaviour) -> Content {
    match (behaviour, &prompt.tool) {
        (Behaviour::Tools, Some(tool)) if !prompt.brings_result => call(tool),
        (Behaviour::Long, _) => Content::Text(long(prompt.output_tokens_max)),
        _ if prompt.said.is_empty() => Content::Text("The simulator heard nothing.".to_owned()),
        _ => Content::Text(format!("The simulator heard: {}", prompt.said)),
    }
}

fn call(tool: &Tool) -> Content {
    let arguments = schema::arguments(&tool.schema);
    let json = Value::Object(arguments.clone()).to_string();
    Content::Call { name: tool.name.clone(), arguments, json }
}

fn long(tokens_max: Option<u64>) -> String {
    let tokens = if tokens_max.is_some() { LONG_TOKENS_MAX } else { LONG_TOKENS_DEFAULT };
    let bytes = usize::try_from(tokens).unwrap_or(usize::MAX).saturating_mul(BYTES_PER_TOKEN);
    cut(LONG_SENTENCE.repeat(bytes.div_ceil(LONG_SENTENCE.len())), bytes)
}

/// Shortens a text to at most so many bytes, at the end of a character.
fn cut(mut text: String, bytes_max: usize) -> String {
    text.truncate(text.floor_char_boundary(bytes_max));
    text
}

/// Where a text is cut into pieces that differ by one character at most. There are as many as asked for, or as
/// many as there are characters, so that none is empty.
#[derive(Clone, Debug)]
pub(super) struct Cuts {
    at: usize,
    chars_left: usize,
    pieces_left: usize,
}

impl Cuts {
    /// Cuts a text into `pieces`.
    pub(super) fn new(text: &str, pieces: usize) -> Self {
        let chars_left = text.chars().count();
        Self { at: 0, chars_left, pieces_left: pieces.clamp(1, chars_left.max(1)) }
    }

    /// The byte range of the next piece of the same text.
    pub(super) fn next(&mut self, text: &str) -> Option<std::ops::Range<usize>> {
        let chars = self.chars_left.checked_div(self.pieces_left).filter(|&chars| chars > 0)?;
        let rest = text.get(self.at..)?;
        let bytes = rest.char_indices().nth(chars).map_or(rest.len(), |(bytes, _)| bytes);
        let piece = self.at..self.at + bytes;
        self.at = piece.end;
        self.chars_left -= chars;
        self.pieces_left -= 1;
        Some(piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompt(said: &str, output_tokens_max: Option<u64>) -> Prompt {
        Prompt {
            model: "m".to_owned(),
            tokens: 3,
            said: said.to_owned(),
            tool: None,
            brings_result: false,
            output_tokens_max,
        }
    }

    fn reply(prompt: Prompt, behaviour: Behaviour) -> Reply {
        Reply::to(prompt, behaviour, "1".to_owned())
    }

    #[test]
    fn the_clients_limit_cuts_the_answer() {
        for (said, tokens_max, expected, is_cut, output_tokens) in [
            ("hi", None, "The simulator heard: hi", false, 6),
            ("", None, "The simulator heard nothing.", false, 7),
            ("hi", Some(6), "The simulator heard: hi", false, 6),
            ("hi", Some(5), "The simulator heard:", true, 5),
            ("äää", Some(6), "The simulator heard: ä", true, 6),
            ("hi", Some(0), "", true, 0),
            ("hi", Some(u64::MAX), "The simulator heard: hi", false, 6),
        ] {
            let reply = reply(prompt(said, tokens_max), Behaviour::Echo);
            assert_eq!(reply.content.as_str(), expected);
            assert_eq!((reply.is_cut, reply.output_tokens, reply.input_tokens), (is_cut, output_tokens, 3));
        }
    }

    #[test]
    fn the_long_model_fills_the_limit_within_bounds() {
        for (tokens_max, output_tokens, is_cut) in [
            (Some(100), 100, true),
            (Some(32_768), 32_768, false),
            (Some(u64::MAX), 32_768, false),
            (None, 4_096, false),
        ] {
            let reply = reply(prompt("hi", tokens_max), Behaviour::Long);
            assert_eq!((reply.output_tokens, reply.is_cut), (output_tokens, is_cut), "{tokens_max:?}");
        }
    }

    #[test]
    fn a_tool_is_called_once_and_whole_or_not_at_all() {
        let schema = serde_json::json!({ "properties": { "q": { "type": "string" } }, "required": ["q"] });
        let tool = Some(Tool { name: "search".to_owned(), schema });
        let asked = Prompt { tool, ..prompt("hi", None) };
        let called = reply(asked.clone(), Behaviour::Tools);
        assert_eq!(called.content.as_str(), r#"{"q":"simulated"}"#);
        assert_eq!(called.output_tokens, tokens("search".len() + r#"{"q":"simulated"}"#.len()));

        let answered = Prompt { brings_result: true, ..asked.clone() };
        assert_eq!(reply(answered, Behaviour::Tools).content.as_str(), "The simulator heard: hi");
        assert_eq!(reply(asked.clone(), Behaviour::Echo).content.as_str(), "The simulator heard: hi");

        let short = reply(Prompt { output_tokens_max: Some(1), ..asked }, Behaviour::Tools);
        assert_eq!(
            (short.content, short.is_cut, short.output_tokens),
            (Content::Text(String::new()), true, 0)
        );
    }

    #[test]
    fn pieces_are_even_and_never_empty() {
        for (text, pieces, expected) in [
            ("abcdef", 3, vec!["ab", "cd", "ef"]),
            ("abcde", 3, vec!["a", "bc", "de"]),
            ("äöü", 2, vec!["ä", "öü"]),
            ("ab", 10_000, vec!["a", "b"]),
            ("ab", 0, vec!["ab"]),
            ("", 3, vec![]),
        ] {
            let mut cuts = Cuts::new(text, pieces);
            let found: Vec<&str> = std::iter::from_fn(|| cuts.next(text)).map(|range| &text[range]).collect();
            assert_eq!(found, expected);
        }
    }
}
