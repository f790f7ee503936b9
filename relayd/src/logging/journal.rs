//! Lines for the journal of systemd: each begins with its priority, as `sd-daemon(3)` has it.

use std::env;
use std::io::{self, Write};

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// Whether the standard error goes to the journal: systemd says which stream it passed, and a child may have another.
pub(super) fn is_stderr() -> bool {
    let Ok(stream) = env::var("JOURNAL_STREAM") else { return false };
    rustix::fs::fstat(io::stderr()).is_ok_and(|stat| stream == format!("{}:{}", stat.st_dev, stat.st_ino))
}

/// Puts the priority of each line in front of it.
pub(super) struct Prioritised<W>(pub(super) W);

impl<'a, W: MakeWriter<'a>> MakeWriter<'a> for Prioritised<W> {
    type Writer = Line<W::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        Line { writer: self.0.make_writer(), priority: priority(Level::INFO) }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Self::Writer {
        Line { writer: self.0.make_writer_for(metadata), priority: priority(*metadata.level()) }
    }
}

/// Writes one line.
pub(super) struct Line<W> {
    writer: W,
    priority: u8,
}

impl<W: Write> Write for Line<W> {
    /// A line comes as a whole, and goes on as one.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let prefix = format!("<{}>", self.priority);
        self.writer.write_all(&[prefix.as_bytes(), line].concat())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

const fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_written_whole_with_its_priority() {
        let mut written = Vec::new();
        for (level, line) in [(Level::ERROR, "it broke\n"), (Level::INFO, "{\"fine\":1}\n")] {
            let mut line_writer = Line { writer: &mut written, priority: priority(level) };
            line_writer.write_all(line.as_bytes()).unwrap();
        }
        assert_eq!(String::from_utf8(written).unwrap(), "<3>it broke\n<6>{\"fine\":1}\n");
    }
}
