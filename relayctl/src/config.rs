//! `relayctl config`: checking a configuration file, showing the one in force. The daemon's own program
//! does the checking, so there is one reader of configuration only.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;
use clap::Subcommand;
use shared::admin::{ConfigView, ShowConfig};

use crate::ctl::Ctl;
use crate::failure::Failure;
use crate::output::Look;
use crate::program::relayd_program;

/// What a shell says for a program that a signal ended.
const ENDED_BY_SIGNAL: u8 = 128;

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Check a configuration file without starting anything
    Check {
        /// The file; without it the daemon's defaults and the environment are checked
        file: Option<PathBuf>,
    },
    /// The configuration in force
    Show,
}

/// Runs one command of the group.
pub(crate) async fn run(ctl: &Ctl, command: ConfigCommand) -> Result<(), Failure> {
    match command {
        ConfigCommand::Check { file } => check(ctl, file),
        ConfigCommand::Show => ctl.out.print(&ctl.client.call(&ShowConfig {}).await?, text),
    }
}

fn check(ctl: &Ctl, file: Option<PathBuf>) -> Result<(), Failure> {
    let program = relayd_program()?;
    let mut command = Command::new(&program);
    command.arg("--check");
    if let Some(file) = file {
        command.arg("--config").arg(file);
    }
    if ctl.place.data_is_named {
        command.arg("--data").arg(&ctl.place.data);
    }
    let status = command.status().with_context(|| format!("cannot run {}", program.display()))?;
    match status.code() {
        Some(0) => Ok(()),
        Some(code) => Err(Failure::ToldAlready(u8::try_from(code).unwrap_or(1))),
        None => Err(Failure::ToldAlready(ENDED_BY_SIGNAL)),
    }
}

fn text(config: &ConfigView, _: &Look) -> String {
    let source = config.file.as_deref().unwrap_or("no file: defaults and the environment");
    format!("# {source}\n{}", config.toml)
}
