//! Limits with the counters that keep them: a key's own, an account's, and those that keys share with each other.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use shared::admin::{AuditEntry, LimitHolder};
use shared::domain::{Limit, Operation, Timestamp, Zone};

use super::{Directory, DirectoryError, EditError, parse};
use crate::limits::{LimitExceeded, Rule, Scope};
use crate::store::{GroupId, Record, RecordKind, Refusal, Standing, Store, StoreError, Write};

/// The limits of one holder, with the group that counts for them.
#[derive(Debug)]
pub struct LimitSet {
    /// Whose they are.
    pub scope: Scope,
    /// The group of counters.
    pub group: GroupId,
    /// The limits, ready to be asked about.
    pub rules: Vec<Rule>,
}

impl LimitSet {
    pub(super) fn new(scope: Scope, group: GroupId, limits: &[Limit], zone: &Zone) -> Self {
        let rules = limits.iter().map(|limit| Rule::new(limit.clone(), zone)).collect();
        Self { scope, group, rules }
    }

    /// Whether a limit wants the worst case to be known.
    pub fn has_strict(&self) -> bool {
        self.rules.iter().any(|rule| rule.limit.is_strict)
    }

    /// The limits, each with its standing.
    pub async fn standings(
        &self,
        store: &dyn Store,
        now: Timestamp,
    ) -> Result<Vec<(Limit, Standing)>, StoreError> {
        let asks: Vec<_> = self.rules.iter().map(|rule| rule.look(now)).collect();
        let standings = store.standings(&self.group, &asks, now).await?;
        Ok(self.rules.iter().map(|rule| rule.limit.clone()).zip(standings).collect())
    }

    /// The first limit of which nothing is left for such a call, as far as can be told without asking for its place.
    pub async fn spent(
        &self,
        store: &dyn Store,
        (model, operation): (&str, Operation),
        now: Timestamp,
    ) -> Result<Option<LimitExceeded>, StoreError> {
        if self.rules.is_empty() {
            return Ok(None);
        }
        let standings = self.standings(store, now).await?;
        let mut covering = standings.into_iter().filter(|(limit, _)| limit.covers(model, operation));
        let spent = covering.find(|(limit, standing)| standing.left_of(limit.amount) == 0);
        Ok(spent.map(|(limit, standing)| LimitExceeded { scope: self.scope, limit, amount: 0, standing }))
    }

    /// The limit that a counter of the group refused by; `None` if it was taken away meanwhile.
    pub fn exceeded(&self, refusal: &Refusal) -> Option<LimitExceeded> {
        let Refusal { ask, standing, .. } = refusal;
        let refused = |rule: &&Rule| rule.counter == ask.counter && rule.limit.amount == ask.limit;
        let limit = self.rules.iter().find(refused)?.limit.clone();
        Some(LimitExceeded { scope: self.scope, limit, amount: ask.amount, standing: *standing })
    }
}

/// Limits that keys share, by who shares them.
#[derive(Clone, Debug, Default)]
pub struct SharedLimits(HashMap<LimitHolder, Shared, ahash::RandomState>);

#[derive(Clone, Debug)]
struct Shared {
    /// Version of the record.
    version: u64,
    set: Arc<LimitSet>,
    unknown: Unknown,
}

/// Fields of a record that this version does not know.
type Unknown = BTreeMap<String, serde_json::Value>;

/// As they are stored. Fields that this version does not know are kept.
#[derive(Serialize, Deserialize)]
struct LimitsRecord {
    limits: Vec<Limit>,
    #[serde(flatten)]
    unknown: Unknown,
}

impl SharedLimits {
    pub(super) fn read(records: &[Record], zone: &Zone) -> Result<Self, DirectoryError> {
        let mut shared = Self::default();
        for Record { id, version, value } in records {
            let Some(holder) = holder(id) else { continue };
            let record: LimitsRecord = parse(id, value)?;
            let (scope, group) = match &holder {
                LimitHolder::Owner(owner) => (Scope::Owner, GroupId::of_owner(owner)),
                LimitHolder::All => (Scope::All, GroupId::of_all()),
            };
            let set = Arc::new(LimitSet::new(scope, group, &record.limits, zone));
            shared.0.insert(holder, Shared { version: *version, set, unknown: record.unknown });
        }
        Ok(shared)
    }

