//! Entry points for fuzzing: each takes any bytes and panics only if a promise of the protocol layer is broken. The
//! daemon calls none of them.

use bytes::Bytes;
use shared::domain::{Operation, Protocol};

use super::scan::{Extractor, Found, Path};
use super::{Head, Meter, Reading, ReplyForm, UsageChunkFilter};

/// Reads the bytes as a request body: what is accepted is JSON, and edits make it JSON that says what they say.
///
/// # Panics
/// A promise is broken.
pub fn head(bytes: &[u8]) {
    for protocol in Protocol::ALL {
        let Ok(head) = Head::read(protocol, Operation::Generate, bytes) else { continue };
        let body = Bytes::copy_from_slice(bytes);
        let edits = head.set_model("new \"model\"").and(head.include_usage());
        let edited = edits.apply(&body).to_bytes();
        let again = Head::read(protocol, Operation::Generate, &edited);
        assert!(again.is_ok(), "edits broke the body: {again:?}");
        if let (Ok(again), Some(_)) = (again, &head.model) {
            assert!(again.model() == Ok("new \"model\""), "the edit of the model did not take");
        }
    }
}

/// Reads the bytes as a reply of every protocol and form: whole, in two pieces, and byte by byte.
///
/// # Panics
/// The readings differ.
pub fn meter(bytes: &[u8]) {
    for protocol in Protocol::ALL {
        for form in [ReplyForm::EventStream, ReplyForm::JsonArrayStream, ReplyForm::Json] {
            let whole = read(protocol, form, [bytes]);
            let (first, second) = bytes.split_at(bytes.len() / 2);
            assert!(whole == read(protocol, form, [first, second]), "a cut changed the reading");
            assert!(whole == read(protocol, form, bytes.chunks(1)), "single bytes changed the reading");
        }
    }
}

fn read<'a>(protocol: Protocol, form: ReplyForm, pieces: impl IntoIterator<Item = &'a [u8]>) -> Reading {
    let mut meter = Meter::new(protocol, form);
    for piece in pieces {
        meter.feed(piece);
    }
    meter.finish();
    meter.reading().clone()
}

/// Looks for values in the bytes: whole, and byte by byte.
///
/// # Panics
/// What is found differs.
pub fn extractor(bytes: &[u8]) {
    const PATHS: &[Path] = &[&["usage"], &["a", "b"], &["a", "c", "d"]];
    let found = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let mut extractor = Extractor::new(PATHS);
        let mut seen = Vec::new();
        for piece in pieces {
            extractor.feed(piece, &mut |found| match found {
                Found::Value { path, text } => seen.push((Some(path), text.to_vec())),
                Found::Dropped { path } => seen.push((Some(path), Vec::new())),
                Found::End => seen.push((None, Vec::new())),
            });
        }
        (seen, extractor.is_complete(), extractor.dropped())
    };
    assert!(found(&mut [bytes].into_iter()) == found(&mut bytes.chunks(1)), "a cut changed what is found");
}

/// Takes usage chunks out of the bytes: whole, and byte by byte.
///
/// # Panics
/// What is forwarded differs, or is no part of what came.
pub fn usage_chunk(bytes: &[u8]) {
    let filtered = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let mut filter = UsageChunkFilter::default();
        let mut out = Vec::new();
        for piece in pieces {
            filter.push(&Bytes::copy_from_slice(piece));
            out.extend(std::iter::from_fn(|| filter.pop()).flatten());
        }
        filter.finish();
        out.extend(std::iter::from_fn(|| filter.pop()).flatten());
        out
    };
    let whole = filtered(&mut [bytes].into_iter());
    assert!(whole == filtered(&mut bytes.chunks(1)), "a cut changed what is forwarded");
    let mut source = bytes.iter();
    assert!(whole.iter().all(|byte| source.any(|from| from == byte)), "something was added or moved");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            super::head(&bytes);
            super::meter(&bytes);
            super::extractor(&bytes);
            super::usage_chunk(&bytes);
        }

        #[test]
        fn things_that_look_right(text in concat!(
            r#"(\{|\}|\[|\]|,|:|"model"|"mod\\u0065l"|"stream_options"|"include_usage"|"usage"|"usageMetadata"|"#,
            r#""prompt_tokens"|"choices"|"finish_reason"|"type"|"message_stop"|"error"|"response"|"a"|"b"|"x\\"|"#,
            r#"1|-0.5e9|true|null|data: |event: |\n|\r\n|\r|\n\n|\[DONE\]| ){0,40}"#,
        )) {
            super::head(text.as_bytes());
            super::meter(text.as_bytes());
            super::extractor(text.as_bytes());
            super::usage_chunk(text.as_bytes());
        }

        #[test]
        fn objects_that_are_heads(members in proptest::collection::vec(concat!(
            r#"("model":"m"|"stream":true|"stream_options":(null|\{\}|\{ "include_usage" : (false|1) \}|7)|"#,
            r#""max_tokens":(-)?[0-9]{1,30}|"x":\[\{"model":1\}\]|"generationConfig":\{"maxOutputTokens":"7"\})"#,
        ), 0..5)) {
            super::head(format!("{{{}}}", members.join(" , ")).as_bytes());
        }
    }
}
