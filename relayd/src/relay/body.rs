//! Request bodies: read once, bounded for the request and for the node, with a deadline for pauses, decoded
//! where the client encoded them.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use http_body_util::BodyExt;
use hyper::body::Incoming;

/// Bodies up to this size get their buffer at once, of which the system gives no page before it is written to;
/// larger ones get theirs when so much has really come.
const TRUSTED_LENGTH: u64 = 16 << 20;
/// How much is decoded before it is looked at how much that is.
const DECODED_PIECE: u64 = 64 << 10;

/// Why a body could not be read.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// It is larger than allowed.
    #[error("the request body is larger than {0} bytes")]
    TooLarge(u64),
    /// All request bodies together are larger than the node has room for.
    #[error("too many large requests at once")]
    NoRoom,
    /// The client paused for too long.
    #[error("the request body did not arrive in time")]
    Timeout,
    /// The client broke off.
    #[error("the request body broke off")]
    Broken(#[source] hyper::Error),
    /// It is encoded in a way that is not understood.
    #[error("a request body may be encoded with gzip or deflate, or not at all")]
    Encoding,
    /// It is not what its encoding says.
    #[error("the request body is no valid {0}")]
    Undecodable(&'static str),
}

/// Room for all request bodies of the node together.
#[derive(Clone)]
pub struct BodyBudget {
    used: Arc<AtomicU64>,
    bytes_max: u64,
}

impl BodyBudget {
    /// Makes room for so many bytes.
    pub fn new(bytes_max: u64) -> Self {
        Self { used: Arc::default(), bytes_max }
    }

    /// Room for nothing yet, if so many bytes could have theirs now. They take it as they come: what a client only
    /// announces keeps no place from others.
    fn room_for(&self, bytes: u64) -> Result<Room, BodyError> {
        match self.with(self.used.load(Ordering::Relaxed), bytes) {
            Some(_) => Ok(Room { budget: self.clone(), bytes: 0 }),
            None => Err(BodyError::NoRoom),
        }
    }

    /// What would be used with so many bytes more, if there is room for them.
    fn with(&self, used: u64, bytes: u64) -> Option<u64> {
        used.checked_add(bytes).filter(|&sum| sum <= self.bytes_max)
    }
}

/// Room that is given back when dropped.
pub struct Room {
    budget: BodyBudget,
    bytes: u64,
}

impl Room {
    fn grow(&mut self, bytes: u64) -> Result<(), BodyError> {
        let more = |used| self.budget.with(used, bytes);
        let taken = self.budget.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        taken.map_err(|_| BodyError::NoRoom)?;
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Reads a body whole. The room is kept for as long as the body is.
pub(super) async fn read(
    headers: &HeaderMap,
    body: &mut Incoming,
    budget: &BodyBudget,
    bytes_max: u64,
    idle: Duration,
) -> Result<(Bytes, Room), BodyError> {
    let encoding = Encoding::of(headers)?;
    let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > bytes_max) {
        return Err(BodyError::TooLarge(bytes_max));
    }
    let mut room = budget.room_for(length.unwrap_or(0))?;
    let mut reading = Reading { body, room: &mut room, length: length.unwrap_or(0), bytes_max };
    let raw = reading.whole(idle).await?;
    match encoding {
        None => Ok((raw, room)),
        Some(encoding) => {
            let decoding = move || encoding.decode(&raw, bytes_max, &mut room).map(|decoded| (decoded, room));
            let decoded = tokio::task::spawn_blocking(decoding).await;
            decoded.map_err(|_| BodyError::Undecodable(encoding.name()))?
        }
    }
}

struct Reading<'a> {
    body: &'a mut Incoming,
    room: &'a mut Room,
    length: u64,
    bytes_max: u64,
}

impl Reading<'_> {
    /// A body that comes in one piece is not copied.
    async fn whole(&mut self, idle: Duration) -> Result<Bytes, BodyError> {
        let Some(first) = self.piece(idle, 0).await? else { return Ok(Bytes::new()) };
        let Some(second) = self.piece(idle, first.len() as u64).await? else { return Ok(first) };
        let expected = usize::try_from(self.length.min(TRUSTED_LENGTH)).unwrap_or(0);
        let mut whole = BytesMut::with_capacity(expected.max(first.len() + second.len()));
        whole.extend_from_slice(&first);
        whole.extend_from_slice(&second);
        while let Some(piece) = self.piece(idle, whole.len() as u64).await? {
            if whole.capacity() - whole.len() < piece.len() {
                let to_come = usize::try_from(self.length).unwrap_or(0).saturating_sub(whole.len());
                whole.reserve(to_come.max(piece.len()));
            }
            whole.extend_from_slice(&piece);
        }
        Ok(whole.freeze())
    }

    async fn piece(&mut self, idle: Duration, so_far: u64) -> Result<Option<Bytes>, BodyError> {
        loop {
            let frame =
                tokio::time::timeout(idle, self.body.frame()).await.map_err(|_| BodyError::Timeout)?;
            let Some(frame) = frame else { return Ok(None) };
            let Ok(data) = frame.map_err(BodyError::Broken)?.into_data() else { continue };
            if data.is_empty() {
                continue;
            }
            let total = so_far + data.len() as u64;
            if total > self.bytes_max {
                return Err(BodyError::TooLarge(self.bytes_max));
            }
            self.room.grow(data.len() as u64)?;
            return Ok(Some(data));
        }
    }
}

