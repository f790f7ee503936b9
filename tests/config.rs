//! Settings: from a file and from the environment, checked before anything starts.

use std::fs::{File, Permissions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::process::Output;

use shared::admin::ShowConfig;

use crate::support::daemon::{relayctl, relayd, repository, temporary_folder};
use crate::support::{Daemon, Setup, daemon::setting};

const EXAMPLE: &str = "config.example.toml";

fn check(file: Option<&Path>, environment: &[(&str, &str)]) -> Output {
    let mut command = relayd();
    command.arg("--check").envs(environment.iter().copied());
    if let Some(file) = file {
        command.arg("--config").arg(file);
    }
    command.output().unwrap()
}

#[track_caller]
fn is_refused(output: &Output, naming: &str) {
    let printed = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{printed}");
    assert!(printed.contains(naming), "{naming} is not named: {printed}");
    assert!(!printed.contains("panicked"), "{printed}");
}

#[track_caller]
fn is_fine(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn nothing_is_needed_and_the_example_is_valid() {
    is_fine(&check(None, &[]));
    is_fine(&check(Some(&repository().join(EXAMPLE)), &[]));
}

#[test]
fn mistakes_are_named() {
    let folder = temporary_folder();
    for (text, naming) in [
        ("[server]\nno_such_key = 1\n", "no_such_key"),
        ("[no_such_section]\nx = 1\n", "no_such_section"),
        ("[server]\nbody_bytes_max = \"many\"\n", "body_bytes_max"),
        ("[server]\nbody_bytes_max = -1\n", "body_bytes_max"),
        ("[server]\nbody_bytes_max = 1023\n", "body_bytes_max"),
        ("[failover]\nhold_ms = 5001\ntotal_ms = 5000\n", "hold_ms"),
        ("[server\n", "config.toml"),
    ] {
        let file = folder.path().join("config.toml");
        std::fs::write(&file, text).unwrap();
        is_refused(&check(Some(&file), &[]), naming);
    }
    is_refused(&check(Some(&folder.path().join("missing.toml")), &[]), "missing.toml");
}

#[test]
fn a_mistake_is_told_once_and_in_one_line() {
    let folder = temporary_folder();
    let file = folder.path().join("config.toml");
    for (text, told) in [
        (
            "[log]\nlevel = \"loud\"\n",
            ":2: log.level: `loud` is not one of `off`, `error`, `warn`, `info`, `debug`, `trace`; \
             the default is \"info\"",
        ),
        (
            "[log]\nrequests = 7\n",
            ":2: log.requests: invalid type: integer `7`, expected a boolean; the default is false",
        ),
        ("[log]\nrequests = \n", ":2: string values must be quoted, expected literal string"),
    ] {
        std::fs::write(&file, text).unwrap();
        let output = check(Some(&file), &[]);
        let printed = String::from_utf8_lossy(&output.stderr);
        assert_eq!(printed, format!("relayd: {}{told}\n", file.display()));
    }
}

#[test]
fn files_that_are_named_are_looked_at() {
    let folder = temporary_folder();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let authority = repository().join("tests/fixtures/ca.pem").display().to_string();
    let write = |name: &str, text: &str| {
        let mut file = File::options().create(true).write(true).truncate(true).mode(0o600).open(path(name));
        file.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
        path(name)
    };
    let (empty, text) = (write("empty.pem", ""), write("text.pem", "no certificate\n"));
    let key = write("key", &format!("{}\n", "ab".repeat(32)));
    let (short, open) = (write("short.key", "abcd"), write("open.key", &"ab".repeat(32)));
    std::fs::set_permissions(&open, Permissions::from_mode(0o644)).unwrap();
    let (ca, sealing) = ("RELAYD__UPSTREAM__EXTRA_CA", "RELAYD__SECRETS__SEALING_KEY_FILE");
    let log = "RELAYD__LOG__FILE";
    for (variable, value, told) in [
        (ca, authority, None),
        (ca, path("no.pem"), Some("no.pem holds no certificate that can be read: No such file")),
        (ca, empty, Some("empty.pem holds no certificate that can be read")),
        (ca, text, Some("text.pem holds no certificate that can be read")),
        (ca, path(""), Some("holds no certificate that can be read: I/O error: Is a directory")),
        (sealing, key, None),
        (sealing, path("no.key"), Some("no.key does not exist")),
        (sealing, short, Some("short.key holds no sealing key")),
        (sealing, open, Some("open.key can be read by others")),
        (sealing, path(""), Some("cannot be read")),
        (log, path("relayd.log"), None),
        (log, path("nowhere/relayd.log"), Some("nowhere/relayd.log cannot be written: No such file")),
        (log, path(""), Some("cannot be written: Is a directory")),
    ] {
        let output = check(None, &[(variable, &value)]);
        match told {
            None => is_fine(&output),
            Some(told) => is_refused(&output, told),
        }
    }
    let before = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(before, 5, "a check makes nothing");
}

#[test]
fn a_data_folder_is_looked_at_and_left_alone() {
    let folder = temporary_folder();
    let data = folder.path().join("data");
    let check = |environment: &[(&str, &str)]| {
        let mut command = relayd();
        command.arg("--check").arg("--data").arg(&data).envs(environment.iter().copied());
        command.output().unwrap()
    };
    is_fine(&check(&[]));
    assert!(!data.exists(), "a check makes nothing");
    std::fs::create_dir_all(data.join("store")).unwrap();
    is_refused(&check(&[]), "sealing.key is gone");
    // A key that is given in another way is the one that counts.
    is_fine(&check(&[("RELAYD_SEALING_KEY", &"cd".repeat(32))]));
    is_refused(&check(&[("RELAYD_SEALING_KEY", "cd")]), "RELAYD_SEALING_KEY holds no sealing key");
    assert_eq!(std::fs::read_dir(&data).unwrap().count(), 1, "a check makes nothing");
}

#[test]
fn mistakes_in_the_environment_are_named() {
    let naming = |output: &Output, name: &str| {
        let printed = String::from_utf8_lossy(&output.stderr).to_lowercase();
        assert!(!output.status.success() && printed.contains(name), "{printed}");
    };
    naming(&check(None, &[("RELAYD__SERVER__NO_SUCH_KEY", "1")]), "no_such_key");
    naming(&check(None, &[("RELAYD__NO_SUCH_SECTION__X", "1")]), "no_such_section");
    naming(&check(None, &[("RELAYD__SERVER__BODY_BYTES_MAX", "many")]), "body_bytes_max");
}

#[test]
fn an_address_that_is_none_is_shown_with_a_form_that_is_one() {
    let folder = temporary_folder();
    let file = folder.path().join("relayd.toml");
    let form = "write an IP address with a port, such as \"127.0.0.1:3000\" or \"[::]:3000\"";
    for wrong in ["localhost:3000", "127.0.0.1", ":3000"] {
        let told = format!("\"{wrong}\" is no address: {form}");
        std::fs::write(&file, format!("[server]\nlisten = [\"127.0.0.1:1\", \"{wrong}\"]\n")).unwrap();
        is_refused(&check(Some(&file), &[]), &format!("relayd.toml:2: server.listen: {told}"));
        is_refused(&check(None, &[("RELAYD__SERVER__LISTEN", wrong)]), &told);
        let output = relayd().args(["--check", "--listen", wrong]).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(wrong) && said.contains(form), "{said}");
    }
}

#[tokio::test]
async fn a_daemon_does_not_start_on_mistakes() {
    let folder = temporary_folder();
    let mut command = relayd();
    command.arg("--data").arg(folder.path()).args(["--listen", "127.0.0.1:0"]);
    let output = command.env("RELAYD__SERVER__NO_SUCH_KEY", "1").output().unwrap();
    assert!(!output.status.success());
    assert!(!folder.path().join("relayd.sock").exists());
}

async fn shown(daemon: &Daemon) -> toml::Table {
    daemon.call(&ShowConfig {}).await.toml.parse().unwrap()
}

#[tokio::test]
async fn the_environment_overrides_and_is_shown() {
    let defaults = Daemon::start().await;
    let (section, key) = setting::BODY_BYTES_MAX;
    let default = shown(&defaults).await[section][key].as_integer().unwrap();
    assert_eq!(default, 100 * 1024 * 1024);
    let daemon = Setup::default().set(setting::BODY_BYTES_MAX, 4_321).start().await;
    assert_eq!(shown(&daemon).await[section][key].as_integer(), Some(4_321));

    let output = relayctl().arg("--data").arg(daemon.data()).args(["config", "show"]).output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(printed.contains("4321") || printed.contains("4_321"), "{printed}");
}

#[test]
fn the_control_program_checks_files_too() {
    let folder = temporary_folder();
    let file = folder.path().join("config.toml");
    let check = || {
        let mut command = relayctl();
        command.args(["config", "check"]).arg(&file).env("HOME", folder.path()).output().unwrap()
    };
    std::fs::write(&file, "[server]\nbody_bytes_max = 1024\n").unwrap();
    is_fine(&check());
    std::fs::write(&file, "[server]\nno_such_key = 1\n").unwrap();
    is_refused(&check(), "no_such_key");
    std::fs::write(&file, "[upstream]\nextra_ca = [\"/no/such.pem\"]\n").unwrap();
    is_refused(&check(), "/no/such.pem");
}
