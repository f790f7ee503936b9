//! What a meter has found out.

use shared::domain::Usage;

use super::json::Value;

const WORD_BYTES_MAX: usize = 256;
const MESSAGE_BYTES_MAX: usize = 500;

/// What a reply has shown so far. Before substance, the call may still move to another account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Opening {
    /// Nothing.
    #[default]
    Nothing,
    /// Comments, pings, and events that say no more than that an answer may come.
    Announcing,
    /// Something of an answer, or something that is not understood.
    Substance,
    /// An error, before any substance.
    Error,
}

/// What a reply says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// What the call used, from the last figures that came; none if none came.
    pub usage: Option<Usage>,
    /// The model that answered.
    pub model: Option<String>,
    /// The service tier that the call was served in; `fast` where the reply's speed says so.
    pub tier: Option<String>,
    /// The reply said that it is complete, or how it failed.
    pub terminal: bool,
    /// The error in the reply.
    pub error: Option<ReplyError>,
    /// Bytes of data that came, the JSON around the answer included.
    pub answer_bytes: u64,
}

/// An error that came within a reply.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplyError {
    /// The vendor's word for it: its status (Gemini), code or type; empty if it has none.
    pub kind: String,
    /// The vendor's text, at most 500 bytes.
    pub message: String,
    /// The HTTP status that would say the same: a number in the error, else what the word stands for.
    pub status: Option<u16>,
}

impl ReplyError {
    /// Reads one field of an error that lies open in its record.
    pub(super) fn read_code(&mut self, value: Value<'_>) {
        let code = value.text().unwrap_or_default();
        self.kind = cut(&code, WORD_BYTES_MAX);
        self.status = status_of(&code);
    }

    /// Reads one field of an error that lies open in its record.
    pub(super) fn read_message(&mut self, value: Value<'_>) {
        self.message = cut(&value.text().unwrap_or_default(), MESSAGE_BYTES_MAX);
    }

    /// Reads an error's JSON: an object of any protocol, or a string.
    pub(super) fn read(value: Value<'_>) -> Self {
        if let Some(text) = value.text() {
            return Self { kind: String::new(), message: cut(&text, MESSAGE_BYTES_MAX), status: None };
        }
        let (mut status, mut code, mut kind, mut message, mut number) = (None, None, None, None, None);
        for (key, member) in value.members() {
            let word =
                || member.text().map(|text| cut(&text, WORD_BYTES_MAX)).filter(|text| !text.is_empty());
            number = match &*key {
                b"code" | b"status" | b"http_code" => member.count().or(number),
                _ => number,
            };
            match &*key {
                b"status" => status = word(),
                b"code" => code = word(),
                b"type" => kind = word(),
                b"message" | b"detail" => message = member.text().map(|text| cut(&text, MESSAGE_BYTES_MAX)),
                _ => {}
            }
        }
        let is_number = |word: &String| word.bytes().all(|byte| byte.is_ascii_digit());
        let words = [status, code, kind].map(|word| word.filter(|word| !is_number(word)));
        let kinds = words.iter().flatten().map(String::as_str);
        let number =
            number.and_then(|number| u16::try_from(number).ok()).filter(|code| (400..600).contains(code));
        let status = number.or_else(|| kinds.clone().find_map(status_of));
        let kind = kinds.clone().next().unwrap_or_default().to_owned();
        Self { kind, message: message.unwrap_or_default(), status }
    }
}

