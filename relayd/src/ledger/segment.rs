//! Segment files and epoch folders: names, creation, the room set aside for them.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::frame::{HEADER_BYTES, Header};

const SPARE_SUFFIX: &str = ".spare";

/// A file of frames.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) path: PathBuf,
    pub(super) file: File,
    pub(super) first_sequence: u64,
    /// The bytes that it may have.
    pub(super) capacity: u64,
}

/// Room for the next segment. It becomes one when its header is written.
#[derive(Debug)]
pub(super) struct Spare {
    path: PathBuf,
    file: File,
    pub(super) capacity: u64,
}

impl Spare {
    /// Takes room for a lane's next segment. No two spares of an epoch have the same number.
    pub(super) fn create(folder: &Path, number: u64, capacity: u64) -> io::Result<Self> {
        let path = folder.join(format!("{number}{SPARE_SUFFIX}"));
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        let spare = Self { path, file, capacity };
        match preallocate(&spare.file, capacity) {
            Ok(()) => Ok(spare),
            Err(error) => {
                spare.discard();
                Err(error)
            }
        }
    }

    /// Gives the room back.
    pub(super) fn discard(self) {
        // What cannot be removed now is removed when the folder is.
        drop(std::fs::remove_file(&self.path));
    }

    /// Takes more room.
    pub(super) fn grow(&mut self, capacity: u64) -> io::Result<()> {
        preallocate(&self.file, capacity)?;
        self.capacity = capacity;
        Ok(())
    }

    /// Makes it a segment that begins with these frames, or leaves it as it was.
    pub(super) fn begin(self, header: Header, frames: &[u8]) -> Result<Segment, (Self, io::Error)> {
        let path = self.path.with_file_name(segment_name(header.lane, header.first_sequence));
        // The header last: a segment that has one has all that was carried into it.
        let begun = self
            .file
            .write_all_at(frames, HEADER_BYTES as u64)
            .and_then(|()| self.file.write_all_at(&header.encode(), 0))
            .and_then(|()| std::fs::rename(&self.path, &path));
        match begun {
            Ok(()) => {
                let (file, capacity) = (self.file, self.capacity);
                Ok(Segment { path, file, first_sequence: header.first_sequence, capacity })
            }
            Err(error) => Err((self, error)),
        }
    }
}

/// Makes the file this large, with blocks behind all of it where the system can do that.
#[cfg(target_os = "linux")]
fn preallocate(file: &File, bytes: u64) -> io::Result<()> {
    use rustix::fs::{FallocateFlags, fallocate};
    use rustix::io::Errno;
    match fallocate(file, FallocateFlags::empty(), 0, bytes) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => file.set_len(bytes),
        other => Ok(other?),
    }
}

/// Makes the file this large.
#[cfg(not(target_os = "linux"))]
fn preallocate(file: &File, bytes: u64) -> io::Result<()> {
    file.set_len(bytes)
}

fn segment_name(lane: u32, first_sequence: u64) -> String {
    format!("l{lane}-{first_sequence:020}.seg")
}

/// The lane and the first sequence that a file's name tells.
pub(super) fn parse_segment_name(name: &str) -> Option<(u32, u64)> {
    let (lane, sequence) = name.strip_prefix('l')?.strip_suffix(".seg")?.split_once('-')?;
    Some((lane.parse().ok()?, sequence.parse().ok()?))
}

/// Whether a file is a spare.
pub(super) fn is_spare_name(name: &str) -> bool {
    name.ends_with(SPARE_SUFFIX)
}

/// The folder of an epoch.
pub(super) fn epoch_folder(dir: &Path, epoch: u64) -> PathBuf {
    dir.join(format!("e{epoch:016x}"))
}

/// The epoch that a folder's name tells.
pub(super) fn parse_epoch_name(name: &str) -> Option<u64> {
    let digits = name.strip_prefix('e').filter(|digits| digits.len() == 16)?;
    u64::from_str_radix(digits, 16).ok()
}

/// Creates a folder that is its owner's alone, unless it is there.
pub(super) fn create_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Takes the lock of an epoch's folder; `None` if a process that lives has it. It is held until the file is
/// closed, which the system sees to when the process ends.
pub(super) fn lock_folder(folder: &Path) -> io::Result<Option<File>> {
    let path = folder.join("lock");
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(std::fs::TryLockError::WouldBlock) => Ok(None),
        Err(std::fs::TryLockError::Error(error)) => Err(error),
    }
}

/// Makes names in a folder last.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
