//! Reservations and standings: from the store's words to scripts' arguments, and back from their replies.

use std::str::FromStr;

use redis::Cmd;
use shared::domain::{RequestId, Timestamp};

use super::ends::{self, HoldEnd};
use super::link::LinkError;
use super::name;
use super::script::Script;
use crate::store::memory::HeldGroup;
use crate::store::{
    CounterAsk, GroupAsk, GroupId, Held, Refusal, Reservation, Span, Standing, Verdict, WindowRule,
};

/// Counters go no higher: the server adds in 63 bits. Amounts beyond are beyond any limit.
const AMOUNT_MAX: u64 = i64::MAX as u64;

/// Whose clock says which window runs and which holds have lapsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TimeSource {
    /// The server's.
    Server,
    /// The caller's: for tests that set it.
    #[cfg_attr(not(test), expect(dead_code, reason = "only tests set the time"))]
    Caller,
}

impl TimeSource {
    pub(super) fn add_to(self, now: Timestamp, command: &mut Cmd) {
        match self {
            Self::Server => command.arg(""),
            Self::Caller => command.arg(now.as_millis()),
        };
    }
}

/// Asks for a reservation. `ends` are those of each group, which come first.
pub(super) fn reserve(
    reservation: &Reservation<'_>,
    turn: u64,
    ends: &[Vec<HoldEnd>],
    time: TimeSource,
) -> Cmd {
    let &Reservation { request, now, lapses_at, groups } = reservation;
    let mut command = Script::Reserve.call(keys(groups.iter().map(|ask| ask.group)));
    time.add_to(now, &mut command);
    command.arg(life_ms(now, lapses_at)).arg(&request.as_u128().to_be_bytes()).arg(turn);
    for (GroupAsk { counters, .. }, ends) in groups.iter().zip(ends) {
        ends::add_all(ends, &mut command);
        command.arg("j").arg(counters.len());
        for CounterAsk { counter, window, amount, limit } in *counters {
            command.arg(counter.as_str());
            add_window(*window, &mut command);
            command.arg(amount.min(&AMOUNT_MAX)).arg(limit.min(&AMOUNT_MAX));
        }
    }
    command
}

/// Holds again what a request holds in a group, for as long as holds live, in place of what the server has of it.
pub(super) fn hold_again(held: &HeldGroup, life_ms: u64, turn: u64, time: TimeSource) -> Cmd {
    let mut command = Script::Reserve.call(keys([&held.group]));
    let life = i64::try_from(life_ms).unwrap_or(i64::MAX);
    let held_at = held.lapses_at.as_millis().saturating_sub(life);
    time.add_to(Timestamp::from_millis(held_at), &mut command);
    command.arg(life_ms).arg(&held.request.as_u128().to_be_bytes()).arg(turn);
    ends::add_all(&[], &mut command);
    command.arg("f").arg(held.amounts.len());
    for amount in &held.amounts {
        command.arg(amount.counter.as_str());
        let window = match (amount.is_lease, amount.span) {
            (true, _) => WindowRule::Now,
            (false, Span { end: None, .. }) => WindowRule::Lifetime,
            (false, span) => WindowRule::Calendar(span),
        };
        add_window(window, &mut command);
        command.arg(amount.amount.min(AMOUNT_MAX)).arg(AMOUNT_MAX);
    }
    command
}

/// Lets holds of a group live from now until then.
pub(super) fn renew(
    group: &GroupId,
    requests: &[RequestId],
    (now, until): (Timestamp, Timestamp),
    time: TimeSource,
) -> Cmd {
    let mut command = Script::Renew.call(keys([group]));
    time.add_to(now, &mut command);
    command.arg(life_ms(now, until));
    for request in requests {
        command.arg(&request.as_u128().to_be_bytes());
    }
    command
}

/// Carries out what ends in a group.
pub(super) fn carry_out(group: &GroupId, ends: &[HoldEnd], time: TimeSource) -> Cmd {
    standings(group, &[], Timestamp::default(), ends, time)
}

/// Asks where counters of a group stand, and carries out what ends there.
pub(super) fn standings(
    group: &GroupId,
    counters: &[CounterAsk],
    now: Timestamp,
    ends: &[HoldEnd],
    time: TimeSource,
) -> Cmd {
    let mut command = Script::Standings.call(keys([group]));
    time.add_to(now, &mut command);
    ends::add_all(ends, &mut command);
    for CounterAsk { counter, window, .. } in counters {
        let (kind, start) = match window {
            WindowRule::Now => ("n", String::new()),
            WindowRule::Fixed(_) => ("f", String::new()),
            WindowRule::Calendar(span) => ("c", span.start.as_millis().to_string()),
            WindowRule::Lifetime => ("l", String::new()),
        };
        command.arg(counter.as_str()).arg(kind).arg(start);
    }
    command
}

