//! Any sequence of operations against a model that adds everything up anew whenever it is asked.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::{
    CONCURRENT, Counter, Holds, IN_TOTAL, LAPSE_MS, PER_MINUTE, Subject, ask, at, booking, closed, entry,
    request_id,
};
use crate::store::{CounterAsk, Entry, Held, Verdict};

const GROUPS: [&str; 2] = ["key:a", "account:b"];
const COUNTERS: [(Counter, u64); 3] = [(PER_MINUTE, 3), (IN_TOTAL, 12), (CONCURRENT, 2)];
const MINUTE_MS: i64 = 60_000;

#[derive(Clone, Debug)]
enum Operation {
    /// A new call asks the groups whose bits are set.
    Reserve(u8),
    /// An open call asks a group that it did not ask yet.
    AskMore(usize, usize),
    Release(usize, usize),
    GiveBack(usize, usize),
    Close(usize),
    /// Applies some of what was closed, after some of what was applied before.
    Apply(usize, usize),
    Advance(i64),
    Renew,
    /// The process dies; what it left open is closed from the journal by the next.
    Reopen,
}

fn operation() -> impl Strategy<Value = Operation> {
    let open = 0..6_usize;
    prop_oneof![
        6 => (1..4_u8).prop_map(Operation::Reserve),
        1 => (open.clone(), 0..2_usize).prop_map(|(call, group)| Operation::AskMore(call, group)),
        2 => (open.clone(), 0..2_usize).prop_map(|(call, group)| Operation::Release(call, group)),
        1 => (open.clone(), 0..2_usize).prop_map(|(call, group)| Operation::GiveBack(call, group)),
        4 => open.prop_map(Operation::Close),
        2 => (0..5_usize, 0..4_usize).prop_map(|(again, new)| Operation::Apply(again, new)),
        2 => (0..50_000_i64).prop_map(Operation::Advance),
        1 => Just(Operation::Renew),
        1 => Just(Operation::Reopen),
    ]
}

#[derive(Debug)]
struct Hold {
    request: u64,
    group: usize,
    counter: Counter,
    window: i64,
    lapses_at: i64,
}

#[derive(Default)]
struct Model {
    now: i64,
    renewed_until: i64,
    requests: u64,
    holds: Vec<Hold>,
    /// The windows that run, and what is booked for good.
    windows: BTreeMap<(usize, &'static str), i64>,
    booked: BTreeMap<(usize, &'static str), (i64, u64)>,
    /// Calls that are open, with what they will book.
    open: Vec<(u64, Vec<Held>)>,
    journal: Vec<Entry>,
    applied: usize,
}

impl Model {
    fn lapse(&mut self) {
        let (now, renewed_until) = (self.now, self.renewed_until);
        self.holds.retain(|hold| hold.lapses_at.max(renewed_until) > now);
    }

    fn running(&self, group: usize, counter: Counter) -> Option<i64> {
        let start = *self.windows.get(&(group, counter.0))?;
        (counter != PER_MINUTE || self.now < start + MINUTE_MS).then_some(start)
    }

    fn sums(&self, group: usize, counter: Counter) -> (u64, u64) {
        let Some(window) = self.running(group, counter) else { return (0, 0) };
        let booked = self.booked.get(&(group, counter.0)).filter(|(start, _)| *start == window);
        let held = self
            .holds
            .iter()
            .filter(|hold| (hold.group, hold.counter, hold.window) == (group, counter, window));
        (booked.map_or(0, |(_, amount)| *amount), held.count() as u64)
    }

    fn fits(&self, group: usize) -> bool {
        COUNTERS.iter().all(|&(counter, limit)| {
            let (booked, held) = self.sums(group, counter);
            booked + held < limit
        })
    }

    fn hold(&mut self, request: u64, group: usize) {
        for (counter, _) in COUNTERS {
            let start = if counter == PER_MINUTE { self.now } else { 0 };
            let window = self.running(group, counter).unwrap_or(start);
            self.windows.insert((group, counter.0), window);
            self.holds.push(Hold { request, group, counter, window, lapses_at: self.now + LAPSE_MS });
        }
    }

    fn close(&mut self, call: (u64, Vec<Held>)) {
        let (request, held) = call;
        let lane = u32::try_from(request % 2).unwrap();
        let sequence = 1 + self.journal.iter().filter(|entry| entry.mark.lane == lane).count() as u64;
        let row = closed(request_id(request), held.iter().map(booking).collect());
        self.journal.push(entry(lane, sequence, row));
    }

    fn apply(&mut self, new: usize) {
        let upto = self.applied.saturating_add(new).min(self.journal.len());
        for Entry { closed, .. } in &self.journal[self.applied..upto] {
            self.holds.retain(|hold| request_id(hold.request) != closed.request);
            for booking in &closed.bookings {
                let group = GROUPS.iter().position(|name| *name == booking.group.as_str()).unwrap();
                let mut names = COUNTERS.iter().map(|(known, _)| known.0);
                let name = names.find(|name| *name == booking.counter.as_str()).unwrap();
                let place = (group, name);
                let window = booking.span.start.as_millis();
                let booked = self.booked.entry(place).or_insert((window, 0));
                if booked.0 < window {
                    *booked = (window, 0);
                }
                booked.1 += if booked.0 == window { booking.amount } else { 0 };
                let running = self.windows.entry(place).or_insert(booked.0);
                *running = (*running).max(booked.0);
            }
        }
        self.applied = upto;
    }
}

struct Run<'a> {
    subject: &'a mut Subject,
    model: Model,
}

impl Run<'_> {
    fn step(&mut self, operation: &Operation) {
        self.model.lapse();
        match *operation {
            Operation::Reserve(groups) => {
                self.model.requests += 1;
                let request = self.model.requests;
                let groups: Vec<usize> = (0..2).filter(|group| groups & (1 << group) != 0).collect();
                let held = self.ask(request, &groups);
                self.model.open.extend(held.map(|held| (request, held)));
            }
            Operation::AskMore(call, group) => self.ask_more(call, group),
            Operation::Release(call, group) => {
                let Some(&(request, _)) = self.model.open.get(call) else { return };
                self.subject.release(request, GROUPS[group]);
                self.model
                    .holds
                    .retain(|hold| (hold.request, hold.group, hold.counter) != (request, group, CONCURRENT));
            }
            Operation::GiveBack(call, group) => {
                let Some((request, held)) = self.model.open.get_mut(call) else { return };
                self.subject.give_back(*request, GROUPS[group]);
                held.retain(|held| held.group.as_str() != GROUPS[group]);
                self.model.holds.retain(|hold| (hold.request, hold.group) != (*request, group));
            }
            Operation::Close(call) if call < self.model.open.len() => {
                let call = self.model.open.swap_remove(call);
                self.model.close(call);
            }
            Operation::Close(_) => {}
            Operation::Apply(again, new) => self.apply(again, new),
            Operation::Advance(by) => self.model.now += by,
            Operation::Renew => {
                self.model.renewed_until = self.model.now + LAPSE_MS;
                let (now, until) = (at(self.model.now), at(self.model.renewed_until));
                self.subject.wait(self.subject.store().renew_holds(now, until)).unwrap();
            }
            Operation::Reopen => self.reopen(),
        }
    }

