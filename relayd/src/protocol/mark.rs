//! Marks: what a line of a stream must have to be worth reading.

use memchr::memmem::Finder;

/// Something that a line must have to be worth reading.
pub(super) struct Mark {
    text: Finder<'static>,
    is_key: bool,
}

impl Mark {
    /// These bytes.
    pub(super) fn text(text: &'static str) -> Self {
        Self { text: Finder::new(text), is_key: false }
    }

    /// This key (quotes included) with a value other than null, which some vendors write in every chunk.
    pub(super) fn key(quoted: &'static str) -> Self {
        Self { text: Finder::new(quoted), is_key: true }
    }

    pub(super) fn is_in(&self, data: &[u8]) -> bool {
        let length = self.text.needle().len();
        self.text.find_iter(data).any(|at| {
            let after = data.get(at + length..).unwrap_or_default();
            let value = after.iter().find(|byte| !matches!(byte, b' ' | b'\t' | b':'));
            !self.is_key || value != Some(&b'n')
        })
    }
}
