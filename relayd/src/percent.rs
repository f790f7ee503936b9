//! Percent-encoding of URLs, undone.

use std::borrow::Cow;

/// Undoes percent-encoding; what is no valid UTF-8 afterwards stays as it was.
pub fn decode(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let escaped = match after {
            [high, low, ..] if first == b'%' => hex_pair(*high, *low),
            _ => None,
        };
        bytes.push(escaped.unwrap_or(first));
        rest = if escaped.is_some() { &after[2..] } else { after };
    }
    String::from_utf8(bytes).map_or(Cow::Borrowed(text), Cow::Owned)
}

fn hex_pair(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(high)? << 4 | digit(low)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_encoding_is_undone_where_it_is_valid() {
        for (text, decoded) in
            [("a", "a"), ("a%20b", "a b"), ("%", "%"), ("%2", "%2"), ("%zz", "%zz"), ("%ff", "%ff")]
        {
            assert_eq!(decode(text), decoded);
        }
    }
}
