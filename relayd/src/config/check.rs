//! What must be true of a configuration beyond the kinds of its values.

use shared::domain::{Delay, QueueBounds};

use super::Config;

/// What is wrong with a value, wherever it was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    /// It is not within `least..=most`.
    OutOfBounds { key: &'static str, value: u64, least: u64, most: u64 },
    /// It is greater than another.
    Exceeds { key: &'static str, value: u64, bound_key: &'static str, bound: u64 },
    /// It breaks another rule.
    Rule { key: &'static str, rule: &'static str },
}

const SECOND_MS: u64 = 1_000;
const HOUR_MS: u64 = 3_600 * SECOND_MS;
const DAY_MS: u64 = 24 * HOUR_MS;
const MONTH_S: u64 = 30 * 24 * 3_600;
const CENTURY_DAYS: u64 = 36_500;
const KIB: u64 = 1_024;
const MIB: u64 = 1_024 * KIB;
const GIB: u64 = 1_024 * MIB;
const TIB: u64 = 1_024 * GIB;

/// Finds the first thing that is wrong.
pub(super) fn check(config: &Config) -> Result<(), Wrong> {
    let bounds = numbers(config)
        .into_iter()
        .find(|&(_, value, least, most)| !(least..=most).contains(&value))
        .map(|(key, value, least, most)| Wrong::OutOfBounds { key, value, least, most });
    let order = || {
        ordered(config)
            .into_iter()
            .find(|&(_, value, _, bound)| value > bound)
            .map(|(key, value, bound_key, bound)| Wrong::Exceeds { key, value, bound_key, bound })
    };
    let rules = || {
        rules(config)
            .into_iter()
            .find(|&(_, is_kept, _)| !is_kept)
            .map(|(key, _, rule)| Wrong::Rule { key, rule })
    };
    bounds.or_else(order).or_else(rules).map_or(Ok(()), Err)
}

