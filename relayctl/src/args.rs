//! The command line: what is common to all commands, and how single values are read. The flags of a command
//! group stand in the group's own file.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};
use shared::domain::account::UnknownName;
use shared::domain::{AccountKind, Family, Glob, Multiplier, NoMultiplier, Protocol};

use crate::account::AccountCommand;
use crate::config::ConfigCommand;
use crate::daemon::AuditArgs;
use crate::explain::ExplainArgs;
use crate::key::KeyCommand;
use crate::output::Format;
use crate::pricing::PricingCommand;
use crate::quickstart::QuickstartArgs;
use crate::usage::{RequestsArgs, UsageArgs};

/// Controls relayd over its Unix socket
#[derive(Debug, Parser)]
#[command(name = "relayctl", version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// How answers are written: for people, or for programs
    #[arg(long, global = true, value_enum, default_value_t, help_heading = "Common options")]
    pub(crate) output: Format,
    /// Answer questions with yes
    #[arg(long, short, global = true, help_heading = "Common options")]
    pub(crate) yes: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Where the daemon is.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Common options")]
pub(crate) struct PlaceArgs {
    /// The daemon's data folder, which has its socket [default: ~/.local/state/relayd]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// The daemon's socket [env: RELAYD_SOCKET]
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start relayd with an account and a key, and send a first request through it
    Quickstart(QuickstartArgs),
    /// How the daemon and its accounts are
    Status,
    /// Drain open calls and end the daemon
    Stop,
    /// API keys: who may call what, until when, how much
    #[command(subcommand)]
    Key(KeyCommand),
    /// Upstream accounts that serve the calls
    #[command(subcommand)]
    Account(AccountCommand),
    /// Sums of usage and cost
    Usage(UsageArgs),
    /// Single requests, newest first
    Requests(RequestsArgs),
    /// Which account would serve a call, and why the others would not; nothing is sent
    Explain(ExplainArgs),
    /// Prices of models
    #[command(subcommand)]
    Pricing(PricingCommand),
    /// The daemon's configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Changes that were made with relayctl, newest first
    Audit(AuditArgs),
}

/// `pricing set` has a price `--output`, and all commands have a format `--output`. A price is a number and a
/// format is not, so the price is told apart here and passed on under the flag's full name.
pub(crate) fn with_prices_apart(args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut args: Vec<OsString> = args.into_iter().collect();
    let group = args.iter().position(|arg| arg == "pricing");
    if !group.is_some_and(|group| args[group..].iter().any(|arg| arg == "set")) {
        return args;
    }
    for at in 0..args.len() {
        let value_is_price = args.get(at + 1).is_some_and(|value| is_amount(value));
        if args[at] == "--output" && value_is_price {
            args[at] = "--output-tokens".into();
        } else if let Some(value) = args[at].to_str().and_then(|arg| arg.strip_prefix("--output="))
            && is_amount(OsStr::new(value))
        {
            args[at] = format!("--output-tokens={value}").into();
        }
    }
    args
}

fn is_amount(value: &OsStr) -> bool {
    value
        .to_str()
        .is_some_and(|value| value.starts_with(|first: char| first.is_ascii_digit() || first == '$'))
}

/// Reads an account kind; the help lists them.
pub(crate) fn kind() -> impl TypedValueParser<Value = AccountKind> {
    named(AccountKind::ALL.map(AccountKind::name), str::parse)
}

/// Reads a family of accounts; the help lists them.
pub(crate) fn family() -> impl TypedValueParser<Value = Family> {
    named(Family::ALL.map(Family::name), str::parse)
}

/// Reads a family with its multiplier: `claude=1.5`.
pub(crate) fn rate(text: &str) -> Result<(Family, Multiplier), String> {
    let (family, rate) = text.split_once('=').ok_or("a rate is written like claude=1.5")?;
    let family = family.parse().map_err(|error: UnknownName| error.to_string())?;
    Ok((family, rate.parse().map_err(|error: NoMultiplier| error.to_string())?))
}

fn named<const N: usize, T: Clone + Send + Sync + 'static>(
    names: [&'static str; N],
    parse: fn(&str) -> Result<T, UnknownName>,
) -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(names).try_map(move |name| parse(&name))
}

/// Reads a protocol; the help lists them.
pub(crate) fn protocol() -> impl TypedValueParser<Value = Protocol> {
    #[derive(Debug, thiserror::Error)]
    #[error("no such protocol")]
    struct NoProtocol;
    PossibleValuesParser::new(Protocol::ALL.map(Protocol::name))
        .try_map(|name| Protocol::ALL.into_iter().find(|protocol| protocol.name() == name).ok_or(NoProtocol))
}

/// Reads a pattern for model names.
pub(crate) fn glob(text: &str) -> Result<Glob, EmptyValue> {
    if text.is_empty() { Err(EmptyValue) } else { Ok(Glob::from(text)) }
}

/// Reads a text that must say something.
pub(crate) fn text(text: &str) -> Result<String, EmptyValue> {
    if text.trim().is_empty() { Err(EmptyValue) } else { Ok(text.to_owned()) }
}

/// An empty text where there must be one.
#[derive(Debug, thiserror::Error)]
#[error("it is empty")]
pub(crate) struct EmptyValue;

/// Reads two texts around a separator, such as `from=to`.
pub(crate) fn pair(text: &str, separator: char) -> Option<(String, String)> {
    let (left, right) = text.split_once(separator)?;
    let (left, right) = (left.trim(), right.trim());
    (!left.is_empty() && !right.is_empty()).then(|| (left.to_owned(), right.to_owned()))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn output_prices_are_told_from_output_formats() {
        for (given, passed_on) in [
            ("relayctl usage --output json", "relayctl usage --output json"),
            ("relayctl pricing show --output 15", "relayctl pricing show --output 15"),
            ("relayctl pricing set m --output 15", "relayctl pricing set m --output-tokens 15"),
            ("relayctl pricing set m --output=$15", "relayctl pricing set m --output-tokens=$15"),
            (
                "relayctl --output json pricing set m --output 0.5 --output table",
                "relayctl --output json pricing set m --output-tokens 0.5 --output table",
            ),
        ] {
            let given = given.split(' ').map(OsString::from);
            let passed_on: Vec<_> = passed_on.split(' ').map(OsString::from).collect();
            assert_eq!(with_prices_apart(given), passed_on);
        }
    }

    #[test]
    fn pairs_need_both_sides() {
        assert_eq!(pair("a = b=c", '='), Some(("a".to_owned(), "b=c".to_owned())));
        for bad in ["", "a", "=b", "a=", " = "] {
            assert_eq!(pair(bad, '='), None, "{bad:?}");
        }
    }
}
