//! Names that people give to keys, accounts and owners.

/// A text is no name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a name has 1 to 100 characters, none of them a control character, no blanks around them, and does not begin with \
     \"key_\" or \"acc_\""
)]
pub struct NoName;

/// Whether a text is a name: names are shown in tables and typed in commands, and must not look like ids.
///
/// # Errors
///
/// It is none.
pub fn check(name: &str) -> Result<(), NoName> {
    let length = name.chars().count();
    let is_well_formed = (1..=100).contains(&length) && !name.chars().any(char::is_control);
    let is_id = name.starts_with("key_") || name.starts_with("acc_");
    if is_well_formed && !is_id && name.trim() == name { Ok(()) } else { Err(NoName) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_lines_that_are_no_ids() {
        for name in ["a", "alice", "Ålice's laptop", "keys", &"x".repeat(100)] {
            assert_eq!(check(name), Ok(()), "{name}");
        }
        for text in ["", " ", " a", "a ", "a\nb", "key_1", "acc_", &"x".repeat(101)] {
            assert_eq!(check(text), Err(NoName), "{text:?}");
        }
    }
}
