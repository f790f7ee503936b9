//! How records lie in a segment file: a header, then frames until the first that is not intact.
//!
//! A frame is length (4 bytes, of what follows the checksum), CRC-32 of everything but itself (4), kind (1),
//! sequence (8), payload; integers are little-endian. Sequences grow from frame to frame.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::store::cbor::Appender;

/// Bytes of a frame without its payload.
pub(super) const FRAME_BYTES: usize = 17;
/// Bytes of the length and the checksum, which the length does not count.
const PREFIX_BYTES: usize = 8;
/// What a payload may have; a longer one is damage. The end of a request has what was held at every account that was
/// asked.
pub(super) const PAYLOAD_BYTES_MAX: usize = 128 << 10;
/// Bytes of a segment's header.
pub(super) const HEADER_BYTES: usize = 44;

const MAGIC: [u8; 8] = *b"relayjnl";
const FORMAT: u32 = 1;

/// What a payload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// [`super::Opened`]; again at the start of a segment for requests that are still open.
    Opened = 1,
    /// [`super::Attempt`]; again likewise.
    Attempt = 2,
    /// [`crate::store::Closed`].
    Closed = 3,
}

impl Kind {
    /// The kind that a frame's byte stands for.
    pub(super) fn of(code: u8) -> Option<Self> {
        [Self::Opened, Self::Attempt, Self::Closed].into_iter().find(|kind| *kind as u8 == code)
    }
}

/// An intact frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    pub(super) kind: u8,
    pub(super) sequence: u64,
    pub(super) payload: &'a [u8],
    /// The frame as it lies in the file.
    pub(super) bytes: &'a [u8],
}

/// A payload that no frame may hold.
#[derive(Debug, thiserror::Error)]
#[error("a journal record has {0} bytes, which is too many")]
pub(super) struct TooLarge(pub(super) usize);

/// Adds a frame to a buffer; a value that is too large leaves it as it was. Sequence and checksum are stamped
/// when the frame's place in the lane is certain.
pub(super) fn append(
    buffer: &mut Vec<u8>,
    kind: Kind,
    value: &impl minicbor::Encode<()>,
) -> Result<(), TooLarge> {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; FRAME_BYTES]);
    let encoded = minicbor::encode(value, Appender(buffer));
    let payload_bytes = buffer.len() - start - FRAME_BYTES;
    let length = u32::try_from(payload_bytes + FRAME_BYTES - PREFIX_BYTES).unwrap_or(u32::MAX);
    // Encoding into memory does not fail; a value that could not be encoded has no place here either.
    if encoded.is_err() || payload_bytes > PAYLOAD_BYTES_MAX {
        buffer.truncate(start);
        return Err(TooLarge(payload_bytes));
    }
    buffer[start..start + 4].copy_from_slice(&length.to_le_bytes());
    buffer[start + PREFIX_BYTES] = kind as u8;
    Ok(())
}

/// Numbers the frames that a buffer holds, from `sequence` on; gives the number after the last.
pub(super) fn stamp(frames: &mut [u8], mut sequence: u64) -> u64 {
    let mut rest = frames;
    while let Some(size) = frame_bytes(rest) {
        let (frame, after) = rest.split_at_mut(size.min(rest.len()));
        frame[PREFIX_BYTES + 1..FRAME_BYTES].copy_from_slice(&sequence.to_le_bytes());
        let checksum = checksum(frame);
        frame[4..PREFIX_BYTES].copy_from_slice(&checksum.to_le_bytes());
        sequence += 1;
        rest = after;
    }
    sequence
}

/// The size of the frame that begins here, if its length is one that a frame can have.
fn frame_bytes(bytes: &[u8]) -> Option<usize> {
    let length = usize::try_from(u32::from_le_bytes(*bytes.first_chunk()?)).ok()?;
    let size = length + PREFIX_BYTES;
    (FRAME_BYTES..=FRAME_BYTES + PAYLOAD_BYTES_MAX).contains(&size).then_some(size)
}

