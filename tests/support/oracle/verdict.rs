//! What is to be said of one client.

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Missing,
    Repeated,
    OutOfOrder,
    /// What was never committed, or not under this id.
    Wrong,
    /// A control event, or the transcript itself, says what does not hold.
    Untrue,
    /// A stream that begins ends at once, since the store did not answer. That may be only where the
    /// server has to ask it first.
    Unanswered,
}

#[derive(Debug, Clone)]
pub struct Fault {
    pub kind: Kind,
    /// Which line of the transcript shows it.
    pub line: usize,
    pub what: String,
}

/// What is to be said of one client.
#[derive(Debug, Default)]
pub struct Verdict {
    pub events: usize,
    pub connections: usize,
    pub resets: usize,
    pub caught_up: usize,
    /// How many streams ended with word of a failure.
    pub broken_off: usize,
    /// How often it was told to come again, and nothing else.
    pub turned_away: usize,
    /// How often it was told that something is no longer what it asks for.
    pub left: usize,
    pub faults: Vec<Fault>,
}

impl Verdict {
    pub fn count(&self, kind: Kind) -> usize {
        self.faults.iter().filter(|fault| fault.kind == kind).count()
    }
}
