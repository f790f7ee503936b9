//! Calls about upstream accounts.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::header::{HeaderName, HeaderValue};
use shared::admin::{AccountView, AddAccount, RemoveAccount, ShowAccount, UpdateAccount};
use shared::crypto::random;
use shared::domain::account::{DEFAULT_PRIORITY, DEFAULT_WEIGHT, SimulatorSettings};
use shared::domain::{Account, AccountId, AccountKind, Delay};
use shared::redact::Secret;

use super::{Admin, AdminError, EditError, Invalid, Missing, Peer, check_name, checked_limits, view};
use crate::directory::AccountEntry;

impl Admin {
    pub(super) async fn add_account(&self, call: AddAccount, peer: Peer) -> Result<AccountView, AdminError> {
        check_name(&call.name)?;
        check_headers(&call.headers)?;
        check_simulator(call.kind, call.simulator)?;
        check_effect(call.kind, call.base_url.as_deref(), call.secret.as_ref(), call.api_version.as_deref())?;
        let base_url = call.base_url.as_deref().or(call.kind.default_base_url());
        let base_url = checked_url(base_url.ok_or(Invalid::BaseUrlMissing)?)?;
        let id = AccountId::from_random(random().map_err(EditError::Crypto)?);
        let secret = match call.secret {
            None if call.kind.needs_secret() => return Err(Invalid::SecretMissing.into()),
            None => None,
            Some(secret) => {
                Some(self.directory.seal(&id, self.checked_secret(&secret)?).map_err(EditError::Crypto)?)
            }
        };
        let account = Account {
            id: id.clone(),
            name: call.name,
            kind: call.kind,
            base_url,
            secret,
            api_version: call.api_version,
            models: call.models,
            model_map: call.model_map,
            price_as: call.price_as.filter(|model| !model.is_empty()),
            priority: checked_rank(call.priority.unwrap_or(DEFAULT_PRIORITY))?,
            weight: checked_rank(call.weight.unwrap_or(DEFAULT_WEIGHT))?,
            paused: false,
            headers: call.headers,
            limits: checked_limits(call.limits)?,
            gap_ms: checked_gap(call.gap_ms)?,
            simulator: call.simulator,
            created_at: self.clock.now(),
            removed_at: None,
            unknown: BTreeMap::new(),
        };
        let audit = self.audit(peer, "account.add", id.as_str(), &account.name, Vec::new());
        let entry = self.directory.put_account(account, None, Some(audit)).await?;
        self.account_view(&entry).await
    }

    pub(super) async fn list_accounts(&self) -> Result<Vec<AccountView>, AdminError> {
        let now = self.clock.now();
        let snapshot = self.directory.snapshot();
        let mut views = Vec::with_capacity(snapshot.accounts().len());
        for entry in snapshot.accounts() {
            views.push(view::account(&**self.directory.store(), entry, now).await?);
        }
        views.sort_by(|one, other| (one.priority, &one.name).cmp(&(other.priority, &other.name)));
        Ok(views)
    }

    pub(super) async fn show_account(&self, call: &ShowAccount) -> Result<AccountView, AdminError> {
        self.account_view(&*self.account_entry(&call.account)?).await
    }

    pub(super) async fn update_account(
        &self,
        call: UpdateAccount,
        peer: Peer,
    ) -> Result<AccountView, AdminError> {
        let entry = self.account_entry(&call.account)?;
        let action = match call.paused {
            Some(true) => "account.pause",
            Some(false) => "account.resume",
            None => "account.update",
        };
        let is_resumed = call.paused == Some(false);
        let (account, fields) = self.changed(entry.account.clone(), call)?;
        let audit = self.audit(peer, action, account.id.as_str(), &account.name, fields);
        let entry = self.directory.put_account(account, Some(entry.version), Some(audit)).await?;
        if is_resumed {
            entry.state.recover();
        }
        self.account_view(&entry).await
    }

