//! The command line: what is common to all commands. The flags of a command group stand in the group's own
//! file.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue};
use clap::{CommandFactory, Parser, Subcommand};

use crate::account::AccountCommand;
use crate::budget::{EventsArgs, LimitCommand};
use crate::config::ConfigCommand;
use crate::costs::CostsCommand;
use crate::daemon::AuditArgs;
use crate::explain::ExplainArgs;
use crate::key::KeyCommand;
use crate::output::Format;
use crate::place::PlaceArgs;
use crate::pricing::PricingCommand;
use crate::quickstart::QuickstartArgs;
use crate::store::StoreCommand;
use crate::usage::{RequestsArgs, UsageArgs};

const EXIT_CODES: &str = "Exit codes: 0 it is done; 1 it is not; 2 the command line is wrong, a value that can mean \
                          nothing included";

/// Controls relayd over its Unix socket
#[derive(Debug, Parser)]
#[command(name = "relayctl", version, max_term_width = 100, after_help = EXIT_CODES)]
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
    /// Costs and counters, computed anew
    #[command(subcommand)]
    Costs(CostsCommand),
    /// The daemon's configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Where everything is kept
    #[command(subcommand)]
    Store(StoreCommand),
    /// Limits that keys share: those of an owner, or all
    #[command(subcommand)]
    Limit(LimitCommand),
    /// Limits that came to be used to the half, to 80 %, wholly, newest first
    Events(EventsArgs),
    /// Changes that were made with relayctl, newest first
    Audit(AuditArgs),
}

/// An error with the right advice where the value of a flag begins with a hyphen: as a word of its own it is taken
/// for a flag, and clap would advise to make it no flag's value at all.
pub(crate) fn advised(mut error: clap::Error, args: &[OsString]) -> clap::Error {
    let told = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(told)) => told.clone(),
        _ => return error,
    };
    let words: Vec<&str> = args.iter().map(|arg| arg.to_str().unwrap_or_default()).collect();
    let command = called(&words);
    let mut pairs = words.windows(2).map(|pair| (pair[0], pair[1]));
    let meant = pairs.find(|(flag, value)| {
        let is_blamed = value.starts_with(&told) || told.split(' ').next() == Some(flag);
        let takes_value = flag_of(&command, flag).is_some_and(|arg| arg.get_action().takes_values());
        is_blamed && value.starts_with('-') && takes_value && flag_of(&command, value).is_none()
    });
    if let Some((flag, value)) = meant {
        let advice = format!("a value that begins with a hyphen is written {flag}={value}");
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![advice.into()]));
    }
    error
}

/// The command that the words lead to, with the flags that are common to all.
fn called(words: &[&str]) -> clap::Command {
    let mut command = Cli::command();
    command.build();
    for word in words {
        if let Some(inner) = command.find_subcommand(word) {
            command = inner.clone();
        }
    }
    command
}

/// The flag of a command that a word is the long name of.
fn flag_of<'a>(command: &'a clap::Command, word: &str) -> Option<&'a clap::Arg> {
    let long = word.strip_prefix("--")?;
    command.get_arguments().find(|arg| arg.get_long() == Some(long))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