/// A number with its least and most.
type Bounded = (&'static str, u64, u64, u64);

/// Every number of the configuration.
pub(super) fn numbers(config: &Config) -> Vec<Bounded> {
    [
        server(config).as_slice(),
        &calls(config),
        &rests(config),
        &waits(config),
        &records(config),
        &store(config),
    ]
    .concat()
}

fn server(config: &Config) -> [Bounded; 11] {
    let (server, auth) = (&config.server, &config.auth);
    [
        ("server.workers", size(server.workers), 0, 1_024),
        ("server.connections_max", size(server.connections_max), 1, 1_000_000),
        ("server.header_read_timeout_ms", server.header_read_timeout_ms.get(), 10, HOUR_MS),
        // The HTTP library cannot do with a smaller buffer.
        ("server.headers_bytes_max", size(server.headers_bytes_max), 8 * KIB, MIB),
        ("server.body_bytes_max", size(server.body_bytes_max), KIB, 4 * GIB),
        ("server.body_bytes_in_flight_max", size(server.body_bytes_in_flight_max), KIB, TIB),
        ("server.body_idle_timeout_ms", server.body_idle_timeout_ms.get(), 10, HOUR_MS),
        ("server.write_stall_timeout_ms", server.write_stall_timeout_ms.get(), 10, DAY_MS),
        ("server.drain_timeout_ms", server.drain_timeout_ms.get(), 0, DAY_MS),
        ("auth.failures_max", size(auth.failures_max), 1, 1_000_000),
        ("auth.failures_window_ms", auth.failures_window_ms.get(), SECOND_MS, DAY_MS),
    ]
}

fn calls(config: &Config) -> [Bounded; 13] {
    let (upstream, failover, affinity) = (&config.upstream, &config.failover, &config.affinity);
    [
        ("upstream.connect_timeout_ms", upstream.connect_timeout_ms.get(), 10, HOUR_MS),
        ("upstream.first_byte_timeout_ms", upstream.first_byte_timeout_ms.get(), 10, DAY_MS),
        ("upstream.idle_timeout_ms", upstream.idle_timeout_ms.get(), 10, DAY_MS),
        ("upstream.pool_idle_per_host_max", size(upstream.pool_idle_per_host_max), 0, 10_000),
        ("upstream.pool_idle_timeout_ms", upstream.pool_idle_timeout_ms.get(), 10, HOUR_MS),
        ("failover.attempts", size(failover.attempts), 1, 20),
        ("failover.total_ms", failover.total_ms.get(), 10, HOUR_MS),
        ("failover.stream_silence_ms", failover.stream_silence_ms.get(), 10, DAY_MS),
        ("failover.whole_silence_ms", failover.whole_silence_ms.get(), 10, DAY_MS),
        ("failover.hold_ms", failover.hold_ms.get(), 0, 60 * SECOND_MS),
        ("failover.hold_bytes_max", size(failover.hold_bytes_max), KIB, MIB),
        ("affinity.ttl_ms", affinity.ttl_ms.get(), SECOND_MS, 30 * DAY_MS),
        ("affinity.sessions_max", size(affinity.sessions_max), 1, 10_000_000),
    ]
}

fn rests(config: &Config) -> [Bounded; 6] {
    let health = &config.health;
    [
        ("health.limited_ms", health.limited_ms.get(), 0, DAY_MS),
        ("health.limited_max_ms", health.limited_max_ms.get(), 0, 30 * DAY_MS),
        ("health.overloaded_ms", health.overloaded_ms.get(), 0, DAY_MS),
        ("health.auth_failed_ms", health.auth_failed_ms.get(), 0, DAY_MS),
        ("health.unreachable_ms", health.unreachable_ms.get(), 0, DAY_MS),
        ("health.suspect_ms", health.suspect_ms.get(), 0, DAY_MS),
    ]
}

fn records(config: &Config) -> [Bounded; 10] {
    let (journal, ledger, log) = (&config.journal, &config.ledger, &config.log);
    [
        ("journal.sync_ms", journal.sync_ms.get(), 1, 10 * SECOND_MS),
        ("journal.ship_ms", journal.ship_ms.get(), 1, 60 * SECOND_MS),
        ("journal.segment_bytes", journal.segment_bytes, 64 * KIB, GIB),
        // A store that comes back without its last writes must find what it lost.
        ("journal.keep_s", journal.keep_s, 600, MONTH_S),
        ("journal.bytes_max", journal.bytes_max, MIB, 16 * TIB),
        ("ledger.rows_keep_days", ledger.rows_keep_days, 0, CENTURY_DAYS),
        ("ledger.rollups_keep_days", ledger.rollups_keep_days, 0, CENTURY_DAYS),
        ("log.file_bytes_max", log.file_bytes_max, 4 * KIB, TIB),
        ("log.files_max", size(log.files_max), 1, 1_000),
        ("limits.hold_ttl_ms", config.limits.hold_ttl_ms.get(), 5 * SECOND_MS, HOUR_MS),
    ]
}

fn waits(config: &Config) -> [Bounded; 6] {
    let (queue, disconnect) = (&config.queue, &config.disconnect);
    [
        ("queue.size_max", size(queue.size_max), 1, QueueBounds::SIZE_MAX.into()),
        ("queue.wait_ms", queue.wait_ms.get(), 1, Delay::MAX.as_millis()),
        ("disconnect.drains_max", size(disconnect.drains_max), 1, 100_000),
        ("disconnect.drain_ms", disconnect.drain_ms.get(), 1, DAY_MS),
        ("disconnect.drain_tokens_max", disconnect.drain_tokens_max, 1, 1_000_000_000),
        ("disconnect.drain_bytes_max", disconnect.drain_bytes_max, KIB, 4 * GIB),
    ]
}

fn store(config: &Config) -> [Bounded; 2] {
    let store = &config.store;
    [
        ("store.connect_timeout_ms", store.connect_timeout_ms.get(), 10, 60 * SECOND_MS),
        ("store.timeout_ms", store.timeout_ms.get(), 10, 60 * SECOND_MS),
    ]
}

/// Pairs of which the first must not exceed the second.
fn ordered(config: &Config) -> [(&'static str, u64, &'static str, u64); 4] {
    let (server, failover) = (&config.server, &config.failover);
    let (health, journal) = (&config.health, &config.journal);
    [
        (
            "server.body_bytes_max",
            size(server.body_bytes_max),
            "server.body_bytes_in_flight_max",
            size(server.body_bytes_in_flight_max),
        ),
        ("failover.hold_ms", failover.hold_ms.get(), "failover.total_ms", failover.total_ms.get()),
        ("health.limited_ms", health.limited_ms.get(), "health.limited_max_ms", health.limited_max_ms.get()),
        ("journal.segment_bytes", journal.segment_bytes, "journal.bytes_max", journal.bytes_max),
    ]
}

fn rules(config: &Config) -> [(&'static str, bool, &'static str); 3] {
    let (listen, ledger) = (&config.server.listen, &config.ledger);
    let is_prefix = |text: &str| {
        (1..=16).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
    };
    let outlives = match (ledger.rollups_keep_days, ledger.rows_keep_days) {
        (0, _) => true,
        (_, 0) => false,
        (rollups, rows) => rollups >= rows,
    };
    [
        ("server.listen", !listen.is_empty(), "must have at least one address"),
        (
            "auth.key_prefix",
            is_prefix(&config.auth.key_prefix),
            "must be 1 to 16 letters, digits, underscores and hyphens",
        ),
        (
            "ledger.rollups_keep_days",
            outlives,
            "must be 0, which is for ever, or at least ledger.rows_keep_days",
        ),
    ]
}

fn size(size: usize) -> u64 {
    u64::try_from(size).unwrap_or(u64::MAX)
}