fn checksum(frame: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&frame[..4]);
    hasher.update(&frame[PREFIX_BYTES..]);
    hasher.finalize()
}

/// The frame that begins here, if it is whole and intact.
pub(super) fn parse(bytes: &[u8]) -> Option<Frame<'_>> {
    let bytes = bytes.get(..frame_bytes(bytes)?)?;
    let stored = u32::from_le_bytes(*bytes[4..].first_chunk()?);
    let (kind, rest) = bytes[PREFIX_BYTES..].split_first()?;
    let (sequence, payload) = rest.split_first_chunk()?;
    let frame = Frame { kind: *kind, sequence: u64::from_le_bytes(*sequence), payload, bytes };
    (stored == checksum(bytes)).then_some(frame)
}

/// What a segment's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) node: u32,
    pub(super) lane: u32,
    pub(super) epoch: u64,
    pub(super) first_sequence: u64,
    /// The frames at the beginning that say what is open: whoever has these needs no earlier segment for it.
    pub(super) carried: u32,
}

impl Header {
    pub(super) fn encode(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.node.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.lane.to_le_bytes());
        bytes[20..28].copy_from_slice(&self.epoch.to_le_bytes());
        bytes[28..36].copy_from_slice(&self.first_sequence.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.carried.to_le_bytes());
        let checksum = crc32fast::hash(&bytes[..40]);
        bytes[40..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// `None` for a header that is torn, or of another format.
    pub(super) fn decode(bytes: &[u8; HEADER_BYTES]) -> Option<Self> {
        let u32_at = |place: usize| bytes[place..].first_chunk().map(|bytes| u32::from_le_bytes(*bytes));
        let u64_at = |place: usize| bytes[place..].first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
        let is_ours = bytes.starts_with(&MAGIC)
            && u32_at(8) == Some(FORMAT)
            && u32_at(40) == Some(crc32fast::hash(&bytes[..40]));
        let header = Self {
            node: u32_at(12)?,
            lane: u32_at(16)?,
            epoch: u64_at(20)?,
            first_sequence: u64_at(28)?,
            carried: u32_at(36)?,
        };
        is_ours.then_some(header)
    }
}

/// Reads frames out of a file. One reader serves many files in turn.
#[derive(Debug, Default)]
pub(super) struct FrameReader {
    /// What was read from the file at `offset` and is not consumed yet is `buffer[start..]`.
    buffer: Vec<u8>,
    start: usize,
    offset: u64,
    last_sequence: u64,
}

/// How much is read at once: the largest frame and more.
const READ_BYTES: usize = 2 * PAYLOAD_BYTES_MAX;

impl FrameReader {
    /// Begins anew at a place in a file; frames must have sequences above `last_sequence`.
    pub(super) fn start_at(&mut self, offset: u64, last_sequence: u64) {
        self.buffer.clear();
        (self.start, self.offset, self.last_sequence) = (0, offset, last_sequence);
    }

    /// Where the next frame begins.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// The sequence of the last frame.
    pub(super) fn last_sequence(&self) -> u64 {
        self.last_sequence
    }

    /// The next frame, if one ends at or before `limit` and is intact.
    pub(super) fn next(&mut self, file: &File, limit: u64) -> io::Result<Option<Frame<'_>>> {
        let rest = &self.buffer[self.start..];
        if frame_bytes(rest).is_none_or(|size| rest.len() < size) {
            self.fill(file, limit)?;
        }
        let frame = parse(&self.buffer[self.start..]).filter(|frame| frame.sequence > self.last_sequence);
        if let Some(frame) = frame {
            self.start += frame.bytes.len();
            self.offset += frame.bytes.len() as u64;
            self.last_sequence = frame.sequence;
        }
        Ok(frame)
    }