    /// The account with the changes made, and the names of what changed.
    fn changed(
        &self,
        mut account: Account,
        mut call: UpdateAccount,
    ) -> Result<(Account, Vec<String>), AdminError> {
        check_effect(
            account.kind,
            call.base_url.as_deref(),
            call.secret.as_ref(),
            call.api_version.as_deref(),
        )?;
        let mut fields = reschedule(&mut account, &mut call)?;
        let mut changed = |field: &str| fields.push(field.to_owned());
        if let Some(name) = call.name {
            check_name(&name)?;
            account.name = name;
            changed("name");
        }
        if let Some(url) = call.base_url {
            account.base_url = checked_url(&url)?;
            changed("base_url");
        }
        if let Some(secret) = call.secret {
            let secret = self.checked_secret(&secret)?;
            account.secret = Some(self.directory.seal(&account.id, secret).map_err(EditError::Crypto)?);
            changed("secret");
        }
        if let Some(version) = call.api_version {
            account.api_version = (!version.is_empty()).then_some(version);
            changed("api_version");
        }
        if let Some(models) = call.models {
            account.models = models;
            changed("models");
        }
        if let Some(map) = call.model_map {
            account.model_map = map;
            changed("model_map");
        }
        if let Some(model) = call.price_as {
            account.price_as = (!model.is_empty()).then_some(model);
            changed("price_as");
        }
        if let Some(headers) = call.headers {
            check_headers(&headers)?;
            account.headers = headers;
            changed("headers");
        }
        if call.simulator.is_some() {
            check_simulator(account.kind, call.simulator)?;
            account.simulator = call.simulator;
            changed("simulator");
        }
        Ok((account, fields))
    }

    pub(super) async fn remove_account(
        &self,
        call: &RemoveAccount,
        peer: Peer,
    ) -> Result<AccountView, AdminError> {
        let entry = self.account_entry(&call.account)?;
        let id = &entry.account.id;
        let snapshot = self.directory.snapshot();
        let bound = snapshot
            .keys()
            .iter()
            .filter(|key| key.key.deleted_at.is_none() && key.key.accounts.contains(id));
        let bound: Vec<String> = bound.map(|key| key.key.name.clone()).collect();
        if !bound.is_empty() && !call.force {
            return Err(AdminError::Bound(bound));
        }
        let view = self.account_view(&entry).await?;
        let audit = self.audit(peer, "account.remove", id.as_str(), &entry.account.name, Vec::new());
        self.directory.remove_account(&entry, self.clock.now(), audit).await?;
        Ok(view)
    }

    pub(super) async fn account_view(&self, entry: &AccountEntry) -> Result<AccountView, AdminError> {
        Ok(view::account(&**self.directory.store(), entry, self.clock.now()).await?)
    }

    /// An account by its id or name.
    pub(super) fn account_entry(&self, name: &str) -> Result<Arc<AccountEntry>, AdminError> {
        let snapshot = self.directory.snapshot();
        let names = || snapshot.accounts().iter().map(|entry| entry.account.name.as_str());
        snapshot.account(name).cloned().ok_or_else(|| AdminError::NoAccount(Missing::among(name, names())))
    }

    /// A relay's own key as an upstream's credential would be a loop, or a mix-up.
    fn checked_secret<'a>(&self, secret: &'a Secret) -> Result<&'a Secret, Invalid> {
        let text = secret.expose();
        if text.starts_with(&self.key_prefix) {
            return Err(Invalid::OwnKey(self.key_prefix.clone()));
        }
        let is_sendable = !text.is_empty() && HeaderValue::from_str(text).is_ok() && text.trim() == text;
        if is_sendable { Ok(secret) } else { Err(Invalid::Secret) }
    }
}

/// Changes when the account is asked, and how much; gives the names of what changed.
fn reschedule(account: &mut Account, call: &mut UpdateAccount) -> Result<Vec<String>, Invalid> {
    let mut fields = Vec::new();
    let mut changed = |field: &str| fields.push(field.to_owned());
    if let Some(priority) = call.priority {
        account.priority = checked_rank(priority)?;
        changed("priority");
    }
    if let Some(weight) = call.weight {
        account.weight = checked_rank(weight)?;
        changed("weight");
    }
    if call.limits.is_some() || !call.limit_changes.is_empty() {
        let limits = call.limits.take().unwrap_or_else(|| std::mem::take(&mut account.limits));
        let limits = std::mem::take(&mut call.limit_changes).applied(limits).map_err(Invalid::Limit)?;
        account.limits = checked_limits(limits)?;
        changed("limits");
    }
    if let Some(gap) = call.gap_ms {
        account.gap_ms = checked_gap(gap)?;
        changed("gap_ms");
    }
    if let Some(paused) = call.paused {
        account.paused = paused;
        changed("paused");
    }
    Ok(fields)
}

fn checked_url(text: &str) -> Result<String, Invalid> {
    let invalid = || Invalid::BaseUrl(text.to_owned());
    let uri: http::Uri = text.parse().map_err(|_| invalid())?;
    let is_web = matches!(uri.scheme_str(), Some("http" | "https"));
    // Credentials in an address would be stored and shown in clear.
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    if !is_web || authority.is_empty() || authority.contains('@') || uri.query().is_some() {
        return Err(invalid());
    }
    Ok(text.trim_end_matches('/').to_owned())
}

