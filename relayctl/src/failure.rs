//! Why a command failed: one sentence for the standard error, what to do next, and the exit code. An error says
//! what it is itself; all that led to it is added here, once.

use std::io::{self, Write};

use shared::admin::{Problem, ProblemCode};

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
    #[error("cannot write the answer")]
    Output(#[from] io::Error),
    /// A file or the system is in the way.
    #[error(transparent)]
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

    /// Tells it on the standard error, to a person or to a program, and returns the exit code.
    pub(crate) fn report(self, is_json: bool) -> u8 {
        let code = match &self {
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => return 0,
            Self::Usage { .. } => WRONG_USAGE,
            // A value that can mean nothing, whichever program notices.
            Self::Call(ClientError::Refused(Problem { code: ProblemCode::Invalid, .. })) => WRONG_USAGE,
            _ => FAILED,
        };
        let told = if is_json { self.told_to_programs() } else { format::plain(&self.told()) };
        // When the standard error is closed, the exit code is all that can be told.
        let _ = io::stderr().write_all(told.as_bytes());
        code
    }

    /// An object in one line, as the admin API has it.
    fn told_to_programs(self) -> String {
        let code = match &self {
            Self::Call(ClientError::Refused(problem)) => {
                serde_json::to_value(problem.code).unwrap_or_default()
            }
            Self::Usage { .. } => "usage".into(),
            _ => "failed".into(),
        };
        let hint = self.hint().map(str::to_owned);
        let message = format!("{:#}", anyhow::Error::new(self));
        format!("{}\n", serde_json::json!({ "error": { "code": code, "message": message, "hint": hint } }))
    }

    fn told(self) -> String {
        let hint = self.hint().map_or_else(String::new, |hint| format!("hint: {hint}\n"));
        format!("relayctl: {:#}\n{hint}", anyhow::Error::new(self))
    }

    fn hint(&self) -> Option<&str> {
        match self {
            Self::Usage { hint, .. } | Self::BadNews { hint, .. } => hint.as_deref(),
            Self::Call(ClientError::Refused(problem)) => problem.hint.as_deref(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn every_cause_is_told_once() {
        let gone = || io::Error::new(io::ErrorKind::NotFound, "gone");
        let file: Result<(), anyhow::Error> = Err(gone()).context("cannot read x").context("no prices");
        let problem = Problem {
            code: ProblemCode::NotFound,
            message: "there is no key".to_owned(),
            hint: Some("look".to_owned()),
        };
        for (failure, told) in [
            (Failure::from(file.unwrap_err()), "relayctl: no prices: cannot read x: gone\n"),
            (
                ClientError::Connect { socket: "/s".into(), source: gone() }.into(),
                "relayctl: cannot connect to /s: gone\n",
            ),
            (ClientError::Refused(problem).into(), "relayctl: there is no key\nhint: look\n"),
            (Failure::usage("wrong", "do it right"), "relayctl: wrong\nhint: do it right\n"),
            (Failure::Output(gone()), "relayctl: cannot write the answer: gone\n"),
        ] {
            assert_eq!(failure.told(), told);
        }
    }
}
