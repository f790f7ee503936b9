//! Figures that several parts of the simulator know.

/// When every answer claims to have been made: 2026-01-01T00:00:00Z. Only the edges of the daemon read the
/// clock, and nothing depends on it here.
pub(super) const CREATED_S: i64 = 1_767_225_600;

/// Tokens that `sim-long` says at most.
pub(super) const LONG_TOKENS_MAX: u32 = 32_768;

/// Bytes of text that are counted as one token.
pub(super) const BYTES_PER_TOKEN: usize = 4;

/// The tokens that a text of so many bytes is counted as: a quarter, rounded up.
pub(super) fn tokens(bytes: usize) -> u64 {
    u64::try_from(bytes.div_ceil(BYTES_PER_TOKEN)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_quarters_rounded_up() {
        for (bytes, expected) in [(0, 0), (1, 1), (4, 1), (5, 2), (8, 2), (4_000, 1_000)] {
            assert_eq!(tokens(bytes), expected, "{bytes}");
        }
    }
}
