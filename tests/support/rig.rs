//! The usual arrangement: a scripted upstream, a daemon with one account of each kind on it, and a key.

use shared::admin::{AccountView, AddAccount, CreateKey, ShowAccount, UpdateAccount};
use shared::domain::AccountKind;

use super::admin;
use super::client::Client;
use super::daemon::{Daemon, Setup};
use super::upstream::Upstream;

/// A daemon, its upstream and a client with a key that may do everything.
pub struct Rig {
    pub upstream: Upstream,
    pub daemon: Daemon,
    pub client: Client,
    pub key: String,
}

impl Rig {
    /// With one account for each of the four protocols: `claude`, `openai` and `gemini`.
    pub async fn start() -> Self {
        Self::with(Setup::default()).await
    }

    /// The same with other settings.
    pub async fn with(setup: Setup) -> Self {
        let rig = Self::bare(setup).await;
        rig.add(AccountKind::ClaudeConsole, "claude").await;
        rig.add(AccountKind::OpenaiResponses, "openai").await;
        rig.add(AccountKind::GeminiApi, "gemini").await;
        rig
    }

    /// Without accounts.
    pub async fn bare(setup: Setup) -> Self {
        let upstream = Upstream::start();
        let daemon = setup.start().await;
        let key = daemon.call(&admin::key("everything")).await.key.expose().to_owned();
        let client = daemon.client(&key);
        Self { upstream, daemon, client, key }
    }

    /// An account of the kind, as [`admin::account`] has it, that calls the upstream.
    pub fn account(&self, kind: AccountKind, name: &str) -> AddAccount {
        let base_url = self.upstream.base_url(name);
        let base_url = if kind == AccountKind::OpenaiResponses { format!("{base_url}/v1") } else { base_url };
        admin::account(kind, name, &base_url)
    }

    pub async fn add(&self, kind: AccountKind, name: &str) -> AccountView {
        self.daemon.call(&self.account(kind, name)).await
    }

    /// A client with a new key.
    pub async fn client_of(&self, key: &CreateKey) -> Client {
        self.daemon.client(self.daemon.call(key).await.key.expose())
    }

    pub async fn show(&self, account: &str) -> AccountView {
        self.daemon.call(&ShowAccount { account: account.to_owned() }).await
    }

    /// Brings an account back, as an operator would; what was suspected of it is forgotten too.
    pub async fn resume(&self, account: &str) -> AccountView {
        let account = account.to_owned();
        self.daemon.call(&UpdateAccount { account, paused: Some(false), ..UpdateAccount::default() }).await
    }

    /// Starts the daemon again; the client follows to its new address.
    pub async fn start_again(&mut self) {
        self.daemon.start_again().await;
        self.client = self.daemon.client(&self.key);
    }
}
