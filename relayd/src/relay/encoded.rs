//! Reads the usage out of a reply's bytes as they pass, also when the upstream encoded them although it was
//! asked not to. Decoding happens on the side, a piece at a time; what cannot be decoded is not read.

use std::io::{self, Write};

use flate2::write::{MultiGzDecoder, ZlibDecoder};
use http::HeaderMap;
use http::header::CONTENT_ENCODING;

use crate::protocol::{Meter, Opening, Reading};

/// Decoded bytes of one reply that are looked at: a small reply may decode to a very large one.
const DECODED_BYTES_MAX: u64 = 256 << 20;

/// The reader of one reply.
pub(super) enum Reader {
    Plain(Box<Meter>),
    Gzip(Box<MultiGzDecoder<Sink>>),
    Deflate(Box<ZlibDecoder<Sink>>),
    /// An encoding that is not understood.
    Unread(Box<Meter>),
}

/// Where decoded bytes go, until decoding fails or there are too many of them.
pub(super) struct Sink {
    meter: Box<Meter>,
    left: u64,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.left = self.left.checked_sub(bytes.len() as u64).ok_or(io::ErrorKind::FileTooLarge)?;
        self.meter.feed(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Reader {
    /// Picks the way to read a reply by its headers.
    pub(super) fn new(headers: &HeaderMap, meter: Box<Meter>) -> Self {
        let encoding = headers.get(CONTENT_ENCODING).map(|value| value.as_bytes().to_ascii_lowercase());
        let sink = |meter| Sink { meter, left: DECODED_BYTES_MAX };
        match encoding.as_deref() {
            None | Some(b"identity" | b"") => Self::Plain(meter),
            Some(b"gzip" | b"x-gzip") => Self::Gzip(Box::new(MultiGzDecoder::new(sink(meter)))),
            Some(b"deflate") => Self::Deflate(Box::new(ZlibDecoder::new(sink(meter)))),
            Some(_) => Self::Unread(meter),
        }
    }

    /// Whether the bytes can be taken for what the protocol says: nothing may be added to an encoded reply.
    pub(super) const fn is_plain(&self) -> bool {
        matches!(self, Self::Plain(_))
    }

    /// Whether its encoding is understood.
    pub(super) const fn is_read(&self) -> bool {
        !matches!(self, Self::Unread(_))
    }

    /// Looks at the next bytes. After a failure the decoder takes nothing more, and what was read stands.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        match self {
            Self::Plain(meter) => meter.feed(bytes),
            Self::Gzip(decoder) => drop(decoder.write_all(bytes)),
            Self::Deflate(decoder) => drop(decoder.write_all(bytes)),
            Self::Unread(_) => {}
        }
    }

    /// The reply ended.
    pub(super) fn finish(&mut self) {
        match self {
            Self::Gzip(decoder) => drop(decoder.try_finish()),
            Self::Deflate(decoder) => drop(decoder.try_finish()),
            Self::Plain(_) | Self::Unread(_) => {}
        }
        self.meter_mut().finish();
    }

    /// What the stream showed so far.
    pub(super) fn opening(&self) -> Opening {
        self.meter().opening()
    }

    /// What was read.
    pub(super) fn reading(&self) -> &Reading {
        self.meter().reading()
    }

    fn meter(&self) -> &Meter {
        match self {
            Self::Plain(meter) | Self::Unread(meter) => meter,
            Self::Gzip(decoder) => &decoder.get_ref().meter,
            Self::Deflate(decoder) => &decoder.get_ref().meter,
        }
    }

    fn meter_mut(&mut self) -> &mut Meter {
        match self {
            Self::Plain(meter) | Self::Unread(meter) => meter,
            Self::Gzip(decoder) => &mut decoder.get_mut().meter,
            Self::Deflate(decoder) => &mut decoder.get_mut().meter,
        }
    }
}
