//! Where records go that cannot be applied: kept for people to look at, counted, and in nobody's way.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tracing::error;

use super::segment::create_folder;

/// The folder of records set aside.
#[derive(Debug)]
pub(super) struct SetAside {
    folder: PathBuf,
    /// By their names. A record that is read again from the journal is not counted again.
    kept: Mutex<HashSet<String>>,
}

impl SetAside {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder, kept: Mutex::default() }
    }

    /// How many were set aside by this process.
    pub(super) fn count(&self) -> u64 {
        self.names().len() as u64
    }

    /// Keeps a record that cannot be applied.
    pub(super) fn record(&self, epoch: u64, lane: u32, sequence: u64, reason: &str, frame: &[u8]) {
        let name = record_name(epoch, lane, sequence);
        self.tell(&name, reason, &self.keep(&name, |file| file.write_all(frame)));
    }

    /// Whether a record was set aside by this process.
    pub(super) fn has(&self, epoch: u64, lane: u32, sequence: u64) -> bool {
        self.names().contains(&record_name(epoch, lane, sequence))
    }

    /// Keeps what a segment has from `offset` to `end`, if it is anything but zeros.
    pub(super) fn rest(&self, name: &str, source: &File, offset: u64, end: u64) -> io::Result<()> {
        if is_zero(source, offset, end)? {
            return Ok(());
        }
        let kept = self.keep(name, |file| copy(source, offset, end, |bytes| file.write_all(bytes)));
        self.tell(name, "damaged frames", &kept);
        kept
    }

    fn tell(&self, name: &str, reason: &str, kept: &io::Result<()>) {
        let is_new = self.names().insert(name.to_owned());
        match kept {
            Ok(()) if !is_new => {}
            Ok(()) => error!(name, reason, "a journal record was set aside"),
            Err(error) => error!(name, reason, %error, "a journal record cannot even be set aside"),
        }
    }

    fn names(&self) -> MutexGuard<'_, HashSet<String>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, name: &str, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
        create_folder(&self.folder)?;
        let path = self.folder.join(name);
        let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        write(&mut file)?;
        file.sync_all()
    }
}

fn record_name(epoch: u64, lane: u32, sequence: u64) -> String {
    format!("e{epoch:016x}-l{lane}-{sequence:020}.rec")
}

/// Whether a part of a file is zeros: room that nothing was written to.
pub(super) fn is_zero(file: &File, offset: u64, end: u64) -> io::Result<bool> {
    let mut is_zero = true;
    copy(file, offset, end, |bytes| {
        is_zero &= bytes.iter().all(|byte| *byte == 0);
        Ok(())
    })?;
    Ok(is_zero)
}

fn copy(
    file: &File,
    mut offset: u64,
    end: u64,
    mut write: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    while offset < end {
        let wanted = usize::try_from(end - offset).unwrap_or(usize::MAX).min(buffer.len());
        let count = file.read_at(&mut buffer[..wanted], offset)?;
        if count == 0 {
            break;
        }
        write(&buffer[..count])?;
        offset += count as u64;
    }
    Ok(())
}
