//! When those who rest hear how far the log has come. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// How often, while the log moves.
const BEAT: Duration = Duration::from_secs(5);

/// A beat every few seconds in which the log moved, and two after it has come to rest: whoever
/// was told something right before the first hears the rest by the second.
#[derive(Debug)]
pub(super) struct Beat {
    last: Instant,
    due: u8,
}

impl Beat {
    pub(super) fn new(now: Instant) -> Self {
        Self { last: now, due: 0 }
    }

    /// The log was read, and had moved or not. Says whether it is time to beat.
    pub(super) fn read(&mut self, moved: bool, now: Instant) -> bool {
        if moved {
            self.due = 2;
        }
        let beats = self.due > 0 && now.duration_since(self.last) >= BEAT;
        if beats {
            (self.last, self.due) = (now, self.due - 1);
        }
        beats
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beats_while_the_log_moves_and_then_rests() {
        let start = Instant::now();
        let mut beat = Beat::new(start);
        // Read every second; it moves in the seconds 3 and 7.
        let mut read = |second| beat.read(second == 3 || second == 7, start + second * BEAT / 5);
        let beats: Vec<u32> = (0..60).filter(|second| read(*second)).collect();
        assert_eq!(beats, [5, 10, 15]);
    }
}
