//! `relayctl store`: moving the store to another place, and taking a server in place of the one that was used.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use shared::redact::Secret;
use shared::store::{AdoptStore, MigrateStore, StoreAdopted, StoreMigrated};

use crate::ctl::Ctl;
use crate::failure::Failure;
use crate::format;
use crate::output::{Grid, Look};
use crate::prompt::Bar;

#[derive(Debug, Subcommand)]
pub(crate) enum StoreCommand {
    /// Move everything to another store while calls are served, and go on with that
    Migrate(MigrateArgs),
    /// Take a server that came back empty, or another one, in place of the store that was used
    Adopt(AdoptArgs),
}

#[derive(Debug, Args)]
pub(crate) struct MigrateArgs {
    /// Where to, as store.url says it: embedded, or redis://HOST:PORT/DB (rediss:// for TLS); a password belongs in the
    /// file that store.password_file names
    #[arg(long, value_name = "URL")]
    to: String,
}

#[derive(Debug, Args)]
pub(crate) struct AdoptArgs {
    /// Take the server's data as it is; without it, the server must be empty, and is given what the daemon knows
    #[arg(long)]
    as_is: bool,
}

/// Runs one command of the group.
pub(crate) async fn run(ctl: &Ctl, command: StoreCommand) -> Result<(), Failure> {
    match command {
        StoreCommand::Migrate(args) => migrate(ctl, args).await,
        StoreCommand::Adopt(args) => adopt(ctl, args).await,
    }
}

async fn migrate(ctl: &Ctl, args: MigrateArgs) -> Result<(), Failure> {
    if has_password(&args.to) {
        return Err(Failure::usage(
            "the URL holds a password, which others on this machine could see",
            "put it into the file that store.password_file names, and leave it out of --to",
        ));
    }
    let call = MigrateStore { to: Secret::new(args.to) };
    let bar = Bar::new();
    let moved = ctl.client.call_long(&call, |progress| bar.show(progress)).await?;
    drop(bar);
    ctl.out.print(&moved, migrated)
}

fn has_password(url: &str) -> bool {
    let authority = url.split_once("://").and_then(|(_, rest)| rest.split('/').next());
    let credentials =
        authority.and_then(|authority| authority.rsplit_once('@')).map(|(credentials, _)| credentials);
    credentials
        .and_then(|credentials| credentials.split_once(':'))
        .is_some_and(|(_, password)| !password.is_empty())
}

/// What is there is shown before it is taken.
async fn adopt(ctl: &Ctl, AdoptArgs { as_is }: AdoptArgs) -> Result<(), Failure> {
    let look = AdoptStore { as_is, dry_run: true };
    let found = ctl.client.call_long(&look, |_| {}).await?;
    let deed = match (found.was_empty, as_is) {
        (true, true) => "go on with this empty server (all keys and accounts are gone then)".to_owned(),
        (true, false) => "fill this empty server with what the daemon knows".to_owned(),
        (false, true) => format!("go on with what this server has ({})", listed(&found.found)),
        (false, false) => {
            let message = format!("the server holds the data of another store ({})", listed(&found.found));
            return Err(Failure::bad_news(message, "--as-is takes it all the same"));
        }
    };
    ctl.prompt.confirm(&deed)?;
    let done = ctl.client.call_long(&AdoptStore { dry_run: false, ..look }, |_| {}).await?;
    ctl.out.print(&done, adopted)
}

fn migrated(moved: &StoreMigrated, look: &Look) -> String {
    let StoreMigrated { from, to, counts, holds, frozen_ms } = moved;
    let mut grid = Grid::bare(look);
    grid.pair("moved", format!("from {from} to {to}"));
    for (part, count) in counts {
        grid.pair(&words(part), format::count(*count));
    }
    grid.pair("held by open calls", format::several(*holds, "amount"))
        .pair("nobody was admitted", format!("for {}", format::millis(*frozen_ms)));
    format!(
        "{}\n\nrelayd uses the new store. Before it is started again, set\n\n    [store]\n    url = \"{to}\"",
        grid.text()
    )
}

fn adopted(done: &StoreAdopted, _: &Look) -> String {
    let records = format::several(done.records, "record");
    let groups = format::several(done.groups, "group");
    let what = if done.was_empty { "was given" } else { "has" };
    let text = format!("the server {what} {records} and {groups} of counters");
    match done.state.as_str() {
        "ok" => format!("{text}; it is in use"),
        state => format!("{text}; it is not in use yet: {state}"),
    }
}

fn listed(counts: &BTreeMap<String, u64>) -> String {
    let counts = counts.iter().filter(|(_, count)| **count > 0);
    let counts: Vec<String> =
        counts.map(|(part, count)| format!("{} {}", format::count(*count), words(part))).collect();
    format::list(&counts, "nothing")
}

fn words(part: &str) -> String {
    part.replace('_', " ")
}
