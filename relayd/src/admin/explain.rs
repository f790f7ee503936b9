//! Which account would serve a call, and why the others would not: the scheduler's own answer, nothing sent.

use shared::admin::{Explain, ExplainedAccount, Explanation};
use shared::domain::key::Unusable;
use shared::domain::{ApiKey, Operation, Protocol, Timestamp};

use super::{Admin, AdminError};
use crate::directory::AccountEntry;
use crate::scheduler::{Ask, Candidate, RuledOut, pick, rule_out};

impl Admin {
    pub(super) fn explain(&self, call: &Explain) -> Result<Explanation, AdminError> {
        let key = self.key_entry(&call.key)?;
        let now = self.clock.now();
        let snapshot = self.directory.snapshot();
        let protocol =
            call.protocol.unwrap_or_else(|| first_spoken(&key.key, &call.model, snapshot.accounts()));
        let ask = Ask { key: &key.key, model: &call.model, protocol, only: None, affinity: None, now };
        let candidates =
            || snapshot.accounts().iter().map(|entry| entry.candidate(Operation::Generate, protocol));
        let refused = refused(&key.key, &call.model, now);
        let chosen = pick(candidates(), &ask).ok().map(|(position, _)| position);
        let chosen = chosen.filter(|_| refused.is_none());
        let accounts = candidates().enumerate().map(|(position, candidate)| ExplainedAccount {
            id: candidate.account.id.clone(),
            name: candidate.account.name.clone(),
            chosen: chosen == Some(position),
            reason: reason(&candidate, &ask, chosen == Some(position)),
        });
        let accounts: Vec<_> = accounts.collect();
        let id = chosen.map(|position| snapshot.accounts()[position].account.id.clone());
        Ok(Explanation { protocol, refused, chosen: id, accounts })
    }
}

/// The first protocol in which an account could serve the model, so that a question without one has an answer.
fn first_spoken(key: &ApiKey, model: &str, accounts: &[std::sync::Arc<AccountEntry>]) -> Protocol {
    let serving = accounts.iter().filter(|entry| {
        key.may_use(entry.account.kind.family(), &entry.account.id) && entry.account.serves(model)
    });
    let mut spoken = serving.flat_map(|entry| entry.provider.speaks(Operation::Generate));
    spoken.next().copied().unwrap_or(Protocol::Messages)
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

fn reason(candidate: &Candidate<'_>, ask: &Ask<'_>, is_chosen: bool) -> String {
    let account = candidate.account;
    let order = format!(
        "priority {}, {} in flight, weight {}",
        account.priority, candidate.in_flight, account.weight
    );
    match rule_out(candidate, ask) {
        None if is_chosen => format!("chosen: {order}"),
        None => format!("could serve it, comes later: {order}"),
        Some(RuledOut::NotPermitted) => "the key may not use this account".to_owned(),
        Some(RuledOut::OtherRoute) => "the client's path leads elsewhere".to_owned(),
        Some(RuledOut::OtherModel) => "does not serve this model".to_owned(),
        Some(RuledOut::OtherProtocol) => format!("does not speak {}", ask.protocol.name()),
        Some(RuledOut::Paused) => "paused".to_owned(),
        Some(RuledOut::Cooling(cooling)) => {
            let cause =
                candidate.health.last().map_or(String::new(), |last| format!(": {}", last.cause.describe()));
            format!("{} until {}{cause}", cooling.ailment.name(), cooling.until)
        }
        Some(RuledOut::Passed(_)) => "passed over".to_owned(),
    }
}