#[derive(Clone, Copy)]
enum Encoding {
    Gzip,
    Deflate,
}

impl Encoding {
    fn of(headers: &HeaderMap) -> Result<Option<Self>, BodyError> {
        let Some(value) = headers.get(CONTENT_ENCODING) else { return Ok(None) };
        match value.to_str().map(str::to_ascii_lowercase).as_deref() {
            Ok("identity" | "") => Ok(None),
            Ok("gzip" | "x-gzip") => Ok(Some(Self::Gzip)),
            Ok("deflate") => Ok(Some(Self::Deflate)),
            _ => Err(BodyError::Encoding),
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
        }
    }

    /// Room is taken as the decoded body grows: it may be a thousand times as large as what came.
    fn decode(self, raw: &[u8], bytes_max: u64, room: &mut Room) -> Result<Bytes, BodyError> {
        let mut decoder: Box<dyn Read + '_> = match self {
            Self::Gzip => Box::new(flate2::read::MultiGzDecoder::new(raw)),
            Self::Deflate => Box::new(flate2::read::ZlibDecoder::new(raw)),
        };
        let mut decoded = Vec::new();
        loop {
            let before = decoded.len();
            let mut piece = decoder.by_ref().take(DECODED_PIECE);
            piece.read_to_end(&mut decoded).map_err(|_| BodyError::Undecodable(self.name()))?;
            if decoded.len() == before {
                return Ok(decoded.into());
            }
            if decoded.len() as u64 > bytes_max {
                return Err(BodyError::TooLarge(bytes_max));
            }
            room.grow((decoded.len() - before) as u64)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzipped(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn encoded_bodies_are_decoded_within_the_limit() {
        let body = vec![b'x'; 200_000];
        let encoded = gzipped(&body);
        let decode = |encoding: Encoding, raw: &[u8], bytes_max, room_bytes| {
            let mut room = BodyBudget::new(room_bytes).room_for(0).unwrap();
            encoding.decode(raw, bytes_max, &mut room)
        };
        assert_eq!(decode(Encoding::Gzip, &encoded, 200_000, 200_000).unwrap(), body);
        assert!(matches!(
            decode(Encoding::Gzip, &encoded, 199_999, 200_000),
            Err(BodyError::TooLarge(199_999))
        ));
        assert!(matches!(decode(Encoding::Gzip, &encoded, 200_000, 199_999), Err(BodyError::NoRoom)));
        let cut = &encoded[..encoded.len() - 9];
        assert!(matches!(decode(Encoding::Gzip, cut, 200_000, 200_000), Err(BodyError::Undecodable("gzip"))));
        assert!(matches!(
            decode(Encoding::Deflate, b"no zlib", 10, 10),
            Err(BodyError::Undecodable("deflate"))
        ));
    }

    #[test]
    fn room_is_taken_as_it_is_needed_and_given_back() {
        let budget = BodyBudget::new(100);
        let mut first = budget.room_for(100).unwrap();
        let second = budget.room_for(100).unwrap();
        first.grow(60).unwrap();
        assert!(matches!(budget.room_for(41), Err(BodyError::NoRoom)));
        first.grow(40).unwrap();
        assert!(matches!(first.grow(1), Err(BodyError::NoRoom)));
        drop(first);
        drop(second);
        assert!(budget.room_for(100).is_ok());
        assert!(matches!(budget.room_for(101), Err(BodyError::NoRoom)));
        assert_eq!(budget.used.load(Ordering::Relaxed), 0);
    }
}
