//! How far a limit is used, in the steps that people want to hear of.

/// The steps, in percent.
const STEPS: [u8; 3] = [50, 80, 100];

/// The highest step that was reached when what is booked went from `before` to `after`.
pub fn step_reached(before: u64, after: u64, limit: u64) -> Option<u8> {
    let is_at = |booked: u64, step: u8| {
        u128::from(booked) * 100 >= u128::from(limit) * u128::from(step) && booked > 0
    };
    STEPS.into_iter().rev().find(|&step| is_at(after, step) && !is_at(before, step))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_of_the_steps_that_were_passed_is_told_once() {
        for (before, after, limit, expected) in [
            (0, 49, 100, None),
            (0, 50, 100, Some(50)),
            (50, 79, 100, None),
            (50, 80, 100, Some(80)),
            (79, 99, 100, Some(80)),
            (0, 100, 100, Some(100)),
            (99, 250, 100, Some(100)),
            (100, 200, 100, None),
            (0, 1, 1, Some(100)),
            (0, 0, 1, None),
            (1, 0, 1, None),
            (0, 1, 3, None),
            (0, 2, 3, Some(50)),
            (0, u64::MAX, u64::MAX, Some(100)),
        ] {
            assert_eq!(step_reached(before, after, limit), expected, "{before} {after} {limit}");
        }
    }
}
