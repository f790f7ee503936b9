//! Which account would serve a call, and why the others would not: the scheduler's own answer, nothing sent.

use std::time::Duration;

use shared::admin::{Explain, ExplainedAccount, Explanation};
use shared::domain::key::Unusable;
use shared::domain::{ApiKey, Operation, Protocol, Timestamp};

use super::{Admin, AdminError};
use crate::directory::{AccountEntry, LimitSet};
use crate::provider::is_made_by;
use crate::scheduler::{Ask, Candidate, Cooling, Health, Passed, Rank, RuledOut, rank, rule_out};
use crate::store::StoreError;

impl Admin {
    pub(super) async fn explain(&self, call: &Explain) -> Result<Explanation, AdminError> {
        let key = self.key_entry(&call.key)?;
        let now = self.clock.now();
        let snapshot = self.directory.snapshot();
        let mut accounts = Vec::with_capacity(snapshot.accounts().len());
        for entry in snapshot.accounts() {
            accounts.push((&**entry, self.spent([&entry.limits], &call.model, now).await?));
        }
        let question = Question { key: &key.key, model: &call.model, now, accounts };
        let protocol = call.protocol.unwrap_or_else(|| question.native());
        let refused = match refused(&key.key, &call.model, now) {
            Some(refused) => Some(refused),
            None => self.spent(key.limit_sets(), &call.model, now).await?,
        };
        let turns = question.turns(Some(protocol));
        let explained: Vec<_> = turns
            .iter()
            .enumerate()
            .map(|(turn, account)| {
                let chosen = turn == 0 && account.is_usable() && refused.is_none();
                ExplainedAccount {
                    id: account.candidate.account.id.clone(),
                    name: account.candidate.account.name.clone(),
                    chosen,
                    reason: account.reason(protocol, chosen, refused.is_some()),
                }
            })
            .collect();
        let is_served =
            |protocol: &Protocol| question.turns(Some(*protocol)).first().is_some_and(Turn::is_usable);
        Ok(Explanation {
            protocol,
            assumed: call.protocol.is_none(),
            served_in: Protocol::ALL
                .into_iter()
                .filter(|protocol| refused.is_none() && is_served(protocol))
                .collect(),
            refused,
            chosen: explained.first().filter(|account| account.chosen).map(|account| account.id.clone()),
            accounts: explained,
        })
    }

    /// Which limit has no room for a call.
    async fn spent(
        &self,
        sets: impl IntoIterator<Item = &LimitSet>,
        model: &str,
        now: Timestamp,
    ) -> Result<Option<String>, StoreError> {
        for set in sets {
            if let Some(spent) =
                set.spent(&**self.directory.store(), (model, Operation::Generate), now).await?
            {
                return Ok(Some(spent.to_string()));
            }
        }
        Ok(None)
    }
}

/// What is asked, and of whom.
struct Question<'a> {
    key: &'a ApiKey,
    model: &'a str,
    now: Timestamp,
    /// Each with the limit of its own that has no room, if there is one.
    accounts: Vec<(&'a AccountEntry, Option<String>)>,
}

/// An account, and why it is ruled out, if so.
struct Turn<'a> {
    entry: &'a AccountEntry,
    candidate: Candidate<'a>,
    ruled_out: Option<RuledOut>,
    spent: Option<&'a str>,
    now: Timestamp,
}

impl Question<'_> {
    /// All accounts in the order in which they would be tried; those that are ruled out follow, by reason. Without
    /// a protocol it does not matter which ones an account speaks.
    fn turns(&self, protocol: Option<Protocol>) -> Vec<Turn<'_>> {
        let ask = Ask {
            key: self.key,
            model: self.model,
            protocol: protocol.unwrap_or(Protocol::Messages),
            only: None,
            affinity: None,
            delay_max: Duration::MAX,
            now: self.now,
        };
        let mut turns: Vec<_> = self
            .accounts
            .iter()
            .map(|(entry, spent)| {
                let spent = spent.as_deref();
                let seen = entry.candidate(Operation::Generate, ask.protocol, ask.model);
                let (speaks, passed) = (seen.speaks || protocol.is_none(), spent.map(|_| Passed::Full));
                let candidate = Candidate { speaks, passed, ..seen };
                Turn { entry, candidate, ruled_out: rule_out(&candidate, &ask), spent, now: self.now }
            })
            .collect();
        turns.sort_by_key(Turn::order);
        turns
    }

    /// The protocol that the account speaks first which would serve the call if none rested or were paused: of
    /// several the one that the model is at home with, else the first by rank. A question is not answered about
    /// another protocol because those accounts are down.
    fn native(&self) -> Protocol {
        let turns = self.turns(None);
        let serving = turns.iter().filter(|turn| turn.ruled_out != Some(RuledOut::OtherModel));
        let first =
            serving.min_by_key(|turn| (turn.is_shut(), !self.is_at_home(turn), rank(&turn.candidate)));
        let spoken = first.and_then(|turn| turn.entry.provider.speaks(Operation::Generate).first());
        spoken.copied().unwrap_or(Protocol::Messages)
    }

    /// Whether the account is there for the model, and does not just take any.
    fn is_at_home(&self, turn: &Turn<'_>) -> bool {
        let account = turn.candidate.account;
        let is_named = !account.models.is_empty() || account.model_map.contains_key(self.model);
        is_named || is_made_by(account.kind, self.model)
    }
}

