//! The account for a call, out of a snapshot: the one that `scheduler::pick` chooses among all candidates, found
//! without looking at each of them in full. Most accounts come after one that was seen already; that takes their
//! figures alone. Only where none can serve the call are all looked at, for the reason.

use std::time::Duration;

use shared::domain::{Operation, Timestamp};

use super::Snapshot;
use super::roster::Member;
use crate::scheduler::{Ask, Candidate, Chosen, NoAccount, Passed, Rank, load, misfit, pick, rank, rule_out};

/// A call that looks for an account.
#[derive(Clone, Copy, Debug)]
pub struct Errand<'a> {
    /// What it needs of the account.
    pub ask: Ask<'a>,
    /// What is to be done.
    pub operation: Operation,
    /// Accounts that it does not go to any more, by position.
    pub passed: &'a [(usize, Passed)],
}

impl Errand<'_> {
    fn passed(&self, position: usize) -> Option<Passed> {
        self.passed.iter().find(|(at, _)| *at == position).map(|(_, passed)| *passed)
    }
}

impl Snapshot {
    /// What the scheduler sees of an account for a call.
    pub fn candidate(&self, position: usize, errand: &Errand<'_>) -> Candidate<'_> {
        let seen = self.accounts[position].candidate(errand.operation, errand.ask.protocol, errand.ask.model);
        Candidate { passed: errand.passed(position), ..seen }
    }

    /// Chooses the account for a call. Gives its position.
    ///
    /// # Errors
    ///
    /// None can serve it, for this reason.
    pub fn choose(&self, errand: &Errand<'_>) -> Result<(usize, Chosen), NoAccount> {
        let can_serve = |&at: &usize| rule_out(&self.candidate(at, errand), &errand.ask).is_none();
        if let Some(position) = errand.ask.affinity.filter(can_serve) {
            return Ok((position, Chosen::Affinity));
        }
        let mut contest = Contest { snapshot: self, errand, first: None };
        match errand.ask.key.accounts.as_slice() {
            [] => self.roster.alike().for_each(|alike| contest.run(alike)),
            bound => {
                let positions = bound.iter().filter_map(|id| self.position(id));
                positions.for_each(|at| contest.run(std::slice::from_ref(self.roster.member(at))));
            }
        }
        match contest.first {
            Some((_, position)) => Ok((position, Chosen::Order)),
            None => pick((0..self.accounts.len()).map(|at| self.candidate(at, errand)), &errand.ask),
        }
    }
}

/// Who comes first of those that were seen.
struct Contest<'a> {
    snapshot: &'a Snapshot,
    errand: &'a Errand<'a>,
    first: Option<(Rank, usize)>,
}

/// What an account at its best has to come before: one of a better priority does, of the same by load, last use and
/// position. Less to compare than ranks, for what is done a thousand times in a call.
#[derive(Clone, Copy)]
struct Bar {
    priority: u8,
    standing: (u64, Timestamp, usize),
}

impl Contest<'_> {
    /// Sees accounts that serve the same calls, in order of priority. Whether they serve this one is looked at when
    /// it begins to matter.
    fn run(&mut self, alike: &[Member]) {
        let seats = &self.snapshot.roster.seats;
        let mut bar = self.bar();
        let mut fits = None;
        for member in alike {
            if member.priority > bar.priority {
                return;
            }
            let figures = seats.figures(member.seat);
            let load = load(figures.in_flight(), member.weight);
            let standing = (load, figures.last_used(), member.position());
            if member.priority == bar.priority && standing >= bar.standing {
                continue;
            }
            if !*fits.get_or_insert_with(|| self.fits(member)) {
                return;
            }
            self.enter(member, (member.priority, Duration::ZERO, load, standing.1));
            bar = self.bar();
        }
    }

    fn bar(&self) -> Bar {
        let last = (u64::MAX, Timestamp::from_millis(i64::MAX), usize::MAX);
        match self.first {
            None => Bar { priority: u8::MAX, standing: last },
            // One that delays calls comes after any that may not.
            Some(((priority, delay, ..), _)) if !delay.is_zero() => Bar { priority, standing: last },
            Some(((priority, _, load, last_used), at)) => Bar { priority, standing: (load, last_used, at) },
        }
    }

    /// Puts an account that fits the call first, if it is.
    fn enter(&mut self, member: &Member, at_best: Rank) {
        if let Some(rank) = self.rank(member, at_best)
            && self.first.is_none_or(|first| (rank, member.position()) < first)
        {
            self.first = Some((rank, member.position()));
        }
    }

    fn fits(&self, member: &Member) -> bool {
        let entry = &self.snapshot.accounts[member.position()];
        let speaks = entry.speaks(self.errand.operation, self.errand.ask.protocol);
        misfit(&entry.account, speaks, &self.errand.ask).is_none()
    }

    /// Where an account stands that fits the call, if nothing rules it out.
    fn rank(&self, member: &Member, at_best: Rank) -> Option<Rank> {
        let Self { snapshot, errand, .. } = self;
        if member.is_open && !snapshot.roster.seats.may_rest(member.seat, errand.ask.now) {
            return errand.passed(member.position()).is_none().then_some(at_best);
        }
        let candidate = snapshot.candidate(member.position(), errand);
        rule_out(&candidate, &errand.ask).is_none().then(|| rank(&candidate))
    }
}

#[cfg(test)]
mod tests;
