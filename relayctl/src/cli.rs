//! The command line: what is common to all commands. The flags of a command group stand in the group's own
//! file.

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

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
