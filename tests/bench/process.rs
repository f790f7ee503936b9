//! Child processes and what they use: processor time, memory, cores.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Resource, Rlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// A child that ends with its owner.
pub struct Process {
    child: Child,
}

impl Process {
    pub fn start(command: &mut Command) -> Result<Self> {
        let child = command.stdin(Stdio::null()).spawn();
        Ok(Self { child: child.with_context(|| format!("{command:?} does not start"))? })
    }

    /// Starts this program again in another part; it prints the address that it listens on.
    pub fn part(args: &[&str]) -> Result<(Self, SocketAddr)> {
        let mut command = Command::new(std::env::current_exe()?);
        let mut process = Self::start(command.args(args).stdout(Stdio::piped()))?;
        let stdout = process.child.stdout.take().context("no standard output")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        Ok((process, line.trim().parse()?))
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn has_ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Nanoseconds of processor time of all its threads.
    pub fn cpu_ns(&self) -> Result<u64> {
        let mut sum = 0;
        for task in fs::read_dir(format!("/proc/{}/task", self.id()))? {
            // A thread may end between the two readings.
            let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
            sum += text.split(' ').next().context("an empty schedstat")?.parse::<u64>()?;
        }
        if sum == 0 {
            bail!("the kernel gives no schedstat, so processor time cannot be measured");
        }
        Ok(sum)
    }

    /// Bytes of resident memory.
    pub fn memory(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id()))?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS")?;
        let kib = line.split_whitespace().nth(1).context("no figure in VmRSS")?;
        Ok(kib.parse::<u64>()? * 1024)
    }

    /// Keeps its threads, also those to come, on one core.
    pub fn pin(&self, core: usize) -> Result<()> {
        pin(Pid::from_child(&self.child), core)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn pin(process: Pid, core: usize) -> Result<()> {
    let mut cores = CpuSet::new();
    cores.set(core);
    Ok(sched_setaffinity(Some(process), &cores)?)
}

/// Keeps this process on one core.
pub fn pin_self(core: usize) -> Result<()> {
    pin(rustix::process::getpid(), core)
}

/// Two cores that this process may use: one for what is measured, one for everything else.
pub fn two_cores() -> Result<Option<(usize, usize)>> {
    let allowed = sched_getaffinity(None)?;
    let mut cores = (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core));
    Ok(cores.next().zip(cores.next()))
}

/// Raises the limit of open files for this process and its children.
pub fn raise_file_limit(needed: u64) -> Result<()> {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    if limit.maximum.is_some_and(|maximum| maximum < needed) {
        bail!("{needed} open files are needed, but the hard limit is {:?}", limit.maximum);
    }
    if limit.current.is_some_and(|current| current < needed) {
        let raised = Rlimit { current: Some(needed), maximum: limit.maximum };
        rustix::process::setrlimit(Resource::Nofile, raised)?;
    }
    Ok(())
}
