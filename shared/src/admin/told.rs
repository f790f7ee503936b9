//! How what limits count is told in JSON: the counters' bare numbers with their kind, so that no reader takes
//! nano-dollars for dollars.

use serde::{Deserialize, Serialize};

use super::{BudgetEvent, LimitView};
use crate::domain::limit::Counted;
use crate::domain::{self, Timestamp};

/// A [`LimitView`].
#[derive(Serialize, Deserialize)]
pub(super) struct Limit {
    limit: domain::Limit,
    used: Counted,
    held: Counted,
    resets_at: Option<Timestamp>,
}

impl From<LimitView> for Limit {
    fn from(LimitView { limit, used, held, resets_at }: LimitView) -> Self {
        let of = |amount| Counted::of(limit.metric, amount);
        Self { used: of(used), held: of(held), resets_at, limit }
    }
}

impl From<Limit> for LimitView {
    fn from(Limit { limit, used, held, resets_at }: Limit) -> Self {
        Self { limit, used: used.number(), held: held.number(), resets_at }
    }
}

/// A [`BudgetEvent`].
#[derive(Serialize, Deserialize)]
pub(super) struct Event {
    at: Timestamp,
    holder: String,
    id: Option<String>,
    name: String,
    limit: domain::Limit,
    percent: u8,
    used: Counted,
    resets_at: Option<Timestamp>,
}

impl From<BudgetEvent> for Event {
    fn from(event: BudgetEvent) -> Self {
        let BudgetEvent { at, holder, id, name, limit, percent, used, resets_at } = event;
        let used = Counted::of(limit.metric, used);
        Self { at, holder, id, name, limit, percent, used, resets_at }
    }
}

impl From<Event> for BudgetEvent {
    fn from(event: Event) -> Self {
        let Event { at, holder, id, name, limit, percent, used, resets_at } = event;
        Self { at, holder, id, name, limit, percent, used: used.number(), resets_at }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn money_is_told_in_dollars_and_all_else_in_numbers() {
        for (limit, used, told) in [
            ("$20 per day", 1_500_000_000, json!("1.50")),
            ("$20 per day", 1, json!("0.000000001")),
            ("500 tokens per day", 7, json!(7)),
            ("4 concurrent", 3, json!(3)),
        ] {
            let limit: domain::Limit = limit.parse().unwrap();
            let view = LimitView { limit: limit.clone(), used, held: 0, resets_at: None };
            let json = serde_json::to_value(&view).unwrap();
            assert_eq!(json["used"], told, "{limit}");
            assert_eq!(serde_json::from_value::<LimitView>(json).unwrap(), view);
            let event = BudgetEvent {
                at: Timestamp::from_millis(0),
                holder: "all".to_owned(),
                id: None,
                name: "all".to_owned(),
                limit,
                percent: 50,
                used,
                resets_at: None,
            };
            let json = serde_json::to_value(&event).unwrap();
            assert_eq!(json["used"], told);
            assert_eq!(serde_json::from_value::<BudgetEvent>(json).unwrap(), event);
        }
    }
}
