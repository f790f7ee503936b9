//! What ails an account: a set of timestamps compared on reading, and the one table of what a reply does to it.
//! No timers: a cooldown ends because its time has passed.

use std::time::Duration;

use shared::domain::Timestamp;

/// What an upstream call told about its account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It has begun to answer.
    Began,
    /// It has answered to the end.
    Served,
    /// The client's own mistake: it says nothing about the account.
    Refused,
    /// It has used up its allowance, until then if the upstream said so.
    Limited {
        /// The end that the upstream named.
        until: Option<Timestamp>,
        /// The upstream said that it is the model's allowance, not that of all.
        is_models: bool,
    },
    /// It is overloaded, until then if the upstream said so.
    Overloaded {
        /// The end that the upstream named.
        until: Option<Timestamp>,
    },
    /// Its credential was refused, or its bill is not paid.
    AuthFailed {
        /// The status that said so.
        status: u16,
    },
    /// No connection came about.
    Unreachable,
    /// A failure that the call itself may have caused.
    Suspect {
        /// What failed.
        failure: Failure,
        /// Tells calls of different content apart.
        fingerprint: u64,
    },
    /// Such a failure after the account had begun to answer.
    BrokeOff {
        /// What failed.
        failure: Failure,
        /// Tells calls of different content apart.
        fingerprint: u64,
    },
    /// The same call failed here and then succeeded elsewhere.
    Confirmed {
        /// What failed.
        failure: Failure,
    },
}

/// A failure that the call itself may have caused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// An HTTP status.
    Status(u16),
    /// No first byte in time.
    Timeout,
    /// The connection broke, or what came was no HTTP.
    Broken,
    /// The upstream paused for too long within its reply.
    Stalled,
    /// The stream held an error.
    StreamError,
}

impl Failure {
    /// One phrase for people.
    pub fn describe(self) -> String {
        match self {
            Self::Status(status) => format!("answered {status}"),
            Self::Timeout => "gave no answer in time".to_owned(),
            Self::Broken => "broke the connection".to_owned(),
            Self::Stalled => "stalled within its reply".to_owned(),
            Self::StreamError => "sent an error within its stream".to_owned(),
        }
    }
}

/// How long an account rests, by cause.
#[derive(Clone, Copy, Debug)]
pub struct Cooldowns {
    /// After a 429 that names no time.
    pub limited: Duration,
    /// At most, whatever time a 429 names.
    pub limited_max: Duration,
    /// After a 503 or 529 that names no time.
    pub overloaded: Duration,
    /// After a refused credential.
    pub auth_failed: Duration,
    /// After a failed connection.
    pub unreachable: Duration,
    /// After failures that the calls were not to blame for.
    pub suspect: Duration,
}

impl Default for Cooldowns {
    fn default() -> Self {
        Self {
            limited: Duration::from_secs(60),
            limited_max: Duration::from_secs(3_600),
            overloaded: Duration::from_secs(30),
            auth_failed: Duration::from_secs(300),
            unreachable: Duration::from_secs(15),
            suspect: Duration::from_secs(30),
        }
    }
}

/// Kinds of cooldowns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ailment {
    /// Its allowance is used up.
    Limited,
    /// It is overloaded, or failed calls that were not to blame.
    Overloaded,
    /// Its credential was refused.
    AuthFailed,
    /// It cannot be reached.
    Unreachable,
}

impl Ailment {
    /// The ailment as it is written in JSON and tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Limited => "limited",
            Self::Overloaded => "overloaded",
            Self::AuthFailed => "auth_failed",
            Self::Unreachable => "unreachable",
        }
    }
}

/// A cooldown that is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cooling {
    /// Its kind.
    pub ailment: Ailment,
    /// Its end.
    pub until: Timestamp,
}

/// What is known of an account's health, as far as it is the same for a number of calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    until: [Option<Timestamp>; 4],
    suspicion: Option<Suspicion>,
    last: Option<Incident>,
    last_failure: Option<Incident>,
}

/// A failure that may have been the call's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Suspicion {
    fingerprint: u64,
    at: Timestamp,
    /// It failed after it had begun to answer: that another answer begins refutes nothing.
    is_midway: bool,
}

/// The last thing that went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incident {
    /// What it was.
    pub cause: Cause,
    /// When it was.
    pub at: Timestamp,
}

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The allowance was used up.
    Limited,
    /// The upstream said that it is overloaded.
    Overloaded,
    /// The credential was refused with this status.
    AuthFailed(u16),
    /// No connection came about.
    Unreachable,
    /// Calls failed.
    Failed(Failure),
}

impl Cause {
    /// The upstream's status, where it is known.
    pub const fn status(self) -> Option<u16> {
        match self {
            Self::Limited => Some(429),
            Self::AuthFailed(status) | Self::Failed(Failure::Status(status)) => Some(status),
            Self::Overloaded | Self::Unreachable | Self::Failed(_) => None,
        }
    }

