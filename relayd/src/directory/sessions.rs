//! Which account served a session: a bounded map whose entries age out. It ends with the process; a session
//! that lost its entry is scheduled like a new one.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shared::domain::{AccountId, Timestamp};

use crate::scheduler::affinity::Session;

const SHARDS: usize = 16;

/// Sessions, each with its account and the time of its last use.
type Shard = HashMap<Session, (AccountId, Timestamp), ahash::RandomState>;

/// Sessions with their accounts.
pub struct Sessions {
    shards: [Mutex<Shard>; SHARDS],
    ttl: Duration,
    shard_max: usize,
}

impl Sessions {
    /// Makes an empty map for at most `sessions_max` sessions, each kept for `ttl` after its last use.
    pub fn new(ttl: Duration, sessions_max: usize) -> Self {
        Self { shards: Default::default(), ttl, shard_max: sessions_max.div_ceil(SHARDS) }
    }

    /// The account of a session.
    pub fn get(&self, session: &Session, now: Timestamp) -> Option<AccountId> {
        let shard = self.shard(session);
        shard.get(session).filter(|(_, used)| now.since(*used) < self.ttl).map(|(account, _)| account.clone())
    }

    /// Binds a session to the account that serves it. A new session claims its account only if no other call
    /// of the session did so meanwhile; a session that moves names the account that it leaves.
    pub fn bind(&self, session: &Session, from: Option<&AccountId>, to: &AccountId, now: Timestamp) {
        let mut shard = self.shard(session);
        let live = shard.get(session).filter(|(_, used)| now.since(*used) < self.ttl).map(|(id, _)| id);
        if live.is_some_and(|bound| Some(bound) != from && bound != to) {
            return;
        }
        if shard.len() >= self.shard_max && !shard.contains_key(session) {
            evict(&mut shard, now, self.ttl);
        }
        shard.insert(session.clone(), (to.clone(), now));
    }

    fn shard(&self, session: &Session) -> MutexGuard<'_, Shard> {
        let index = usize::try_from(session.as_u64() % SHARDS as u64).unwrap_or(0);
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes room: drops what has aged out, else the session that was not used for the longest time.
fn evict(shard: &mut Shard, now: Timestamp, ttl: Duration) {
    let before = shard.len();
    shard.retain(|_, (_, used)| now.since(*used) < ttl);
    if shard.len() == before
        && let Some(oldest) =
            shard.iter().min_by_key(|(_, (_, used))| *used).map(|(session, _)| session.clone())
    {
        shard.remove(&oldest);
    }
}

#[cfg(test)]
mod tests {
    use shared::domain::KeyId;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1_000)
    }

    fn session(name: &str) -> Session {
        Session::of(&KeyId::from("key_1"), name)
    }

    #[test]
    fn the_first_claim_wins_and_moves_name_what_they_leave() {
        let sessions = Sessions::new(Duration::from_secs(60), 1_000);
        let (a, b, c) = (AccountId::from("a"), AccountId::from("b"), AccountId::from("c"));
        let s = &session("s");
        sessions.bind(s, None, &a, at(0));
        sessions.bind(s, None, &b, at(1));
        assert_eq!(sessions.get(s, at(1)), Some(a.clone()), "a second claim loses");
        sessions.bind(s, Some(&a), &b, at(2));
        assert_eq!(sessions.get(s, at(2)), Some(b.clone()), "a failover moves the session");
        sessions.bind(s, Some(&a), &c, at(3));
        assert_eq!(sessions.get(s, at(3)), Some(b.clone()), "a move from where it is no more does not");
        assert_eq!(sessions.get(s, at(62)), None, "unused sessions age out");
        sessions.bind(s, None, &c, at(62));
        assert_eq!(sessions.get(s, at(62)), Some(c));
    }

    #[test]
    fn the_map_stays_within_its_bound() {
        let sessions = Sessions::new(Duration::from_secs(60), SHARDS);
        let account = AccountId::from("a");
        for number in 0..1_000 {
            sessions.bind(&session(&number.to_string()), None, &account, at(number));
        }
        let kept: usize = sessions.shards.iter().map(|shard| shard.lock().unwrap().len()).sum();
        assert!(kept <= SHARDS, "{kept}");
    }
}
