//! The order of the measurements: several rounds, in each of them every load on every subject in turn. Ratios are taken
//! within a round, where subjects met the same machine, and the median of the rounds is what counts.

use std::io::Write;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;

use super::daemon::{Crowd, Daemon, Redis, StoreOf};
use super::load::{self, Load, Target};
use super::process::{self, Process};
use super::{profile, upstream};

const ROUNDS: usize = 7;
const WARM_UP: usize = 400;
const SMALL: usize = 4_000;
const STREAMS: usize = 640;
const BODIES_100K: usize = 1_000;
const BODIES_1M: usize = 150;
const ONE_BY_ONE: usize = 1_500;
const PROFILED: usize = 60_000;
const IDLE_STREAMS: usize = 1_000;
const STARTS: usize = 3;

/// Keys and accounts of a relay that many people share.
const CROWD: Crowd = Crowd { keys: 10_000, accounts: 1_000 };

/// What was measured of one subject in one round.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Subject {
    /// Processor time of the subject per call, in microseconds; nothing of a direct call.
    pub request_cpu_us: f64,
    pub stream_cpu_us: f64,
    pub body_100k_cpu_us: f64,
    pub body_1m_cpu_us: f64,
    /// Median latency at one connection.
    pub p50_us: f64,
    pub p99_us: f64,
    pub requests_per_s: f64,
    pub idle_mib: f64,
    pub stream_kib: f64,
    pub ready_s: f64,
}

/// The rounds of a subject.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(transparent)]
pub struct Rounds(pub Vec<Subject>);

impl Rounds {
    /// The median of a figure.
    pub fn median(&self, figure: impl Fn(&Subject) -> f64) -> f64 {
        median(self.0.iter().map(figure).collect())
    }

    /// The median of a figure's ratio to that of another subject in the same round.
    pub fn ratio_to(&self, other: &Self, figure: impl Fn(&Subject) -> f64) -> f64 {
        median(self.0.iter().zip(&other.0).map(|(own, other)| figure(own) / figure(other)).collect())
    }
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

/// All that a run found out.
#[derive(Debug, Serialize)]
pub struct Figures {
    pub direct: Rounds,
    pub floor: Rounds,
    pub relayd: Rounds,
    /// With many keys and accounts.
    pub crowded: Rounds,
    /// With a Redis server as its store, if there is one to be started.
    pub on_redis: Option<Rounds>,
    pub floor_starts: Rounds,
    pub relayd_starts: Rounds,
    /// Starting with many keys and accounts, in seconds.
    pub crowded_ready_s: f64,
    /// Core of the measured process and core of everything else.
    pub cores: Option<(usize, usize)>,
    pub profile: profile::Profile,
}

/// A subject while it is measured: the process whose time counts, and where calls go.
struct Measured<'a> {
    process: Option<&'a Process>,
    target: Target,
}

struct Bodies {
    small: Load,
    stream: Load,
    body_100k: Load,
    body_1m: Load,
    one_by_one: Load,
}

impl Bodies {
    fn new() -> Self {
        let small = load::body(upstream::WHOLE, 400);
        Self {
            stream: Load::new(STREAMS, load::body(upstream::STREAM, 400)),
            body_100k: Load::new(BODIES_100K, load::body(upstream::WHOLE, 100 * 1024)),
            body_1m: Load::new(BODIES_1M, load::body(upstream::WHOLE, 1024 * 1024)),
            one_by_one: Load::new(ONE_BY_ONE, small.clone()).over(1),
            small: Load::new(SMALL, small),
        }
    }
}

/// Measures everything.
pub async fn run() -> Result<Figures> {
    let cores = process::two_cores()?;
    let (upstream_process, upstream) = Process::part(&["upstream"])?;
    if let Some((_, others)) = cores {
        process::pin_self(others)?;
        upstream_process.pin(others)?;
    }
    let [floor_starts, relayd_starts] = starts(upstream, cores).await?;
    let (floor_process, floor) = start_floor(upstream, cores)?;
    let daemon = start_daemon(upstream, cores, StoreOf::Folder).await?;
    let redis = Redis::start()?;
    let on_redis = match &redis {
        Some(redis) => Some(start_daemon(upstream, cores, StoreOf::Redis(redis)).await?),
        None => None,
    };
    progress("many keys and accounts");
    let mut crowded = start_daemon(upstream, cores, StoreOf::Folder).await?;
    crowded.fill(&CROWD, upstream).await?;
    let home = Elsewhere::begin(cores)?;
    let starting = crowded.start_again()?;
    home.end()?;
    let crowded = starting.answering().await?;
    let no_key = String::from("none");
    let mut subjects = vec![
        Measured { process: None, target: Target { address: upstream, key: no_key.clone() } },
        Measured { process: Some(&floor_process), target: Target { address: floor, key: no_key } },
        Measured { process: Some(&daemon.process), target: daemon.target() },
        Measured { process: Some(&crowded.process), target: crowded.target() },
    ];
    subjects.extend(
        on_redis.as_ref().map(|daemon| Measured { process: Some(&daemon.process), target: daemon.target() }),
    );
    let mut rounds = measure_all(&subjects).await?.into_iter();
    progress("profile");
    let profiled = Load { calls: PROFILED, ..Bodies::new().small };
    let profile = profile::take(&daemon.process, load::run(&daemon.target(), &profiled)).await?;
    let mut next = || rounds.next().unwrap_or_default();
    let (direct, floor, relayd, with_crowd) = (next(), next(), next(), next());
    let on_redis = on_redis.is_some().then(&mut next);
    Ok(Figures {
        direct,
        floor,
        relayd,
        crowded: with_crowd,
        on_redis,
        floor_starts,
        relayd_starts,
        crowded_ready_s: crowded.ready.as_secs_f64(),
        cores,
        profile,
    })
}

