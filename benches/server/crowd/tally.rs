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
    /// Of so many changes one is for it: that whose number leaves the remainder.
    shares: u32,
    remainder: u32,
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
    /// Changes that are another's.
    pub(super) strange: u64,
}

impl Tally {
    /// Of every `shares` changes from `first` on the `index`-th is for it.
    pub(super) fn from(first: u32, shares: u32, index: usize) -> Self {
        let remainder = (index % shares as usize) as u32;
        Self { first, shares, remainder, ..Self::default() }
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
        if seq % self.shares != self.remainder {
            self.strange += 1;
            return;
        }
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
        let own = self.own_before(to).saturating_sub(self.own_before(self.first));
        u64::from(own.saturating_sub(self.changes))
    }

    fn own_before(&self, to: u32) -> u32 {
        to.saturating_sub(self.remainder).div_ceil(self.shares)
    }
}
