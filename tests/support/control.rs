//! The control program as an operator and a script use it.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::daemon::relayctl;
use super::rig::Rig;

/// The credential of accounts that are added here.
pub const SECRET: &str = "sk-ant-upstream-very-private";

/// A command on the daemon of a data folder.
pub fn command(data: &Path, args: &[&str]) -> Command {
    let mut command = relayctl();
    command.arg("--data").arg(data).args(args).stdin(Stdio::null());
    command
}

/// Runs a command that must succeed; what it prints.
#[track_caller]
pub fn run(data: &Path, args: &[&str]) -> String {
    let output = command(data, args).output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{args:?}: {stdout}{stderr}");
    stdout.into_owned()
}

/// Runs a command with `--output json`.
#[track_caller]
pub fn json(data: &Path, args: &[&str]) -> Value {
    let printed = run(data, &[args, &["--output", "json"]].concat());
    serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{args:?}: {error}: {printed}"))
}

/// Exit code, standard output and standard error of a command.
pub fn outcome(data: &Path, args: &[&str]) -> (Option<i32>, String, String) {
    let output = command(data, args).output().unwrap();
    let [stdout, stderr] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    (output.status.code(), stdout, stderr)
}

/// Runs a command that must fail; the one sentence that it says.
#[track_caller]
pub fn refused(data: &Path, args: &[&str]) -> String {
    let output = command(data, args).output().unwrap();
    assert!(!output.status.success(), "{args:?} went well");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!said.trim().is_empty() && !said.contains("panicked"), "{args:?}: {said}");
    said
}

/// Adds an account that calls the upstream; more flags as they are given.
pub fn add_account(rig: &Rig, kind: &str, name: &str, more: &[&str]) -> Value {
    let base_url = rig.upstream.base_url(name);
    let args = [
        &["account", "add", kind, "--name", name, "--base-url", &base_url, "--secret-env", "THE_SECRET"],
        more,
        &["--output", "json"],
    ]
    .concat();
    let output = command(rig.daemon.data(), &args).env("THE_SECRET", SECRET).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}
