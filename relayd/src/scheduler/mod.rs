//! Which account serves a call: a function over values. It reads no clock and keeps no state; whoever calls it
//! looks the accounts up and acts on the choice.

pub mod affinity;
pub mod health;
mod vitals;

use std::time::Duration;

use shared::domain::{Account, AccountKind, ApiKey, Family, Protocol, Timestamp};

pub use health::{Cooling, Health};
pub use vitals::{Purpose, Vitals};

/// What a call needs of an account.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// The key that asks.
    pub key: &'a ApiKey,
    /// The model, as the client names it.
    pub model: &'a str,
    /// The client's protocol.
    pub protocol: Protocol,
    /// The only kind of account that the client's path allows.
    pub only: Option<AccountKind>,
    /// The account that the session was served by, by position.
    pub affinity: Option<usize>,
    /// How long the call may wait to be started.
    pub delay_max: Duration,
    /// Now.
    pub now: Timestamp,
}

/// An account as the scheduler sees it.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// The account's record.
    pub account: &'a Account,
    /// Whether its provider speaks the client's protocol for this model and operation.
    pub speaks: bool,
    /// Whether this call was sent to it already, or its own limits refused the call.
    pub passed: Option<Passed>,
    /// What ails it, for such a call.
    pub health: Health,
    /// How long a call that goes to it now has to wait to be started.
    pub delay: Duration,
    /// Calls that it is serving now.
    pub in_flight: u64,
    /// When it was last chosen.
    pub last_used: Timestamp,
}

/// Why a call does not go to an account a second time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passed {
    /// It failed with this call.
    Tried,
    /// One of its own limits refused the call.
    Full,
}

/// Why an account cannot serve a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuledOut {
    /// The key is bound to other accounts, or lacks the permission.
    NotPermitted,
    /// The client's path allows only another kind.
    OtherRoute,
    /// It does not serve the model.
    OtherModel,
    /// It does not speak the client's protocol.
    OtherProtocol,
    /// The operator paused it.
    Paused,
    /// Something ails it.
    Cooling(Cooling),
    /// It was passed over in this call.
    Passed(Passed),
    /// More calls wait to be started than the call may wait for; until then, if no more come.
    Crowded(Timestamp),
}

/// Why no account can serve a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoAccount {
    /// None serves the model on this path.
    #[error("no account serves this model")]
    NoModel,
    /// Those that serve the model speak other protocols.
    #[error("no account that serves this model speaks this protocol")]
    NoProtocol,
    /// The key may not use those that could serve it.
    #[error("this key may not use the accounts that serve this model")]
    NotPermitted,
    /// Those that could are unusable for now.
    #[error("every account that serves this model is unavailable")]
    Unavailable {
        /// What ails the first of them to be usable again; nothing if all are paused or were tried.
        cooling: Option<Cooling>,
    },
    /// Those that are usable have more calls to start than the call may wait for.
    #[error("every account that serves this model has too many calls to start")]
    Crowded {
        /// When the first of them will have few enough.
        until: Timestamp,
    },
}

/// Why a chosen account was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chosen {
    /// The session was served by it before.
    Affinity,
    /// It comes first by priority, next start, load and last use.
    Order,
}

/// Why an account does not fit a call, whatever its state, if so. For a key that is bound to no accounts, that is the
/// same for all accounts of a kind that serve the same models.
pub fn misfit(account: &Account, speaks: bool, ask: &Ask<'_>) -> Option<RuledOut> {
    if ask.only.is_some_and(|only| only != account.kind) {
        return Some(RuledOut::OtherRoute);
    }
    if !serves(account, ask) {
        return Some(RuledOut::OtherModel);
    }
    if !speaks {
        return Some(RuledOut::OtherProtocol);
    }
    (!ask.key.may_use(account.kind.family(), &account.id)).then_some(RuledOut::NotPermitted)
}

