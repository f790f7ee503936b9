//! What the relay must know of a request before it can be sent, and where in the body it stands.

use std::borrow::Cow;
use std::ops::Range;

use shared::domain::{Operation, Protocol};

use super::super::error::{MODEL_BYTES_MAX, check_model};
use super::super::{Edits, ProtocolError};
use super::elsewhere::is_reference;
use super::value::{Member, Members, Value};

/// A session id or a tier longer than this is ignored.
const WORD_BYTES_MAX: usize = 512;

/// A value and its place in the body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spanned<T> {
    /// The value.
    pub value: T,
    /// The place of its JSON text.
    pub span: Range<usize>,
}

/// The top-level fields of a request that the relay reads. Values of a kind that the protocol does not allow count
/// as absent, but for `model`: telling the client is the upstream's business.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// `model`. Gemini and Azure's deployments name it in the path instead.
    pub model: Option<Spanned<String>>,
    /// `stream` is true. Gemini says so in the path instead.
    pub stream: bool,
    /// `stream_options.include_usage` is true: the client itself asks for the usage chunk.
    pub include_usage: bool,
    /// The most answer tokens asked for; the larger one where two fields say so.
    pub output_tokens_max: Option<u64>,
    /// How many answers are asked for (`n`, `candidateCount`), where that is said.
    pub choices: Option<u32>,
    /// What names the conversation, as the client wrote it.
    pub session: Option<String>,
    /// `service_tier`, or `fast` where `speed` says so.
    pub service_tier: Option<String>,
    /// Bytes of strings that look like images, sound or documents in base64: long, and without blanks wherever
    /// sampled. Approximate, for estimates only.
    pub binary_bytes: u64,
    /// The body refers to something elsewhere that the model will read, or may do so.
    pub has_references: bool,
    root: Room,
    stream_options: StreamOptions,
}

/// Where a member can be put into an object: right behind its opening bracket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Room {
    at: usize,
    is_empty: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum StreamOptions {
    #[default]
    Absent,
    Null(Range<usize>),
    Object(Room),
    IncludeUsage(Range<usize>),
    /// Some other kind, which the upstream will refuse.
    Other,
}

impl Head {
    /// Reads the head of `body`: JSON text, checked as far as its structure goes.
    ///
    /// # Errors
    /// The body is no JSON object, a field that is read stands there twice, or `model` cannot be one.
    pub fn read(protocol: Protocol, operation: Operation, body: &[u8]) -> Result<Self, ProtocolError> {
        let start = body.len() - body.trim_ascii_start().len();
        if body.get(start) != Some(&b'{') {
            return Err(not_an_object(body));
        }
        let mut head = Self { root: Room { at: start + 1, is_empty: true }, ..Self::default() };
        let mut reader = Reader { head: &mut head, seen: 0, session_rank: 0 };
        let mut members = Members::new(body);
        while let Some(member) = members.step()? {
            reader.head.root.is_empty = false;
            reader.head.has_references |= is_reference(protocol, &member);
            if let Some(field) = Field::named(protocol, operation, &member.key) {
                reader.field(field, &member)?;
            }
        }
        members.finish()?;
        head.binary_bytes = members.binary();
        head.has_references |= members.found().refers(protocol);
        Ok(head)
    }

    /// The model's name.
    ///
    /// # Errors
    /// The body names none.
    pub fn model(&self) -> Result<&str, ProtocolError> {
        self.model.as_ref().map(|model| model.value.as_str()).ok_or(ProtocolError::ModelMissing)
    }

    /// Makes `model` another; no edit where the body names none.
    pub fn set_model(&self, name: &str) -> Edits {
        match &self.model {
            Some(model) => Edits::one(model.span.clone(), json_text(name)),
            None => Edits::default(),
        }
    }

