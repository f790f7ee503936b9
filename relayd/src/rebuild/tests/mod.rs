//! Rows that are priced again, and what they add up to, over the embedded store.

mod pricing;
mod running;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use shared::admin::AuditEntry;
use shared::domain::limit::Metric;
use shared::domain::usage::UsageClass;
use shared::domain::{Account, NanoUsd, RequestId, Timestamp, Usage};

use super::{List, Prices};
use crate::pricing::{PriceTable, parse, total};
use crate::store::contract::closed as any_row;
use crate::store::{Booking, Closed, CounterId, GroupId, Rates, Span};

const HOUR_MS: i64 = 3_600_000;

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn nanos(amount: i64) -> NanoUsd {
    NanoUsd::from_nanos(amount)
}

/// Nano-dollars per token of prompts and answers: in standard service, and as `priority`.
fn table(version: u64, models: &[(&str, u64)]) -> Arc<PriceTable> {
    let price = |nanos: u64| {
        serde_json::json!({
            "input_cost_per_token": format!("{nanos}e-9").parse::<f64>().unwrap(),
            "output_cost_per_token": format!("{nanos}e-9").parse::<f64>().unwrap(),
            "input_cost_per_token_priority": format!("{}e-9", 10 * nanos).parse::<f64>().unwrap(),
            "output_cost_per_token_priority": format!("{}e-9", 10 * nanos).parse::<f64>().unwrap(),
        })
    };
    let json: serde_json::Map<_, _> =
        models.iter().map(|(name, nanos)| ((*name).to_owned(), price(*nanos))).collect();
    let list = parse(&serde_json::Value::Object(json).to_string()).unwrap();
    assert!(list.skipped.is_empty(), "{:?}", list.skipped);
    Arc::new(PriceTable::build(version, &list, None, &BTreeMap::new()))
}

fn by_list(version: u64, models: &[(&str, u64)], accounts: Vec<Account>) -> Prices {
    let accounts: HashMap<_, _, _> =
        accounts.into_iter().map(|account| (account.id.clone(), account)).collect();
    Prices::List(List { table: table(version, models), accounts })
}

/// Ten tokens at so many nano-dollars each, by standard service.
fn row(opened: i64, digits: u8, price: u64, bookings: Vec<Booking>) -> Closed {
    let usage = Usage::of(&[(UsageClass::Input, 8), (UsageClass::Output, 2)]);
    let mut rates = Rates::default();
    (rates[UsageClass::Input], rates[UsageClass::Output]) = (1_000 * price, 1_000 * price);
    let row = any_row(RequestId::new(at(opened), [digits; 10]), bookings);
    let cost = total(&usage, &rates);
    Closed { model: "m".to_owned(), usage, rates, cost, rated: cost.times(row.multiplier), tier: None, ..row }
}

fn counter(name: &str) -> CounterId {
    CounterId::named(name).unwrap()
}

fn booking(group: &GroupId, name: &str, span: Span, amount: u64) -> Booking {
    Booking { group: group.clone(), counter: counter(name), span, amount }
}

/// What a row books in the counters of this group that are named, as the relay does.
fn booked(row: &mut Closed, group: &GroupId, names: &[(&str, Span)]) {
    for (name, span) in names {
        let cost = if group.is_account() || group.is_all() { row.cost } else { row.rated };
        let amount = match counter(name).metric() {
            Metric::Cost => cost.as_counted(),
            Metric::Tokens => row.usage.tokens(),
            Metric::Requests | Metric::Concurrent => 1,
        };
        row.bookings.push(booking(group, name, *span, amount));
    }
}

fn audit() -> AuditEntry {
    AuditEntry {
        at: at(7),
        uid: Some(7),
        pid: None,
        action: "costs.rebuild".to_owned(),
        subject: "costs".to_owned(),
        name: "costs".to_owned(),
        fields: Vec::new(),
    }
}
