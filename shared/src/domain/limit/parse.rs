//! Reads a limit as a person writes it, and says what a text lacks that is none.

use std::iter::Peekable;
use std::str::FromStr;
use std::time::Duration;

use jiff::civil::Weekday;

use super::calendar::NoTimeOfDay;
use super::{Calendar, CalendarUnit, Limit, Metric, NoZone, TimeOfDay, Window, Zone};
use crate::domain::{Glob, NanoUsd, Operation};

/// Why a text is no limit, with a form that would be one.
#[derive(Debug, thiserror::Error)]
pub enum NoLimit {
    /// The text has none of the known forms.
    #[error(
        "a limit is written like \"4 concurrent\", \"60 requests per minute\", \"500k tokens per 5 hours\", \
         \"$20 per day\" or \"$100 in total\", not {0:?}"
    )]
    Form(String),
    /// The amount is zero, negative, fractional or too large.
    #[error(
        "the amount of a limit is a whole number from 1 up (500, 20k, 3m) or dollars ($20, $0.50), not {0:?}"
    )]
    Amount(String),
    /// The amount is more than can be counted.
    #[error("the amount of a limit is at most 9223372036854775807, or $9223372036.85, not {0:?}")]
    TooMuch(String),
    /// Calls that are open at the same time are counted at this moment, not over a time.
    #[error(
        "calls that are open at the same time are counted over no time: write \"4 concurrent\" without {0:?}"
    )]
    Concurrent(String),
    /// The metric is unknown.
    #[error("a limit counts \"requests\", \"tokens\", \"concurrent\" calls or dollars (\"$20\"), not {0:?}")]
    Metric(String),
    /// Nothing says over which time.
    #[error(
        "say over which time: \"per minute\", \"per 5 hours\", \"per day\", \"per week\", \"per month\" or \"in total\""
    )]
    NoWindow,
    /// The unit of time is unknown.
    #[error("a limit's time is in seconds, minutes, hours, days, weeks or months, not {0:?}")]
    Unit(String),
    /// Months have no fixed length.
    #[error("months have no fixed length; write \"per month\", which is the calendar's, or a number of days")]
    Months,
    /// The time is zero or too long.
    #[error("a limit's time is a whole number of seconds to weeks, at most {DAYS_MAX} days, not {0:?}")]
    Length(String),
    /// Something stands where nothing is expected.
    #[error(
        "{0:?} is not understood here; after the time come \"from DAY\", \"at 06:00\", \"in Europe/Berlin\", \
         \"on MODEL, MODEL\", \"for generate\" or \"strict\""
    )]
    Word(String),
    /// Something is said twice.
    #[error("{0:?} is said twice")]
    Twice(&'static str),
    /// It goes with days, weeks and months of the calendar alone.
    #[error("{0:?} goes with \"per day\", \"per week\" and \"per month\" alone")]
    NoCalendar(&'static str),
    /// The first day of a week is unknown.
    #[error("a week begins \"from Monday\" or another day of the week, not {0:?}")]
    Weekday(String),
    /// The first day of a month is unknown.
    #[error("a month begins \"from day 15\" or another from 1 to 31, not {0:?}")]
    Day(String),
    /// The time of day cannot be read.
    #[error(transparent)]
    TimeOfDay(#[from] NoTimeOfDay),
    /// The zone is unknown.
    #[error(transparent)]
    Zone(#[from] NoZone),
    /// The list of models is empty.
    #[error("name the models after \"on\": \"on claude-opus-*, claude-sonnet-*\"")]
    NoModels,
    /// The operation is unknown or not counted.
    #[error("a limit is \"for generate\" or \"for embed\", not {0:?}")]
    Operation(String),
    /// What is counted exactly is never estimated.
    #[error("\"strict\" goes with tokens and dollars alone: calls are always counted exactly")]
    Strict,
}

/// More is never counted.
const AMOUNT_MAX: u64 = i64::MAX as u64;
/// A time that is counted from the first use is no longer.
const DAYS_MAX: u32 = u32::MAX / 86_400;

pub(super) const HOUR_S: u64 = 3_600;
pub(super) const UNITS: [(&str, u64); 5] =
    [("week", 604_800), ("day", 86_400), ("hour", HOUR_S), ("minute", 60), ("second", 1)];

pub(super) const WEEKDAYS: [(&str, Weekday); 7] = [
    ("Monday", Weekday::Monday),
    ("Tuesday", Weekday::Tuesday),
    ("Wednesday", Weekday::Wednesday),
    ("Thursday", Weekday::Thursday),
    ("Friday", Weekday::Friday),
    ("Saturday", Weekday::Saturday),
    ("Sunday", Weekday::Sunday),
];

/// Words that end a list of models.
const CLAUSES: [&str; 6] = ["on", "for", "strict", "from", "at", "in"];

impl FromStr for Limit {
    type Err = NoLimit;

    fn from_str(text: &str) -> Result<Self, NoLimit> {
        let mut words = Words(text.split_whitespace().peekable());
        let (metric, amount) = words.amount(text)?;
        let window = words.window(metric)?;
        let mut limit =
            Self { metric, amount, window, models: Vec::new(), operations: Vec::new(), is_strict: false };
        let mut said = Said::default();
        while let Some(word) = words.0.next() {
            words.clause(word, &mut limit, &mut said)?;
        }
        Ok(limit)
    }
}

/// Clauses of the calendar that may be left out, and so cannot be told from their defaults.
#[derive(Default)]
struct Said {
    from: bool,
    at: bool,
}

struct Words<'a, I: Iterator<Item = &'a str>>(Peekable<I>);

impl<'a, I: Iterator<Item = &'a str>> Words<'a, I> {
    /// Passes the next word if it is one of these, whatever its case.
    fn take(&mut self, any: &[&str]) -> bool {
        self.0.next_if(|word| any.iter().any(|wanted| wanted.eq_ignore_ascii_case(word))).is_some()
    }

    fn amount(&mut self, text: &str) -> Result<(Metric, u64), NoLimit> {
        let form = || NoLimit::Form(text.to_owned());
        let amount = self.0.next().ok_or_else(form)?;
        if amount.starts_with('$') {
            return Ok((Metric::Cost, dollars(amount)?));
        }
        let metric = self.0.next().ok_or_else(form)?;
        match metric.to_ascii_lowercase().as_str() {
            "request" | "requests" => Ok((Metric::Requests, count(amount)?)),
            "token" | "tokens" => Ok((Metric::Tokens, count(amount)?)),
            "usd" | "dollar" | "dollars" => Ok((Metric::Cost, dollars(amount)?)),
            "concurrent" => {
                self.take(&["request", "requests", "call", "calls"]);
                Ok((Metric::Concurrent, count(amount)?))
            }
            // "$20" without its sign is a likely slip; so is a metric that was left out.
            _ if count(amount).is_err() => Err(NoLimit::Amount(amount.to_owned())),
            "per" | "in" => Err(form()),
            _ => Err(NoLimit::Metric(metric.to_owned())),
        }
    }

    fn window(&mut self, metric: Metric) -> Result<Window, NoLimit> {
        if metric == Metric::Concurrent {
            return Ok(Window::Now);
        }
        if self.take(&["in"]) {
            return if self.take(&["total"]) { Ok(Window::Lifetime) } else { Err(NoLimit::NoWindow) };
        }
        if !self.take(&["per"]) {
            return Err(NoLimit::NoWindow);
        }
        let is_calendar = self.take(&["calendar"]);
        let word = self.0.next().ok_or(NoLimit::NoWindow)?;
        if word.starts_with(|first: char| first.is_ascii_digit() || first == '-') && !is_calendar {
            let unit = self.0.next().ok_or(NoLimit::NoWindow)?;
            return Ok(Window::Fixed(length(word, unit)?));
        }
        let calendar = |unit| Window::Calendar(Calendar { unit, at: TimeOfDay::default(), zone: None });
        Ok(match word.to_ascii_lowercase().as_str() {
            "hour" if is_calendar => calendar(CalendarUnit::Hour),
            "day" => calendar(CalendarUnit::Day),
            "week" => calendar(CalendarUnit::Week(Weekday::Monday)),
            "month" => calendar(CalendarUnit::Month(1)),
            _ if is_calendar => return Err(NoLimit::Unit(word.to_owned())),
            _ => Window::Fixed(length("1", word)?),
        })
    }

    fn clause(&mut self, word: &str, limit: &mut Limit, said: &mut Said) -> Result<(), NoLimit> {
        match word.to_ascii_lowercase().as_str() {
            "from" => {
                let unit = &mut calendar(limit, "from")?.unit;
                once("from", !std::mem::replace(&mut said.from, true))?;
                self.first_day(unit)
            }
            "at" => {
                let calendar = calendar(limit, "at")?;
                once("at", !std::mem::replace(&mut said.at, true))?;
                calendar.at = self.0.next().ok_or(NoTimeOfDay)?.parse()?;
                if calendar.unit == CalendarUnit::Hour { Err(NoLimit::NoCalendar("at")) } else { Ok(()) }
            }
            "in" => {
                let zone = &mut calendar(limit, "in")?.zone;
                once("in", zone.is_none())?;
                *zone = Some(self.0.next().unwrap_or_default().parse::<Zone>()?);
                Ok(())
            }
            "on" => {
                once("on", limit.models.is_empty())?;
                limit.models = self.list().map(Glob::from).collect();
                if limit.models.is_empty() { Err(NoLimit::NoModels) } else { Ok(()) }
            }
            "for" => {
                once("for", limit.operations.is_empty())?;
                limit.operations = self.list().map(operation).collect::<Result<_, _>>()?;
                if limit.operations.is_empty() { Err(NoLimit::Operation(String::new())) } else { Ok(()) }
            }
            "strict" if limit.metric.is_exact() => Err(NoLimit::Strict),
            "strict" => {
                once("strict", !limit.is_strict)?;
                limit.is_strict = true;
                Ok(())
            }
            "per" | "calendar" if limit.metric == Metric::Concurrent => {
                Err(NoLimit::Concurrent(word.to_owned()))
            }
            "total" if limit.metric == Metric::Concurrent => Err(NoLimit::Concurrent(word.to_owned())),
            _ => Err(NoLimit::Word(word.to_owned())),
        }
    }

    fn first_day(&mut self, unit: &mut CalendarUnit) -> Result<(), NoLimit> {
        let word = self.0.next().unwrap_or_default();
        match unit {
            CalendarUnit::Week(first) => {
                let day = WEEKDAYS.iter().find(|(name, _)| name.eq_ignore_ascii_case(word));
                *first = day.ok_or_else(|| NoLimit::Weekday(word.to_owned()))?.1;
            }
            CalendarUnit::Month(first) if word.eq_ignore_ascii_case("day") => {
                let number = self.0.next().unwrap_or_default();
                let day = number.parse().ok().filter(|day| (1..=31).contains(day));
                *first = day.ok_or_else(|| NoLimit::Day(number.to_owned()))?;
            }
            CalendarUnit::Month(_) => return Err(NoLimit::Day(word.to_owned())),
            CalendarUnit::Hour | CalendarUnit::Day => return Err(NoLimit::NoCalendar("from")),
        }
        Ok(())
    }

    /// The words up to the next clause, parted by commas.
    fn list(&mut self) -> impl Iterator<Item = &'a str> + use<'a, I> {
        let mut items = Vec::new();
        while let Some(word) =
            self.0.next_if(|word| !CLAUSES.iter().any(|end| end.eq_ignore_ascii_case(word)))
        {
            items.extend(word.split(',').filter(|item| !item.is_empty()));
        }
        items.into_iter()
    }
}

fn once(clause: &'static str, is_first: bool) -> Result<(), NoLimit> {
    if is_first { Ok(()) } else { Err(NoLimit::Twice(clause)) }
}

fn calendar<'l>(limit: &'l mut Limit, clause: &'static str) -> Result<&'l mut Calendar, NoLimit> {
    match &mut limit.window {
        Window::Calendar(calendar) => Ok(calendar),
        _ => Err(NoLimit::NoCalendar(clause)),
    }
}

fn operation(name: &str) -> Result<Operation, NoLimit> {
    let counted = [Operation::Generate, Operation::Embed];
    let known = counted.into_iter().find(|operation| operation.name().eq_ignore_ascii_case(name));
    known.ok_or_else(|| NoLimit::Operation(name.to_owned()))
}

/// A whole number, maybe with `k`, `m` or `b` behind it for thousands, millions or billions.
fn count(word: &str) -> Result<u64, NoLimit> {
    let wrong = || NoLimit::Amount(word.to_owned());
    let lower = word.to_ascii_lowercase();
    let (digits, factor) = [("k", 1_000), ("m", 1_000_000), ("b", 1_000_000_000)]
        .into_iter()
        .find_map(|(suffix, factor)| Some((lower.strip_suffix(suffix)?, factor)))
        .unwrap_or((&lower, 1));
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    if digits.is_empty() {
        return Err(wrong());
    }
    // Digits alone make a number, if it is not too large.
    let number: Option<u64> = digits.parse().ok();
    let amount = number.and_then(|number| number.checked_mul(factor)).filter(|amount| *amount <= AMOUNT_MAX);
    match amount.ok_or_else(|| NoLimit::TooMuch(word.to_owned()))? {
        0 => Err(wrong()),
        amount => Ok(amount),
    }
}

fn dollars(word: &str) -> Result<u64, NoLimit> {
    let wrong = || NoLimit::Amount(word.to_owned());
    let is_dear = word.trim_start_matches('$').bytes().take_while(u8::is_ascii_digit).count() > 9;
    let amount: NanoUsd =
        word.parse().map_err(|_| if is_dear { NoLimit::TooMuch(word.to_owned()) } else { wrong() })?;
    u64::try_from(amount.as_nanos()).ok().filter(|amount| *amount > 0).ok_or_else(wrong)
}

fn length(number: &str, unit: &str) -> Result<Duration, NoLimit> {
    let lower = unit.to_ascii_lowercase();
    let singular = lower.strip_suffix('s').unwrap_or(&lower);
    if singular == "month" {
        return Err(NoLimit::Months);
    }
    let (_, seconds) =
        UNITS.iter().find(|(name, _)| *name == singular).ok_or_else(|| NoLimit::Unit(unit.to_owned()))?;
    let total = number.parse::<u64>().ok().and_then(|number| number.checked_mul(*seconds));
    let total = total.filter(|total| (1..=u64::from(u32::MAX)).contains(total));
    total.map(Duration::from_secs).ok_or_else(|| NoLimit::Length(format!("{number} {unit}")))
}