fn progress(text: &str) {
    // Whoever watches sees that it goes on; nobody needs it.
    let _ = writeln!(std::io::stderr(), "bench: {text}");
}

type Cores = Option<(usize, usize)>;

fn start_floor(upstream: SocketAddr, cores: Cores) -> Result<(Process, SocketAddr)> {
    let home = Elsewhere::begin(cores)?;
    let started = Process::part(&["floor", &upstream.to_string()])?;
    home.end()?;
    Ok(started)
}

async fn start_daemon(upstream: SocketAddr, cores: Cores, store: StoreOf<'_>) -> Result<Daemon> {
    let home = Elsewhere::begin(cores)?;
    let starting = Daemon::spawn(store)?;
    home.end()?;
    starting.ready(upstream).await
}

/// While this lasts, what is started runs on the measured core from its first thread on: a daemon that is moved
/// later has made its threads by then, as many as it saw cores.
struct Elsewhere(Cores);

impl Elsewhere {
    fn begin(cores: Cores) -> Result<Self> {
        if let Some((measured, _)) = cores {
            process::pin_self(measured)?;
        }
        Ok(Self(cores))
    }

    fn end(self) -> Result<()> {
        self.0.map_or(Ok(()), |(_, others)| process::pin_self(others))
    }
}

/// What only a fresh process shows: the time to its first answer, and memory. Floor first, then relayd.
async fn starts(upstream: SocketAddr, cores: Cores) -> Result<[Rounds; 2]> {
    let mut rounds: [Rounds; 2] = Default::default();
    for round in 0..STARTS {
        progress(&format!("start {} of {STARTS}", round + 1));
        let start = Instant::now();
        let (process, address) = start_floor(upstream, cores)?;
        let ready = start.elapsed();
        let target = Target { address, key: String::from("none") };
        rounds[0].0.push(memory(&process, &target, ready).await?);
        let daemon = start_daemon(upstream, cores, StoreOf::Folder).await?;
        rounds[1].0.push(memory(&daemon.process, &daemon.target(), daemon.ready).await?);
    }
    Ok(rounds)
}

async fn memory(process: &Process, target: &Target, ready: Duration) -> Result<Subject> {
    let idle = process.memory()?;
    load::run(target, &Load::new(WARM_UP, load::body(upstream::WHOLE, 400))).await?;
    let before = process.memory()?;
    let held = load::hold(target, IDLE_STREAMS).await?;
    let grown = process.memory()?.saturating_sub(before);
    drop(held);
    Ok(Subject {
        idle_mib: ratio(idle, 1 << 20),
        stream_kib: ratio(grown, 1024) / IDLE_STREAMS as f64,
        ready_s: ready.as_secs_f64(),
        ..Subject::default()
    })
}

fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

/// The rounds of each subject.
async fn measure_all(subjects: &[Measured<'_>]) -> Result<Vec<Rounds>> {
    let bodies = Bodies::new();
    let warm_up = Load { calls: WARM_UP, ..bodies.small.clone() };
    for subject in subjects {
        load::run(&subject.target, &warm_up).await?;
    }
    let mut rounds = vec![Rounds::default(); subjects.len()];
    for round in 0..ROUNDS {
        progress(&format!("round {} of {ROUNDS}", round + 1));
        let figures = measure_round(subjects, &bodies).await?;
        rounds.iter_mut().zip(figures).for_each(|(rounds, figures)| rounds.0.push(figures));
    }
    Ok(rounds)
}

/// One load after the other, on each subject in turn: what is compared is measured within a second or two.
async fn measure_round(subjects: &[Measured<'_>], bodies: &Bodies) -> Result<Vec<Subject>> {
    let mut figures = vec![Subject::default(); subjects.len()];
    for (subject, figures) in subjects.iter().zip(&mut figures) {
        let (cpu_us, outcome) = cpu(subject, &bodies.small).await?;
        figures.request_cpu_us = cpu_us;
        figures.p99_us = micros(outcome.percentile(99));
        figures.requests_per_s = SMALL as f64 / outcome.total.as_secs_f64();
    }
    for (subject, figures) in subjects.iter().zip(&mut figures) {
        figures.stream_cpu_us = cpu(subject, &bodies.stream).await?.0;
    }
    for (subject, figures) in subjects.iter().zip(&mut figures) {
        figures.body_100k_cpu_us = cpu(subject, &bodies.body_100k).await?.0;
    }
    for (subject, figures) in subjects.iter().zip(&mut figures) {
        figures.body_1m_cpu_us = cpu(subject, &bodies.body_1m).await?.0;
    }
    for (subject, figures) in subjects.iter().zip(&mut figures) {
        figures.p50_us = micros(cpu(subject, &bodies.one_by_one).await?.1.percentile(50));
    }
    Ok(figures)
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// Runs a load; processor time of the subject per call in microseconds.
async fn cpu(subject: &Measured<'_>, load: &Load) -> Result<(f64, load::Outcome)> {
    let reading = || subject.process.map_or(Ok(0), Process::cpu_ns);
    let before = reading()?;
    let outcome = load::run(&subject.target, load).await?;
    let used = reading()?.saturating_sub(before);
    Ok((ratio(used, 1_000) / load.calls as f64, outcome))
}