    /// The limits that hold for a key with this owner beside its own.
    pub(super) fn of(&self, owner: Option<&str>) -> Vec<Arc<LimitSet>> {
        let owner = owner.map(|owner| LimitHolder::Owner(owner.to_owned()));
        let holders = owner.into_iter().chain([LimitHolder::All]);
        let sets = holders.filter_map(|holder| self.0.get(&holder));
        sets.map(|shared| &shared.set).filter(|set| !set.rules.is_empty()).cloned().collect()
    }

    /// All of them that have limits, by who shares them.
    pub fn all(&self) -> BTreeMap<&LimitHolder, &Arc<LimitSet>> {
        let sets = self.0.iter().map(|(holder, shared)| (holder, &shared.set));
        sets.filter(|(_, set)| !set.rules.is_empty()).collect()
    }

    /// The version of a holder's record, and what a change of it keeps.
    fn record(&self, holder: &LimitHolder) -> (Option<u64>, Unknown) {
        self.0.get(holder).map(|shared| (Some(shared.version), shared.unknown.clone())).unwrap_or_default()
    }
}

fn id(holder: &LimitHolder) -> String {
    match holder {
        LimitHolder::Owner(owner) => format!("owner:{owner}"),
        LimitHolder::All => "all".to_owned(),
    }
}

/// `None` for a holder of a kind that this version does not know.
fn holder(id: &str) -> Option<LimitHolder> {
    match id.strip_prefix("owner:") {
        Some(owner) => Some(LimitHolder::Owner(owner.to_owned())),
        None => (id == "all").then_some(LimitHolder::All),
    }
}

impl Directory {
    /// Gives keys limits that they share, in place of the old. The record of limits that were taken away stays,
    /// empty, so that its version goes on.
    pub async fn put_limits(
        self: &Arc<Self>,
        holder: &LimitHolder,
        limits: Vec<Limit>,
        audit: AuditEntry,
    ) -> Result<(), EditError> {
        let changing = self.change().await;
        let (expected, unknown) = self.snapshot().shared_limits().record(holder);
        let value = serde_json::to_vec(&LimitsRecord { limits, unknown })?;
        let (kind, id) = (RecordKind::Limits, id(holder));
        self.write(changing, Write { kind, id, expected, value: Some(value), audit: Some(audit) }).await
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};
    use shared::crypto::{Sealer, SealingKey};

    use super::*;
    use crate::directory::Sessions;
    use crate::store::embedded::Embedded;

    fn audit() -> AuditEntry {
        AuditEntry {
            at: Timestamp::from_millis(0),
            uid: None,
            pid: None,
            action: "limits.set".to_owned(),
            subject: "all".to_owned(),
            name: "all".to_owned(),
            fields: Vec::new(),
        }
    }

    /// Nodes of two versions may work on one store.
    #[tokio::test]
    async fn a_change_keeps_what_only_a_newer_version_knows() {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Embedded::open(folder.path()).unwrap());
        let of_newer = json!({"limits": ["4 concurrent"], "note": {"by": "newer"}, "more": [1]});
        let write = Write {
            kind: RecordKind::Limits,
            id: "all".to_owned(),
            expected: None,
            value: Some(of_newer.to_string().into_bytes()),
            audit: None,
        };
        store.write(vec![write]).await.unwrap();
        let sealer = Sealer::new(&SealingKey::generate().unwrap());
        let sessions = Sessions::new(Duration::from_secs(60), 16);
        let directory = Arc::new(Directory::load(store.clone(), sealer, sessions, Zone::UTC).await.unwrap());
        for limits in [vec!["2 concurrent"], vec![], vec!["$1 per day"]] {
            let parsed = limits.iter().map(|limit| limit.parse().unwrap()).collect();
            directory.put_limits(&LimitHolder::All, parsed, audit()).await.unwrap();
            let record = store.record(RecordKind::Limits, "all").await.unwrap().unwrap();
            let value: Value = serde_json::from_slice(&record.value).unwrap();
            assert_eq!(value, json!({"limits": limits, "note": {"by": "newer"}, "more": [1]}));
        }
    }
}
