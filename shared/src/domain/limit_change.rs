//! Changes of a list of limits: single ones added, given another amount, or taken away.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Limit;
use super::text::json_by_text;

/// Which limit is meant: `60 requests per minute` is that one alone, `requests per minute` whatever its amount is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitName {
    /// A limit that counts what is meant.
    like: Limit,
    has_amount: bool,
}

/// The text names no limit.
#[derive(Debug, thiserror::Error)]
#[error(
    "a limit is named as it was written, with or without its amount, such as \"60 requests per minute\", \
     \"requests per minute\" or \"cost per day\", not {0:?}"
)]
pub struct NoLimitName(String);

impl LimitName {
    fn means(&self, limit: &Limit) -> bool {
        self.like.counts_like(limit) && (!self.has_amount || self.like.amount == limit.amount)
    }
}

impl FromStr for LimitName {
    type Err = NoLimitName;

    fn from_str(text: &str) -> Result<Self, NoLimitName> {
        if let Ok(like) = text.parse() {
            return Ok(Self { like, has_amount: true });
        }
        // With some amount in front it is a limit that counts the same.
        let rest = text.trim_start();
        let money =
            rest.strip_prefix('$').or_else(|| rest.strip_prefix("cost ")).map(|rest| format!("$1 {rest}"));
        let like = money.unwrap_or_else(|| format!("1 {rest}")).parse();
        like.map(|like| Self { like, has_amount: false }).map_err(|_| NoLimitName(text.to_owned()))
    }
}

impl fmt::Display for LimitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.has_amount { write!(f, "{}", self.like) } else { f.write_str(&self.like.counter_name()) }
    }
}

json_by_text!(LimitName);

/// What is to become of a list of limits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LimitChanges {
    /// Limits to take away, before others are added.
    pub dropped: Vec<LimitName>,
    /// Limits to add; one that counts the same as another takes its place.
    pub added: Vec<Limit>,
}

/// A limit that was to be taken away is not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no limit \"{name}\"; there {}", present(.there))]
pub struct NoSuchLimit {
    name: LimitName,
    there: Vec<Limit>,
}

fn present(limits: &[Limit]) -> String {
    let limits: Vec<_> = limits.iter().map(|limit| format!("\"{limit}\"")).collect();
    if limits.is_empty() { "are none".to_owned() } else { format!("is {}", limits.join(", ")) }
}

impl LimitChanges {
    /// Whether nothing is to change.
    pub fn is_empty(&self) -> bool {
        self.dropped.is_empty() && self.added.is_empty()
    }

    /// Makes the changes.
    pub fn applied(&self, mut limits: Vec<Limit>) -> Result<Vec<Limit>, NoSuchLimit> {
        for name in &self.dropped {
            if !limits.iter().any(|limit| name.means(limit)) {
                return Err(NoSuchLimit { name: name.clone(), there: limits });
            }
            limits.retain(|limit| !name.means(limit));
        }
        for new in &self.added {
            let at = limits.iter().position(|limit| limit.counts_like(new)).unwrap_or(limits.len());
            limits.retain(|limit| !limit.counts_like(new));
            limits.insert(at, new.clone());
        }
        Ok(limits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(texts: &[&str]) -> Vec<Limit> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn limits_are_named_with_and_without_their_amount() {
        for (name, printed) in [
            ("60 requests per minute", "60 requests per minute"),
            ("requests per 60 seconds", "requests per minute"),
            ("request per minute", "requests per minute"),
            ("concurrent", "concurrent"),
            (" Tokens in total", "tokens in total"),
            ("$20 per day", "$20 per day"),
            ("$ per day", "cost per day"),
            ("cost per day on claude-opus-*", "cost per day on claude-opus-*"),
            ("dollars per week from Sunday", "cost per week from Sunday"),
        ] {
            let name: LimitName = name.parse().unwrap();
            assert_eq!(name.to_string(), printed);
            assert_eq!(name.to_string().parse::<LimitName>().unwrap(), name);
        }
        for wrong in ["", "all", "requests", "60", "cost", "per day"] {
            assert!(wrong.parse::<LimitName>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn single_limits_are_added_changed_and_dropped() {
        let before = ["4 concurrent", "60 requests per minute", "$20 per day", "$80 per week on claude-*"];
        for (dropped, added, expected) in [
            (
                &[][..],
                &["9 requests per minute"][..],
                Ok(vec!["4 concurrent", "9 requests per minute", before[2], before[3]]),
            ),
            (&[], &["9 requests per hour"], Ok([&before[..], &["9 requests per hour"]].concat())),
            (&[], &["$9 per week"], Ok([&before[..], &["$9 per week"]].concat())),
            (
                &[],
                &["1 concurrent", "2 concurrent"],
                Ok(vec!["2 concurrent", before[1], before[2], before[3]]),
            ),
            (&["requests per minute", "$20 per day"], &[], Ok(vec![before[0], before[3]])),
            (&["concurrent"], &["7 concurrent"], Ok(vec![before[1], before[2], before[3], "7 concurrent"])),
            (
                &["5 concurrent"],
                &[],
                Err(
                    "there is no limit \"5 concurrent\"; there is \"4 concurrent\", \"60 requests per minute\", \
                     \"$20 per day\", \"$80 per week on claude-*\"",
                ),
            ),
        ] {
            let dropped = dropped.iter().map(|name| name.parse().unwrap()).collect();
            let changes = LimitChanges { dropped, added: limits(added) };
            let after = changes.applied(limits(&before)).map_err(|error| error.to_string());
            assert_eq!(after, expected.map(|texts| limits(&texts)).map_err(str::to_owned));
        }
        let changes =
            LimitChanges { dropped: vec!["concurrent".parse().unwrap()], ..LimitChanges::default() };
        let error = changes.applied(Vec::new()).unwrap_err().to_string();
        assert_eq!(error, "there is no limit \"concurrent\"; there are none");
    }
}
