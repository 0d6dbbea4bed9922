//! What the oracle says of a whole crowd.

use std::{fmt, sync::atomic::Ordering::SeqCst};

use serde_json::Value;
use support::oracle::{
    journal::{Journal, What},
    judge::{Asked, judge},
    transcript::{Seen, Transcript},
    verdict::{Fault, Kind},
};

use crate::{
    crowd::{Part, Saw, Wants},
    exports::{self, Tally},
    ground::Ground,
    lab::{Cast, Faulty, Lab, Resets},
};

#[derive(Debug, Default)]
pub(crate) struct Report {
    clients: usize,
    commits: usize,
    events: usize,
    connections: usize,
    resets: usize,
    caught_up: usize,
    broken_off: usize,
    turned_away: usize,
    /// How often one could not begin, since the store did not answer.
    unanswered: usize,
    /// How often a stream ended without a word of why, and how often a client was not answered.
    ended: usize,
    unreached: usize,
    /// How many clients ask for a part, how often something left one's, and how many speak HTTP/2.
    narrowed: usize,
    by_two: usize,
    left: usize,
    /// How many ask for what was updated later than some time.
    since: usize,
    /// What of the acknowledged writes the log does not hold.
    lost: Vec<(String, Option<Value>)>,
    /// What was written as one, and is there in part.
    torn: Vec<String>,
    faults: Vec<(usize, Fault, Vec<Seen>)>,
    exports: Tally,
}

pub(crate) async fn of<G: Ground>(
    lab: &Lab<G>,
    crowd: Vec<Saw>,
    exported: Vec<exports::Saw>,
) -> Report {
    let journal = lab.ground.journal().await;
    let acknowledged = lab.shared.acknowledged.lock().expect("no panic while locked").clone();
    let commits = journal.find(&acknowledged);
    let times = times(&journal, &commits);
    let mut report =
        Report { clients: crowd.len(), commits: journal.commits().len(), ..Report::default() };
    let lost = acknowledged.iter().zip(&commits).filter(|(_, commit)| commit.is_none());
    report.lost = lost.map(|(write, _)| write.clone()).collect();
    if G::KEEPS_TOGETHER {
        report.torn = torn(&journal);
    }
    report.ended = lab.shared.ended.load(SeqCst);
    report.unreached = lab.shared.unreached.load(SeqCst);
    report.narrowed = crowd.iter().filter(|saw| saw.wants.part != Part::All).count();
    report.since = crowd.iter().filter(|saw| saw.wants.since.is_some()).count();
    report.by_two = crowd.iter().filter(|saw| saw.wants.by_two).count();
    let narrowed = [Part::Final, Part::OfOne]
        .map(|part| (part, journal.narrowed(|resource| part.finds(resource))));
    report.exports = Tally::of(exported, &journal, &narrowed, &times);
    for (client, saw) in crowd.into_iter().enumerate() {
        let last = saw.transcripts.len() - 1;
        for (n, mut transcript) in saw.transcripts.into_iter().enumerate() {
            for seen in &mut transcript.seen {
                if let Seen::Connected { written, .. } = seen {
                    *written = times[usize::try_from(*written).expect("a count")];
                }
            }
            let end = (n == last).then(|| journal.end());
            let part = narrowed.iter().find(|(part, _)| *part == saw.wants.part);
            let journal = part.map_or(&journal, |(_, narrowed)| narrowed);
            report.add(client, journal, saw.wants, &transcript, end);
        }
    }
    report
}

/// The newest commit among so many acknowledged writes, as cluster time.
fn times(journal: &Journal, acknowledged: &[Option<usize>]) -> Vec<u64> {
    let mut times = vec![0];
    for commit in acknowledged {
        let time = commit.map_or(0, |index| journal.get(index).at.time);
        times.push(time.max(times[times.len() - 1]));
    }
    times
}