    /// One phrase for people.
    pub fn describe(self) -> String {
        match self {
            Self::Limited => "its rate limit is used up (429)".to_owned(),
            Self::Overloaded => "the upstream is overloaded".to_owned(),
            Self::AuthFailed(402) => "the upstream wants to be paid first".to_owned(),
            Self::AuthFailed(status) => format!("its credential was refused ({status})"),
            Self::Unreachable => "no connection came about".to_owned(),
            Self::Failed(failure) => format!("it {}", failure.describe()),
        }
    }
}

impl Health {
    /// The cooldown in force that ends last, if any.
    pub fn cooling(&self, now: Timestamp) -> Option<Cooling> {
        [Ailment::AuthFailed, Ailment::Limited, Ailment::Overloaded, Ailment::Unreachable]
            .into_iter()
            .filter_map(|ailment| {
                self.until[ailment as usize]
                    .filter(|&until| until > now)
                    .map(|until| Cooling { ailment, until })
            })
            .max_by_key(|cooling| cooling.until)
    }

    /// The end of the cooldown that ends last, in force or not.
    pub fn rests_until(&self) -> Option<Timestamp> {
        self.until.into_iter().flatten().max()
    }

    /// This and another, of which both hold.
    #[must_use]
    pub fn with(mut self, other: Self) -> Self {
        for (until, others) in self.until.iter_mut().zip(other.until) {
            *until = (*until).max(others);
        }
        self.suspicion = self.suspicion.or(other.suspicion);
        self.last = latest([self.last, other.last]);
        self.last_failure = latest([self.last_failure, other.last_failure]);
        self
    }

    /// What it last came to rest for.
    pub const fn last(&self) -> Option<Incident> {
        self.last
    }

    /// The last thing that went wrong, whether it counted or not.
    pub const fn last_failure(&self) -> Option<Incident> {
        self.last_failure
    }

    /// Whether a success would change anything.
    pub const fn is_suspected(&self) -> bool {
        self.suspicion.is_some()
    }

    /// The table: what an outcome does to an account. Refused credentials, used-up allowances, overload and
    /// failed connections count at once. A failure that the call itself may have caused counts when a call of
    /// different content fails too, or when the same call succeeds elsewhere: one poisonous request, sent
    /// again and again, must not fell a pool. A call in between that got further refutes the suspicion.
    #[must_use]
    pub fn after(self, outcome: &Outcome, now: Timestamp, cooldowns: &Cooldowns) -> Self {
        match *outcome {
            Outcome::Began => {
                Self { suspicion: self.suspicion.filter(|suspicion| suspicion.is_midway), ..self }
            }
            Outcome::Served => Self { suspicion: None, ..self },
            Outcome::Refused => self,
            Outcome::Limited { until, .. } => {
                let latest = now.after(cooldowns.limited_max);
                let until = until.unwrap_or(now.after(cooldowns.limited)).min(latest);
                self.cooled(Ailment::Limited, until, Cause::Limited, now)
            }
            Outcome::Overloaded { until } => {
                let latest = now.after(cooldowns.limited_max);
                let until = until.unwrap_or(now.after(cooldowns.overloaded)).min(latest);
                self.cooled(Ailment::Overloaded, until, Cause::Overloaded, now)
            }
            Outcome::AuthFailed { status } => {
                let until = now.after(cooldowns.auth_failed);
                self.cooled(Ailment::AuthFailed, until, Cause::AuthFailed(status), now)
            }
            Outcome::Unreachable => {
                let until = now.after(cooldowns.unreachable);
                self.cooled(Ailment::Unreachable, until, Cause::Unreachable, now)
            }
            Outcome::Suspect { failure, fingerprint } => {
                let suspicion = Suspicion { fingerprint, at: now, is_midway: false };
                self.suspected(suspicion, failure, cooldowns)
            }
            Outcome::BrokeOff { failure, fingerprint } => {
                let suspicion = Suspicion { fingerprint, at: now, is_midway: true };
                self.suspected(suspicion, failure, cooldowns)
            }
            Outcome::Confirmed { failure } => self.failed(failure, now, cooldowns),
        }
    }

    fn suspected(self, suspicion: Suspicion, failure: Failure, cooldowns: &Cooldowns) -> Self {
        let now = suspicion.at;
        let is_another = |earlier: Suspicion| {
            now.since(earlier.at) < cooldowns.suspect && earlier.fingerprint != suspicion.fingerprint
        };
        if self.suspicion.is_some_and(is_another) {
            return self.failed(failure, now, cooldowns);
        }
        let last_failure = Some(Incident { cause: Cause::Failed(failure), at: now });
        Self { suspicion: Some(suspicion), last_failure, ..self }
    }

    fn failed(self, failure: Failure, now: Timestamp, cooldowns: &Cooldowns) -> Self {
        self.cooled(Ailment::Overloaded, now.after(cooldowns.suspect), Cause::Failed(failure), now)
    }

    fn cooled(mut self, ailment: Ailment, until: Timestamp, cause: Cause, now: Timestamp) -> Self {
        let slot = &mut self.until[ailment as usize];
        *slot = Some(slot.map_or(until, |earlier| earlier.max(until)));
        self.suspicion = None;
        self.last = Some(Incident { cause, at: now });
        self.last_failure = self.last;
        self
    }
}

