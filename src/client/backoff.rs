//! How long to wait before the next attempt.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

/// The longest wait between two attempts, where the server asks for none.
const CAP: Duration = Duration::from_secs(30);
/// The least and the most that a server is believed: a mistake of its own should neither make its
/// clients a flood nor send them away for good.
const LEAST: Duration = Duration::from_millis(100);
const MOST: Duration = Duration::from_secs(3_600);

/// Doubling waits, each with jitter, so that many clients of one server do not come back at once.
#[derive(Debug)]
pub(super) struct Backoff {
    first: Duration,
    failures: u32,
}

impl Backoff {
    pub(super) fn new(first: Duration) -> Self {
        Self { first: first.clamp(LEAST, MOST), failures: 0 }
    }

    /// The first wait from now on; the count of failures stands.
    pub(super) fn set_first(&mut self, first: Duration) {
        self.first = first.clamp(LEAST, MOST);
    }

    pub(super) fn first(&self) -> Duration {
        self.first
    }

    /// An attempt went well.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    /// An attempt failed: wait this long, between half and all of the doubled time.
    pub(super) fn next(&mut self) -> Duration {
        self.doubled(self.first).min(CAP.max(self.first)).mul_f64(0.5 + random() / 2.0).max(LEAST)
    }

    /// The same where the server may have asked for a wait: it gets that. One that asks for less
    /// and less is worth gets what grows up to the first wait.
    pub(super) fn next_as_asked(&mut self, asked: Option<Duration>) -> Duration {
        let Some(asked) = asked else { return self.next() };
        let least = self.doubled(LEAST).min(self.first);
        asked.clamp(least, MOST)
    }

    fn doubled(&mut self, wait: Duration) -> Duration {
        let doubled = wait.saturating_mul(1 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        doubled
    }
}

/// Below 1, not for secrets: the standard library's own random keys.
fn random() -> f64 {
    let bits = RandomState::new().hash_one(0u8) >> 11;
    bits as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_cap() {
        let mut backoff = Backoff::new(Duration::from_secs(1));
        for doubled in [1, 2, 4, 8, 16, 30, 30] {
            let wait = backoff.next().as_secs_f64();
            let doubled = f64::from(doubled);
            assert!((doubled / 2.0..=doubled).contains(&wait), "{wait} of {doubled}");
        }
        backoff.reset();
        assert!(backoff.next() <= Duration::from_secs(1));
    }

    #[test]
    fn a_server_that_asks_for_longer_gets_it() {
        assert!(Backoff::new(Duration::from_secs(90)).next() >= Duration::from_secs(45));
        let mut backoff = Backoff::new(Duration::from_secs(1));
        for asked in [0.7, 1.0, 90.0, 2.5].map(Duration::from_secs_f64) {
            assert_eq!(backoff.next_as_asked(Some(asked)), asked);
        }
    }

    #[test]
    fn a_server_that_asks_for_nothing_is_not_flooded() {
        let mut backoff = Backoff::new(Duration::from_millis(500));
        for least in [100, 200, 400, 500, 500] {
            assert_eq!(backoff.next_as_asked(Some(Duration::ZERO)), Duration::from_millis(least));
        }
        backoff.reset();
        assert_eq!(backoff.next_as_asked(Some(Duration::ZERO)), LEAST);
        backoff.set_first(Duration::ZERO);
        backoff.reset();
        assert!(backoff.first() >= LEAST && backoff.next() >= LEAST);
        let grown = (0..6).map(|_| backoff.next()).last();
        assert!(grown > Some(Duration::from_secs(1)), "{grown:?}");
    }

    #[test]
    fn no_server_sends_its_clients_away_for_good() {
        let mut backoff = Backoff::new(Duration::MAX);
        for _ in 0..100 {
            assert!(backoff.next() <= MOST);
            assert_eq!(backoff.next_as_asked(Some(Duration::MAX)), MOST);
        }
        backoff.set_first(Duration::from_millis(u64::MAX));
        assert_eq!(backoff.first(), MOST);
    }
}