    /// What was held, if the store admits the call; it must do as the model does.
    fn ask(&mut self, request: u64, groups: &[usize]) -> Option<Vec<Held>> {
        let asks: Vec<CounterAsk> = COUNTERS.map(|(counter, limit)| ask(counter, limit)).into();
        let named: Vec<(&str, &[CounterAsk])> =
            groups.iter().map(|&group| (GROUPS[group], asks.as_slice())).collect();
        let verdict = self.subject.reserve(request, self.model.now, &named);
        let fits = groups.iter().all(|&group| self.model.fits(group));
        match verdict {
            Verdict::Admitted(held) => {
                assert!(fits, "{held:?}");
                groups.iter().for_each(|&group| self.model.hold(request, group));
                Some(held)
            }
            Verdict::Refused(refusal) => {
                assert!(!fits, "{refusal:?}");
                None
            }
        }
    }

    fn ask_more(&mut self, call: usize, group: usize) {
        let Some(&(request, ref held)) = self.model.open.get(call) else { return };
        if held.iter().any(|held| held.group.as_str() == GROUPS[group]) {
            return;
        }
        if let Some(more) = self.ask(request, &[group]) {
            self.model.open[call].1.extend(more);
        }
    }

    fn apply(&mut self, again: usize, new: usize) {
        let from = self.model.applied.saturating_sub(again);
        self.model.apply(new);
        self.subject.apply(&self.model.journal[from..self.model.applied]);
    }

    fn reopen(&mut self) {
        self.subject.reopen();
        self.model.renewed_until = 0;
        if self.subject.holds == Holds::EndWithIt {
            self.model.holds.clear();
            let booked = self.model.booked.iter();
            self.model.windows = booked.map(|(place, (window, _))| (*place, *window)).collect();
        }
        for call in std::mem::take(&mut self.model.open) {
            self.model.close(call);
        }
        self.apply(0, usize::MAX);
    }

    fn check(&mut self) {
        self.model.lapse();
        for (group, name) in GROUPS.iter().enumerate() {
            for (counter, _) in COUNTERS {
                let sums = self.subject.sums(name, counter, self.model.now);
                assert_eq!(sums, self.model.sums(group, counter), "{name} {counter:?}");
            }
        }
    }
}

pub(in crate::store) fn any_sequence_of_operations_agrees_with_the_model(subject: &mut Subject) {
    let config = Config { cases: 48, failure_persistence: None, ..Config::default() };
    let sequences = proptest::collection::vec(operation(), 1..80);
    let subject = std::cell::RefCell::new(subject);
    let sequence = TestRunner::new(config).run(&sequences, |operations| {
        let subject = &mut **subject.borrow_mut();
        subject.start_afresh();
        let mut run = Run { subject, model: Model::default() };
        for operation in &operations {
            run.step(operation);
            run.check();
        }
        while let Some(call) = run.model.open.pop() {
            run.model.close(call);
        }
        run.apply(3, usize::MAX);
        run.check();
        for group in GROUPS {
            for (counter, _) in COUNTERS {
                prop_assert_eq!(run.subject.sums(group, counter, run.model.now).1, 0, "a hold leaked");
            }
        }
        Ok(())
    });
    sequence.unwrap();
}
