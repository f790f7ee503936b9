//! How single values of the command line are read, and what lists of them mean.

use clap::builder::{PossibleValuesParser, StringValueParser, TypedValueParser};
use shared::domain::account::UnknownName;
use shared::domain::name::{self, NoName};
use shared::domain::{AccountKind, Family, Glob, Multiplier, NoMultiplier, OnDisconnect, Protocol};

/// Reads an account kind; the help lists them.
pub(crate) fn kind() -> impl TypedValueParser<Value = AccountKind> {
    named(AccountKind::ALL.map(AccountKind::name), str::parse)
}

/// Reads a family of accounts; the help lists them.
pub(crate) fn family() -> impl TypedValueParser<Value = Family> {
    named(Family::ALL.map(Family::name), str::parse)
}

/// Reads a family with its multiplier: `claude=1.5`.
pub(crate) fn rate(text: &str) -> Result<(Family, Multiplier), String> {
    let (family, rate) = text.split_once('=').ok_or("a rate is written like claude=1.5")?;
    let family = family.parse().map_err(|error: UnknownName| error.to_string())?;
    Ok((family, rate.parse().map_err(|error: NoMultiplier| error.to_string())?))
}

fn named<const N: usize, T: Clone + Send + Sync + 'static>(
    names: [&'static str; N],
    parse: fn(&str) -> Result<T, UnknownName>,
) -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(names).try_map(move |name| parse(&name))
}

/// Reads a protocol; the help lists them.
pub(crate) fn protocol() -> impl TypedValueParser<Value = Protocol> {
    listed(Protocol::ALL, Protocol::name)
}

/// Reads what becomes of calls whose clients leave; the help lists it.
pub(crate) fn on_disconnect() -> impl TypedValueParser<Value = OnDisconnect> {
    listed(OnDisconnect::ALL, OnDisconnect::name)
}

fn listed<const N: usize, T: Copy + Send + Sync + 'static>(
    all: [T; N],
    name_of: fn(T) -> &'static str,
) -> impl TypedValueParser<Value = T> {
    #[derive(Debug, thiserror::Error)]
    #[error("no such name")]
    struct NoSuchName;
    let names = PossibleValuesParser::new(all.map(name_of));
    names.try_map(move |name| all.into_iter().find(|&one| name_of(one) == name).ok_or(NoSuchName))
}

/// Reads a whole number within bounds; what is wrong is said in the words of the field.
pub(crate) fn number<T>(least: u64, most: u64) -> impl TypedValueParser<Value = T>
where
    T: TryFrom<u64> + Clone + Send + Sync + 'static,
{
    let read = move |text: &str| {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse::<u64>().ok().filter(|number| is_number && (least..=most).contains(number));
        number.and_then(|number| T::try_from(number).ok()).ok_or(NoNumber { least, most })
    };
    StringValueParser::new().try_map(move |text| read(&text))
}

/// The text is no number within the bounds.
#[derive(Debug, thiserror::Error)]
#[error("a whole number from {least} to {most} is wanted")]
struct NoNumber {
    least: u64,
    most: u64,
}

/// Reads a pattern for model names.
pub(crate) fn glob(text: &str) -> Result<Glob, EmptyValue> {
    if text.is_empty() { Err(EmptyValue) } else { Ok(Glob::from(text)) }
}

/// Reads a text that must say something.
pub(crate) fn text(text: &str) -> Result<String, EmptyValue> {
    if text.trim().is_empty() { Err(EmptyValue) } else { Ok(text.to_owned()) }
}

/// Reads a name for something.
pub(crate) fn name(text: &str) -> Result<String, NoName> {
    name::check(text).map(|()| text.to_owned())
}

/// The text is no address that calls can be sent to.
#[derive(Debug, thiserror::Error)]
#[error("a base URL looks like https://host/path, without a user and a query")]
pub(crate) struct NoBaseUrl;

/// Reads the address of an account.
pub(crate) fn base_url(text: &str) -> Result<String, NoBaseUrl> {
    let uri: hyper::Uri = text.parse().map_err(|_| NoBaseUrl)?;
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let is_web = matches!(uri.scheme_str(), Some("http" | "https"));
    let is_plain = !authority.is_empty() && !authority.contains('@') && uri.query().is_none();
    if is_web && is_plain { Ok(text.to_owned()) } else { Err(NoBaseUrl) }
}

/// An empty text where there must be one.
#[derive(Debug, thiserror::Error)]
#[error("it is empty")]
pub(crate) struct EmptyValue;

/// Reads two texts around a separator, such as `from=to`.
pub(crate) fn pair(text: &str, separator: char) -> Option<(String, String)> {
    let (left, right) = text.split_once(separator)?;
    let (left, right) = (left.trim(), right.trim());
    (!left.is_empty() && !right.is_empty()).then(|| (left.to_owned(), right.to_owned()))
}

/// A list that was given replaces the old one; none given leaves it alone unless it is to be emptied.
pub(crate) fn replaced<T>(given: Vec<T>, clears: bool) -> Option<Vec<T>> {
    (clears || !given.is_empty()).then_some(given)
}

#[cfg(test)]
pub(crate) mod tests {
    use clap::Subcommand;

    use super::*;

    /// Reads the words of a command group, the group's name first.
    pub(crate) fn parsed<T: Subcommand>(words: &[&str]) -> Result<T, clap::Error> {
        let command = T::augment_subcommands(clap::Command::new("relayctl")).subcommand_required(true);
        T::from_arg_matches(&command.try_get_matches_from(words)?)
    }

    #[test]
    fn addresses_are_whole_and_hold_no_credential() {
        for fine in ["https://api.test", "http://127.0.0.1:8080/v1/"] {
            assert_eq!(base_url(fine).ok().as_deref(), Some(fine));
        }
        for bad in
            ["", "foo", "api.test", "ftp://api.test", "https://", "https://u:p@api.test", "https://a?k=1"]
        {
            assert!(base_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn pairs_need_both_sides() {
        assert_eq!(pair("a = b=c", '='), Some(("a".to_owned(), "b=c".to_owned())));
        for bad in ["", "a", "=b", "a=", " = "] {
            assert_eq!(pair(bad, '='), None, "{bad:?}");
        }
    }
}
