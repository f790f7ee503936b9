//! `relayctl account`: the upstream accounts that serve the calls.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use shared::admin::{
    AccountView, AddAccount, ListAccounts, RemoveAccount, ShowAccount, TestAccount, TestReport, UpdateAccount,
};
use shared::domain::account::SimulatorSettings;
use shared::domain::{AccountKind, Glob, Limit};

use crate::Ctl;
use crate::args;
use crate::failure::Failure;
use crate::format::{self, NOTHING};
use crate::key;
use crate::output::{Cell, Grid, Look, Tone};
use crate::prompt::{self, Prompt};
use crate::secret::{self, SecretArgs};

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

#[derive(Debug, Args)]
pub(crate) struct AccountName {
    /// Its id or name
    account: String,
}

#[derive(Debug, Args)]
pub(crate) struct AddArgs {
    /// Which provider serves it
    #[arg(value_parser = args::kind())]
    kind: Option<AccountKind>,
    /// Its name
    #[arg(long, value_parser = args::text)]
    name: Option<String>,
    #[command(flatten)]
    settings: SettingsArgs,
}

#[derive(Debug, Args)]
pub(crate) struct UpdateArgs {
    /// Its id or name
    account: String,
    /// A new name
    #[arg(long, value_parser = args::text)]
    name: Option<String>,
    #[command(flatten)]
    settings: SettingsArgs,
    /// Empty what had been set (repeatable)
    #[arg(long, value_enum, value_name = "FIELD")]
    clear: Vec<AccountField>,
}

/// What can be emptied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum AccountField {
    Models,
    Map,
    PriceAs,
    Headers,
    Limits,
}

/// What a new and a changed account have in common.
#[derive(Debug, Default, Args)]
pub(crate) struct SettingsArgs {
    /// Where it is reached [default: the vendor's own address]
    #[arg(long, value_name = "URL", value_parser = args::text)]
    base_url: Option<String>,
    #[command(flatten)]
    secret: SecretArgs,
    /// The `api-version` of Azure calls
    #[arg(long, value_name = "VERSION")]
    api_version: Option<String>,
    /// Models that clients may ask for, such as claude-* (repeatable; all when absent)
    #[arg(long = "model", value_name = "GLOB", value_parser = args::glob)]
    models: Vec<Glob>,
    /// The upstream's name for a model, by the client's (repeatable)
    #[arg(long = "map", value_name = "FROM=TO")]
    model_map: Vec<Mapping>,
    /// The priced model that stands in where a model has no price
    #[arg(long, value_name = "MODEL")]
    price_as: Option<String>,
    /// Lower is asked first [default: 50]
    #[arg(long, value_name = "1-100", value_parser = clap::value_parser!(u8).range(1..=100))]
    priority: Option<u8>,
    /// Its share among accounts of the same priority [default: 1]
    #[arg(long, value_name = "1-100", value_parser = clap::value_parser!(u8).range(1..=100))]
    weight: Option<u8>,
    /// A header that every call carries (repeatable)
    #[arg(long = "header", value_name = "NAME: VALUE")]
    headers: Vec<Header>,
    /// What it may be used for: "4 concurrent", "60 requests per minute" (repeatable)
    #[arg(long = "limit", value_name = "LIMIT")]
    limits: Vec<Limit>,
    #[command(flatten)]
    simulator: SimulatorArgs,
}

/// How a simulator behaves.
#[derive(Clone, Copy, Debug, Default, Args)]
#[command(next_help_heading = "Simulator")]
struct SimulatorArgs {
    /// Time to the first byte
    #[arg(long, value_name = "MS")]
    latency_ms: Option<u64>,
    /// Pieces of a streamed answer
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    chunks: Option<u32>,
    /// Time between two pieces
    #[arg(long, value_name = "MS")]
    chunk_gap_ms: Option<u64>,
    /// Calls in a hundred that fail
    #[arg(long, value_name = "0-100", value_parser = clap::value_parser!(u8).range(0..=100))]
    error_percent: Option<u8>,
}

impl SimulatorArgs {
    /// The settings that the flags make of others; `None` if no flag was given.
    fn over(self, old: SimulatorSettings) -> Option<SimulatorSettings> {
        let new = SimulatorSettings {
            latency_ms: self.latency_ms.unwrap_or(old.latency_ms),
            chunks: self.chunks.unwrap_or(old.chunks),
            chunk_gap_ms: self.chunk_gap_ms.unwrap_or(old.chunk_gap_ms),
            error_percent: self.error_percent.unwrap_or(old.error_percent),
        };
        self.any().then_some(new)
    }

