//! Why a configuration is refused, in sentences that say where and what would be right.

use std::fmt;
use std::path::PathBuf;

/// Where a setting was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the file.
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// In the environment variable of this name.
    Variable(String),
    /// Nowhere: it is the default.
    Default,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Variable(name) => f.write_str(name),
            Self::Default => f.write_str("defaults"),
        }
    }
}

/// A configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: cannot be read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{place}: {}", cause.message())]
    Syntax {
        /// Where.
        place: Place,
        /// Why. It is told in the sentence: as a source it would be told again, and with lines of the file.
        cause: Box<toml::de::Error>,
    },
    /// There is no such setting or section.
    #[error("{place}: there is no {key}; {}", meant(nearest.as_deref()))]
    Unknown {
        /// Where.
        place: Place,
        /// What was written.
        key: String,
        /// The name that may be meant.
        nearest: Option<String>,
    },
    /// What must be a section is something else.
    #[error("{place}: {key} is a section: write [{key}] on a line of its own and its settings below")]
    NotSection {
        /// Where.
        place: Place,
        /// The section.
        key: String,
    },
    /// The value is of the wrong kind.
    #[error("{place}: {key} must be {wanted}, such as the default {default}")]
    WrongKind {
        /// Where.
        place: Place,
        /// The setting.
        key: String,
        /// What would be right.
        wanted: &'static str,
        /// The default value.
        default: String,
    },
    /// The value is of the right kind, and wrong.
    #[error("{place}: {key}: {}; the default is {default}", worded(cause.message()))]
    WrongValue {
        /// Where.
        place: Place,
        /// The setting.
        key: String,
        /// The default value.
        default: String,
        /// Why. It is told in the sentence: as a source it would be told again, and with lines of the file.
        cause: Box<toml::de::Error>,
    },
    /// A number is too small or too large.
    #[error("{place}: {key} is {value}; it must be {least} to {most}")]
    OutOfBounds {
        /// Where.
        place: Place,
        /// The setting.
        key: &'static str,
        /// Its value.
        value: u64,
        /// The least that is allowed.
        least: u64,
        /// The most that is allowed.
        most: u64,
    },
    /// One setting is greater than another that bounds it.
    #[error("{place}: {key} is {value}; it must not exceed {bound_key}, which is {bound}")]
    Exceeds {
        /// Where.
        place: Place,
        /// The setting.
        key: &'static str,
        /// Its value.
        value: u64,
        /// The setting that bounds it.
        bound_key: &'static str,
        /// That one's value.
        bound: u64,
    },
    /// A rule that is no bound is broken.
    #[error("{place}: {key} {rule}")]
    Rule {
        /// Where.
        place: Place,
        /// The setting.
        key: &'static str,
        /// What must be true of it, as the rest of a sentence.
        rule: &'static str,
    },
}

fn meant(nearest: Option<&str>) -> String {
    nearest.map_or_else(
        || "config.example.toml has every setting".to_owned(),
        |nearest| format!("did you mean {nearest}?"),
    )
}

/// What the library says is wrong with a word that is none of several, in other words.
fn worded(message: &str) -> String {
    let parts = message.strip_prefix("unknown variant ").and_then(|rest| rest.split_once(", expected "));
    parts.map_or_else(|| message.to_owned(), |(word, known)| format!("{word} is not {known}"))
}
