//! Calls about API keys.

use std::collections::BTreeMap;
use std::sync::Arc;

use shared::admin::{CreateKey, CreatedKey, DeleteKey, KeyView, ListKeys, ShowKey, UpdateKey};
use shared::crypto::{generate_api_key, random};
use shared::domain::{AccountId, ApiKey, KeyId, Timestamp};
use shared::redact;

use super::{Admin, AdminError, EditError, Invalid, Missing, Peer, check_name, checked_limits, view};
use crate::directory::KeyEntry;
use crate::store::RowQuery;

impl Admin {
    pub(super) async fn create_key(&self, call: CreateKey, peer: Peer) -> Result<CreatedKey, AdminError> {
        check_name(&call.name)?;
        let owner = call.owner.map_or(Ok(None), checked_owner)?;
        let now = self.clock.now();
        if call.expires_at.is_some() && call.valid_s_from_first_use.is_some() {
            return Err(Invalid::TwoEnds.into());
        }
        check_end(call.expires_at, now)?;
        let secret = generate_api_key(&self.key_prefix).map_err(EditError::Crypto)?;
        let (digest, pepper_id) = self.directory.digest(&secret);
        let id = KeyId::from_random(random().map_err(EditError::Crypto)?);
        let key = ApiKey {
            id: id.clone(),
            name: call.name.clone(),
            digest,
            pepper_id,
            hint: redact::hint(secret.expose()),
            owner,
            permissions: call.permissions,
            allow_models: call.allow_models,
            deny_models: call.deny_models,
            accounts: self.account_ids(&call.accounts)?,
            limits: checked_limits(call.limits)?,
            queue: call.queue,
            on_disconnect: call.on_disconnect,
            rates: call.rates,
            usage: call.usage,
            expires_at: call.expires_at,
            valid_s_from_first_use: call.valid_s_from_first_use,
            disabled: false,
            deleted_at: None,
            created_at: now,
            unknown: BTreeMap::new(),
        };
        let audit = self.audit(peer, "key.create", id.as_str(), &call.name, Vec::new());
        self.directory.put_key(key, None, Some(audit)).await?;
        Ok(CreatedKey { id, name: call.name, key: secret })
    }

    pub(super) async fn list_keys(&self, call: &ListKeys) -> Result<Vec<KeyView>, AdminError> {
        let now = self.clock.now();
        let snapshot = self.directory.snapshot();
        let mut views = Vec::new();
        for entry in snapshot.keys() {
            if call.deleted || entry.key.deleted_at.is_none() {
                views.push(view::key(&**self.directory.store(), &snapshot, entry, now).await?);
            }
        }
        views.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(views)
    }

    pub(super) async fn show_key(&self, call: &ShowKey) -> Result<KeyView, AdminError> {
        let entry = self.key_entry(&call.key)?;
        self.settle().await;
        let query = RowQuery { key: Some(entry.key.id.clone()), limit: 1, ..RowQuery::default() };
        let last = self.directory.store().rows(query).await?;
        let last_used_at = last.first().map(|row| row.opened_at);
        Ok(KeyView { last_used_at, ..self.key_view(&entry).await? })
    }