    fn any(self) -> bool {
        self.latency_ms.is_some()
            || self.chunks.is_some()
            || self.chunk_gap_ms.is_some()
            || self.error_percent.is_some()
    }
}

/// A client's name for a model and the upstream's.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mapping(String, String);

/// The text is no pair of model names.
#[derive(Debug, thiserror::Error)]
#[error("a mapping is written like fast=claude-haiku-4-5")]
struct NoMapping;

impl FromStr for Mapping {
    type Err = NoMapping;

    fn from_str(text: &str) -> Result<Self, NoMapping> {
        args::pair(text, '=').map(|(from, to)| Self(from, to)).ok_or(NoMapping)
    }
}

/// The name and the value of a header.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Header(String, String);

/// The text is no header.
#[derive(Debug, thiserror::Error)]
#[error("a header is written like \"x-team: red\"")]
struct NoHeader;

impl FromStr for Header {
    type Err = NoHeader;

    fn from_str(text: &str) -> Result<Self, NoHeader> {
        let (name, value) = args::pair(text, ':').ok_or(NoHeader)?;
        let name = hyper::header::HeaderName::try_from(name).map_err(|_| NoHeader)?;
        hyper::header::HeaderValue::try_from(&value).map_err(|_| NoHeader)?;
        Ok(Self(name.as_str().to_owned(), value))
    }
}

/// Runs one command of the group.
pub(crate) async fn run(ctl: &Ctl, command: AccountCommand) -> Result<(), Failure> {
    let (client, out) = (&ctl.client, &ctl.out);
    match command {
        AccountCommand::Add(args) => out.print(&client.call(&args.call(&ctl.prompt)?).await?, record),
        AccountCommand::List => out.print(&*client.call(&ListAccounts {}).await?, table),
        AccountCommand::Show(AccountName { account }) => {
            out.print(&client.call(&ShowAccount { account }).await?, record)
        }
        AccountCommand::Update(args) => update(ctl, *args).await,
        AccountCommand::Pause(AccountName { account }) => {
            out.print(&client.call(&switch(account, true)).await?, line)
        }
        AccountCommand::Resume(AccountName { account }) => {
            out.print(&client.call(&switch(account, false)).await?, line)
        }
        AccountCommand::Test { account, model } => test(ctl, account, model).await,
        AccountCommand::Remove { account, force } => {
            ctl.prompt.confirm(&format!("remove the account {account}"))?;
            let removed = client.call(&RemoveAccount { account, force }).await?;
            out.print(&removed, |account, _| {
                format::plain(&format!("account {} ({}) is removed", account.name, account.id))
            })
        }
    }
}

impl AddArgs {
    /// Completes the flags by asking, where somebody can be asked.
    fn call(self, prompt: &Prompt) -> Result<AddAccount, Failure> {
        let asks_all = self.kind.is_none();
        let kind = self.kind.map_or_else(|| ask_kind(prompt), Ok)?;
        let name = self.name.map_or_else(|| ask_name(prompt, kind), Ok)?;
        let settings = self.settings;
        let base_url = match settings.base_url {
            Some(url) => Some(url),
            None => ask_base_url(prompt, kind, asks_all)?,
        };
        let secret = match settings.secret.read()? {
            None if kind.needs_secret() && prompt.can_ask() => Some(prompt.secret("Its API key")?),
            None if kind.needs_secret() => return Err(secret::missing()),
            secret => secret,
        };
        Ok(AddAccount {
            name,
            kind,
            base_url,
            secret,
            api_version: settings.api_version,
            models: settings.models,
            model_map: mapped(settings.model_map),
            price_as: settings.price_as,
            priority: settings.priority,
            weight: settings.weight,
            headers: headed(settings.headers),
            limits: settings.limits,
            simulator: settings.simulator.over(SimulatorSettings::default()),
        })
    }
}

fn ask_kind(prompt: &Prompt) -> Result<AccountKind, Failure> {
    if !prompt.can_ask() {
        let kinds = AccountKind::ALL.map(AccountKind::name).join(", ");
        return Err(Failure::usage("KIND is missing", format!("name one of {kinds}")));
    }
    let items = AccountKind::ALL.map(|kind| format!("{:<17} {}", kind.name(), described(kind)));
    let chosen = prompt.choose("Which provider serves the account?", &items)?;
    AccountKind::ALL.get(chosen).copied().ok_or_else(|| Failure::usage("KIND is missing", "name it"))
}

