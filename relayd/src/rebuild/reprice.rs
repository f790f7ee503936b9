//! What a call cost by the prices that its row keeps, or by those of another list; and what its counters book for it
//! then. No I/O.

use std::collections::HashMap;
use std::sync::Arc;

use shared::domain::limit::Metric;
use shared::domain::{Account, AccountId, NanoUsd};

use crate::pricing::{Cost, PriceTable, PricedNames, total};
use crate::store::{Closed, GivenUp, GroupId};

/// By which prices costs are computed.
pub enum Prices {
    /// Those that each row keeps.
    Booked,
    /// Those of a list.
    List(List),
}

/// A price list, and the accounts whose names and stand-ins its models are found by.
pub struct List {
    /// The prices.
    pub table: Arc<PriceTable>,
    /// The accounts that are or were; of one of which nothing is known, nothing stands in for a price.
    pub accounts: HashMap<AccountId, Account, ahash::RandomState>,
}

/// What became of a row.
pub(super) struct Repriced {
    /// The row, if something of it is another now.
    pub(super) row: Option<Closed>,
    /// Some of it has no price, and keeps what it cost.
    pub(super) has_no_price: bool,
}

impl Prices {
    /// Prices a row, and moves what its counters book by the difference.
    pub(super) fn reprice(&self, before: &Closed) -> Repriced {
        let mut row = before.clone();
        let has_price = match self {
            Self::Booked => {
                row.cost = total(&row.usage, &row.rates);
                true
            }
            Self::List(list) => list.price(&mut row),
        };
        row.rated = row.cost.times(row.multiplier);
        if row == *before {
            return Repriced { row: None, has_no_price: !has_price };
        }
        rebook(before, &mut row);
        Repriced { row: Some(row), has_no_price: !has_price }
    }
}

impl List {
    /// Prices a row and the attempts that it gave up; what has no price keeps what it cost. Tells whether all have.
    fn price(&self, row: &mut Closed) -> bool {
        let has_price = row.usage.is_empty() || self.price_served(row);
        row.given_up.iter_mut().fold(has_price, |all, attempt| self.price_given_up(attempt) && all)
    }

    fn price_served(&self, row: &mut Closed) -> bool {
        let account = row.account.as_ref().and_then(|id| self.accounts.get(id));
        let names = match account {
            Some(account) => PricedNames::at(account, account.upstream_model(&row.model)),
            None => PricedNames::bare(&row.model),
        };
        let priced = row.priced_model.as_deref().unwrap_or(&row.model);
        let cost = names.cost(&self.table, Some(priced), &row.usage, row.tier);
        let has_price = cost.priced_as.is_some();
        if has_price && (row.cost, row.unpriced, row.rates) != (cost.total, cost.unpriced, cost.rates) {
            self.put(row, cost);
        }
        has_price
    }

    fn put(&self, row: &mut Closed, cost: Cost) {
        row.cost = cost.total;
        row.unpriced = cost.unpriced;
        row.rates = cost.rates;
        row.price_version = self.table.version();
    }

    fn price_given_up(&self, attempt: &mut GivenUp) -> bool {
        let names = match self.accounts.get(&attempt.account) {
            Some(account) => PricedNames::at(account, &attempt.model),
            None => PricedNames::bare(&attempt.model),
        };
        let cost = names.cost(&self.table, None, &attempt.usage, attempt.tier);
        if cost.priced_as.is_some() {
            attempt.cost = cost.total;
        }
        cost.priced_as.is_some() || attempt.usage.is_empty()
    }
}

/// Moves what the counters of money book by what the costs have changed by: what was held in two steps was booked in
/// the first, and what a process that died had held beyond the cost stays.
fn rebook(before: &Closed, after: &mut Closed) {
    let rated = change(before.rated, after.rated);
    let cost = change(before.cost, after.cost);
    let given_up: Vec<(GroupId, i128)> = before
        .given_up
        .iter()
        .zip(&after.given_up)
        .map(|(one, other)| (GroupId::of_account(&one.account), change(one.cost, other.cost)))
        .collect();
    let served = after.account.as_ref().map(GroupId::of_account);
    let of_account = |group: &GroupId| {
        let own = if served.as_ref() == Some(group) { cost } else { 0 };
        let in_vain = given_up.iter().filter(|(account, _)| account == group);
        in_vain.fold(own, |sum, (_, change)| sum + change)
    };
    for at in 0..after.bookings.len() {
        let (earlier, rest) = after.bookings.split_at_mut(at);
        let Some(booking) = rest.first_mut() else { continue };
        let is_more =
            earlier.iter().any(|held| held.group == booking.group && held.counter == booking.counter);
        if is_more || booking.counter.metric() != Metric::Cost {
            continue;
        }
        let change = match &booking.group {
            group if group.is_account() => of_account(group),
            group if group.is_all() => cost,
            _ => rated,
        };
        let amount = (i128::from(booking.amount) + change).max(0);
        booking.amount = u64::try_from(amount).unwrap_or(u64::MAX);
    }
}

/// By how much counters move from one amount to another.
fn change(from: NanoUsd, to: NanoUsd) -> i128 {
    i128::from(to.as_counted()) - i128::from(from.as_counted())
}
