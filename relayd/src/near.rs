//! Which known name a mistyped one may stand for, if any is near enough to be meant.

/// Characters that are compared: a name may be as long as whoever sent it likes.
const CHARS_MAX: usize = 64;

/// Of names with what each of them stands for, what the nearest one stands for; the first of several that are
/// equally near. Letter case does not count. A name is near when it differs in a third of its characters or less.
pub fn nearest<N: AsRef<str>, T>(name: &str, known: impl IntoIterator<Item = (N, T)>) -> Option<T> {
    let name = folded(name);
    let near = known.into_iter().filter_map(|(candidate, meant)| {
        let candidate = folded(candidate.as_ref());
        let (shorter, longer) = ordered(name.chars().count(), candidate.chars().count());
        let is_near = |distance: usize| distance * 3 <= longer;
        // Most are too short or too long to be near, and are not compared.
        let distance = is_near(longer - shorter).then(|| strsim::osa_distance(&name, &candidate))?;
        is_near(distance).then_some((distance, meant))
    });
    near.min_by_key(|(distance, _)| *distance).map(|(_, meant)| meant)
}

fn folded(name: &str) -> String {
    name.chars().take(CHARS_MAX).flat_map(char::to_lowercase).collect()
}

const fn ordered(one: usize, other: usize) -> (usize, usize) {
    if one < other { (one, other) } else { (other, one) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_far_is_not_meant() {
        let known = ["alice", "build", "bob", "server.workers", "a"];
        for (name, expected) in [
            ("alcie", Some("alice")),
            ("Alice", Some("alice")),
            ("alices", Some("alice")),
            ("rob", Some("bob")),
            ("server.worker", Some("server.workers")),
            ("carol", None),
            ("nosuch", None),
            ("b", None),
            ("", None),
            ("alice-and-the-others", None),
        ] {
            assert_eq!(nearest(name, known.map(|name| (name, name))), expected, "{name}");
        }
    }

    #[test]
    fn the_first_of_equals_is_meant() {
        assert_eq!(nearest("abd", [("abc", 1), ("abe", 2)]), Some(1));
        assert_eq!(nearest("abe", [("abc", 1), ("abe", 2)]), Some(2));
    }

    #[test]
    fn names_are_compared_within_bounds() {
        let long = "x".repeat(1 << 20);
        assert_eq!(nearest(&long, [(long.as_str(), ())]), Some(()));
    }
}