/// The HTTP status that goes with a vendor's word for an error.
fn status_of(kind: &str) -> Option<u16> {
    Some(match kind {
        "invalid_request_error"
        | "INVALID_ARGUMENT"
        | "FAILED_PRECONDITION"
        | "invalid_prompt"
        | "context_length_exceeded" => 400,
        "authentication_error" | "invalid_api_key" | "UNAUTHENTICATED" => 401,
        "billing_error" => 402,
        "permission_error" | "PERMISSION_DENIED" => 403,
        "not_found_error" | "model_not_found" | "NOT_FOUND" => 404,
        "conflict_error" | "ABORTED" | "ALREADY_EXISTS" => 409,
        "request_too_large" => 413,
        "rate_limit_error"
        | "rate_limit_exceeded"
        | "insufficient_quota"
        | "usage_limit_reached"
        | "RESOURCE_EXHAUSTED" => 429,
        "CANCELLED" => 499,
        "api_error" | "server_error" | "INTERNAL" => 500,
        "UNIMPLEMENTED" => 501,
        "UNAVAILABLE" | "server_is_overloaded" => 503,
        "timeout_error" | "DEADLINE_EXCEEDED" => 504,
        "overloaded_error" => 529,
        _ => return None,
    })
}

/// The text up to a bound, cut between characters.
fn cut(text: &str, bytes_max: usize) -> String {
    text.get(..text.floor_char_boundary(bytes_max)).unwrap_or_default().to_owned()
}

/// What the readers of the protocols write into: the reading, and what the record at hand has shown.
#[derive(Default)]
pub(super) struct Facts {
    pub(super) reading: Reading,
    pub(super) opening: Opening,
    /// The record at hand is more than an announcement.
    pub(super) record_has_substance: bool,
    record_has_error: bool,
}

impl Facts {
    pub(super) fn usage(&mut self, usage: Option<Usage>) {
        self.reading.usage = usage.or(self.reading.usage);
    }

    pub(super) fn model(&mut self, value: Value<'_>) {
        if let Some(model) = word(value) {
            set(&mut self.reading.model, &model);
        }
    }

    pub(super) fn tier(&mut self, value: Value<'_>) {
        if let Some(tier) = word(value) {
            set(&mut self.reading.tier, &tier);
        }
    }

    /// The record at hand has this under a name that says error.
    pub(super) fn error(&mut self, value: Value<'_>) {
        if !value.is_nothing() {
            self.record_has_error = true;
            self.reading.error = Some(ReplyError::read(value));
        }
    }

    /// The record at hand says that the call failed. What has been said about it, here or before, stands.
    pub(super) fn failed(&mut self, error: ReplyError) {
        self.record_has_error = true;
        self.reading.error.get_or_insert(error);
    }

    pub(super) fn terminal(&mut self) {
        self.reading.terminal = true;
    }

    /// `[DONE]` came.
    pub(super) fn done(&mut self) {
        self.open(Opening::Substance);
        self.terminal();
    }

    pub(super) fn answered(&mut self, data: &[u8]) {
        self.reading.answer_bytes = self.reading.answer_bytes.saturating_add(data.len() as u64);
    }

    /// A reply that is no stream is substance from its first byte: its status has said whether it is an error.
    pub(super) fn opening_of_json(&mut self, piece: &[u8]) {
        if !piece.trim_ascii_start().is_empty() {
            self.open(Opening::Substance);
        }
    }

    /// The reply has shown this; what it showed of substance or error first stands.
    pub(super) fn open(&mut self, opening: Opening) {
        if self.opening < Opening::Substance {
            self.opening = self.opening.max(opening);
        }
    }

    /// A record has ended; `is_named_error` says that its event's name was `error`.
    pub(super) fn end_record(&mut self, is_named_error: bool) {
        if is_named_error {
            self.failed(ReplyError { kind: "error".to_owned(), ..ReplyError::default() });
        }
        let has_error = std::mem::take(&mut self.record_has_error);
        let has_substance = std::mem::take(&mut self.record_has_substance);
        self.open(match (has_error, has_substance) {
            (true, _) => Opening::Error,
            (false, true) => Opening::Substance,
            (false, false) => Opening::Announcing,
        });
    }
}

fn word(value: Value<'_>) -> Option<std::borrow::Cow<'_, str>> {
    value.text().filter(|text| !text.is_empty() && text.len() <= WORD_BYTES_MAX)
}

fn set(slot: &mut Option<String>, text: &str) {
    if slot.as_deref() != Some(text) {
        *slot = Some(text.to_owned());
    }
}
