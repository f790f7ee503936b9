//! Why a command failed: one sentence for the standard error, what to do next, and the exit code.

use std::fmt::Display;
use std::io::{self, Write};

use crate::client::ClientError;
use crate::format;

const FAILED: u8 = 1;
/// The exit code of wrong usage, clap's own included.
pub(crate) const WRONG_USAGE: u8 = 2;

/// A command that did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The command line lacks something or contradicts itself.
    #[error("{message}")]
    Usage { message: String, hint: Option<String> },
    /// The daemon did not do it.
    #[error(transparent)]
    Call(#[from] ClientError),
    /// It was done, and the result is bad news.
    #[error("{message}")]
    BadNews { message: String, hint: Option<String> },
    /// The answer could not be written; a closed pipe is no failure.
    #[error("cannot write the answer: {0}")]
    Output(#[from] io::Error),
    /// Another program was run and has said what is wrong.
    #[error("see above")]
    ToldAlready(u8),
    /// A file or the system is in the way.
    #[error("{0:#}")]
    Other(#[from] anyhow::Error),
}

impl Failure {
    /// Wrong usage, with what to do instead.
    pub(crate) fn usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Usage { message: message.into(), hint: Some(hint.into()) }
    }

    /// Bad news, with what to do about it.
    pub(crate) fn bad_news(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::BadNews { message: message.into(), hint: Some(hint.into()) }
    }

    /// Tells it on the standard error and returns the exit code.
    pub(crate) fn report(&self) -> u8 {
        match self {
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => return 0,
            Self::ToldAlready(code) => return *code,
            _ => {}
        }
        let mut text = format!("relayctl: {self}\n");
        if let Some(hint) = self.hint() {
            text.push_str(&format!("hint: {hint}\n"));
        }
        // When the standard error is closed, the exit code is all that can be told.
        let _ = io::stderr().write_all(format::plain(&text).as_bytes());
        match self {
            Self::Usage { .. } => WRONG_USAGE,
            _ => FAILED,
        }
    }

    fn hint(&self) -> Option<&dyn Display> {
        match self {
            Self::Usage { hint, .. } | Self::BadNews { hint, .. } => hint.as_ref().map(|hint| hint as _),
            Self::Call(ClientError::Refused(problem)) => problem.hint.as_ref().map(|hint| hint as _),
            _ => None,
        }
    }
}
