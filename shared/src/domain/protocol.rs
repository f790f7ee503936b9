//! Wire protocols and the operations that clients ask for.

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

/// What is on the wire, whoever is asked.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Encode, Decode,
)]
#[serde(rename_all = "snake_case")]
#[cbor(index_only)]
pub enum Protocol {
    /// Anthropic Messages.
    #[n(0)]
    Messages,
    /// OpenAI Chat Completions, and the embeddings that share its forms.
    #[n(1)]
    ChatCompletions,
    /// OpenAI Responses.
    #[n(2)]
    Responses,
    /// Gemini `generateContent`.
    #[n(3)]
    GenerateContent,
}

impl Protocol {
    /// Every protocol.
    pub const ALL: [Self; 4] =
        [Self::Messages, Self::ChatCompletions, Self::Responses, Self::GenerateContent];

    /// The protocol as it is written in JSON and tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::ChatCompletions => "chat_completions",
            Self::Responses => "responses",
            Self::GenerateContent => "generate_content",
        }
    }
}

/// Bytes that a model's name has at most: a longer one is none. Prices, records and errors bear no longer ones.
pub const MODEL_BYTES_MAX: usize = 256;

/// What the client wants done.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Encode, Decode,
)]
#[serde(rename_all = "snake_case")]
#[cbor(index_only)]
pub enum Operation {
    /// An answer from a model, streamed or not.
    #[n(0)]
    Generate,
    /// The number of tokens that a prompt has. Costs nothing, takes no reservation.
    #[n(1)]
    CountTokens,
    /// Vectors for texts.
    #[n(2)]
    Embed,
}

impl Operation {
    /// The operation as it is written in JSON and tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Generate => "generate",
            Self::CountTokens => "count_tokens",
            Self::Embed => "embed",
        }
    }
}
