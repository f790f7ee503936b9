//! Where log lines go: standard error, or a file that is rotated by size and count. Writing never holds a call
//! up: lines that a slow disk cannot take are dropped.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

mod journal;

use journal::Prioritised;
use tracing::field::Field;
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::format::{Writer, debug_fn};

/// How to log.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What is logged: `info`, or a filter such as `info,relayd::relay=debug`.
    pub filter: String,
    /// One JSON object a line.
    pub is_json: bool,
    /// The file; standard error if there is none.
    pub file: Option<PathBuf>,
    /// The file's size at which a new one is begun.
    pub file_bytes_max: u64,
    /// Files kept, the one written to included.
    pub files_max: u32,
}

/// Why nothing can be logged.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter is no filter.
    #[error("log.level {0:?} is no filter; write a level such as \"info\", or \"info,relayd::relay=debug\"")]
    Filter(String),
    /// The file cannot be written.
    #[error("the log file {} cannot be written", .path.display())]
    File {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something else logs already.
    #[error("logging was set up twice")]
    Twice,
}

/// Starts logging. What is logged after the guard was dropped may be lost.
pub fn start(settings: &Settings) -> Result<WorkerGuard, LogError> {
    let filter =
        EnvFilter::try_new(&settings.filter).map_err(|_| LogError::Filter(settings.filter.clone()))?;
    let (writer, guard) = match &settings.file {
        None => non_blocking(io::stderr()),
        Some(path) => {
            let rotating = Rotating::open(path, settings.file_bytes_max, settings.files_max)
                .map_err(|source| LogError::File { path: path.clone(), source })?;
            non_blocking(rotating)
        }
    };
    let to_stderr = settings.file.is_none();
    let is_terminal = to_stderr && io::IsTerminal::is_terminal(&io::stderr());
    let is_journal = to_stderr && journal::is_stderr();
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(is_terminal);
    let subscriber = subscriber.fmt_fields(debug_fn(field).delimited(" "));
    let started = match (settings.is_json, is_journal) {
        (true, true) => set(subscriber.with_writer(Prioritised(writer)).json().finish()),
        (true, false) => set(subscriber.with_writer(writer).json().finish()),
        // The journal has the time and the level of each line itself.
        (false, true) => {
            set(subscriber.with_writer(Prioritised(writer)).without_time().with_level(false).finish())
        }
        (false, false) => set(subscriber.with_writer(writer).finish()),
    };
    started.map(|()| guard).map_err(|_| LogError::Twice)
}

/// Writes a field so that it ends where it seems to end: what has blanks in it stands in quotes.
fn field(writer: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    let text = format!("{value:?}");
    match field.name() {
        "message" => write!(writer, "{text}"),
        name if text.contains(char::is_whitespace) && !text.starts_with('"') => {
            write!(writer, "{name}={text:?}")
        }
        name => write!(writer, "{name}={text}"),
    }
}

fn set(subscriber: impl Into<tracing::Dispatch>) -> Result<(), tracing::dispatcher::SetGlobalDefaultError> {
    tracing::dispatcher::set_global_default(subscriber.into())
}

/// Whether a log file could be written. Nothing is made and nothing is written.
///
/// # Errors
///
/// It could not, or its folder is not there.
pub fn check(path: &Path) -> Result<(), LogError> {
    let failed = |source| LogError::File { path: path.to_owned(), source };
    match OpenOptions::new().append(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        opened => return opened.map(drop).map_err(failed),
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let access = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
    rustix::fs::access(folder, access).map_err(|error| failed(error.into()))?;
    if folder.is_dir() { Ok(()) } else { Err(failed(io::ErrorKind::NotADirectory.into())) }
}

fn non_blocking<W: Write + Send + 'static>(writer: W) -> (NonBlocking, WorkerGuard) {
    NonBlockingBuilder::default().buffered_lines_limit(4_096).lossy(true).thread_name("log").finish(writer)
}

/// A file that is renamed to `<name>.1` when it is full; older ones move up, the oldest goes.
struct Rotating {
    path: PathBuf,
    file: File,
    bytes: u64,
    bytes_max: u64,
    files_max: u32,
}

impl Rotating {
    fn open(path: &Path, bytes_max: u64, files_max: u32) -> io::Result<Self> {
        let file = append(path)?;
        let bytes = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, bytes, bytes_max, files_max: files_max.max(1) })
    }

    fn rotate(&mut self) -> io::Result<()> {
        let numbered = |number: u32| {
            let mut name = self.path.clone().into_os_string();
            name.push(format!(".{number}"));
            PathBuf::from(name)
        };
        for number in (1..self.files_max).rev() {
            let from = if number == 1 { self.path.clone() } else { numbered(number - 1) };
            match std::fs::rename(from, numbered(number)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        if self.files_max == 1 {
            self.file.set_len(0)?;
        }
        self.file = append(&self.path)?;
        self.bytes = 0;
        Ok(())
    }
}

impl Write for Rotating {
    /// The appender hands over whole lines, so no line is torn between two files.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.bytes > 0 && self.bytes + line.len() as u64 > self.bytes_max {
            // What cannot be renamed grows on: a log that is too long is better than none.
            drop(self.rotate());
        }
        let written = self.file.write(line)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o640).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_could_not_be_written_is_found_without_making_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("relayd.log");
        check(&path).unwrap();
        assert!(!path.exists());
        std::fs::write(&path, "line\n").unwrap();
        check(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "line\n");
        for wrong in [folder.path().to_owned(), path.join("log"), folder.path().join("nowhere/log")] {
            assert!(matches!(check(&wrong), Err(LogError::File { .. })), "{}", wrong.display());
        }
    }

    #[test]
    fn files_are_rotated_by_size_and_count() {
        let folder = std::env::temp_dir().join(format!("relayd-log-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("relayd.log");
        let mut log = Rotating::open(&path, 20, 3).unwrap();
        for number in 0..9 {
            log.write_all(format!("line {number}..\n").as_bytes()).unwrap();
        }
        let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap_or_default();
        assert_eq!(read("relayd.log"), "line 8..\n");
        assert_eq!(read("relayd.log.1"), "line 6..\nline 7..\n");
        assert_eq!(read("relayd.log.2"), "line 4..\nline 5..\n");
        assert_eq!(read("relayd.log.3"), "");
        drop(log);
        let mut log = Rotating::open(&path, 20, 1).unwrap();
        log.write_all(b"a line that is longer than a file\n").unwrap();
        log.write_all(b"next\n").unwrap();
        assert_eq!(read("relayd.log"), "next\n");
        std::fs::remove_dir_all(folder).unwrap();
    }
}