/// Reads what [`Script::Reserve`] said.
pub(super) fn verdict(reservation: &Reservation<'_>, reply: &[String]) -> Result<Verdict, LinkError> {
    let (first, rest) = reply.split_first().ok_or(LinkError::Unexpected)?;
    let refused: usize = parse(first)?;
    let all =
        || reservation.groups.iter().flat_map(|ask| ask.counters.iter().map(|counter| (ask.group, counter)));
    if let Some(place) = refused.checked_sub(1) {
        let (group, ask) = all().nth(place).ok_or(LinkError::Unexpected)?;
        let standing = standing(rest, ask.window)?;
        return Ok(Verdict::Refused(Refusal { group: group.clone(), ask: ask.clone(), standing }));
    }
    let mut replies = rest.chunks_exact(4);
    let mut held = Vec::with_capacity(replies.len());
    for GroupAsk { group, counters } in reservation.groups {
        for (place, ask) in counters.iter().enumerate() {
            let is_again = counters[..place].iter().any(|earlier| earlier.counter == ask.counter);
            if is_again || ask.window == WindowRule::Now {
                continue;
            }
            let same = counters.iter().filter(|other| other.counter == ask.counter);
            let amount = same.map(|other| other.amount).max().unwrap_or_default();
            let reply = replies.next().ok_or(LinkError::Unexpected)?;
            held.push(Held {
                group: (*group).clone(),
                counter: ask.counter.clone(),
                span: span(&reply[0], &reply[1])?,
                amount,
                standing: standing(reply, ask.window)?,
            });
        }
    }
    Ok(Verdict::Admitted(held))
}

/// Reads what [`Script::Standings`] said.
pub(super) fn all_standings(counters: &[CounterAsk], reply: &[String]) -> Result<Vec<Standing>, LinkError> {
    let replies = reply.chunks_exact(4);
    if replies.len() != counters.len() {
        return Err(LinkError::Unexpected);
    }
    counters.iter().zip(replies).map(|(ask, reply)| standing(reply, ask.window)).collect()
}

pub(super) fn span(start: &str, end: &str) -> Result<Span, LinkError> {
    let time = |text: &str| Ok::<_, LinkError>(Timestamp::from_millis(parse(text)?));
    let end = if end.is_empty() { None } else { Some(time(end)?) };
    Ok(Span { start: time(start)?, end })
}

/// The end of a window as scripts know it: nothing where it has none.
pub(super) fn end_text(end: Option<Timestamp>) -> String {
    end.map_or_else(String::new, |end| end.as_millis().to_string())
}

pub(super) fn parse<T: FromStr>(text: &str) -> Result<T, LinkError> {
    text.parse().map_err(|_| LinkError::Unexpected)
}

/// From start, end, booked and held. Where no window is in force the start is missing.
fn standing(reply: &[String], window: WindowRule) -> Result<Standing, LinkError> {
    let [start, end, booked, held] = reply else { return Err(LinkError::Unexpected) };
    if start.is_empty() {
        return Ok(Standing { resets_at: window.known_end(), ..Standing::default() });
    }
    Ok(Standing { booked: parse(booked)?, held: parse(held)?, resets_at: span(start, end)?.end })
}

/// How long from now until then, in milliseconds.
pub(super) fn life_ms(now: Timestamp, until: Timestamp) -> u64 {
    u64::try_from(until.since(now).as_millis()).unwrap_or(u64::MAX)
}

fn keys<'a>(groups: impl IntoIterator<Item = &'a GroupId>) -> Vec<String> {
    groups.into_iter().flat_map(name::group).collect()
}

fn add_window(window: WindowRule, command: &mut Cmd) {
    match window {
        WindowRule::Now => command.arg("n").arg("").arg(""),
        WindowRule::Fixed(length) => {
            command.arg("f").arg(u64::try_from(length.as_millis()).unwrap_or(u64::MAX)).arg("")
        }
        WindowRule::Calendar(Span { start, end }) => {
            command.arg("c").arg(start.as_millis()).arg(end_text(end))
        }
        WindowRule::Lifetime => command.arg("l").arg("").arg(""),
    };
}