    /// Names a model in a body that names none.
    pub fn add_model(&self, name: &str) -> Edits {
        match &self.model {
            Some(_) => Edits::default(),
            None => self.root.insert(&format!(r#""model":{}"#, json_text(name))),
        }
    }

    /// Makes `stream_options.include_usage` true. Take it together with another edit by [`Edits::and`].
    pub fn include_usage(&self) -> Edits {
        const MEMBER: &str = r#""include_usage":true"#;
        let whole = || format!("{{{MEMBER}}}");
        match &self.stream_options {
            _ if self.include_usage => Edits::default(),
            StreamOptions::Absent => self.root.insert(&format!(r#""stream_options":{}"#, whole())),
            StreamOptions::Null(span) => Edits::one(span.clone(), whole()),
            StreamOptions::Object(room) => room.insert(MEMBER),
            StreamOptions::IncludeUsage(span) => Edits::one(span.clone(), "true"),
            StreamOptions::Other => Edits::default(),
        }
    }
}

impl Room {
    fn insert(self, member: &str) -> Edits {
        let comma = if self.is_empty { "" } else { "," };
        Edits::one(self.at..self.at, format!("{member}{comma}"))
    }
}

fn json_text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The body starts with no bracket of an object: some other JSON, or none at all.
fn not_an_object(body: &[u8]) -> ProtocolError {
    let mut cursor = super::cursor::Cursor::new(body);
    match cursor.value() {
        Ok(()) if cursor.peek().is_none() => ProtocolError::NotAnObject,
        Ok(()) => ProtocolError::Malformed { offset: cursor.at() },
        Err(_) if body.trim_ascii().is_empty() => ProtocolError::NotAnObject,
        Err(malformed) => malformed,
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Field {
    Model,
    Stream,
    StreamOptions,
    MaxTokens,
    MaxCompletionTokens,
    MaxOutputTokens,
    GenerationConfig,
    Choices,
    Metadata,
    SessionId,
    ConversationId,
    PromptCacheKey,
    ServiceTier,
    Speed,
    IncludeUsage,
    UserId,
    ConfiguredOutputMax,
    CandidateCount,
}

impl Field {
    /// The field that `key` names in this protocol. Only an answer is limited, streamed and kept in a session.
    fn named(protocol: Protocol, operation: Operation, key: &[u8]) -> Option<Self> {
        if key == b"model" {
            return Some(Self::Model);
        }
        if operation != Operation::Generate {
            return None;
        }
        match (protocol, key) {
            (Protocol::GenerateContent, b"generationConfig" | b"generation_config") => {
                Some(Self::GenerationConfig)
            }
            (Protocol::GenerateContent, b"serviceTier") | (_, b"service_tier") => Some(Self::ServiceTier),
            (Protocol::GenerateContent, _) => None,
            (_, b"stream") => Some(Self::Stream),
            (Protocol::Messages | Protocol::ChatCompletions, b"max_tokens") => Some(Self::MaxTokens),
            (Protocol::Messages, b"metadata") => Some(Self::Metadata),
            (Protocol::Messages, b"speed") => Some(Self::Speed),
            (Protocol::Messages, _) => None,
            (_, b"session_id") => Some(Self::SessionId),
            (_, b"conversation_id") => Some(Self::ConversationId),
            (_, b"prompt_cache_key") => Some(Self::PromptCacheKey),
            (Protocol::Responses, b"max_output_tokens") => Some(Self::MaxOutputTokens),
            (Protocol::Responses, _) => None,
            (Protocol::ChatCompletions, b"max_completion_tokens") => Some(Self::MaxCompletionTokens),
            (Protocol::ChatCompletions, b"n") => Some(Self::Choices),
            (Protocol::ChatCompletions, b"stream_options") => Some(Self::StreamOptions),
            (Protocol::ChatCompletions, _) => None,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Stream => "stream",
            Self::StreamOptions => "stream_options",
            Self::MaxTokens => "max_tokens",
            Self::MaxCompletionTokens => "max_completion_tokens",
            Self::MaxOutputTokens => "max_output_tokens",
            Self::GenerationConfig => "generationConfig",
            Self::Choices => "n",
            Self::Metadata => "metadata",
            Self::SessionId => "session_id",
            Self::ConversationId => "conversation_id",
            Self::PromptCacheKey => "prompt_cache_key",
            Self::ServiceTier => "service_tier",
            Self::Speed => "speed",
            Self::IncludeUsage => "stream_options.include_usage",
            Self::UserId => "metadata.user_id",
            Self::ConfiguredOutputMax => "generationConfig.maxOutputTokens",
            Self::CandidateCount => "generationConfig.candidateCount",
        }
    }
}

struct Reader<'h> {
    head: &'h mut Head,
    seen: u32,
    session_rank: u8,
}

impl Reader<'_> {
    fn once(&mut self, field: Field) -> Result<(), ProtocolError> {
        let bit = 1 << field as u32;
        if self.seen & bit != 0 {
            return Err(ProtocolError::Repeated { field: field.name() });
        }
        self.seen |= bit;
        Ok(())
    }

    fn field(&mut self, field: Field, member: &Member<'_>) -> Result<(), ProtocolError> {
        self.once(field)?;
        let value = member.value;
        match field {
            Field::Model => self.model(member)?,
            Field::Stream => self.head.stream = value.raw() == b"true",
            Field::StreamOptions => self.stream_options(member)?,
            Field::MaxTokens | Field::MaxCompletionTokens | Field::MaxOutputTokens => self.output_max(value),
            Field::Choices => self.head.choices = choices(value),
            Field::GenerationConfig => self.generation_config(value)?,
            Field::Metadata => self.metadata(value)?,
            Field::SessionId => self.session(3, word(field, value)?),
            Field::ConversationId => self.session(2, word(field, value)?),
            Field::PromptCacheKey => self.session(1, word(field, value)?),
            Field::ServiceTier => {
                let tier = word(field, value)?;
                let is_fast = self.head.service_tier.is_some();
                self.head.service_tier = if is_fast { self.head.service_tier.take() } else { tier };
            }
            Field::Speed if value.raw() == b"\"fast\"" => self.head.service_tier = Some("fast".to_owned()),
            Field::Speed
            | Field::IncludeUsage
            | Field::UserId
            | Field::ConfiguredOutputMax
            | Field::CandidateCount => {}
        }
        Ok(())
    }

    fn model(&mut self, member: &Member<'_>) -> Result<(), ProtocolError> {
        if !member.value.is_string() {
            return Err(ProtocolError::ModelNotText);
        }
        // Six bytes are the longest way to write one.
        if member.value.raw().len() > MODEL_BYTES_MAX * 6 + 2 {
            return Err(ProtocolError::ModelTooLong);
        }
        let name = member.value.text().ok_or(ProtocolError::NotUnicode { field: "model" })?;
        check_model(&name)?;
        self.head.model = Some(Spanned { value: name.into_owned(), span: member.span.clone() });
        Ok(())
    }

    fn output_max(&mut self, value: Value<'_>) {
        self.head.output_tokens_max = self.head.output_tokens_max.max(value.count());
    }

    fn session(&mut self, rank: u8, session: Option<String>) {
        if let Some(session) = session.filter(|_| rank > self.session_rank) {
            self.session_rank = rank;
            self.head.session = Some(session);
        }
    }

    fn stream_options(&mut self, member: &Member<'_>) -> Result<(), ProtocolError> {
        let start = member.span.start;
        self.head.stream_options = match member.value {
            value if value.raw() == b"null" => StreamOptions::Null(member.span.clone()),
            value if !value.is_object() => StreamOptions::Other,
            value => StreamOptions::Object(Room { at: start + 1, is_empty: value.is_nothing() }),
        };
        let mut options = member.value.members();
        while let Some(option) = options.step()? {
            if *option.key == *b"include_usage" {
                self.once(Field::IncludeUsage)?;
                self.head.include_usage = option.value.raw() == b"true";
                let span = start + option.span.start..start + option.span.end;
                self.head.stream_options = StreamOptions::IncludeUsage(span);
            }
        }
        Ok(())
    }

    fn generation_config(&mut self, value: Value<'_>) -> Result<(), ProtocolError> {
        let mut settings = value.members();
        while let Some(setting) = settings.step()? {
            match &*setting.key {
                b"maxOutputTokens" | b"max_output_tokens" => {
                    self.once(Field::ConfiguredOutputMax)?;
                    self.output_max(setting.value);
                }
                b"candidateCount" | b"candidate_count" => {
                    self.once(Field::CandidateCount)?;
                    self.head.choices = choices(setting.value);
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn metadata(&mut self, value: Value<'_>) -> Result<(), ProtocolError> {
        let mut entries = value.members();
        while let Some(entry) = entries.step()? {
            if *entry.key == *b"user_id" {
                self.once(Field::UserId)?;
                let user = word(Field::UserId, entry.value)?;
                self.head.session = user.as_deref().and_then(session_of_user);
            }
        }
        Ok(())
    }
}

fn choices(value: Value<'_>) -> Option<u32> {
    value.count().map(|count| u32::try_from(count).unwrap_or(u32::MAX))
}

/// A short string; none if it is empty, too long, or no string.
fn word(field: Field, value: Value<'_>) -> Result<Option<String>, ProtocolError> {
    if !value.is_string() || value.raw().len() > WORD_BYTES_MAX * 6 {
        return Ok(None);
    }
    let text = value.text().ok_or(ProtocolError::NotUnicode { field: field.name() })?;
    Ok(Some(text).filter(|text| !text.is_empty() && text.len() <= WORD_BYTES_MAX).map(Cow::into_owned))
}

/// The session in `metadata.user_id` as Claude Code writes it: JSON with a `session_id`, formerly
/// `user_<hash>_account_<uuid>_session_<uuid>`.
fn session_of_user(user: &str) -> Option<String> {
    let session = if user.trim_start().starts_with('{') {
        let (_, session) = Members::new(user.as_bytes()).find(|(key, _)| **key == *b"session_id")?;
        session.text()?.into_owned()
    } else {
        user.rsplit_once("_session_")?.1.to_owned()
    };
    Some(session).filter(|session| !session.is_empty())
}
