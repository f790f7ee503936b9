//! Runs a script of `tests/sdk` in the virtual environment that `tests/run` sets up.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::daemon::repository;

fn interpreter() -> PathBuf {
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository().join("target"), PathBuf::from);
    let python = target.join("test-venv/bin/python");
    assert!(python.exists(), "the Python SDKs are missing; tests/run installs them");
    python
}

/// Runs a script against a base URL with a key; panics with what it printed when it fails.
pub async fn run(script: &str, base_url: &str, key: &str) {
    let mut command = Command::new(interpreter());
    command.arg(repository().join("tests/sdk").join(script)).args([base_url, key]);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.env("PYTHONUNBUFFERED", "1").env("PYTHONDONTWRITEBYTECODE", "1").stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let printed = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{script}:\n{}", String::from_utf8_lossy(&printed));
}
