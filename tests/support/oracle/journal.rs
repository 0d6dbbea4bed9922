//! What was committed, in the order of the log. Pure.

use std::collections::{BTreeMap, BTreeSet};

use fhirtail::position::LogPosition;
use serde_json::Value;

/// What a commit made of one resource.
#[derive(Debug, Clone, PartialEq)]
pub enum What {
    /// It is this from now on.
    Is(Value),
    /// It was deleted.
    Gone,
    /// Its collection went, or came under its name, as a whole: `None`, it is no more. A stream
    /// can tell that by `reset` alone.
    Swept(Option<Value>),
    /// It is there, and no longer what a stream's search finds.
    Left,
    /// Nothing that a stream holds, before it as after it.
    Unseen,
}

impl What {
    pub fn value(&self) -> Option<&Value> {
        match self {
            Self::Is(value) | Self::Swept(Some(value)) => Some(value),
            Self::Gone | Self::Swept(None) | Self::Left | Self::Unseen => None,
        }
    }
}

/// One resource's share of a commit.
#[derive(Debug, Clone)]
pub struct Commit {
    /// The place of who has consumed it: its cluster time, and its number among that time's.
    pub at: LogPosition,
    /// `Type/id`.
    pub url: String,
    pub what: What,
    /// The log itself holds the document. Of an update without one the server can only look up
    /// what became of the document: a client may get that instead.
    pub exact: bool,
}

/// All commits of a database.
#[derive(Debug, Default, Clone)]
pub struct Journal {
    commits: Vec<Commit>,
    /// Which of them are a resource's.
    of: BTreeMap<String, Vec<usize>>,
    /// Where a collection, of this type, went or came as a whole, whether anything was in it or not.
    swept: Vec<(LogPosition, String)>,
}

impl Journal {
    /// # Panics
    /// It is not in the order of the log.
    pub fn push(&mut self, commit: Commit) {
        let last = self.commits.last().map_or(LogPosition::default(), |last| last.at);
        assert!(last <= commit.at, "{commit:?} after {last:?}");
        if commit.what != What::Unseen {
            self.of.entry(commit.url.clone()).or_default().push(self.commits.len());
        }
        self.commits.push(commit);
    }

    /// What of it is for a stream that holds what is found alone, where each change of what may be
    /// outside comes with what was before it.
    pub fn narrowed(&self, is_found: impl Fn(&Value) -> bool) -> Self {
        let mut narrowed = Self { swept: self.swept.clone(), ..Self::default() };
        let mut held = BTreeSet::new();
        for commit in &self.commits {
            let is_held = commit.what.value().is_some_and(&is_found);
            let was_held = match is_held {
                true => !held.insert(&commit.url),
                false => held.remove(&commit.url),
            };
            let what = match &commit.what {
                What::Swept(_) if !is_held => What::Swept(None),
                What::Is(_) if !is_held && was_held => What::Left,
                _ if !is_held && !was_held => What::Unseen,
                what => what.clone(),
            };
            narrowed.push(Commit { what, ..commit.clone() });
        }
        narrowed
    }

    /// A collection went, or came under its name.
    pub fn sweep(&mut self, at: LogPosition, ty: &str) {
        self.swept.push((at, ty.to_owned()));
    }

    /// Where that happened to one of these types first behind a place.
    pub fn next_sweep(&self, after: LogPosition, types: &[&str]) -> Option<LogPosition> {
        let theirs = self.swept.iter().filter(|(_, ty)| types.contains(&ty.as_str()));
        theirs.map(|(at, _)| *at).filter(|at| *at > after).min()
    }

    /// All that was committed, in the log's order.
    pub fn commits(&self) -> &[Commit] {
        &self.commits
    }

    pub fn get(&self, index: usize) -> &Commit {
        &self.commits[index]
    }

    /// The place of the last commit.
    pub fn end(&self) -> LogPosition {
        self.commits.last().map_or(LogPosition::default(), |last| last.at)
    }

    /// Each resource that ever was, with its commits.
    pub fn resources(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.of.iter().map(|(url, commits)| (url.as_str(), commits.as_slice()))
    }

    /// The commits of one resource.
    pub fn of(&self, url: &str) -> &[usize] {
        self.of.get(url).map_or(&[], Vec::as_slice)
    }

    /// The commits after `after` and before `end`.
    pub fn between(&self, after: LogPosition, end: LogPosition) -> std::ops::Range<usize> {
        let start = self.commits.partition_point(|commit| commit.at <= after);
        start..self.commits.partition_point(|commit| commit.at < end).max(start)
    }

    /// The last of some commits before a place.
    pub fn last_before(&self, commits: &[usize], end: LogPosition) -> Option<usize> {
        let count = commits.partition_point(|index| self.commits[*index].at < end);
        commits[..count].last().copied()
    }

    /// Which commit each acknowledged write is, in the order of their acknowledgement; `None`: it
    /// is lost. Each resource has one writer, who writes it again only once that is acknowledged: a
    /// commit can be only one that follows the one before it.
    pub fn find(&self, acknowledged: &[(String, Option<Value>)]) -> Vec<Option<usize>> {
        let mut searched = BTreeMap::<&str, usize>::new();
        let find = |(url, value): &(String, Option<Value>)| {
            let (of, url) = self.of.get_key_value(url).map(|(url, of)| (of, url.as_str()))?;
            let from = searched.entry(url).or_default();
            let is_it = |index: &usize| self.commits[*index].what.value() == value.as_ref();
            let found = *from + of[*from..].iter().position(is_it)?;
            *from = found + 1;
            Some(of[found])
        };
        acknowledged.iter().map(find).collect()
    }
}
