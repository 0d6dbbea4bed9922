//! Log lines that must not flood: one at once, then at most one a second.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How long nothing is said after a line.
const PAUSE: Duration = Duration::from_secs(1);

/// Lets one line through at a time, and counts those that it keeps back.
#[derive(Debug)]
pub(crate) struct Seldom {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// When a line was last let through.
    said: Option<Instant>,
    /// How many were kept back since.
    kept: u64,
}

impl Seldom {
    pub(crate) const fn new() -> Self {
        Self { state: Mutex::new(State { said: None, kept: 0 }) }
    }

    /// Says a line, told how many like it were kept back before it; or keeps it back.
    pub(crate) fn say(&self, line: impl FnOnce(u64)) {
        if let Some(kept) = self.due(Instant::now()) {
            line(kept);
        }
    }

    fn due(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.said.is_some_and(|said| now.saturating_duration_since(said) < PAUSE) {
            state.kept += 1;
            return None;
        }
        state.said = Some(now);
        Some(std::mem::take(&mut state.kept))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_a_second_and_none_forgotten() {
        let (seldom, start) = (Seldom::new(), Instant::now());
        let at = |tenths: u32| seldom.due(start + tenths * PAUSE / 10);
        let said: Vec<_> = (0..25).filter_map(|tenths| at(tenths).map(|n| (tenths, n))).collect();
        assert_eq!(said, [(0, 0), (10, 9), (20, 9)]);
        assert_eq!(at(100), Some(4));
    }
}
