//! Patterns for model names: `*` stands for any run of characters, everything else for itself.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A pattern such as `claude-*` or `gpt-5.1`; letter case does not count.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Glob(String);

impl Glob {
    /// Whether the whole of `text` fits the pattern.
    pub fn matches(&self, text: &str) -> bool {
        let mut rest = text.as_bytes();
        let mut pieces = self.0.as_bytes().split(|&byte| byte == b'*');
        let first = pieces.next().unwrap_or_default();
        let Some(after_first) = strip_prefix(rest, first) else { return false };
        rest = after_first;
        let Some(last) = pieces.next_back() else { return rest.is_empty() };
        for piece in pieces {
            let Some(at) = find(rest, piece) else { return false };
            rest = &rest[at + piece.len()..];
        }
        rest.len() >= last.len() && rest[rest.len() - last.len()..].eq_ignore_ascii_case(last)
    }
}

fn strip_prefix<'a>(text: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    let (head, rest) = text.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then_some(rest)
}

fn find(text: &[u8], piece: &[u8]) -> Option<usize> {
    if piece.is_empty() {
        return Some(0);
    }
    text.windows(piece.len()).position(|window| window.eq_ignore_ascii_case(piece))
}

impl From<&str> for Glob {
    fn from(pattern: &str) -> Self {
        Self(pattern.to_owned())
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, text, expected) in [
            ("claude-opus-4", "claude-opus-4", true),
            ("claude-opus-4", "claude-opus-4-1", false),
            ("claude-*", "claude-opus-4", true),
            ("claude-*", "gpt-5", false),
            ("*", "", true),
            ("*-mini", "gpt-5-mini", true),
            ("*-mini", "gpt-5-mini-2", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("ab*ba", "aba", false),
            ("GPT-*", "gpt-5", true),
            ("", "x", false),
            ("", "", true),
            ("**", "anything", true),
        ] {
            assert_eq!(Glob::from(pattern).matches(text), expected, "{pattern} on {text}");
        }
    }
}