/// The incident that happened last.
pub(super) fn latest(incidents: impl IntoIterator<Item = Option<Incident>>) -> Option<Incident> {
    incidents.into_iter().flatten().max_by_key(|incident| incident.at)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    fn in_seconds(seconds: u64) -> Timestamp {
        NOW.after(Duration::from_secs(seconds))
    }

    fn after(outcomes: &[Outcome]) -> Option<(Ailment, Timestamp)> {
        let health = outcomes
            .iter()
            .fold(Health::default(), |health, outcome| health.after(outcome, NOW, &Cooldowns::default()));
        health.cooling(NOW).map(|cooling| (cooling.ailment, cooling.until))
    }

    fn limited(seconds: Option<u64>) -> Outcome {
        Outcome::Limited { until: seconds.map(in_seconds), is_models: false }
    }

    fn suspect(fingerprint: u64) -> Outcome {
        Outcome::Suspect { failure: Failure::Status(500), fingerprint }
    }

    fn broke_off(fingerprint: u64) -> Outcome {
        Outcome::BrokeOff { failure: Failure::Stalled, fingerprint }
    }

    #[test]
    fn the_table_of_outcomes() {
        for (what, outcomes, expected) in [
            ("success", vec![Outcome::Served], None),
            ("the client's mistake", vec![Outcome::Refused], None),
            ("limited, time told", vec![limited(Some(7))], Some((Ailment::Limited, in_seconds(7)))),
            (
                "limited, time told too long",
                vec![limited(Some(90_000))],
                Some((Ailment::Limited, in_seconds(3_600))),
            ),
            ("limited, no time told", vec![limited(None)], Some((Ailment::Limited, in_seconds(60)))),
            (
                "overloaded",
                vec![Outcome::Overloaded { until: None }],
                Some((Ailment::Overloaded, in_seconds(30))),
            ),
            (
                "credential refused",
                vec![Outcome::AuthFailed { status: 401 }],
                Some((Ailment::AuthFailed, in_seconds(300))),
            ),
            ("unreachable", vec![Outcome::Unreachable], Some((Ailment::Unreachable, in_seconds(15)))),
            ("a success does not end a cooldown", vec![Outcome::Unreachable, Outcome::Served], {
                Some((Ailment::Unreachable, in_seconds(15)))
            }),
            ("one poisonous call, many times", vec![suspect(1), suspect(1), suspect(1)], None),
            ("two calls of different content", vec![suspect(1), suspect(2)], {
                Some((Ailment::Overloaded, in_seconds(30)))
            }),
            ("a success in between", vec![suspect(1), Outcome::Served, suspect(2)], None),
            ("an answer that begins in between", vec![suspect(1), Outcome::Began, suspect(2)], None),
            ("one poisonous stream, many times", vec![broke_off(1), Outcome::Began, broke_off(1)], None),
            ("two streams of different content", vec![broke_off(1), Outcome::Began, broke_off(2)], {
                Some((Ailment::Overloaded, in_seconds(30)))
            }),
            ("a stream to its end in between", vec![broke_off(1), Outcome::Served, broke_off(2)], None),
            ("a stream, then a call that got no answer", vec![broke_off(1), suspect(2)], {
                Some((Ailment::Overloaded, in_seconds(30)))
            }),
            (
                "the same call succeeded elsewhere",
                vec![suspect(1), Outcome::Confirmed { failure: Failure::Status(500) }],
                Some((Ailment::Overloaded, in_seconds(30))),
            ),
        ] {
            assert_eq!(after(&outcomes), expected, "{what}");
        }
    }

    #[test]
    fn what_did_not_count_is_told_all_the_same() {
        let health = Health::default().after(&suspect(1), NOW, &Cooldowns::default());
        assert_eq!((health.cooling(NOW), health.last()), (None, None));
        let failure = Incident { cause: Cause::Failed(Failure::Status(500)), at: NOW };
        assert_eq!(health.last_failure(), Some(failure));
        assert_eq!(health.last_failure().and_then(|failure| failure.cause.status()), Some(500));
        let later = in_seconds(1);
        let health = health.after(&Outcome::Unreachable, later, &Cooldowns::default());
        let unreachable = Some(Incident { cause: Cause::Unreachable, at: later });
        assert_eq!((health.last(), health.last_failure()), (unreachable, unreachable));
    }

    #[test]
    fn old_suspicions_are_forgotten() {
        let health = Health::default().after(&suspect(1), NOW, &Cooldowns::default());
        let later = in_seconds(30);
        assert_eq!(health.after(&suspect(2), later, &Cooldowns::default()).cooling(later), None);
    }

    #[test]
    fn the_longest_cooldown_counts_and_ends_at_its_time() {
        let health = Health::default().after(&Outcome::Unreachable, NOW, &Cooldowns::default()).after(
            &limited(Some(60)),
            NOW,
            &Cooldowns::default(),
        );
        assert_eq!(health.cooling(in_seconds(59)).map(|cooling| cooling.ailment), Some(Ailment::Limited));
        assert_eq!(health.cooling(in_seconds(60)), None);
        assert_eq!(health.last().map(|incident| incident.cause), Some(Cause::Limited));
    }
}