const fn described(kind: AccountKind) -> &'static str {
    match kind {
        AccountKind::ClaudeConsole => "Anthropic, or any API that speaks like it",
        AccountKind::Ccr => "a claude-code-router",
        AccountKind::OpenaiResponses => "OpenAI, or any API that speaks like it",
        AccountKind::GeminiApi => "the Gemini API",
        AccountKind::AzureOpenai => "Azure OpenAI deployments",
        AccountKind::Simulator => "answers by itself, costs nothing",
    }
}

fn ask_name(prompt: &Prompt, kind: AccountKind) -> Result<String, Failure> {
    if !prompt.can_ask() {
        return Err(Failure::usage("--name is missing", "give the account a name, as in --name main"));
    }
    prompt.text("Its name", Some(kind.name()))
}

/// An address is asked for where the vendor has none, and where everything is asked for.
fn ask_base_url(prompt: &Prompt, kind: AccountKind, asks_all: bool) -> Result<Option<String>, Failure> {
    match kind.default_base_url() {
        None if prompt.can_ask() => prompt.text("Its base URL", None).map(Some),
        None => Err(Failure::usage(
            "--base-url is missing",
            format!("an account of kind {kind} has no usual address, so name it"),
        )),
        Some(usual) if asks_all && kind != AccountKind::Simulator => {
            prompt.text("Its base URL", Some(usual)).map(Some)
        }
        Some(_) => Ok(None),
    }
}

async fn update(ctl: &Ctl, args: UpdateArgs) -> Result<(), Failure> {
    let simulator = if args.settings.simulator.any() {
        let account = ctl.client.call(&ShowAccount { account: args.account.clone() }).await?;
        args.settings.simulator.over(account.simulator.unwrap_or_default())
    } else {
        None
    };
    ctl.out.print(&ctl.client.call(&args.call(simulator)?).await?, record)
}

impl UpdateArgs {
    fn call(self, simulator: Option<SimulatorSettings>) -> Result<UpdateAccount, Failure> {
        let clears = |field| self.clear.contains(&field);
        let settings = self.settings;
        let unchanged = UpdateAccount { account: self.account.clone(), ..UpdateAccount::default() };
        let call = UpdateAccount {
            account: self.account,
            name: self.name,
            base_url: settings.base_url,
            secret: settings.secret.read()?,
            api_version: settings.api_version,
            models: key::replaced(settings.models, clears(AccountField::Models)),
            model_map: key::replaced(settings.model_map, clears(AccountField::Map)).map(mapped),
            price_as: settings.price_as.or_else(|| clears(AccountField::PriceAs).then(String::new)),
            priority: settings.priority,
            weight: settings.weight,
            headers: key::replaced(settings.headers, clears(AccountField::Headers)).map(headed),
            limits: key::replaced(settings.limits, clears(AccountField::Limits)),
            simulator,
            paused: None,
        };
        if call == unchanged {
            return Err(Failure::usage("nothing to change", "say what, as with --priority or --clear"));
        }
        Ok(call)
    }
}

fn mapped(mappings: Vec<Mapping>) -> BTreeMap<String, String> {
    mappings.into_iter().map(|Mapping(from, to)| (from, to)).collect()
}

fn headed(headers: Vec<Header>) -> BTreeMap<String, String> {
    headers.into_iter().map(|Header(name, value)| (name, value)).collect()
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
    ctl.out.print(&report, tested)?;
    if report.ok {
        return Ok(());
    }
    let hint = format!("`relayctl account show {account}` says how it is set up");
    Err(Failure::bad_news(format!("the account {account} does not work: {}", report.message), hint))
}

fn tested(report: &TestReport, look: &Look) -> String {
    let result = if report.ok { Cell::toned("works", Tone::Good) } else { Cell::toned("fails", Tone::Bad) };
    let mut grid = Grid::bare(look);
    grid.pair("result", result)
        .pair("message", report.message.as_str())
        .pair("called", report.url.as_str())
        .pair("status", report.status.map_or_else(|| "no answer".to_owned(), |status| status.to_string()))
        .pair("first byte", report.first_byte_ms.map_or_else(|| NOTHING.to_owned(), format::millis))
        .pair("total", format::millis(report.total_ms));
    grid.text()
}

