//! How an account is for each kind of call. What a vendor refuses for one operation, or for one model, says nothing
//! of the others: counting tokens costs a client nothing, and must not take the account from those who want answers.

use shared::domain::{Operation, Timestamp};

use super::health::{Cooldowns, Health, Incident, Outcome, latest};

/// Models are named by clients; so many that the vendor limits by themselves are remembered.
const MODELS_MAX: usize = 64;

/// What a call wants of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Purpose<'a> {
    /// What is to be done.
    pub operation: Operation,
    /// The model, as it is sent.
    pub model: &'a str,
}

/// An account's health for each operation, and for each model of which the vendor said that the limit is that one's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vitals {
    operations: [Health; 3],
    models: Vec<Model>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Model {
    operation: Operation,
    name: Box<str>,
    health: Health,
}

impl Vitals {
    /// How the account is for such a call.
    pub fn of(&self, purpose: Purpose<'_>) -> Health {
        let health = self.operations[purpose.operation as usize];
        match self.models.iter().find(|model| model.is_meant(purpose)) {
            Some(model) => health.with(model.health),
            None => health,
        }
    }

    /// The end of all cooldowns, of any kind of call: afterwards the account rests from none.
    pub fn rests_until(&self) -> Option<Timestamp> {
        let models = self.models.iter().map(|model| &model.health);
        self.operations.iter().chain(models).filter_map(Health::rests_until).max()
    }

    /// Takes note of what such a call told. A credential and a connection are the same for every call.
    pub fn learn(&mut self, purpose: Purpose<'_>, outcome: &Outcome, now: Timestamp, cooldowns: &Cooldowns) {
        let learn = |health: &mut Health| *health = health.after(outcome, now, cooldowns);
        match outcome {
            Outcome::AuthFailed { .. } | Outcome::Unreachable => self.operations.iter_mut().for_each(learn),
            Outcome::Limited { is_models: true, .. } => learn(self.model(purpose, now)),
            _ => learn(&mut self.operations[purpose.operation as usize]),
        }
    }

    /// What a person is told of: what ails the account, else what ailed it last, and for what alone if not for
    /// answers of every model.
    pub fn told(&self, now: Timestamp) -> (Health, Option<String>) {
        let [answers, counts, vectors] = self.operations;
        let mut told = vec![
            (answers, None),
            (vectors, Some("for embeddings".to_owned())),
            (counts, Some("for counting tokens".to_owned())),
        ];
        let models =
            self.models.iter().map(|model| (model.health, Some(format!("for the model {}", model.name))));
        told.splice(1..1, models);
        let rests = |(health, _): &&(Health, _)| health.cooling(now).is_some();
        let ailed_at = |(health, _): &&(Health, _)| health.last().map(|incident| incident.at);
        // Of equals the last counts, and the first is the most telling.
        let found = told.iter().find(rests).or_else(|| told.iter().rev().max_by_key(ailed_at));
        found.cloned().unwrap_or_default()
    }

    /// What went wrong last with any call, whether it counted or not.
    pub fn last_failure(&self) -> Option<Incident> {
        let models = self.models.iter().map(|model| &model.health);
        latest(self.operations.iter().chain(models).map(Health::last_failure))
    }

    fn model(&mut self, Purpose { operation, model }: Purpose<'_>, now: Timestamp) -> &mut Health {
        let known = self.models.iter().position(|known| known.is_meant(Purpose { operation, model }));
        let at = known.unwrap_or_else(|| {
            self.models.retain(|known| known.health.cooling(now).is_some());
            if self.models.len() >= MODELS_MAX {
                self.models.remove(0);
            }
            self.models.push(Model { operation, name: model.into(), health: Health::default() });
            self.models.len() - 1
        });
        &mut self.models[at].health
    }
}

impl Model {
    fn is_meant(&self, purpose: Purpose<'_>) -> bool {
        self.operation == purpose.operation && *self.name == *purpose.model
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::health::Ailment;
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    const fn asking(operation: Operation, model: &str) -> Purpose<'_> {
        Purpose { operation, model }
    }

    fn after(purpose: Purpose<'_>, outcome: &Outcome) -> Vitals {
        let mut vitals = Vitals::default();
        vitals.learn(purpose, outcome, NOW, &Cooldowns::default());
        vitals
    }

    fn rests(vitals: &Vitals, purpose: Purpose<'_>) -> Option<Ailment> {
        vitals.of(purpose).cooling(NOW).map(|cooling| cooling.ailment)
    }

    #[test]
    fn an_outcome_holds_for_what_it_was_met_with() {
        use Operation::{CountTokens, Embed, Generate};
        let limited = |is_models| Outcome::Limited { until: None, is_models };
        for (outcome, same, other_model, other_operation) in [
            (limited(false), Some(Ailment::Limited), Some(Ailment::Limited), None),
            (limited(true), Some(Ailment::Limited), None, None),
            (Outcome::Overloaded { until: None }, Some(Ailment::Overloaded), Some(Ailment::Overloaded), None),
            (Outcome::Unreachable, Some(Ailment::Unreachable), Some(Ailment::Unreachable), {
                Some(Ailment::Unreachable)
            }),
            (Outcome::AuthFailed { status: 401 }, Some(Ailment::AuthFailed), Some(Ailment::AuthFailed), {
                Some(Ailment::AuthFailed)
            }),
            (Outcome::Refused, None, None, None),
        ] {
            for (operation, other) in [(Generate, CountTokens), (CountTokens, Embed), (Embed, Generate)] {
                let vitals = after(asking(operation, "m"), &outcome);
                let found = [asking(operation, "m"), asking(operation, "n"), asking(other, "m")]
                    .map(|purpose| rests(&vitals, purpose));
                assert_eq!(found, [same, other_model, other_operation], "{outcome:?}, {operation:?}");
            }
        }
    }

    #[test]
    fn people_are_told_for_what_it_rests() {
        let limited = |is_models| Outcome::Limited { until: None, is_models };
        for (purpose, outcome, expected) in [
            (asking(Operation::Generate, "m"), limited(false), None),
            (asking(Operation::Generate, "m"), limited(true), Some("for the model m")),
            (asking(Operation::Embed, "m"), limited(false), Some("for embeddings")),
            (asking(Operation::CountTokens, "m"), limited(false), Some("for counting tokens")),
            (asking(Operation::CountTokens, "m"), Outcome::Unreachable, None),
        ] {
            let vitals = after(purpose, &outcome);
            for now in [NOW, NOW.after(Duration::from_secs(1_000_000))] {
                let (health, alone) = vitals.told(now);
                assert_eq!((health.last().is_some(), alone.as_deref()), (true, expected), "{purpose:?}");
                assert!(vitals.last_failure().is_some());
            }
        }
        assert_eq!(Vitals::default().told(NOW), (Health::default(), None));
    }

    #[test]
    fn names_of_models_take_little_room() {
        let mut vitals = Vitals::default();
        let outcome = Outcome::Limited { until: None, is_models: true };
        for number in 0..1_000 {
            let name = format!("m-{number}");
            vitals.learn(asking(Operation::Generate, &name), &outcome, NOW, &Cooldowns::default());
        }
        assert_eq!(vitals.models.len(), MODELS_MAX);
        assert_eq!(rests(&vitals, asking(Operation::Generate, "m-999")), Some(Ailment::Limited));
        let later = NOW.after(Duration::from_secs(1_000));
        vitals.learn(asking(Operation::Generate, "m"), &outcome, later, &Cooldowns::default());
        assert_eq!(vitals.models.len(), 1, "those that rest no more are forgotten");
    }
}