impl Turn<'_> {
    fn is_usable(&self) -> bool {
        self.ruled_out.is_none()
    }

    /// Neither time nor the operator's resuming it would make it serve the call.
    const fn is_shut(&self) -> bool {
        matches!(
            self.ruled_out,
            Some(
                RuledOut::NotPermitted
                    | RuledOut::OtherProtocol
                    | RuledOut::OtherRoute
                    | RuledOut::OtherModel
            )
        )
    }

    /// The usable ones by rank, then those whose time will come, then the others by reason.
    fn order(&self) -> (u8, Option<Timestamp>, Rank) {
        let (group, until) = match self.ruled_out {
            None => (0, None),
            // Kinds of ailments are told apart by their number.
            Some(RuledOut::Cooling(cooling)) => (1 + cooling.ailment as u8, Some(cooling.until)),
            Some(RuledOut::Passed(_) | RuledOut::Crowded(_)) => (10, None),
            Some(RuledOut::Paused) => (11, None),
            Some(RuledOut::NotPermitted) => (12, None),
            Some(RuledOut::OtherProtocol) => (13, None),
            Some(RuledOut::OtherRoute) => (14, None),
            Some(RuledOut::OtherModel) => (15, None),
        };
        (group, until, rank(&self.candidate))
    }

    fn reason(&self, protocol: Protocol, is_chosen: bool, is_refused: bool) -> String {
        let Candidate { account, in_flight, health, delay, .. } = self.candidate;
        let start = match delay.as_millis() {
            0 => String::new(),
            millis => format!(", starts a call in {millis} ms"),
        };
        let order =
            format!("priority {}{start}, {in_flight} in flight, weight {}", account.priority, account.weight);
        match self.ruled_out {
            None if is_refused => format!("not asked, as the key is refused: {order}"),
            None if is_chosen => format!("chosen: {order}"),
            None => format!("could serve it, comes later: {order}"),
            Some(RuledOut::NotPermitted) => self.beside("the key may not use this account"),
            Some(RuledOut::OtherRoute) => self.beside("the client's path leads elsewhere"),
            Some(RuledOut::OtherModel) => self.beside("does not serve this model"),
            Some(RuledOut::OtherProtocol) => self.beside(&format!("does not speak {}", protocol.name())),
            Some(RuledOut::Paused) => PAUSED.to_owned(),
            Some(RuledOut::Cooling(cooling)) => rest(cooling, health),
            Some(RuledOut::Passed(_) | RuledOut::Crowded(_)) => {
                self.spent.map_or("passed over".to_owned(), no_room)
            }
        }
    }

    /// Why an account has nothing to do with the call, and how it is besides: it may be the one that was expected.
    fn beside(&self, reason: &str) -> String {
        let Candidate { account, health, .. } = self.candidate;
        match (health.cooling(self.now), self.spent) {
            _ if account.paused => format!("{reason}; {PAUSED}"),
            (Some(cooling), _) => format!("{reason}; {}", rest(cooling, health)),
            (None, Some(spent)) => format!("{reason}; {}", no_room(spent)),
            (None, None) => reason.to_owned(),
        }
    }
}

const PAUSED: &str = "paused";

/// That a limit of an account is used up.
fn no_room(spent: &str) -> String {
    format!("no room: {spent}")
}

/// What an account rests for, and how long.
fn rest(cooling: Cooling, health: Health) -> String {
    let cause = health.last().map_or(String::new(), |last| format!(": {}", last.cause.describe()));
    format!("{} until {}{cause}", cooling.ailment.name(), cooling.until)
}

fn refused(key: &ApiKey, model: &str, now: Timestamp) -> Option<String> {
    match key.unusable(now) {
        Some(Unusable::Deleted) => Some("the key is deleted".to_owned()),
        Some(Unusable::Disabled) => Some("the key is disabled".to_owned()),
        Some(Unusable::Expired(at)) => Some(format!("the key expired at {at}")),
        None if !key.may_ask_for(model) => Some("the key's model lists exclude this model".to_owned()),
        None => None,
    }
}
