//! How long the store leaves a disk alone that has failed. Pure.
//!
//! To go on after a failure the file has to be opened anew, and redb then reads all of it: for
//! that long nobody can read. So writes are refused for a while, which those who read have.

use std::time::{Duration, Instant};

const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(5);
/// The least, in times that opening the file has taken.
const PER_OPENING: u32 = 4;

/// A while that grows from failure to failure.
#[derive(Debug, Default)]
pub(super) struct Pause {
    last: Option<Duration>,
    until: Option<Instant>,
}

impl Pause {
    /// The disk has failed, and opening the file again has taken so long, until `now`.
    pub(super) fn begin(&mut self, opening: Duration, now: Instant) {
        let next = self.last.map_or(FIRST, |last| LONGEST.min(last * 2));
        self.last = Some(next);
        self.until = now.checked_add(next.max(opening.saturating_mul(PER_OPENING)));
    }

    /// What is left of it.
    pub(super) fn left(&self, now: Instant) -> Option<Duration> {
        let left = self.until?.saturating_duration_since(now);
        (!left.is_zero()).then_some(left)
    }

    /// The disk works.
    pub(super) fn end(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_with_each_failure_and_ends_with_a_success() {
        let (mut pause, now) = (Pause::default(), Instant::now());
        assert_eq!(pause.left(now), None);
        let left = [500, 1_000, 2_000, 4_000, 5_000, 5_000].map(Duration::from_millis);
        for expected in left {
            pause.begin(Duration::ZERO, now);
            assert_eq!(pause.left(now), Some(expected));
            assert_eq!(pause.left(now + expected), None);
        }
        pause.end();
        assert_eq!(pause.left(now), None);
        pause.begin(Duration::ZERO, now);
        assert_eq!(pause.left(now), Some(FIRST));
    }

    #[test]
    fn who_reads_has_most_of_the_time() {
        let (mut pause, now) = (Pause::default(), Instant::now());
        pause.begin(Duration::from_secs(10), now);
        assert_eq!(pause.left(now), Some(Duration::from_secs(40)));
    }
}