    pub(super) async fn update_key(&self, call: UpdateKey, peer: Peer) -> Result<KeyView, AdminError> {
        let entry = self.key_entry(&call.key)?;
        if entry.key.deleted_at.is_some() {
            return Err(Invalid::Deleted.into());
        }
        let mut changed = Changes::of(entry.key.clone());
        if let Some(name) = call.name {
            check_name(&name)?;
            changed.set("name", |key| key.name = name);
        }
        if let Some(owner) = call.owner.map(checked_owner).transpose()? {
            changed.set("owner", |key| key.owner = owner);
        }
        if let Some(permissions) = call.permissions {
            changed.set("permissions", |key| key.permissions = permissions);
        }
        if let Some(models) = call.allow_models {
            changed.set("allow_models", |key| key.allow_models = models);
        }
        if let Some(models) = call.deny_models {
            changed.set("deny_models", |key| key.deny_models = models);
        }
        if let Some(accounts) = call.accounts {
            let accounts = self.account_ids(&accounts)?;
            changed.set("accounts", |key| key.accounts = accounts);
        }
        if call.limits.is_some() || !call.limit_changes.is_empty() {
            let limits = call.limits.unwrap_or_else(|| entry.key.limits.clone());
            let limits = checked_limits(call.limit_changes.applied(limits).map_err(Invalid::Limit)?)?;
            changed.set("limits", |key| key.limits = limits);
        }
        if let Some(queue) = call.queue {
            changed.set("queue", |key| key.queue = queue);
        }
        if let Some(policy) = call.on_disconnect {
            changed.set("on_disconnect", |key| key.on_disconnect = policy);
        }
        if let Some(rates) = call.rates {
            changed.set("rates", |key| key.rates = rates);
        }
        if let Some(usage) = call.usage {
            changed.set("usage", |key| key.usage = usage);
        }
        if let Some(end) = call.expires_at {
            check_end(Some(end), self.clock.now())?;
            changed.set("expires_at", |key| key.expires_at = Some(end));
        }
        if call.never_expires {
            changed.set("expires_at", |key| (key.expires_at, key.valid_s_from_first_use) = (None, None));
        }
        if let Some(disabled) = call.disabled {
            changed.set("disabled", |key| key.disabled = disabled);
        }
        let action = match call.disabled {
            Some(true) => "key.disable",
            Some(false) => "key.enable",
            None => "key.update",
        };
        self.put_changes(&entry, changed, action, peer).await
    }

    /// The record stays, so that its usage keeps a name; the key stops working at once.
    pub(super) async fn delete_key(&self, call: &DeleteKey, peer: Peer) -> Result<KeyView, AdminError> {
        let entry = self.key_entry(&call.key)?;
        if entry.key.deleted_at.is_some() {
            return self.key_view(&entry).await;
        }
        let mut changed = Changes::of(entry.key.clone());
        let now = self.clock.now();
        changed.set("deleted_at", |key| key.deleted_at = Some(now));
        self.put_changes(&entry, changed, "key.delete", peer).await
    }

    async fn put_changes(
        &self,
        entry: &KeyEntry,
        changed: Changes,
        action: &str,
        peer: Peer,
    ) -> Result<KeyView, AdminError> {
        let Changes { key, fields } = changed;
        let audit = self.audit(peer, action, key.id.as_str(), &key.name, fields);
        let entry = self.directory.put_key(key, Some(entry.version), Some(audit)).await?;
        self.key_view(&entry).await
    }

    async fn key_view(&self, entry: &KeyEntry) -> Result<KeyView, AdminError> {
        let snapshot = self.directory.snapshot();
        Ok(view::key(&**self.directory.store(), &snapshot, entry, self.clock.now()).await?)
    }

    /// A key by its id or name.
    pub(super) fn key_entry(&self, name: &str) -> Result<Arc<KeyEntry>, AdminError> {
        let snapshot = self.directory.snapshot();
        let live = || snapshot.keys().iter().filter(|entry| entry.key.deleted_at.is_none());
        let names = || live().map(|entry| entry.key.name.as_str());
        snapshot.key(name).cloned().ok_or_else(|| AdminError::NoKey(Missing::among(name, names())))
    }

    fn account_ids(&self, names: &[String]) -> Result<Vec<AccountId>, AdminError> {
        names.iter().map(|name| Ok(self.account_entry(name)?.account.id.clone())).collect()
    }
}

/// An owner is a name; an empty one is none.
fn checked_owner(owner: String) -> Result<Option<String>, Invalid> {
    if owner.is_empty() {
        return Ok(None);
    }
    check_name(&owner)?;
    Ok(Some(owner))
}

fn check_end(end: Option<Timestamp>, now: Timestamp) -> Result<(), Invalid> {
    if end.is_some_and(|end| end <= now) { Err(Invalid::PastEnd) } else { Ok(()) }
}

/// A key with the names of the fields that differ from what is stored.
struct Changes {
    key: ApiKey,
    fields: Vec<String>,
}

impl Changes {
    const fn of(key: ApiKey) -> Self {
        Self { key, fields: Vec::new() }
    }

    fn set(&mut self, field: &str, change: impl FnOnce(&mut ApiKey)) {
        change(&mut self.key);
        self.fields.push(field.to_owned());
    }
}
