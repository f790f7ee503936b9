//! What a row costs by other prices, and what its counters book then.

use shared::domain::{Account, AccountKind, ServiceTier};

use super::{by_list, nanos, row};
use crate::rebuild::Prices;
use crate::rebuild::tests::booking;
use crate::store::{Closed, GivenUp, GroupId, Span};

fn account(id: &str, change: impl FnOnce(&mut Account)) -> Account {
    let mut account: Account = serde_json::from_value(serde_json::json!({
        "id": id,
        "name": id,
        "kind": AccountKind::ClaudeConsole.name(),
        "base_url": "http://127.0.0.1:1",
        "priority": 50,
        "weight": 1,
        "created_at": "2026-11-01T00:00:00Z",
    }))
    .unwrap();
    change(&mut account);
    account
}

fn repriced(prices: &Prices, row: &Closed) -> (Closed, bool) {
    let repriced = prices.reprice(row);
    (repriced.row.unwrap_or_else(|| row.clone()), repriced.has_no_price)
}

#[test]
fn a_row_costs_what_its_own_prices_say() {
    let sound = row(0, 1, 3, Vec::new());
    assert_eq!((sound.cost, sound.rated), (nanos(30), nanos(45)));
    assert!(Prices::Booked.reprice(&sound).row.is_none());
    let group = GroupId::of_all();
    let wrong = Closed {
        cost: nanos(10),
        rated: nanos(7),
        bookings: vec![booking(&group, "cost in total", Span::ENDLESS, 10)],
        ..sound.clone()
    };
    let (mended, _) = repriced(&Prices::Booked, &wrong);
    let bookings = vec![booking(&group, "cost in total", Span::ENDLESS, 30)];
    assert_eq!(mended, Closed { bookings, ..sound });
}

#[test]
fn a_price_is_found_as_when_the_call_was_made() {
    let plain = || account("acc_a", |_| {});
    let mapped = || account("acc_a", |account| drop(account.model_map.insert("m".into(), "sent".into())));
    let stand_in = || account("acc_a", |account| account.price_as = Some("known".to_owned()));
    let azure = || account("acc_a", |account| account.kind = AccountKind::AzureOpenai);
    let named = |name: &str| Some(name.to_owned());
    for (name, models, account, priced_model, tier, expected) in [
        ("its own", vec![("m", 5)], Some(plain()), None, None, Some(50)),
        ("the reply's first", vec![("m", 5), ("r", 7)], Some(plain()), named("r"), None, Some(70)),
        ("then the one sent", vec![("sent", 5)], Some(mapped()), named("r"), None, Some(50)),
        ("then the stand-in", vec![("known", 6)], Some(stand_in()), named("r"), None, Some(60)),
        ("Azure's own", vec![("m", 5), ("azure/m", 8)], Some(azure()), None, None, Some(80)),
        ("the tier's", vec![("m", 5)], Some(plain()), None, Some(ServiceTier::Priority), Some(500)),
        ("no account any more", vec![("m", 5)], None, None, None, Some(50)),
        ("no stand-in any more", vec![("known", 6)], None, None, None, None),
        ("no price", vec![("other", 6)], Some(plain()), None, None, None),
    ] {
        let before = Closed { priced_model, tier, ..row(0, 1, 3, Vec::new()) };
        let prices = by_list(9, &models, account.into_iter().collect());
        let (after, has_no_price) = repriced(&prices, &before);
        assert_eq!((after.cost, has_no_price), (nanos(expected.unwrap_or(30)), expected.is_none()), "{name}");
        assert_eq!(after.rated, after.cost.times(after.multiplier), "{name}");
        assert_eq!(after.price_version, if expected.is_some() { 9 } else { 1 }, "{name}");
        assert!(prices.reprice(&after).row.is_none(), "{name}: once is enough");
    }
}

#[test]
fn prices_that_did_not_change_change_nothing() {
    let before = row(0, 1, 3, Vec::new());
    let prices = by_list(9, &[("m", 3)], Vec::new());
    assert!(prices.reprice(&before).row.is_none(), "a new version of the list alone is no change");
    let unused = Closed { usage: Default::default(), cost: nanos(0), rated: nanos(0), ..before };
    let repriced = by_list(9, &[("other", 1)], Vec::new()).reprice(&unused);
    assert!(repriced.row.is_none() && !repriced.has_no_price, "nothing was used");
}

#[test]
fn counters_move_by_what_the_cost_changed_by() {
    let (key, owner, all) = (GroupId::of_key(&"key_a".into()), GroupId::of_owner("Alice"), GroupId::of_all());
    let [served, failed, other] = ["acc_a", "acc_b", "acc_c"].map(|id| GroupId::of_account(&id.into()));
    let (money, tokens) = ("cost in total", "tokens in total");
    let amounts = |amounts: [u64; 9]| {
        let counters = [
            (&key, money),
            (&key, tokens),
            (&key, money),
            (&key, "cost per day strict"),
            (&owner, money),
            (&all, money),
            (&served, money),
            (&failed, money),
            (&other, money),
        ];
        let pairs = counters.iter().zip(amounts);
        pairs.map(|((group, name), amount)| booking(group, name, Span::ENDLESS, amount)).collect::<Vec<_>>()
    };
    let given_up = |account: &str, tier, cost| GivenUp {
        account: account.into(),
        model: "slow".to_owned(),
        usage: shared::domain::Usage::of(&[(shared::domain::UsageClass::Input, 4)]),
        cost: nanos(cost),
        tier,
    };
    // 30 by the price, 45 for the holder; the second amount was held in a second step, and what was booked in the
    // strict one is what a process that died had held.
    let before = Closed {
        given_up: vec![given_up("acc_a", None, 8), given_up("acc_b", Some(ServiceTier::Priority), 80)],
        ..row(0, 1, 3, amounts([45, 10, 0, 900, 45, 30, 38, 80, 0]))
    };
    let (after, _) = repriced(&by_list(2, &[("m", 5), ("slow", 3)], Vec::new()), &before);
    let expected = Closed {
        cost: nanos(50),
        rated: nanos(75),
        bookings: amounts([75, 10, 0, 930, 75, 50, 62, 120, 0]),
        given_up: vec![given_up("acc_a", None, 12), given_up("acc_b", Some(ServiceTier::Priority), 120)],
        price_version: 2,
        rates: after.rates,
        ..before.clone()
    };
    assert_eq!(after, expected);
    let (back, _) = repriced(&by_list(1, &[("m", 3), ("slow", 2)], Vec::new()), &after);
    assert_eq!(back, before, "and back again");
    let (free, _) = repriced(&by_list(1, &[("m", 0), ("slow", 0)], Vec::new()), &before);
    let left: Vec<u64> = free.bookings.iter().map(|booking| booking.amount).collect();
    assert_eq!(left, [0, 10, 0, 855, 0, 0, 0, 0, 0], "less than nothing is nothing");
}
