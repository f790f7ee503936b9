//! A row in place of what is stored of it: what a newer version wrote at its end stays.

use minicbor::{Decoder, Encoder};

use super::{Closed, StoreError};

/// How many elements this version knows of a [`Closed`].
const ELEMENTS: u64 = 27;

/// The CBOR of a request in place of what is stored of it.
pub fn amended(stored: &[u8], closed: &Closed) -> Result<Vec<u8>, StoreError> {
    let (newer, tail) = newer(stored).map_err(damaged)?;
    let own = minicbor::to_vec(closed).map_err(damaged)?;
    if newer == 0 {
        return Ok(own);
    }
    let mut decoder = Decoder::new(&own);
    let written = decoder.array().map_err(damaged)?.unwrap_or_default();
    let mut row = Vec::with_capacity(own.len() + tail.len());
    Encoder::new(&mut row).array(ELEMENTS + newer).map_err(damaged)?;
    row.extend_from_slice(&own[decoder.position()..]);
    // What ends with nothing is written without it.
    for _ in written..ELEMENTS {
        Encoder::new(&mut row).null().map_err(damaged)?;
    }
    row.extend_from_slice(tail);
    Ok(row)
}

/// How many elements this version does not know, and their bytes.
fn newer(stored: &[u8]) -> Result<(u64, &[u8]), minicbor::decode::Error> {
    let mut decoder = Decoder::new(stored);
    let elements = decoder.array()?.unwrap_or_default();
    for _ in 0..elements.min(ELEMENTS) {
        decoder.skip()?;
    }
    Ok((elements.saturating_sub(ELEMENTS), &stored[decoder.position()..]))
}

fn damaged(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
    StoreError::Damaged { what: "ledger row", source: source.into() }
}

#[cfg(test)]
mod tests {
    use shared::domain::NanoUsd;

    use super::*;
    use crate::store::contract::{closed, request_id};

    /// A row of a version that has two elements more.
    fn of_newer_version(closed: &Closed) -> Vec<u8> {
        let own = minicbor::to_vec(closed).unwrap();
        let mut decoder = Decoder::new(&own);
        let written = decoder.array().unwrap().unwrap();
        let mut row = Vec::new();
        Encoder::new(&mut row).array(ELEMENTS + 2).unwrap();
        row.extend_from_slice(&own[decoder.position()..]);
        (written..ELEMENTS).for_each(|_| drop(Encoder::new(&mut row).null()));
        Encoder::new(&mut row).str("newer").unwrap().u8(7).unwrap();
        row
    }

    #[test]
    fn all_elements_are_known() {
        let row = minicbor::to_vec(closed(request_id(1), Vec::new())).unwrap();
        assert_eq!(Decoder::new(&row).array().unwrap(), Some(ELEMENTS));
        assert_eq!(newer(&row).unwrap(), (0, &[][..]));
    }

    #[test]
    fn what_a_newer_version_wrote_stays() {
        let before = closed(request_id(1), Vec::new());
        for tier in [before.tier, None] {
            let after = Closed { cost: NanoUsd::from_nanos(99), tier, ..before.clone() };
            let row = amended(&minicbor::to_vec(&before).unwrap(), &after).unwrap();
            assert_eq!(minicbor::decode::<Closed>(&row).unwrap(), after);
            let row = amended(&of_newer_version(&before), &after).unwrap();
            assert_eq!(row, of_newer_version(&after));
            assert_eq!(minicbor::decode::<Closed>(&row).unwrap(), after);
        }
        assert!(amended(b"\x01", &before).is_err());
    }
}
