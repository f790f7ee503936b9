//! Where relayd's processor time goes, by crate and by module of its own: sampled with `perf` while it works.
//! Without a `perf` that may sample, the profile is left out and says why.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;

use super::load;
use super::process::Process;

const START_MAX: Duration = Duration::from_secs(3);
const SAMPLES_PER_S: &str = "1999";
/// Shares below this are summed up.
const SHOWN_MIN: f64 = 0.5;

/// Shares in per cent, largest first, or why there are none.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    Shares(Vec<(String, f64)>),
    LeftOut(String),
}

/// Samples the process during a load.
pub async fn take(process: &Process, load: impl Future<Output = Result<load::Outcome>>) -> Result<Profile> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("perf.data");
    let mut command = Command::new("perf");
    command
        .args(["record", "--quiet", "-F", SAMPLES_PER_S, "-p", &process.id().to_string(), "-o"])
        .arg(&file);
    command.stdout(Stdio::null()).stderr(Stdio::piped()).stdin(Stdio::null());
    let Ok(mut perf) = command.spawn() else {
        load.await?;
        return Ok(Profile::LeftOut("perf is not installed".to_owned()));
    };
    // It writes its header when it begins to sample; if it never does, the load tells nothing and does no harm.
    let deadline = Instant::now() + START_MAX;
    while !file.metadata().is_ok_and(|file| file.len() > 0) && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    load.await?;
    let pid = rustix::process::Pid::from_child(&perf);
    // It may have ended by itself, which its output explains.
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
    let mut said = String::new();
    if let Some(mut stderr) = perf.stderr.take() {
        std::io::Read::read_to_string(&mut stderr, &mut said)?;
    }
    perf.wait()?;
    let report = Command::new("perf")
        .args(["report", "--stdio", "--no-children", "-g", "none", "--sort", "symbol", "-i"])
        .arg(&file)
        .stderr(Stdio::null())
        .output()
        .context("perf report")?;
    let shares = shares(&String::from_utf8_lossy(&report.stdout));
    if shares.is_empty() {
        let reason = said.lines().find(|line| !line.trim().is_empty()).unwrap_or("it gave no samples");
        return Ok(Profile::LeftOut(format!("perf cannot sample here: {}", reason.trim())));
    }
    Ok(Profile::Shares(shares))
}

/// Sums lines like `  1.23%  [.] hyper::proto::h1::role::parse` by crate and module.
fn shares(report: &str) -> Vec<(String, f64)> {
    let mut sums: BTreeMap<String, f64> = BTreeMap::new();
    for line in report.lines() {
        let Some((share, symbol)) = line.trim().split_once('%') else { continue };
        let Ok(share) = share.trim().parse::<f64>() else { continue };
        let name = match symbol.trim().split_once("] ") {
            Some(("[k", _)) => "kernel".to_owned(),
            Some((_, symbol)) => module(symbol),
            None => continue,
        };
        *sums.entry(name).or_default() += share;
    }
    let (mut shown, small): (Vec<_>, Vec<_>) = sums.into_iter().partition(|(_, share)| *share >= SHOWN_MIN);
    let small: f64 = small.iter().map(|(_, share)| share).sum();
    if small > 0.0 {
        shown.push(("everything else".to_owned(), small));
    }
    shown.sort_by(|(_, one), (_, other)| other.total_cmp(one));
    shown
}

/// The crate of a symbol; of relayd's own symbols the module, too.
fn module(symbol: &str) -> String {
    let path =
        symbol.trim_start_matches(['<', '&', '*']).trim_start_matches("mut ").trim_start_matches("dyn ");
    let mut parts = path.split("::").map(|part| part.split(['<', ' ', '>', '(']).next().unwrap_or(part));
    let first = parts.next().unwrap_or(path);
    match parts.next() {
        Some(second) if first == "relayd" => format!("relayd::{second}"),
        Some(_) => first.to_owned(),
        None => "libc and others".to_owned(),
    }
}
