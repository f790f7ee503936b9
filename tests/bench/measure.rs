//! The order of the measurements: three rounds, in each of them every subject in turn, and medians of the three.

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;

use super::daemon::Daemon;
use super::load::{self, Load, Target};
use super::process::{self, Process};
use super::{profile, upstream};

const ROUNDS: usize = 3;
const WARM_UP: usize = 400;
const SMALL: usize = 8_000;
const STREAMS: usize = 1_280;
const BODIES_100K: usize = 2_000;
const BODIES_1M: usize = 300;
const ONE_BY_ONE: usize = 3_000;
const PROFILED: usize = 60_000;
const IDLE_STREAMS: usize = 1_000;

/// What was measured of one subject, medians over the rounds.
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

/// All that a run found out.
#[derive(Debug, Serialize)]
pub struct Figures {
    pub direct: Subject,
    pub floor: Subject,
    pub relayd: Subject,
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
    let starts = starts(upstream, cores).await?;
    let (floor_process, floor) = start_floor(upstream, cores)?;
    let daemon = start_daemon(upstream, cores).await?;
    let no_key = String::from("none");
    let subjects = [
        Measured { process: None, target: Target { address: upstream, key: no_key.clone() } },
        Measured { process: Some(&floor_process), target: Target { address: floor, key: no_key } },
        Measured { process: Some(&daemon.process), target: daemon_target(&daemon) },
    ];
    let bodies = Bodies::new();
    let mut rounds: [Vec<Subject>; 3] = Default::default();
    for round in 0..ROUNDS {
        progress(&format!("round {} of {ROUNDS}", round + 1));
        for (subject, results) in subjects.iter().zip(&mut rounds) {
            results.push(measure(subject, &bodies).await?);
        }
    }
    progress("profile");
    let profiled = Load { calls: PROFILED, ..bodies.small.clone() };
    let profile = profile::take(&daemon.process, load::run(&daemon_target(&daemon), &profiled)).await?;
    let [direct, floor, relayd] = rounds.map(|rounds| median_of(&rounds));
    let [floor_start, relayd_start] = starts;
    let joined = |measured: Subject, start: Subject| Subject {
        idle_mib: start.idle_mib,
        stream_kib: start.stream_kib,
        ready_s: start.ready_s,
        ..measured
    };
    let (floor, relayd) = (joined(floor, floor_start), joined(relayd, relayd_start));
    Ok(Figures { direct, floor, relayd, cores, profile })
}

fn progress(text: &str) {
    // Whoever watches sees that it goes on; nobody needs it.
    let _ = writeln!(std::io::stderr(), "bench: {text}");
}

type Cores = Option<(usize, usize)>;

fn start_floor(upstream: std::net::SocketAddr, cores: Cores) -> Result<(Process, std::net::SocketAddr)> {
    let home = Elsewhere::begin(cores)?;
    let started = Process::part(&["floor", &upstream.to_string()])?;
    home.end()?;
    Ok(started)
}

async fn start_daemon(upstream: std::net::SocketAddr, cores: Cores) -> Result<Daemon> {
    let home = Elsewhere::begin(cores)?;
    let command = Daemon::spawn()?;
    home.end()?;
    command.ready(upstream).await
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

fn daemon_target(daemon: &Daemon) -> Target {
    Target { address: daemon.address, key: daemon.key.clone() }
}

/// What only a fresh process shows: the time to its first answer, and memory. Floor first, then relayd.
async fn starts(upstream: std::net::SocketAddr, cores: Cores) -> Result<[Subject; 2]> {
    let mut rounds: [Vec<Subject>; 2] = Default::default();
    for round in 0..ROUNDS {
        progress(&format!("start {} of {ROUNDS}", round + 1));
        let start = Instant::now();
        let (process, address) = start_floor(upstream, cores)?;
        let ready = start.elapsed();
        let target = Target { address, key: String::from("none") };
        rounds[0].push(memory(&process, &target, ready).await?);
        let daemon = start_daemon(upstream, cores).await?;
        rounds[1].push(memory(&daemon.process, &daemon_target(&daemon), daemon.ready).await?);
    }
    Ok(rounds.map(|rounds| median_of(&rounds)))
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

async fn measure(subject: &Measured<'_>, bodies: &Bodies) -> Result<Subject> {
    let warm_up = Load { calls: WARM_UP, ..bodies.small.clone() };
    load::run(&subject.target, &warm_up).await?;
    let (request_cpu_us, small) = cpu(subject, &bodies.small).await?;
    let (stream_cpu_us, _) = cpu(subject, &bodies.stream).await?;
    let (body_100k_cpu_us, _) = cpu(subject, &bodies.body_100k).await?;
    let (body_1m_cpu_us, _) = cpu(subject, &bodies.body_1m).await?;
    let (_, one_by_one) = cpu(subject, &bodies.one_by_one).await?;
    Ok(Subject {
        request_cpu_us,
        stream_cpu_us,
        body_100k_cpu_us,
        body_1m_cpu_us,
        p50_us: micros(one_by_one.percentile(50)),
        p99_us: micros(small.percentile(99)),
        requests_per_s: SMALL as f64 / small.total.as_secs_f64(),
        ..Subject::default()
    })
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

fn median_of(rounds: &[Subject]) -> Subject {
    let median = |figure: fn(&Subject) -> f64| {
        let mut figures: Vec<f64> = rounds.iter().map(figure).collect();
        figures.sort_by(f64::total_cmp);
        figures[figures.len() / 2]
    };
    Subject {
        request_cpu_us: median(|subject| subject.request_cpu_us),
        stream_cpu_us: median(|subject| subject.stream_cpu_us),
        body_100k_cpu_us: median(|subject| subject.body_100k_cpu_us),
        body_1m_cpu_us: median(|subject| subject.body_1m_cpu_us),
        p50_us: median(|subject| subject.p50_us),
        p99_us: median(|subject| subject.p99_us),
        requests_per_s: median(|subject| subject.requests_per_s),
        idle_mib: median(|subject| subject.idle_mib),
        stream_kib: median(|subject| subject.stream_kib),
        ready_s: median(|subject| subject.ready_s),
    }
}
