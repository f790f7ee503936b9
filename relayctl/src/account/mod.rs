//! `relayctl account`: the upstream accounts that serve the calls.

use std::time::Duration;

use clap::Subcommand;
use shared::admin::{ListAccounts, RemoveAccount, ShowAccount, TestAccount, UpdateAccount};

mod add;
mod flags;
#[cfg(test)]
mod tests;
mod view;

use add::AddArgs;
use flags::UpdateArgs;

use crate::account_table::table;
use crate::ctl::Ctl;
use crate::failure::Failure;
use crate::format;
use crate::prompt;

/// A test waits for a model to answer.
const TEST_WITHIN: Duration = Duration::from_secs(180);

#[derive(Debug, Subcommand)]
pub(crate) enum AccountCommand {
    /// Add an account; what is missing is asked for on a terminal
    Add(Box<AddArgs>),
    /// All accounts with their state
    List,
    /// One account
    Show(AccountName),
    /// Change what is named; the rest stays
    Update(Box<UpdateArgs>),
    /// Take an account out of scheduling
    Pause(AccountName),
    /// Put an account back into scheduling and forget what ailed it
    Resume(AccountName),
    /// Send one small call through an account
    Test {
        /// Its id or name
        account: String,
        /// The model to ask; without it the account is asked for its list of models, if it has one
        #[arg(long)]
        model: Option<String>,
    },
    /// Remove an account; its usage stays
    Remove {
        /// Its id or name
        account: String,
        /// Also when keys are bound to it
        #[arg(long)]
        force: bool,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct AccountName {
    /// Its id or name
    account: String,
}

/// Runs one command of the group.
pub(crate) async fn run(ctl: &Ctl, command: AccountCommand) -> Result<(), Failure> {
    let (client, out) = (&ctl.client, &ctl.out);
    match command {
        AccountCommand::Add(args) => out.print(&client.call(&args.call(&ctl.prompt)?).await?, view::record),
        AccountCommand::List => out.print(&*client.call(&ListAccounts {}).await?, table),
        AccountCommand::Show(AccountName { account }) => {
            out.print(&client.call(&ShowAccount { account }).await?, view::record)
        }
        AccountCommand::Update(args) => update(ctl, *args).await,
        AccountCommand::Pause(AccountName { account }) => {
            out.print(&client.call(&switch(account, true)).await?, view::line)
        }
        AccountCommand::Resume(AccountName { account }) => {
            out.print(&client.call(&switch(account, false)).await?, view::line)
        }
        AccountCommand::Test { account, model } => test(ctl, account, model).await,
        AccountCommand::Remove { account, force } => {
            let account = client.call(&ShowAccount { account }).await?;
            ctl.prompt.confirm(&format!("remove the account {} ({})", account.name, account.id))?;
            let removed = client.call(&RemoveAccount { account: account.id.to_string(), force }).await?;
            out.print(&removed, |account, _| {
                format::plain(&format!("account {} ({}) is removed", account.name, account.id))
            })
        }
    }
}

async fn update(ctl: &Ctl, args: UpdateArgs) -> Result<(), Failure> {
    let simulator = if args.settings.simulator.any() {
        let account = ctl.client.call(&ShowAccount { account: args.account.clone() }).await?;
        args.settings.simulator.over(account.simulator.unwrap_or_default())
    } else {
        None
    };
    ctl.out.print(&ctl.client.call(&args.call(simulator)?).await?, view::record)
}

fn switch(account: String, paused: bool) -> UpdateAccount {
    UpdateAccount { account, paused: Some(paused), ..UpdateAccount::default() }
}

async fn test(ctl: &Ctl, account: String, model: Option<String>) -> Result<(), Failure> {
    let waiting = prompt::spinner(format!("asking {account}"));
    let call = TestAccount { account: account.clone(), model };
    let report = ctl.client.call_within(TEST_WITHIN, &call).await;
    waiting.finish_and_clear();
    let report = report?;
    ctl.out.print(&report, view::tested)?;
    if report.ok {
        return Ok(());
    }
    let hint = format!("`relayctl account show {account}` says how it is set up");
    Err(Failure::bad_news(format!("the account {account} does not work"), hint))
}
