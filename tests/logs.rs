//! The daemon's own log: bounded by size and count, whole lines, and nothing in it that is private.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Stdio;

use shared::domain::{AccountKind, Protocol};

use crate::support::daemon::{relayd, setting, temporary_folder};
use crate::support::{Call, Rig, Setup, until};

const FILE_BYTES_MAX: usize = 4_096;
const PROMPT: &str = "a question that is nobody else's business";

fn read(folder: &Path, name: &str) -> Option<String> {
    fs::read_to_string(folder.join(name)).ok()
}

#[tokio::test]
async fn files_are_rotated_by_size_and_count() {
    let folder = temporary_folder();
    let setup = Setup::default()
        .set(setting::LOG_FILE, folder.path().join("relayd.log").to_str().unwrap())
        .set(setting::LOG_FILE_BYTES_MAX, FILE_BYTES_MAX)
        .set(setting::LOG_FILES_MAX, 3)
        .set(setting::LOG_REQUESTS, true);
    let mut rig = Rig::bare(setup).await;
    rig.add(AccountKind::ClaudeConsole, "claude").await;
    let call = Call::new(Protocol::Messages, "m").prompt(PROMPT);
    let oldest = async || {
        rig.client.call(&call).await.expect(200);
        read(folder.path(), "relayd.log.2")
    };
    let first_oldest = until("three files are full", oldest).await;
    let rotated = async || {
        rig.client.call(&call).await.expect(200);
        read(folder.path(), "relayd.log.2").filter(|oldest| *oldest != first_oldest)
    };
    until("the oldest file gives way", rotated).await;
    // A rotation that is going on is over with its process.
    rig.daemon.terminate();
    assert!(rig.daemon.ended().await.success());

    let mut files: Vec<String> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    assert_eq!(files, ["relayd.log", "relayd.log.1", "relayd.log.2"]);
    for name in &files {
        let text = read(folder.path(), name).unwrap();
        assert!(text.len() <= FILE_BYTES_MAX, "{name} has {} bytes", text.len());
        assert!(text.is_empty() || text.ends_with('\n'), "{name} ends within a line");
        for private in [PROMPT, &rig.key, "upstream-claude"] {
            assert!(!text.contains(private), "{name} tells {private:?}");
        }
    }
    let first_line = first_oldest.lines().next().unwrap();
    assert!(first_line.contains("INFO"), "{first_line}");
    assert_eq!(rig.daemon.output(), "", "it also logs to the standard error stream");

    // The next process goes on in the same file.
    let before = read(folder.path(), "relayd.log").unwrap();
    rig.start_again().await;
    let goes_on = async || {
        let both = ["relayd.log.1", "relayd.log"].map(|name| read(folder.path(), name).unwrap_or_default());
        both.concat().split_once(&before).filter(|(_, more)| more.contains("listening")).map(drop)
    };
    until("the file goes on", goes_on).await;
}

#[tokio::test]
async fn requests_are_logged_on_demand_without_what_they_say() {
    for is_on in [false, true] {
        let rig = Rig::bare(Setup::default().set(setting::LOG_REQUESTS, is_on)).await;
        rig.add(AccountKind::ClaudeConsole, "claude").await;
        let call = Call::new(Protocol::Messages, "m").prompt(PROMPT);
        let answer = rig.client.call(&call).await.expect(200);
        let id = answer.header("x-relay-request-id").unwrap();
        if is_on {
            until("the request is logged", async || rig.daemon.output().contains(id).then_some(())).await;
        } else {
            rig.daemon.settled().await;
            assert!(!rig.daemon.output().contains(id));
        }
        assert!(!rig.daemon.output().contains(PROMPT));
    }
}

/// The journal has priorities and times of its own.
#[tokio::test]
async fn lines_for_the_journal_have_their_priority_and_no_time() {
    let folder = temporary_folder();
    let path = folder.path().join("journal");
    for is_journal in [true, false] {
        let file = fs::File::create(&path).unwrap();
        let place = file.metadata().unwrap();
        let stream = if is_journal { format!("{}:{}", place.dev(), place.ino()) } else { "1:1".to_owned() };
        let mut command = relayd();
        command.arg("--data").arg(folder.path().join("data")).args(["--listen", "127.0.0.1:0"]);
        command.env("JOURNAL_STREAM", stream).stdin(Stdio::null()).stderr(file);
        let mut process = command.spawn().unwrap();
        let listening = async || {
            let log = fs::read_to_string(&path).unwrap();
            log.contains("listening").then_some(log)
        };
        let log = until("it listens", listening).await;
        rustix::process::kill_process(
            rustix::process::Pid::from_child(&process),
            rustix::process::Signal::TERM,
        )
        .unwrap();
        assert!(process.wait().unwrap().success());
        let first = log.lines().next().unwrap();
        assert!(first.contains("relayd starts version=\"") && first.contains("data=/"), "{first}");
        for line in log.lines() {
            let is_told = line.starts_with("<6>relayd::") && !line.contains("INFO");
            assert_eq!(is_told, is_journal, "{line}");
            assert_eq!(line.contains(" INFO "), !is_journal, "{line}");
        }
    }
}

#[tokio::test]
async fn an_address_that_keys_are_guessed_from_is_told_once() {
    let rig = Rig::bare(Setup::default().set(setting::FAILURES_MAX, 2)).await;
    let stranger = rig.daemon.client("cr_unknown");
    for status in [401, 401, 429, 429, 429] {
        stranger.get("/v1/models").await.expect(status);
    }
    let output = rig.daemon.output();
    assert_eq!(output.matches("keys are guessed from an address").count(), 1, "{output}");
    assert!(output.contains("address=127.0.0.1") && !output.contains("cr_unknown"), "{output}");
}