/// One sentence about an account that was paused or resumed.
fn line(account: &AccountView, _: &Look) -> String {
    format::plain(&format!("account {} ({}) is {}", account.name, account.id, account.health.state))
}

/// All accounts; the daemon's status shows them the same way.
pub(crate) fn table(accounts: &[AccountView], look: &Look) -> String {
    if accounts.is_empty() {
        return "no accounts yet; `relayctl account add` adds one".to_owned();
    }
    let columns = ["name", "kind", "state", ">priority", ">weight", ">open", "~limits", "last used", "~why"];
    let mut grid = Grid::new(look, &columns);
    for account in accounts {
        grid.row([
            account.name.as_str().into(),
            account.kind.name().into(),
            state(account),
            account.priority.to_string().into(),
            account.weight.to_string().into(),
            format::count(account.in_flight).into(),
            key::limits(&account.limits).into(),
            account
                .last_used_at
                .map_or_else(|| "never".to_owned(), |at| format::seen_from(look.now, at))
                .into(),
            why(account, look).into(),
        ]);
    }
    grid.text()
}

fn record(account: &AccountView, look: &Look) -> String {
    let map: Vec<_> = account.model_map.iter().map(|(from, to)| format!("{from} -> {to}")).collect();
    let mut grid = Grid::bare(look);
    grid.pair("name", account.name.as_str())
        .pair("id", account.id.as_str())
        .pair("kind", account.kind.name())
        .pair("state", state(account))
        .pair("why", why(account, look))
        .pair("base URL", account.base_url.as_str())
        .pair("credential", if account.has_secret { "stored" } else { "none" })
        .pair("models", format::list(&account.models, "all of its kind"))
        .pair("model map", format::list(&map, "none"))
        .pair("price as", account.price_as.as_deref().unwrap_or(NOTHING))
        .pair("priority", account.priority.to_string())
        .pair("weight", account.weight.to_string())
        .pair("headers", format::list(&account.headers, "none"))
        .pair("open calls", format::count(account.in_flight))
        .pair(
            "added",
            format!("{} ({})", account.created_at, format::seen_from(look.now, account.created_at)),
        );
    if let Some(version) = &account.api_version {
        grid.pair("api-version", version.as_str());
    }
    if let Some(simulator) = account.simulator {
        grid.pair("simulator", simulated(simulator));
    }
    key::add_limits(&mut grid, &account.limits, look);
    grid.text()
}

fn simulated(simulator: SimulatorSettings) -> String {
    format!(
        "first byte after {}, {} chunks {} apart, {} % errors",
        format::millis(simulator.latency_ms),
        format::count(simulator.chunks.into()),
        format::millis(simulator.chunk_gap_ms),
        simulator.error_percent
    )
}

fn state(account: &AccountView) -> Cell {
    let tone = match account.health.state.as_str() {
        "ok" => Tone::Good,
        "paused" | "limited" | "overloaded" => Tone::Warning,
        _ => Tone::Bad,
    };
    Cell::toned(account.health.state.as_str(), tone)
}

