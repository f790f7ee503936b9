//! Whether a call waits when a limit of concurrency has no room for it: `off`, or `20:30s` for at most twenty calls
//! that wait at most thirty seconds each.

use std::fmt;
use std::str::FromStr;

use super::Delay;
use super::text::json_by_text;

/// How many calls may wait for the same limits, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueBounds {
    /// Calls that wait at the same time, at least one.
    pub size_max: u32,
    /// How long each of them waits.
    pub wait: Delay,
}

impl QueueBounds {
    /// More calls than this never wait for the same limits.
    pub const SIZE_MAX: u32 = 100_000;
}

/// What a key has in place of the configuration's queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyQueue {
    /// Its calls never wait: they are refused at once.
    Off,
    /// Its calls wait within these bounds.
    Own(QueueBounds),
}

impl fmt::Display for KeyQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Own(QueueBounds { size_max, wait }) => write!(f, "{size_max}:{wait}"),
        }
    }
}

/// The text says nothing of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a queue is written like 20:30s, for 20 calls that wait 30 seconds at most, or off; it has 1 to {} calls and waits \
     an hour at most",
    QueueBounds::SIZE_MAX
)]
pub struct NoQueue;

impl FromStr for KeyQueue {
    type Err = NoQueue;

    fn from_str(text: &str) -> Result<Self, NoQueue> {
        if text == "off" {
            return Ok(Self::Off);
        }
        let (size, wait) = text.split_once(':').ok_or(NoQueue)?;
        let is_number = size.bytes().all(|byte| byte.is_ascii_digit());
        let size_max =
            size.parse().ok().filter(|size| is_number && (1..=QueueBounds::SIZE_MAX).contains(size));
        let wait: Delay = wait.parse().map_err(|_| NoQueue)?;
        match size_max {
            Some(size_max) if !wait.is_zero() => Ok(Self::Own(QueueBounds { size_max, wait })),
            _ => Err(NoQueue),
        }
    }
}

json_by_text!(KeyQueue);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_are_written_as_size_and_wait() {
        for (text, printed) in
            [("off", "off"), ("20:30s", "20:30s"), ("1:500ms", "1:500ms"), ("100000:60m", "100000:1h")]
        {
            let queue: KeyQueue = text.parse().unwrap();
            assert_eq!(queue.to_string(), printed);
            let json = serde_json::to_string(&queue).unwrap();
            assert_eq!(serde_json::from_str::<KeyQueue>(&json).unwrap(), queue);
        }
        for wrong in ["", "on", "20", "20:", ":30s", "0:30s", "+1:30s", "100001:1s", "20:0s", "20:2h"] {
            assert_eq!(wrong.parse::<KeyQueue>(), Err(NoQueue), "{wrong:?}");
        }
    }
}