/// The texts of transactions of which only a part is there. Each resource of one holds the same
/// text, which ends with how many they are.
fn torn(journal: &Journal) -> Vec<String> {
    /// Of deletions, and of writes that are not the writers'.
    const OTHERS: &str = "";
    let texts = journal.commits().iter().map(|commit| match &commit.what {
        What::Is(value) => value["language"].as_str().unwrap_or(OTHERS),
        _ => OTHERS,
    });
    let texts: Vec<&str> = texts.collect();
    let is_part = |run: &&[&str]| {
        let count = run[0].split_once('/').and_then(|(_, count)| count.parse().ok());
        run[0] != OTHERS && count != Some(run.len())
    };
    let torn = texts.chunk_by(|one, next| one == next).filter(is_part);
    torn.map(|run| run[0].to_owned()).collect()
}

impl Report {
    fn add(
        &mut self,
        client: usize,
        journal: &Journal,
        wants: Wants,
        transcript: &Transcript,
        end: Option<fhirtail::position::LogPosition>,
    ) {
        let asked = Asked { types: wants.types, since: wants.since };
        let mut verdict = judge(journal, asked, transcript, end);
        if wants.part == Part::OfOne {
            // Whether its patient is there, the store alone knows.
            self.unanswered += verdict.count(Kind::Unanswered);
            verdict.faults.retain(|fault| fault.kind != Kind::Unanswered);
        }
        self.events += verdict.events;
        self.connections += verdict.connections;
        self.resets += verdict.resets;
        self.caught_up += verdict.caught_up;
        self.broken_off += verdict.broken_off;
        self.turned_away += verdict.turned_away;
        self.left += verdict.left;
        for fault in verdict.faults {
            let around = fault.line.saturating_sub(3)..(fault.line + 2).min(transcript.seen.len());
            self.faults.push((client, fault, transcript.seen[around].to_vec()));
        }
    }

    fn count(&self, kind: Kind) -> usize {
        self.faults.iter().filter(|(_, fault, _)| fault.kind == kind).count()
    }

    pub(crate) fn assert_clean(&self, Cast { resets, faulty, .. }: Cast) {
        let few: Vec<_> = self.faults.iter().take(3).collect();
        assert!(few.is_empty(), "{} faults: {few:#?}", self.faults.len());
        assert!(self.lost.is_empty(), "acknowledged, and not in the log: {:?}", self.lost);
        assert!(self.torn.is_empty(), "there in part: {:?}", self.torn);
        self.exports.assert_clean();
        assert_eq!(self.broken_off, 0, "streams ended with word of a failure");
        // Of few commits none may.
        let must_leave = self.narrowed > 0 && self.commits > 500;
        assert!(!must_leave || self.left > 0, "nothing left a stream that holds a part");
        assert!(resets == Resets::Allowed || self.resets == 0, "{} resets", self.resets);
        if faulty != Faulty::Server {
            let Self { ended, unreached, turned_away, .. } = self;
            assert_eq!([*ended, *unreached, *turned_away], [0; 3], "ended, unreached, turned away");
        }
        assert!(
            faulty != Faulty::Nothing || self.unanswered == 0,
            "{} unanswered",
            self.unanswered
        );
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { clients, commits, events, connections, resets, caught_up, .. } = self;
        let Self { broken_off, turned_away, narrowed, left, by_two, unanswered, .. } = self;
        let Self { ended, unreached, exports, since, .. } = self;
        let (missing, repeated) = (self.count(Kind::Missing), self.count(Kind::Repeated));
        let other = self.faults.len() - missing - repeated;
        write!(
            f,
            "clients {clients} ({narrowed} narrowed, {since} since, {by_two} by HTTP/2), commits {commits}, events {events}, connections {connections}, \
             turned away {turned_away}, unanswered {unanswered}, unreached {unreached}, ended {ended}, broken off {broken_off}, caught up {caught_up}, resets {resets}, left {left}, missing {missing}, repeated {repeated}, \
             otherwise wrong {other}, {exports}"
        )
    }
}
