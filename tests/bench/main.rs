//! Measures what relayd costs: against a direct call, and against a bare proxy (the floor) that does nothing
//! but forward. All three are measured in turns within one run, so that a busy machine treats them alike.
//! `tests/bench/run` runs it.

#![expect(unreachable_pub, reason = "a bench program exports nothing: `pub` means that another file uses it")]

mod daemon;
mod floor;
mod load;
mod measure;
mod process;
mod profile;
mod report;
mod upstream;

use std::io::Write;

use anyhow::{Context, Result, bail};

/// The largest number of files that a run has open: a thousand streams through a proxy.
const FILES_MIN: u64 = 4_096;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match args.as_slice() {
        ["upstream"] => runtime.block_on(upstream::serve()),
        ["floor", upstream] => runtime.block_on(floor::serve(upstream.parse()?)),
        [] => runtime.block_on(run(false)),
        ["--json"] => runtime.block_on(run(true)),
        other => bail!("unknown arguments {other:?}; --json is the only one"),
    }
}

async fn run(as_json: bool) -> Result<()> {
    process::raise_file_limit(FILES_MIN)?;
    let figures = measure::run().await.context("the bench could not be finished")?;
    let text = if as_json { report::json(&figures)? } else { report::table(&figures) };
    writeln!(std::io::stdout(), "{text}")?;
    Ok(())
}
