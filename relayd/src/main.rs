//! The daemon's command line: flags, configuration, exit code.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use mimalloc::MiMalloc;
use relayd::{Config, Options};

/// A call allocates a few dozen times, with many calls at once. Without huge pages, of which one is two megabytes
/// of memory for whatever is touched first in it.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Relays AI API calls to upstream accounts. Runs without any configuration; `relayctl` controls it.
#[derive(Parser)]
#[command(name = "relayd", version)]
struct Flags {
    /// Folder for keys, accounts, the ledger and the admin socket
    /// [default: $STATE_DIRECTORY, else $XDG_STATE_HOME/relayd, else ~/.local/state/relayd]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Address to listen at, such as 127.0.0.1:3000; may be given several times
    #[arg(long, value_name = "ADDR", value_parser = relayd::address)]
    listen: Vec<SocketAddr>,
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Check the configuration and the files that it names, and exit
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    match run(Flags::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&format!("relayd: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(flags: Flags) -> anyhow::Result<()> {
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let mut config = Config::load(flags.config.as_deref(), environment)?;
    if !flags.listen.is_empty() {
        config.server.listen = flags.listen;
    }
    let data = flags.data.map_or_else(default_data, Ok);
    if flags.check {
        relayd::check(&config, data.as_deref().ok())?;
        report("the configuration is valid");
        return Ok(());
    }
    // It is told as it is found from anywhere.
    let data = std::path::absolute(data?).context("the current folder is gone")?;
    relayd::run(&config, &Options { data, config_file: flags.config })?;
    Ok(())
}

/// The folder that systemd gives a service, else the user's own. A home that is not named from the root on is none:
/// secrets would lie in whatever folder the daemon happens to be started in.
fn default_data() -> anyhow::Result<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = |name: &str| variable(name).filter(|path| path.is_absolute());
    variable("STATE_DIRECTORY")
        .or_else(|| home("XDG_STATE_HOME").map(|state| state.join("relayd")))
        .or_else(|| home("HOME").map(|home| home.join(".local/state/relayd")))
        .context("there is no home folder to keep data in; name one with --data")
}

/// A line for whoever started the daemon, who may be gone.
fn report(line: &str) {
    use std::io::Write;
    drop(writeln!(std::io::stderr(), "{line}"));
}
