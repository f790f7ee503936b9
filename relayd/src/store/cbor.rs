//! CBOR into memory. Nearly all of it is written a byte or two at a time, so that must not cost a call each.

use std::convert::Infallible;

use minicbor::encode::Write;

/// Appends to a buffer.
pub struct Appender<'a>(pub &'a mut Vec<u8>);

impl Write for Appender<'_> {
    type Error = Infallible;

    #[inline]
    fn write_all(&mut self, bytes: &[u8]) -> Result<(), Infallible> {
        match *bytes {
            [one] => self.0.push(one),
            [one, two] => self.0.extend([one, two]),
            _ => self.0.extend_from_slice(bytes),
        }
        Ok(())
    }
}