/// Why an account cannot serve a call, if so.
pub fn rule_out(candidate: &Candidate<'_>, ask: &Ask<'_>) -> Option<RuledOut> {
    let account = candidate.account;
    if let Some(misfit) = misfit(account, candidate.speaks, ask) {
        return Some(misfit);
    }
    if account.paused {
        return Some(RuledOut::Paused);
    }
    if let Some(passed) = candidate.passed {
        return Some(RuledOut::Passed(passed));
    }
    if let Some(cooling) = candidate.health.cooling(ask.now) {
        return Some(RuledOut::Cooling(cooling));
    }
    let excess = candidate.delay.checked_sub(ask.delay_max).filter(|excess| !excess.is_zero());
    excess.map(|excess| RuledOut::Crowded(ask.now.after(excess)))
}

/// A simulator bound to the key serves every model; real accounts never serve the simulator's.
fn serves(account: &Account, ask: &Ask<'_>) -> bool {
    match account.kind.family() {
        Family::Simulator => account.serves(ask.model) || ask.key.accounts.contains(&account.id),
        _ if ask.model.starts_with("sim-") && !account.model_map.contains_key(ask.model) => false,
        _ => account.serves(ask.model),
    }
}

/// What accounts that can serve a call are ordered by: the least comes first.
pub type Rank = (u8, Duration, u64, Timestamp);

/// Where an account stands among others: by priority number, then by when it can start a call, then by what is in
/// flight for its weight, then by when it was last used.
pub fn rank(candidate: &Candidate<'_>) -> Rank {
    let Account { priority, weight, .. } = *candidate.account;
    (priority, candidate.delay, load(candidate.in_flight, weight), candidate.last_used)
}

/// What is in flight for a weight of one, in thousandths.
pub fn load(in_flight: u64, weight: u8) -> u64 {
    match in_flight {
        // Most accounts are idle, and a division takes longer than all else that is done with them.
        0 => 0,
        _ => in_flight.saturating_mul(1_000) / u64::from(weight.max(1)),
    }
}

/// Chooses the account for a call: the session's, while it is usable; else the first by rank. Gives its position.
/// Looking at all candidates is what it specifies: where there are many, the same choice is found by less.
pub fn pick<'a>(
    candidates: impl Iterator<Item = Candidate<'a>>,
    ask: &Ask<'_>,
) -> Result<(usize, Chosen), NoAccount> {
    let mut best: Option<(Rank, usize)> = None;
    let mut none = Vacancy::default();
    for (position, candidate) in candidates.enumerate() {
        if let Some(reason) = rule_out(&candidate, ask) {
            none.note(reason);
            continue;
        }
        if ask.affinity == Some(position) {
            return Ok((position, Chosen::Affinity));
        }
        let rank = rank(&candidate);
        if best.is_none_or(|(lowest, _)| rank < lowest) {
            best = Some((rank, position));
        }
    }
    best.map(|(_, position)| (position, Chosen::Order)).ok_or_else(|| none.into_reason())
}

/// How far the most fitting of the unfit accounts came.
#[derive(Default)]
struct Vacancy {
    step: u8,
    cooling: Option<Cooling>,
    crowded: Option<Timestamp>,
}

impl Vacancy {
    fn note(&mut self, reason: RuledOut) {
        let step = match reason {
            RuledOut::OtherRoute | RuledOut::OtherModel => 0,
            RuledOut::OtherProtocol => 1,
            RuledOut::NotPermitted => 2,
            RuledOut::Paused | RuledOut::Passed(_) | RuledOut::Cooling(_) | RuledOut::Crowded(_) => 3,
        };
        self.step = self.step.max(step);
        if let RuledOut::Crowded(until) = reason {
            self.crowded = Some(self.crowded.map_or(until, |first| first.min(until)));
        }
        if let RuledOut::Cooling(cooling) = reason
            && self.cooling.is_none_or(|first| cooling.until < first.until)
        {
            self.cooling = Some(cooling);
        }
    }

    fn into_reason(self) -> NoAccount {
        match (self.step, self.crowded) {
            (0, _) => NoAccount::NoModel,
            (1, _) => NoAccount::NoProtocol,
            (2, _) => NoAccount::NotPermitted,
            (_, Some(until)) => NoAccount::Crowded { until },
            (_, None) => NoAccount::Unavailable { cooling: self.cooling },
        }
    }
}

#[cfg(test)]
mod tests;