const fn checked_gap(millis: u64) -> Result<u64, Invalid> {
    if Delay::from_millis(millis).is_some() { Ok(millis) } else { Err(Invalid::Gap) }
}

const fn checked_rank(rank: u8) -> Result<u8, Invalid> {
    if rank >= 1 && rank <= 100 { Ok(rank) } else { Err(Invalid::Rank) }
}

/// What a kind of account does not look at would be stored in vain, and its operator would think that it counts.
fn check_effect(
    kind: AccountKind,
    base_url: Option<&str>,
    secret: Option<&Secret>,
    api_version: Option<&str>,
) -> Result<(), Invalid> {
    let is_simulator = kind == AccountKind::Simulator;
    let no_effect = |what| Err(Invalid::NoEffect { kind, what });
    if is_simulator && base_url.is_some() {
        return no_effect("base URL: it answers by itself");
    }
    if secret.is_some() && !kind.needs_secret() {
        return no_effect("credential: it answers by itself");
    }
    if kind != AccountKind::AzureOpenai && api_version.is_some_and(|version| !version.is_empty()) {
        return no_effect("api-version: those of kind azure-openai have one");
    }
    Ok(())
}

fn check_headers(headers: &BTreeMap<String, String>) -> Result<(), Invalid> {
    const OURS: [&str; 6] =
        ["host", "content-length", "transfer-encoding", "connection", "upgrade", "accept-encoding"];
    const CREDENTIALS: [&str; 6] =
        ["authorization", "proxy-authorization", "x-api-key", "api-key", "x-goog-api-key", "cookie"];
    for (name, value) in headers {
        if CREDENTIALS.contains(&name.to_ascii_lowercase().as_str()) {
            return Err(Invalid::CredentialHeader(name.clone()));
        }
        let is_valid = HeaderName::try_from(name).is_ok() && HeaderValue::try_from(value).is_ok();
        if !is_valid || OURS.contains(&name.to_ascii_lowercase().as_str()) {
            return Err(Invalid::Header(name.clone()));
        }
    }
    Ok(())
}

fn check_simulator(kind: AccountKind, settings: Option<SimulatorSettings>) -> Result<(), Invalid> {
    let Some(settings) = settings else { return Ok(()) };
    if kind != AccountKind::Simulator {
        return Err(Invalid::NotSimulator);
    }
    let is_within = (1..=10_000).contains(&settings.chunks)
        && settings.latency_ms <= 600_000
        && settings.chunk_gap_ms <= 60_000
        && settings.error_percent <= 100;
    if is_within { Ok(()) } else { Err(Invalid::Simulator) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_urls_are_checked() {
        for (text, expected) in [
            ("https://api.test/v1/", Some("https://api.test/v1")),
            ("http://127.0.0.1:8080", Some("http://127.0.0.1:8080")),
            ("ftp://api.test", None),
            ("api.test", None),
            ("https://", None),
            ("https://user:pass@api.test", None),
            ("https://api.test/v1?key=1", None),
            ("", None),
        ] {
            assert_eq!(checked_url(text).ok().as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn headers_of_the_hop_are_not_the_operators() {
        let headers = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);
        assert!(check_headers(&headers("x-team", "blue")).is_ok());
        for (name, value) in [("Host", "a"), ("x y", "a"), ("x", "a\nb"), ("Content-Length", "1")] {
            assert!(matches!(check_headers(&headers(name, value)), Err(Invalid::Header(_))), "{name}");
        }
        for name in ["Authorization", "x-api-key", "API-Key", "x-goog-api-key", "Cookie"] {
            let refused = check_headers(&headers(name, "a"));
            assert!(matches!(refused, Err(Invalid::CredentialHeader(_))), "{name}");
        }
    }

    #[test]
    fn what_has_no_effect_is_refused() {
        use AccountKind::{AzureOpenai, ClaudeConsole, Simulator};
        let secret = Secret::new("sk-1");
        for (kind, base_url, secret, api_version, is_fine) in [
            (Simulator, None, None, None, true),
            (Simulator, Some("http://x"), None, None, false),
            (Simulator, None, Some(&secret), None, false),
            (Simulator, None, None, Some("2024-10-21"), false),
            (ClaudeConsole, Some("http://x"), Some(&secret), None, true),
            (ClaudeConsole, None, Some(&secret), Some("2024-10-21"), false),
            (ClaudeConsole, None, None, Some(""), true),
            (AzureOpenai, Some("http://x"), Some(&secret), Some("2024-10-21"), true),
        ] {
            let checked = check_effect(kind, base_url, secret, api_version);
            assert_eq!(checked.is_ok(), is_fine, "{kind} {base_url:?} {api_version:?}");
        }
    }
}
