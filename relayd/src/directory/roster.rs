//! Accounts as a choice among them runs over them: what is settled of each in a few bytes. Those that serve the same
//! calls stand together, the preferred first, so that most are passed over without a look.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use shared::domain::{AccountKind, Glob};

use super::AccountEntry;
use super::seats::Seats;

/// What is settled of an account, until its record changes.
#[derive(Clone, Copy)]
pub(super) struct Member {
    position: u32,
    pub(super) seat: u32,
    pub(super) priority: u8,
    pub(super) weight: u8,
    /// Nothing in its record keeps a call from it that it serves: it is not paused, and keeps no gap.
    pub(super) is_open: bool,
}

impl Member {
    fn of(entry: &AccountEntry, position: u32) -> Self {
        let account = &entry.account;
        Self {
            position,
            seat: entry.state.seat(),
            priority: account.priority,
            weight: account.weight,
            is_open: !account.paused && account.gap_ms == 0,
        }
    }

    /// Its position in the snapshot.
    pub(super) const fn position(&self) -> usize {
        self.position as usize
    }
}

/// What accounts have in common of which one serves all calls that the others serve: kind, models, map of models.
type Offer<'a> = (AccountKind, &'a [Glob], &'a BTreeMap<String, String>);

/// All accounts of a snapshot.
#[derive(Clone, Default)]
pub(super) struct Roster {
    pub(super) seats: Seats,
    /// By position.
    members: Vec<Member>,
    /// Those that are not paused, by offer, then by priority.
    lined_up: Vec<Member>,
    /// Where each offer begins and ends among them.
    alike: Vec<Range<usize>>,
}

impl Roster {
    /// Makes it of accounts, all of which have a seat among these.
    pub(super) fn new(seats: Seats, accounts: &[Arc<AccountEntry>]) -> Self {
        let mut roster = Self { seats, ..Self::default() };
        let mut offers: HashMap<Offer<'_>, usize, ahash::RandomState> = HashMap::default();
        let mut groups: Vec<Vec<Member>> = Vec::new();
        for (entry, position) in accounts.iter().zip(0..) {
            let (account, member) = (&entry.account, Member::of(entry, position));
            roster.members.push(member);
            if account.paused {
                continue;
            }
            let offer = (account.kind, account.models.as_slice(), &account.model_map);
            let group = *offers.entry(offer).or_insert(groups.len());
            if group == groups.len() {
                groups.push(Vec::new());
            }
            groups[group].push(member);
        }
        for mut group in groups {
            group.sort_by_key(|member| member.priority);
            let begin = roster.lined_up.len();
            roster.lined_up.extend(group);
            roster.alike.push(begin..roster.lined_up.len());
        }
        roster
    }

    /// The account at a position.
    pub(super) fn member(&self, position: usize) -> &Member {
        &self.members[position]
    }

    /// Those that are not paused: each time those that serve the same calls, in order of priority.
    pub(super) fn alike(&self) -> impl Iterator<Item = &[Member]> {
        self.alike.iter().map(|range| &self.lined_up[range.clone()])
    }
}
