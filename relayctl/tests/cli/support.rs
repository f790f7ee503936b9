//! The program under test, folders of its own, and a daemon that answers as a test tells it to.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::Value;

/// A folder that is gone when the test ends.
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// Makes it under a root with a short name: socket paths have about a hundred bytes.
    pub(crate) fn under(root: &Path) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = root.join(format!("rc{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// Makes it among the system's temporary files.
    pub(crate) fn new() -> Self {
        Self::under(&std::env::temp_dir())
    }

    /// Takes over one that is there already.
    pub(crate) fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A run of relayctl that has ended.
pub(crate) struct Run {
    /// Its exit code.
    pub(crate) code: i32,
    /// What it wrote to the standard output.
    pub(crate) out: String,
    /// What it wrote to the standard error.
    pub(crate) err: String,
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// A command in an environment that holds nothing but what tests put there.
pub(crate) fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", "/usr/bin:/bin").stdin(Stdio::null());
    command
}

/// Runs relayctl with a socket.
pub(crate) fn relayctl(socket: &Path, args: &[&str]) -> Run {
    let mut command = command(Path::new(env!("CARGO_BIN_EXE_relayctl")));
    command.arg("--socket").arg(socket).args(args).output().unwrap().into()
}

/// One request as a server got it.
pub(crate) struct Request {
    /// Its path.
    pub(crate) path: String,
    /// Its headers; names are in lower case.
    pub(crate) headers: HashMap<String, String>,
    /// Its body.
    pub(crate) body: Value,
}

/// Reads one HTTP request.
pub(crate) fn read_request(stream: impl Read) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    let mut body = vec![0; headers.get("content-length")?.parse().ok()?];
    reader.read_exact(&mut body).ok()?;
    Some(Request { path, headers, body: serde_json::from_slice(&body).ok()? })
}

/// A daemon's admin side: answers each call with what the test's function returns.
pub(crate) struct Daemon {
    folder: Folder,
    calls: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Daemon {
    /// Listens in a folder of its own. An answer is a status and a body.
    pub(crate) fn start(answer: impl FnMut(&str, &Value) -> (u16, String) + Send + 'static) -> Self {
        Self::start_in(Folder::new(), answer)
    }

    /// Listens in a given folder.
    pub(crate) fn start_in(
        folder: Folder,
        mut answer: impl FnMut(&str, &Value) -> (u16, String) + Send + 'static,
    ) -> Self {
        let listener = UnixListener::bind(folder.path().join("relayd.sock")).unwrap();
        let calls: Arc<Mutex<Vec<(String, Value)>>> = Arc::default();
        let seen = Arc::clone(&calls);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let Some(request) = read_request(&stream) else { continue };
                let (status, body) = answer(&request.path, &request.body);
                seen.lock().unwrap().push((request.path, request.body));
                let length = body.len();
                let head = format!("HTTP/1.1 {status} x\r\ncontent-length: {length}\r\n\r\n");
                let _ = stream.write_all((head + &body).as_bytes());
            }
        });
        Self { folder, calls }
    }

    /// Its data folder.
    pub(crate) fn data(&self) -> &Path {
        self.folder.path()
    }

    /// Its socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.data().join("relayd.sock")
    }

    /// The calls it got so far, by path.
    pub(crate) fn calls(&self, path: &str) -> Vec<Value> {
        let calls = self.calls.lock().unwrap();
        calls.iter().filter(|(called, _)| called == path).map(|(_, body)| body.clone()).collect()
    }
}
