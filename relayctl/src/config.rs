//! `relayctl config`: checking a configuration file, showing the one in force. The daemon's own program
//! does the checking, so there is one reader of configuration only.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use anyhow::Context;
use clap::Subcommand;
use serde::Serialize;
use shared::admin::{ConfigView, ShowConfig};

use crate::ctl::Ctl;
use crate::failure::Failure;
use crate::format;
use crate::output::Look;
use crate::program::relayd_program;

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Check a configuration file, and the files that it names, without starting anything
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

/// A configuration that was checked and found well.
#[derive(Debug, Serialize)]
struct Checked {
    ok: bool,
    /// The file, if one was named.
    file: Option<String>,
}

fn check(ctl: &Ctl, file: Option<PathBuf>) -> Result<(), Failure> {
    let program = relayd_program()?;
    let mut command = Command::new(&program);
    command.arg("--check").stdin(Stdio::null());
    if let Some(file) = &file {
        command.arg("--config").arg(file);
    }
    if let Some(data) = ctl.place.data.as_deref().filter(|_| ctl.place.data_is_named) {
        command.arg("--data").arg(data);
    }
    let output = command.output().with_context(|| format!("cannot run {}", program.display()))?;
    if !output.status.success() {
        return Err(Failure::BadNews { message: problem(&output), hint: None });
    }
    let checked = Checked { ok: true, file: file.map(|file| file.display().to_string()) };
    ctl.out.print(&checked, |checked, _| match &checked.file {
        Some(file) => format!("{} is valid", format::plain(file)),
        None => "the configuration is valid".to_owned(),
    })
}

/// What relayd says is wrong, as this program says it.
fn problem(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.trim().trim_start_matches("relayd: ");
    if said.is_empty() { format!("`relayd --check` failed ({})", output.status) } else { said.to_owned() }
}

fn text(config: &ConfigView, _: &Look) -> String {
    let source = config.file.as_deref().unwrap_or("no file: defaults and the environment");
    format!("# {source}\n{}", config.toml)
}
