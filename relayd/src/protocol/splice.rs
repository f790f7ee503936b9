//! A request body with a few places exchanged: the bytes between them are shared with what the client sent.
//! It neither knows JSON nor decides what to edit.

use std::convert::Infallible;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

/// A body of a few slices whose length is known. A clone shares the bytes, so that one can be kept for another
/// attempt; a clone of a body that was read in part goes on from there.
#[derive(Clone, Debug)]
pub struct Splice {
    parts: Parts,
    next: usize,
}

#[derive(Clone, Debug)]
enum Parts {
    One(Bytes),
    Many(Arc<[Bytes]>),
}

impl Splice {
    /// A body that is sent as it came.
    pub fn whole(body: Bytes) -> Self {
        Self { parts: Parts::One(body), next: 0 }
    }

    /// A body without bytes.
    pub fn empty() -> Self {
        Self::whole(Bytes::new())
    }

    /// The bytes that are still to be sent.
    pub fn len(&self) -> u64 {
        self.parts().iter().map(|part| part.len() as u64).sum()
    }

    /// Nothing is left to be sent.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The slices that are still to be sent, in order. Signing reads them.
    pub fn parts(&self) -> &[Bytes] {
        let parts = match &self.parts {
            Parts::One(part) => std::slice::from_ref(part),
            Parts::Many(parts) => parts,
        };
        parts.get(self.next..).unwrap_or_default()
    }

    /// What is still to be sent as one slice: a copy, unless the body is a single slice.
    pub fn to_bytes(&self) -> Bytes {
        match self.parts() {
            [] => Bytes::new(),
            [part] => part.clone(),
            parts => parts.concat().into(),
        }
    }
}

impl From<Bytes> for Splice {
    fn from(body: Bytes) -> Self {
        Self::whole(body)
    }
}

impl Body for Splice {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        while let Some(part) = self.parts().first().cloned() {
            self.next += 1;
            if !part.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(part))));
            }
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.len())
    }
}

/// What is to be exchanged in a body: places in the original and what stands there instead. An insertion is an
/// empty place. Places are kept in order and never overlap: where two would, the one listed first stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edits(Vec<(Range<usize>, Bytes)>);

impl Edits {
    /// One exchange.
    pub fn one(place: Range<usize>, replacement: impl Into<Bytes>) -> Self {
        let mut edits = Self::default();
        edits.add(place, replacement);
        edits
    }

    /// Lists an exchange, unless it overlaps one that is listed. Insertions at one place stand in the order of
    /// listing, before what replaces the bytes that follow.
    pub fn add(&mut self, place: Range<usize>, replacement: impl Into<Bytes>) {
        let after = |listed: &Range<usize>| {
            listed.end <= place.start
                && !(listed.is_empty() && place.is_empty() && listed.start > place.start)
        };
        let index = self.0.partition_point(|(listed, _)| after(listed));
        let is_free = self.0.get(index).is_none_or(|(next, _)| place.end <= next.start);
        if is_free && place.start <= place.end {
            self.0.insert(index, (place, replacement.into()));
        }
    }

    /// Both lists as one; where they overlap, this one's exchange stands.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        for (place, replacement) in other.0 {
            self.add(place, replacement);
        }
        self
    }

    /// Nothing is to be exchanged.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The edited body. Nothing of the original is copied; a place beyond its end counts as its end.
    pub fn apply(&self, body: &Bytes) -> Splice {
        if self.is_empty() {
            return Splice::whole(body.clone());
        }
        let mut parts = Vec::with_capacity(self.0.len() * 2 + 1);
        let mut at = 0;
        for (place, replacement) in &self.0 {
            let start = place.start.min(body.len());
            parts.push(body.slice(at..start));
            parts.push(replacement.clone());
            at = place.end.min(body.len());
        }
        parts.push(body.slice(at..));
        parts.retain(|part| !part.is_empty());
        Splice { parts: Parts::Many(parts.into()), next: 0 }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use proptest::prelude::*;

    use super::*;

    fn sent(mut splice: Splice) -> Vec<u8> {
        let mut sent = Vec::new();
        let mut context = Context::from_waker(Waker::noop());
        loop {
            assert_eq!(splice.size_hint().exact(), Some(splice.len()));
            match Pin::new(&mut splice).poll_frame(&mut context) {
                Poll::Ready(Some(Ok(frame))) => sent.extend_from_slice(frame.data_ref().unwrap()),
                Poll::Ready(None) => break,
                Poll::Pending => panic!("a splice never waits"),
            }
        }
        assert!(splice.is_end_stream());
        sent
    }

    #[test]
    fn edits_are_applied_in_order() {
        let body = Bytes::from_static(b"0123456789");
        let mut edits = Edits::one(7..9, "xyz");
        edits.add(2..3, "");
        edits.add(0..0, "<");
        edits.add(7..7, "|");
        edits.add(10..10, ">");
        let splice = edits.apply(&body);
        assert_eq!(sent(splice.clone()), b"<013456|xyz9>");
        assert_eq!(splice.to_bytes(), "<013456|xyz9>");
        assert_eq!(splice.len(), 13);
    }

    #[test]
    fn the_first_of_two_overlapping_edits_stands() {
        let body = Bytes::from_static(b"0123456789");
        for (second, expected) in
            [(3..5, "01xx6789"), (0..3, "01xx6789"), (4..4, "01xx6789"), (5..7, "01xx6789")]
        {
            assert_eq!(Edits::one(2..6, "xx").and(Edits::one(second, "y")).apply(&body).to_bytes(), expected);
        }
        assert_eq!(Edits::one(2..6, "xx").and(Edits::one(6..6, "y")).apply(&body).to_bytes(), "01xxy6789");
        assert_eq!(Edits::one(2..6, "xx").and(Edits::one(2..2, "y")).apply(&body).to_bytes(), "01yxx6789");
    }

    #[test]
    fn insertions_at_one_place_keep_their_order() {
        let body = Bytes::from_static(b"ab");
        let edits = Edits::one(1..1, "1").and(Edits::one(1..1, "2")).and(Edits::one(1..2, "B"));
        assert_eq!(edits.apply(&body).to_bytes(), "a12B");
    }

    #[test]
    fn nothing_panics_on_places_beyond_the_end() {
        let body = Bytes::from_static(b"ab");
        assert_eq!(Edits::one(1..9, "x").apply(&body).to_bytes(), "ax");
        assert_eq!(Edits::one(7..9, "x").apply(&body).to_bytes(), "abx");
        assert!(Splice::empty().is_end_stream());
    }

    proptest! {
        #[test]
        fn bytes_outside_the_places_are_untouched(
            body in proptest::collection::vec(any::<u8>(), 0..64),
            places in proptest::collection::vec((0usize..70, 0usize..8, "[a-z]{0,4}"), 0..6),
        ) {
            let body = Bytes::from(body);
            let mut edits = Edits::default();
            for (start, length, text) in places {
                let start = start.min(body.len());
                edits.add(start..(start + length).min(body.len()), text);
            }
            let mut expected = Vec::new();
            let mut at = 0;
            for (place, replacement) in &edits.0 {
                prop_assert!(at <= place.start);
                expected.extend_from_slice(&body[at..place.start]);
                expected.extend_from_slice(replacement);
                at = place.end;
            }
            expected.extend_from_slice(&body[at..]);
            let splice = edits.apply(&body);
            let again = splice.clone();
            prop_assert_eq!(sent(splice), expected.clone());
            prop_assert_eq!(sent(again), expected);
        }
    }
}
