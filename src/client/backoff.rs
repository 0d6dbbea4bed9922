//! How long to wait before the next attempt.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

/// The longest wait between two attempts.
const CAP: Duration = Duration::from_secs(30);

/// Doubling waits, each with jitter, so that many clients of one server do not come back at once.
#[derive(Debug)]
pub(super) struct Backoff {
    first: Duration,
    failures: u32,
}

impl Backoff {
    pub(super) fn new(first: Duration) -> Self {
        Self { first, failures: 0 }
    }

    /// The first wait from now on; the count of failures stands.
    pub(super) fn set_first(&mut self, first: Duration) {
        self.first = first;
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
        let doubled = self.first.saturating_mul(1 << self.failures.min(16));
        self.failures += 1;
        doubled.min(CAP.max(self.first)).mul_f64(0.5 + random() / 2.0)
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
    }
}
