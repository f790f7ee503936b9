//! The command line: what is common to all commands. The flags of a command group stand in the group's own
//! file.

use std::ffi::{OsStr, OsString};

use clap::{Parser, Subcommand};

use crate::account::AccountCommand;
use crate::config::ConfigCommand;
use crate::daemon::AuditArgs;
use crate::explain::ExplainArgs;
use crate::key::KeyCommand;
use crate::output::Format;
use crate::place::PlaceArgs;
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
}