fn why(account: &AccountView, look: &Look) -> String {
    let health = &account.health;
    let since = health.since.map(|since| format::seen_from(look.now, since));
    let until = health.until.map(|until| format!("tried again {}", format::seen_from(look.now, until)));
    let parts: Vec<String> = [health.cause.clone(), since, until].into_iter().flatten().collect();
    format::list(&parts, NOTHING)
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use shared::admin::HealthView;

    use super::*;
    use crate::args::{Cli, Command};
    use crate::output::tests::PIPE;

    fn command(words: &[&str]) -> Result<AccountCommand, clap::Error> {
        let line = ["relayctl", "account"].iter().chain(words);
        match Cli::try_parse_from(line)?.command {
            Command::Account(command) => Ok(command),
            other => panic!("{other:?}"),
        }
    }

    fn call(words: &[&str]) -> Result<AddAccount, Failure> {
        let AccountCommand::Add(args) = command(words).unwrap() else { panic!() };
        args.call(&Prompt::of_nobody())
    }

    pub(crate) fn view() -> AccountView {
        AccountView {
            id: "acc_1".into(),
            name: "main".to_owned(),
            kind: AccountKind::ClaudeConsole,
            base_url: "https://example.test".to_owned(),
            has_secret: true,
            api_version: None,
            models: vec!["claude-*".into()],
            model_map: BTreeMap::from([("fast".to_owned(), "haiku".to_owned())]),
            price_as: None,
            priority: 50,
            weight: 1,
            headers: vec!["x-team".to_owned()],
            limits: Vec::new(),
            simulator: None,
            health: HealthView {
                state: "limited".to_owned(),
                cause: Some("429".to_owned()),
                since: Some(PIPE.now),
                until: Some(PIPE.now.after(Duration::from_secs(120))),
            },
            in_flight: 2,
            last_used_at: None,
            created_at: PIPE.now,
        }
    }

    #[test]
    fn an_account_is_added_as_the_flags_say() {
        let added = call(&[
            "add",
            "simulator",
            "--name",
            "sim",
            "--latency-ms",
            "5",
            "--map",
            "fast=sim-echo",
            "--header",
            "X-Team: red",
            "--model",
            "sim-*",
            "--limit",
            "4 concurrent",
            "--priority",
            "10",
        ])
        .unwrap();
        assert_eq!((added.kind, added.priority, added.base_url), (AccountKind::Simulator, Some(10), None));
        assert_eq!(added.model_map["fast"], "sim-echo");
        assert_eq!(added.headers["x-team"], "red");
        assert_eq!(added.simulator.unwrap(), SimulatorSettings { latency_ms: 5, ..Default::default() });
    }

    #[test]
    fn what_is_missing_is_named_when_nobody_can_be_asked() {
        for (words, part) in [
            (["add"].as_slice(), "KIND is missing"),
            (&["add", "gemini-api"], "--name is missing"),
            (&["add", "ccr", "--name", "r"], "--base-url is missing"),
            (&["add", "gemini-api", "--name", "g"], "a credential is missing"),
        ] {
            let failure = call(words).unwrap_err();
            assert!(matches!(failure, Failure::Usage { .. }), "{words:?}: {failure}");
            assert!(failure.to_string().contains(part), "{words:?}: {failure}");
        }
    }

    #[test]
    fn a_credential_as_an_argument_is_refused_with_advice() {
        for flag in [["--secret", "sk-verysecret"].as_slice(), &["--key=sk-verysecret"], &["--api-key"]] {
            let words = [&["add", "gemini-api", "--name", "g"], flag].concat();
            let error = command(&words).map(|_| ()).unwrap_err().to_string();
            assert!(error.contains("--secret-env") && !error.contains("sk-verysecret"), "{error}");
        }
    }

    #[test]
    fn wrong_values_are_named() {
        for (words, part) in [
            (["add", "claude"].as_slice(), "claude-console"),
            (&["add", "ccr", "--map", "fast"], "a mapping is written like"),
            (&["add", "ccr", "--header", "no colon"], "a header is written like"),
            (&["add", "ccr", "--header", "bad name: x"], "a header is written like"),
            (&["add", "ccr", "--priority", "0"], "1..=100"),
            (&["add", "ccr", "--secret-stdin", "--secret-env", "X"], "cannot be used with"),
        ] {
            let error = command(words).map(|_| ()).unwrap_err().to_string();
            assert!(error.contains(part), "{words:?}: {error}");
        }
    }

    #[test]
    fn an_update_changes_what_is_named_and_nothing_else() {
        let update = |words: &[&str]| match command(words).unwrap() {
            AccountCommand::Update(args) => args.call(None),
            other => panic!("{other:?}"),
        };
        let call = update(&["update", "main", "--weight", "3", "--clear", "models"]).unwrap();
        let expected = UpdateAccount {
            account: "main".to_owned(),
            weight: Some(3),
            models: Some(Vec::new()),
            ..UpdateAccount::default()
        };
        assert_eq!(call, expected);
        assert!(matches!(update(&["update", "main"]), Err(Failure::Usage { .. })));
    }

    #[test]
    fn simulator_flags_change_only_what_they_name() {
        let old = SimulatorSettings { latency_ms: 1, chunks: 2, chunk_gap_ms: 3, error_percent: 4 };
        assert_eq!(SimulatorArgs::default().over(old), None);
        let flags = SimulatorArgs { chunks: Some(9), ..SimulatorArgs::default() };
        assert_eq!(flags.over(old), Some(SimulatorSettings { chunks: 9, ..old }));
    }

    #[test]
    fn accounts_are_shown_with_what_ails_them() {
        let text = table(&[view()], &PIPE);
        assert!(text.contains("limited") && text.contains("429, just now, tried again in 2 min"), "{text}");
        let text = record(&view(), &PIPE);
        assert!(text.contains("fast -> haiku") && text.contains("credential  stored"), "{text}");
    }
}
