//! Adding an account: the flags, and the questions for what they leave open.

use clap::Args;
use shared::admin::AddAccount;
use shared::domain::account::SimulatorSettings;
use shared::domain::{AccountKind, Delay, Limit};

use super::flags::{self, SettingsArgs};
use crate::args;
use crate::failure::Failure;
use crate::prompt::Prompt;
use crate::secret;

#[derive(Debug, Args)]
pub(crate) struct AddArgs {
    /// Which provider serves it
    #[arg(value_parser = args::kind())]
    kind: Option<AccountKind>,
    /// Its name
    #[arg(long, value_parser = args::name)]
    name: Option<String>,
    /// What it may be used for: "4 concurrent", "60 requests per minute" (repeatable)
    #[arg(long = "limit", value_name = "LIMIT")]
    limits: Vec<Limit>,
    #[command(flatten)]
    settings: SettingsArgs,
}

impl AddArgs {
    /// Completes the flags by asking, where somebody can be asked.
    pub(super) fn call(self, prompt: &Prompt) -> Result<AddAccount, Failure> {
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
            model_map: flags::mapped(settings.model_map),
            price_as: settings.price_as,
            priority: settings.priority,
            weight: settings.weight,
            headers: flags::headed(settings.headers),
            limits: self.limits,
            gap_ms: settings.gap.map_or(0, Delay::as_millis),
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
    prompt.text("Its name", Some(kind.name()), |text| args::name(text).map_err(|error| error.to_string()))
}

/// An address is asked for where the vendor has none, and where everything is asked for.
fn ask_base_url(prompt: &Prompt, kind: AccountKind, asks_all: bool) -> Result<Option<String>, Failure> {
    match kind.default_base_url() {
        None if prompt.can_ask() => prompt.text("Its base URL", None, checked_url).map(Some),
        None => Err(Failure::usage(
            "--base-url is missing",
            format!("an account of kind {kind} has no usual address, so name it"),
        )),
        Some(usual) if asks_all && kind != AccountKind::Simulator => {
            prompt.text("Its base URL", Some(usual), checked_url).map(Some)
        }
        Some(_) => Ok(None),
    }
}

fn checked_url(text: &str) -> Result<String, String> {
    args::base_url(text).map_err(|error| error.to_string())
}
