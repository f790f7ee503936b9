//! Calls about limits that keys share.

use shared::admin::{BudgetEvent, LimitHolder, LimitsView, ListEvents, SetLimits};
use shared::domain::Timestamp;

use super::{Admin, AdminError, Peer, check_name, checked_limits, view};
use crate::directory::{LimitSet, Snapshot};

impl Admin {
    pub(super) async fn list_limits(&self) -> Result<Vec<LimitsView>, AdminError> {
        let (snapshot, now) = (self.directory.snapshot(), self.clock.now());
        let mut views = Vec::new();
        for (holder, set) in snapshot.shared_limits().all() {
            views.push(self.limits_view(&snapshot, holder, Some(set), now).await?);
        }
        Ok(views)
    }

    pub(super) async fn set_limits(&self, call: SetLimits, peer: Peer) -> Result<LimitsView, AdminError> {
        let SetLimits { holder, limits } = call;
        if let LimitHolder::Owner(owner) = &holder {
            check_name(owner)?;
        }
        let limits = checked_limits(limits)?;
        let name = holder.name();
        let action = if limits.is_empty() { "limits.clear" } else { "limits.set" };
        let audit = self.audit(peer, action, name, name, vec!["limits".to_owned()]);
        self.directory.put_limits(&holder, limits, audit).await?;
        let (snapshot, now) = (self.directory.snapshot(), self.clock.now());
        let set = snapshot.shared_limits().all().get(&holder).copied().cloned();
        self.limits_view(&snapshot, &holder, set.as_deref(), now).await
    }

    /// What limits came to since the start.
    pub(super) fn list_events(&self, call: &ListEvents) -> Vec<BudgetEvent> {
        const DEFAULT: u32 = 100;
        self.events.latest(call.limit.unwrap_or(DEFAULT) as usize)
    }

    async fn limits_view(
        &self,
        snapshot: &Snapshot,
        holder: &LimitHolder,
        set: Option<&LimitSet>,
        now: Timestamp,
    ) -> Result<LimitsView, AdminError> {
        let shares = |owner: Option<&str>| match holder {
            LimitHolder::All => true,
            LimitHolder::Owner(name) => owner == Some(name),
        };
        let keys = snapshot.keys().iter().map(|entry| &entry.key).filter(|key| key.deleted_at.is_none());
        let keys = keys.filter(|key| shares(key.owner.as_deref())).count() as u64;
        let limits = match set {
            Some(set) => view::standings(&**self.directory.store(), set, now).await?,
            None => Vec::new(),
        };
        Ok(LimitsView { holder: holder.clone(), limits, keys })
    }
}
