//! What one stream has been sent: which changes, which twice, which out of order.

use super::feed::Kind;

/// How far a stream is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Phase {
    #[default]
    Connecting,
    /// The answer's head is there.
    Granted,
    /// The server ended it, or it broke.
    Closed,
    /// It was never granted.
    Refused,
}

/// One stream's count.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) phase: Phase,
    /// It has heard `caught-up`, and since then neither `fell-behind` nor `reset`.
    pub(super) level: bool,
    /// When it last became level, in microseconds since 1970.
    pub(super) level_at: u64,
    /// The first change that it must be sent.
    pub(super) first: u32,
    /// A bit per change that it was sent.
    seen: Vec<u64>,
    /// How many changes it was sent, each counted once.
    pub(super) changes: u32,
    last: Option<u32>,
    pub(super) repeated: u64,
    pub(super) disordered: u64,
    pub(super) resets: u64,
    pub(super) behind: u64,
    pub(super) outcomes: u64,
}

impl Tally {
    pub(super) fn from(first: u32) -> Self {
        Self { first, ..Self::default() }
    }

    /// Counts an event; `now` in microseconds since 1970.
    pub(super) fn event(&mut self, kind: Kind, now: u64) {
        match kind {
            Kind::Resource => {}
            Kind::CaughtUp => (self.level, self.level_at) = (true, now),
            Kind::FellBehind => (self.level, self.behind) = (false, self.behind + 1),
            Kind::Reset => (self.level, self.resets) = (false, self.resets + 1),
            Kind::Outcome => self.outcomes += 1,
        }
    }

    /// Counts a change.
    pub(super) fn change(&mut self, seq: u32) {
        let (word, bit) = (seq as usize / 64, 1u64 << (seq % 64));
        if word >= self.seen.len() {
            self.seen.resize(word + 1, 0);
        }
        if seq < self.first || self.seen[word] & bit != 0 {
            self.repeated += 1;
            return;
        }
        self.seen[word] |= bit;
        self.changes += 1;
        self.disordered += u64::from(self.last.is_some_and(|last| seq < last));
        self.last = Some(seq);
    }

    /// How many of the changes before `to` it was not sent, where it was sent none from `to` on.
    pub(super) fn missing(&self, to: u32) -> u64 {
        u64::from(to.saturating_sub(self.first).saturating_sub(self.changes))
    }
}
