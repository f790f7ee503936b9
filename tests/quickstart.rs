//! The README's first commands, and the first of them run.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::daemon::{relayctl, repository, temporary_folder};

/// The commands of the README's first code block.
fn commands() -> Vec<String> {
    let readme = fs::read_to_string(repository().join("README.md")).unwrap();
    let block = readme.split("```").nth(1).expect("the README has no code block");
    let lines = block.lines().skip(1).map(|line| line.trim().trim_start_matches("$ "));
    lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect()
}

#[test]
fn the_readme_begins_with_the_two_commands() {
    let commands = commands();
    assert_eq!(commands.len(), 2, "{commands:?}");
    assert_eq!(commands[0], "cargo build --release && target/release/relayctl quickstart");
    assert_eq!(commands[1], "tests/run");
    let mode = fs::metadata(repository().join("tests/run")).unwrap().permissions().mode();
    assert_ne!(mode & 0o100, 0, "tests/run is not executable");
}

/// The command of the README, as built here, with a state folder of its own. What it started is ended again.
struct Quickstart(tempfile::TempDir);

impl Quickstart {
    fn command(&self, more: &[&str]) -> Command {
        let mut command = relayctl();
        command.arg("quickstart").args(more).env("HOME", self.0.path());
        command.env("XDG_STATE_HOME", self.0.path().join("state"));
        command
    }

    fn run(&self, more: &[&str]) -> Output {
        self.command(more).output().unwrap()
    }

    fn data(&self) -> std::path::PathBuf {
        self.0.path().join("state/relayd")
    }

    fn control(&self, args: &[&str]) -> Output {
        relayctl().arg("--data").arg(self.data()).args(args).output().unwrap()
    }
}

impl Drop for Quickstart {
    fn drop(&mut self) {
        let _ = self.run(&["--stop"]);
    }
}

#[track_caller]
fn printed(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(output.status.success(), "{text}");
    text
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn it_starts_asks_once_tells_and_stops() {
    let quickstart = Quickstart(temporary_folder());
    let first = printed(&quickstart.run(&[]));
    assert!(first.contains("simulator"), "{first}");
    for line in ["ANTHROPIC_BASE_URL", "OPENAI_BASE_URL", "GOOGLE_GEMINI_BASE_URL", "cr_"] {
        assert!(first.contains(line), "{line} is missing: {first}");
    }
    assert!(first.contains("tokens") && first.contains('$'), "no tokens or cost: {first}");
    assert_eq!(mode(&quickstart.data()), 0o700);
    let files = fs::read_dir(quickstart.data()).unwrap().map(|entry| entry.unwrap().path());
    let keys: Vec<_> =
        files.filter(|path| path.is_file() && path.to_string_lossy().contains("key")).collect();
    assert!(!keys.is_empty(), "no sealing key");
    for path in keys {
        assert_eq!(mode(&path) & 0o177, 0, "{}", path.display());
    }

    let second = printed(&quickstart.run(&[]));
    assert!(second.contains("tokens"), "{second}");
    let accounts = printed(&quickstart.control(&["account", "list", "--output", "json"]));
    let accounts: serde_json::Value = serde_json::from_str(&accounts).unwrap();
    assert_eq!(accounts.as_array().unwrap().len(), 1, "{accounts}");
    let status = printed(&quickstart.control(&["status", "--output", "json"]));
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    let pid = status["pid"].as_u64().unwrap();

    printed(&quickstart.run(&["--stop"]));
    assert!(!quickstart.control(&["status"]).status.success());
    assert!(!Path::new(&format!("/proc/{pid}/exe")).exists(), "relayd still runs");
    assert!(!quickstart.run(&["--stop"]).status.success(), "nothing is left to end");
}

#[test]
fn keys_of_interrupted_runs_are_cleaned_up() {
    let quickstart = Quickstart(temporary_folder());
    printed(&quickstart.run(&[]));
    let keys = || {
        let listed = printed(&quickstart.control(&["key", "list", "--output", "json"]));
        let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
        let names = listed.as_array().unwrap().iter().map(|key| key["name"].as_str().unwrap().to_owned());
        names.collect::<Vec<_>>()
    };
    // A person's own keys, whatever they are called.
    let own = ["quickstart-check-1", "quickstart-check-2147483647"];
    for name in own {
        printed(&quickstart.control(&["key", "create", name]));
    }
    printed(&quickstart.control(&["account", "update", "simulator", "--latency-ms", "60000"]));
    for signal in [Signal::INT, Signal::KILL, Signal::TERM] {
        let mut interrupted = quickstart.command(&[]).stdout(Stdio::null()).spawn().unwrap();
        let borrowed = format!("quickstart-check-{}", interrupted.id());
        let start = Instant::now();
        while !keys().contains(&borrowed) {
            assert!(start.elapsed() < Duration::from_secs(30), "no key is borrowed");
        }
        assert_eq!(keys().len(), 2 + own.len(), "the key of the last run is still there");
        rustix::process::kill_process(rustix::process::Pid::from_child(&interrupted), signal).unwrap();
        interrupted.wait().unwrap();
    }
    printed(&quickstart.control(&["account", "update", "simulator", "--latency-ms", "0"]));
    printed(&quickstart.run(&[]));
    assert_eq!(keys(), ["quickstart", own[0], own[1]]);
}

#[test]
fn several_at_once_find_a_port_each() {
    let places: Vec<_> = (0..3).map(|_| Quickstart(temporary_folder())).collect();
    let started: Vec<_> = places
        .iter()
        .map(|place| place.command(&[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
        .collect();
    for child in started {
        printed(&child.wait_with_output().unwrap());
    }
    let addresses: BTreeSet<String> = places
        .iter()
        .map(|place| {
            let status = printed(&place.control(&["status", "--output", "json"]));
            let status: serde_json::Value = serde_json::from_str(&status).unwrap();
            status["listen"][0].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(addresses.len(), places.len(), "{addresses:?}");
}

#[test]
fn a_key_of_ours_in_the_environment_makes_no_account() {
    let quickstart = Quickstart(temporary_folder());
    let own = format!("cr_{}", "ab".repeat(32));
    let text = printed(&quickstart.command(&[]).env("ANTHROPIC_API_KEY", own).output().unwrap());
    assert!(text.contains("simulator"), "{text}");
    let accounts = printed(&quickstart.control(&["account", "list", "--output", "json"]));
    assert!(!accounts.contains("claude-console"), "{accounts}");
}
