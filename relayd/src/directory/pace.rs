//! Keeps the starts of an account's calls apart: a line in the order of arrival, of which the first starts when the
//! gap after the last start has passed. Whoever leaves the line takes no time with it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// The line of one account.
#[derive(Default)]
pub struct Pace(Mutex<Line>);

#[derive(Default)]
struct Line {
    tickets: u64,
    last_start: Option<Instant>,
    waiting: VecDeque<(u64, Arc<Notify>)>,
}

/// The call would wait longer than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

impl Pace {
    /// How many calls are in the line.
    pub fn waiting(&self) -> usize {
        self.locked().waiting.len()
    }

    /// How long a call that comes now would wait for its start, if nobody leaves the line.
    pub(super) fn delay(&self, gap: Duration) -> Duration {
        self.locked().delay(gap, Instant::now())
    }

    /// Joins the end of the line.
    pub(super) fn line_up(self: &Arc<Self>, gap: Duration, delay_max: Duration) -> Result<Turn, TooLong> {
        let mut line = self.locked();
        if line.delay(gap, Instant::now()) > delay_max {
            return Err(TooLong);
        }
        line.tickets += 1;
        let (ticket, wake) = (line.tickets, Arc::new(Notify::new()));
        line.waiting.push_back((ticket, wake.clone()));
        Ok(Turn { pace: self.clone(), ticket, wake, gap })
    }

    /// Every change under the lock is whole before anything could panic.
    fn locked(&self) -> MutexGuard<'_, Line> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    fn next_start(&self, gap: Duration, now: Instant) -> Instant {
        self.last_start.map_or(now, |last| last + gap).max(now)
    }

    fn delay(&self, gap: Duration, now: Instant) -> Duration {
        let before = u32::try_from(self.waiting.len()).unwrap_or(u32::MAX);
        (self.next_start(gap, now) - now).saturating_add(gap.saturating_mul(before))
    }

    fn is_first(&self, ticket: u64) -> bool {
        self.waiting.front().is_some_and(|(first, _)| *first == ticket)
    }
}

/// A call's place in the line. Dropping it makes way for the next.
pub struct Turn {
    pace: Arc<Pace>,
    ticket: u64,
    wake: Arc<Notify>,
    gap: Duration,
}

enum Step {
    Started,
    /// Not before then.
    Early(Instant),
    /// Others come first.
    Behind,
}

impl Turn {
    /// Waits for the call's turn, and starts it.
    pub async fn start(self) {
        loop {
            match self.step(Instant::now()) {
                Step::Started => return,
                Step::Early(start) => sleep_until(start).await,
                Step::Behind => self.wake.notified().await,
            }
        }
    }

    fn step(&self, now: Instant) -> Step {
        let mut line = self.pace.locked();
        if !line.is_first(self.ticket) {
            return Step::Behind;
        }
        match line.next_start(self.gap, now) {
            start if start > now => Step::Early(start),
            _ => {
                line.last_start = Some(now);
                Step::Started
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut line = self.pace.locked();
        let was_first = line.is_first(self.ticket);
        line.waiting.retain(|(ticket, _)| *ticket != self.ticket);
        let next = line.waiting.front().filter(|_| was_first).map(|(_, wake)| wake.clone());
        drop(line);
        if let Some(next) = next {
            next.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    const GAP: Duration = Duration::from_secs(10);

    fn line_up(pace: &Arc<Pace>, delay_max: u64) -> Result<Turn, TooLong> {
        pace.line_up(GAP, Duration::from_secs(delay_max))
    }

    fn is_woken(turn: &Turn) -> bool {
        pin!(turn.wake.notified()).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    fn seconds(pace: &Pace) -> u128 {
        // What has passed since the last start is less than a second.
        pace.delay(GAP).as_millis().div_ceil(1_000)
    }

    #[test]
    fn starts_are_kept_apart_in_the_order_of_arrival() {
        let pace = Arc::new(Pace::default());
        let begin = Instant::now();
        assert_eq!(seconds(&pace), 0);
        let turns: Vec<Turn> = (0..3).map(|_| line_up(&pace, 20).unwrap()).collect();
        assert!(matches!(line_up(&pace, 20), Err(TooLong)), "the fourth would wait for 30 seconds");
        assert!(matches!(turns[1].step(begin), Step::Behind));
        assert!(matches!(turns[0].step(begin), Step::Started));
        let [first, second, third] = <[Turn; 3]>::try_from(turns).ok().unwrap();
        drop(first);
        assert!(is_woken(&second) && !is_woken(&third));
        assert!(matches!(second.step(begin + GAP / 2), Step::Early(at) if at == begin + GAP));
        assert!(matches!(third.step(begin + GAP), Step::Behind));
        assert!(matches!(second.step(begin + GAP + GAP / 2), Step::Started), "late is not early");
        drop(second);
        assert!(matches!(third.step(begin + 2 * GAP), Step::Early(at) if at == begin + 2 * GAP + GAP / 2));
    }

    #[test]
    fn whoever_leaves_takes_no_time_with_it() {
        let pace = Arc::new(Pace::default());
        assert!(matches!(line_up(&pace, 0).unwrap().step(Instant::now()), Step::Started));
        let turns: Vec<Turn> = (0..4).map(|_| line_up(&pace, 60).unwrap()).collect();
        assert_eq!((seconds(&pace), pace.waiting()), (50, 4));
        let [first, second, third, fourth] = <[Turn; 4]>::try_from(turns).ok().unwrap();
        drop(second);
        assert!(!is_woken(&third));
        assert_eq!(seconds(&pace), 40);
        drop(first);
        assert!(is_woken(&third) && !is_woken(&fourth));
        drop((third, fourth));
        assert_eq!((seconds(&pace), pace.waiting()), (10, 0));
    }
}
