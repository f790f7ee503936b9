//! `relayctl` controls `relayd` over its Unix socket. This file is the map: a module per command group, and
//! beside them what they share: where the daemon is, how it is called, how an answer is shown. Commands do not
//! know each other; `cli` knows them all.

use std::ffi::OsString;

use clap::Parser;
use clap::error::ErrorKind;

mod account;
mod account_table;
mod args;
mod budget;
mod cli;
mod client;
mod config;
mod costs;
mod ctl;
mod daemon;
mod explain;
mod failure;
mod format;
mod key;
mod limits;
mod output;
mod place;
mod pricing;
mod process;
mod program;
mod prompt;
mod quickstart;
mod secret;
mod stopping;
mod store;
mod usage;
mod when;

use cli::{Cli, Command};
use client::Client;
use ctl::Ctl;
use failure::Failure;
use output::{Format, Output};
use place::{Environment, Place};
use prompt::Prompt;

/// Runs one command and returns the program's exit code: 0, 1 for a failure, 2 for wrong usage.
pub fn run(args: impl IntoIterator<Item = OsString>) -> u8 {
    let args: Vec<OsString> = args.into_iter().collect();
    let cli = match Cli::try_parse_from(&args) {
        Ok(cli) => cli,
        Err(error) => return explain_usage(&cli::advised(error, &args)),
    };
    let is_json = cli.output == Format::Json;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = match runtime {
        Ok(runtime) => runtime.block_on(dispatch(cli)),
        Err(error) => Err(Failure::Other(anyhow::Error::new(error).context("cannot start"))),
    };
    done.map_or_else(|failure| failure.report(is_json), |()| 0)
}

/// Prints what clap has to say: help and version are successes, everything else is wrong usage.
fn explain_usage(error: &clap::Error) -> u8 {
    // The text goes to a terminal or a pipe that may be closed; there is nobody left to tell then.
    let _ = error.print();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => 0,
        _ => failure::WRONG_USAGE,
    }
}

async fn dispatch(cli: Cli) -> Result<(), Failure> {
    let place = Place::find(&cli.place, &Environment::of_process());
    let ctl = Ctl {
        client: Client::new(place.socket.clone()),
        out: Output::new(cli.output),
        prompt: Prompt::new(cli.yes),
        place,
    };
    match cli.command {
        Command::Quickstart(args) => quickstart::run(&ctl, args).await,
        Command::Status => daemon::status(&ctl).await,
        Command::Stop => daemon::stop(&ctl).await,
        Command::Key(command) => key::run(&ctl, command).await,
        Command::Account(command) => account::run(&ctl, command).await,
        Command::Usage(args) => usage::sum(&ctl, args).await,
        Command::Requests(args) => usage::requests(&ctl, args).await,
        Command::Explain(args) => explain::run(&ctl, args).await,
        Command::Pricing(command) => pricing::run(&ctl, command).await,
        Command::Costs(command) => costs::run(&ctl, command).await,
        Command::Config(command) => config::run(&ctl, command).await,
        Command::Store(command) => store::run(&ctl, command).await,
        Command::Limit(command) => budget::run(&ctl, command).await,
        Command::Events(args) => budget::events(&ctl, args).await,
        Command::Audit(args) => daemon::audit(&ctl, args).await,
    }
}