    fn fill(&mut self, file: &File, limit: u64) -> io::Result<()> {
        self.buffer.drain(..self.start);
        self.start = 0;
        let have = self.buffer.len();
        let left = limit.saturating_sub(self.offset + have as u64);
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(READ_BYTES.saturating_sub(have));
        self.buffer.resize(have + wanted, 0);
        let (mut filled, from) = (have, self.offset);
        while filled < self.buffer.len() {
            match file.read_at(&mut self.buffer[filled..], from + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.buffer.truncate(filled);
                    return Err(error);
                }
            }
        }
        self.buffer.truncate(filled);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::store::contract::Folder;

    fn frames(count: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        for number in 0..count {
            append(&mut bytes, Kind::Closed, &"x".repeat(usize::try_from(number).unwrap())).unwrap();
        }
        assert_eq!(stamp(&mut bytes, 1), count + 1);
        bytes
    }

    #[test]
    fn a_frame_is_read_as_it_was_written_or_not_at_all() {
        let bytes = frames(2);
        let first = parse(&bytes).unwrap();
        assert_eq!((first.kind, first.sequence, first.payload), (3, 1, &[0x60][..]));
        let second = parse(&bytes[first.bytes.len()..]).unwrap();
        assert_eq!((second.sequence, second.payload), (2, &[0x61, b'x'][..]));
        for length in 0..first.bytes.len() {
            assert_eq!(parse(&bytes[..length]), None, "{length}");
        }
        for place in 0..first.bytes.len() * 8 {
            let mut wrong = bytes.clone();
            wrong[place / 8] ^= 1 << (place % 8);
            assert_eq!(parse(&wrong), None, "bit {place}");
        }
        assert_eq!(parse(&[0; 100]), None);
        assert_eq!(parse(&[0xff; 100]), None);
    }

    #[test]
    fn a_value_that_is_too_large_leaves_the_buffer_as_it_was() {
        let mut bytes = frames(3);
        let before = bytes.clone();
        assert!(append(&mut bytes, Kind::Opened, &"x".repeat(PAYLOAD_BYTES_MAX)).is_err());
        assert_eq!(bytes, before);
        append(&mut bytes, Kind::Opened, &"x".repeat(PAYLOAD_BYTES_MAX - 5)).unwrap();
        stamp(&mut bytes, 1);
        assert!(parse(&bytes[before.len()..]).is_some());
    }

    #[test]
    fn a_header_is_read_as_it_was_written_or_not_at_all() {
        let header = Header { node: 7, lane: 3, epoch: u64::MAX, first_sequence: 9, carried: 4 };
        let bytes = header.encode();
        assert_eq!(Header::decode(&bytes), Some(header));
        for place in 0..bytes.len() {
            let mut wrong = bytes;
            wrong[place] ^= 1;
            assert_eq!(Header::decode(&wrong), None, "{place}");
        }
    }

    #[test]
    fn a_reader_stops_at_the_limit_and_at_numbers_that_do_not_grow() {
        let folder = Folder::new();
        let path = folder.path().join("frames");
        let (bytes, large) = (frames(1_600), frames(3));
        assert!(bytes.len() > 2 * READ_BYTES, "it is read in several pieces");
        std::fs::write(&path, &bytes).unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        let mut reader = FrameReader::default();
        let count = |reader: &mut FrameReader, limit: u64| {
            let mut count = 0;
            while let Some(frame) = reader.next(&file, limit).unwrap() {
                count += 1;
                assert_eq!(frame.payload.len(), frame.bytes.len() - FRAME_BYTES);
            }
            count
        };
        let end = bytes.len() as u64;
        reader.start_at(0, 0);
        assert_eq!((count(&mut reader, end - 1), reader.last_sequence()), (1_599, 1_599));
        assert_eq!((count(&mut reader, end), reader.offset()), (1, end));
        file.write_all_at(&large, end).unwrap();
        assert_eq!(count(&mut reader, end + large.len() as u64), 0, "their numbers begin again");
        reader.start_at(end, 0);
        assert_eq!(count(&mut reader, end + large.len() as u64), 3);
    }
}
