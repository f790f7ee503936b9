//! Where a credential is read from: a variable, a file or the standard input, never an argument, because
//! arguments are seen by every process of the machine and kept by the shell.

use std::env;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use clap::builder::UnknownArgumentValueParser;
use shared::redact::Secret;

use crate::failure::Failure;

/// Longer than any credential, service account files included.
const SECRET_BYTES_MAX: u64 = 64 << 10;
const FLAGS: &str = "--secret-env VAR, --secret-file FILE or --secret-stdin";

/// The flags that say where a credential is.
#[derive(Debug, Default, Args)]
#[group(multiple = false)]
pub(crate) struct SecretArgs {
    /// Take the credential from this environment variable
    #[arg(long, value_name = "VAR")]
    secret_env: Option<String>,
    /// Take the credential from this file
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// Take the credential from the standard input
    #[arg(long)]
    secret_stdin: bool,
    /// Refused with advice: it stands here so that clap can tell what to use instead.
    #[arg(
        long = "secret",
        aliases = ["key", "api-key", "secret-key", "credential"],
        hide = true,
        value_name = "VALUE",
        num_args = 0..=1,
        default_missing_value = "",
        value_parser = UnknownArgumentValueParser::suggest(
            "a credential is never an argument; use --secret-env VAR, --secret-file FILE or --secret-stdin",
        ),
    )]
    as_argument: Option<String>,
}

impl SecretArgs {
    /// Reads the credential from where the flags say; `None` if they say nothing.
    pub(crate) fn read(&self) -> Result<Option<Secret>, Failure> {
        match self {
            Self { secret_env: Some(name), .. } => from_variable(name, env::var(name).ok()).map(Some),
            Self { secret_file: Some(path), .. } => from_file(path).map(Some),
            Self { secret_stdin: true, .. } => from_reader(io::stdin(), "the standard input").map(Some),
            _ => Ok(None),
        }
    }
}

/// Nobody said where the credential is.
pub(crate) fn missing() -> Failure {
    Failure::usage("a credential is missing", format!("say where it is with {FLAGS}"))
}

fn from_variable(name: &str, value: Option<String>) -> Result<Secret, Failure> {
    let hint = format!("set it, or say where the credential is with another of {FLAGS}");
    let value = value.ok_or_else(|| Failure::usage(format!("the variable {name} is not set"), hint))?;
    checked(&value, &format!("the variable {name}"))
}

fn from_file(path: &Path) -> Result<Secret, Failure> {
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    from_reader(file, &path.display().to_string())
}

fn from_reader(reader: impl Read, source: &str) -> Result<Secret, Failure> {
    let mut text = String::new();
    let mut bounded = reader.take(SECRET_BYTES_MAX + 1);
    bounded.read_to_string(&mut text).with_context(|| format!("cannot read {source}"))?;
    if text.len() as u64 > SECRET_BYTES_MAX {
        return Err(wrong(source, "is too long to be a credential"));
    }
    checked(&text, source)
}

/// White space around a credential comes from editors and `echo`.
fn checked(text: &str, source: &str) -> Result<Secret, Failure> {
    match text.trim() {
        "" => Err(wrong(source, "is empty")),
        secret if secret.chars().any(char::is_control) => Err(wrong(source, "has more than one line")),
        secret => Ok(Secret::new(secret)),
    }
}

fn wrong(source: &str, what: &str) -> Failure {
    Failure::Usage { message: format!("{source} {what}"), hint: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_read_whole_and_without_white_space_around() {
        assert_eq!(from_reader("sk-1\n".as_bytes(), "it").unwrap().expose(), "sk-1");
        assert_eq!(from_variable("V", Some(" sk-2 ".to_owned())).unwrap().expose(), "sk-2");
    }

    #[test]
    fn what_is_no_credential_is_wrong_usage() {
        let long = "x".repeat(70_000);
        for (text, part) in
            [("", "is empty"), (" \n", "is empty"), ("a\nb", "one line"), (long.as_str(), "too long")]
        {
            let failure = from_reader(text.as_bytes(), "the file").unwrap_err();
            assert!(matches!(failure, Failure::Usage { .. }));
            assert!(failure.to_string().contains(part), "{failure}");
        }
        assert!(from_variable("V", None).unwrap_err().to_string().contains("V is not set"));
    }
}
