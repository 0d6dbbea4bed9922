//! What there is to see: the open streams that are asked for, all of them in sum, and the log.

use std::{cmp::Ordering, collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use serde::Serialize;

use super::wanted::{By, Wanted};
use crate::{
    fhir::instant,
    http::AppState,
    position::{Epoch, LogPosition, Position},
    session::{Line, Phase, Whereabouts},
    store::{Distance, Store},
    telemetry::seconds_since,
};

/// All that is shown.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct View {
    /// As of when.
    pub(super) at: String,
    pub(super) totals: Totals,
    pub(super) log: Log,
    /// How many streams fit what was asked for.
    pub(super) found: usize,
    pub(super) offset: usize,
    pub(super) limit: usize,
    pub(super) streams: Vec<Row>,
}

/// All open streams.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Totals {
    pub(super) streams: usize,
    /// `--max-streams`, or what the limit of open files leaves of it.
    pub(super) most: usize,
    pub(super) phases: BTreeMap<&'static str, usize>,
    pub(super) events: u64,
    pub(super) bytes: u64,
}

/// The change log, as this server knows it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Log {
    /// How far the tail has read.
    pub(super) end: String,
    /// Since when the store was silent; `None`: it has not been heard from.
    pub(super) silent_seconds: Option<f64>,
    /// The oldest entry that the log holds: a position since then works.
    pub(super) begins: Option<String>,
    pub(super) position_works_for_seconds: Option<f64>,
    /// How far back the ring reaches: who comes back within it costs the store nothing.
    pub(super) ring_begins: String,
    pub(super) ring_seconds: f64,
}

/// One open stream.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Row {
    pub(super) number: u64,
    pub(super) since: String,
    pub(super) seconds: f64,
    pub(super) peer: Option<String>,
    pub(super) forwarded: Option<Box<str>>,
    pub(super) format: &'static str,
    pub(super) query: Box<str>,
    pub(super) phase: &'static str,
    /// The type that its history is at.
    pub(super) reading: Option<&'static str>,
    /// What of the log it has delivered. Never a resource's id.
    pub(super) position: Option<String>,
    pub(super) behind: Option<Behind>,
    pub(super) events: u64,
    pub(super) bytes: u64,
}

/// How far behind the end of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Behind {
    Changes(u64),
    Seconds(u64),
}

/// A stream at one moment.
struct Seen {
    line: Arc<Line>,
    now: Whereabouts,
    behind: Option<Distance>,
}

impl View {
    /// As it is now.
    pub(super) fn of(app: &AppState, wanted: &Wanted) -> Self {
        // The end first: nobody is behind what came later.
        let (end, epoch) = (app.hub.level(), app.store.epoch());
        let seen = see(app.roll.lines(), app.store.as_ref(), end);
        let totals = Totals { most: app.limits.most(), ..Totals::of(&seen) };
        let (found, streams) = choose(seen, wanted, epoch);
        let begins = app.hub.oldest();
        let ring = app.hub.ring_since();
        let log = Log {
            end: place(epoch, end),
            silent_seconds: app.hub.silence().map(|silence| silence.as_secs_f64()),
            begins: begins.map(instant::text),
            position_works_for_seconds: begins.map(seconds_since),
            ring_begins: instant::text(ring),
            ring_seconds: seconds_since(ring),
        };
        let at = instant::text(Timestamp::now());
        Self { at, totals, log, found, offset: wanted.offset, limit: wanted.limit, streams }
    }
}

fn see(lines: Vec<Arc<Line>>, store: &dyn Store, end: LogPosition) -> Vec<Seen> {
    let see = |line: Arc<Line>| {
        let now = line.now();
        Seen { line, now, behind: now.at.map(|at| store.distance(at, end)) }
    };
    lines.into_iter().map(see).collect()
}

impl Totals {
    fn of(seen: &[Seen]) -> Self {
        let mut phases: BTreeMap<_, _> = Phase::ALL.map(|phase| (phase.name(), 0)).into();
        for one in seen {
            *phases.entry(one.now.phase.name()).or_default() += 1;
        }
        let sum =
            |of: fn(&Whereabouts) -> u64| -> u64 { seen.iter().map(|one| of(&one.now)).sum() };
        let (events, bytes) = (sum(|now| now.events), sum(|now| now.bytes));
        Self { streams: seen.len(), most: 0, phases, events, bytes }
    }
}

/// How many fit, and those on the page that is asked for.
fn choose(mut seen: Vec<Seen>, wanted: &Wanted, epoch: Epoch) -> (usize, Vec<Row>) {
    seen.retain(|one| one.fits(wanted));
    // Equals stay in the order in which they came.
    seen.sort_by(|a, b| match wanted.descending {
        true => b.compare(a, wanted.by),
        false => a.compare(b, wanted.by),
    });
    let page = seen.iter().skip(wanted.offset).take(wanted.limit);
    (seen.len(), page.map(|one| one.row(epoch)).collect())
}

impl Seen {
    fn fits(&self, wanted: &Wanted) -> bool {
        let asked = &self.line.asked;
        let text = &*wanted.text;
        let peer = || asked.peer.is_some_and(|peer| peer.to_string().contains(text));
        let forwarded = || asked.forwarded.as_ref().is_some_and(|whom| whom.contains(text));
        wanted.phase.is_none_or(|phase| phase == self.now.phase)
            && (text.is_empty() || asked.query.contains(text) || peer() || forwarded())
    }

    fn compare(&self, other: &Self, by: By) -> Ordering {
        let (mine, its) = (&self.line, &other.line);
        match by {
            By::Number => mine.number.cmp(&its.number),
            By::Peer => mine.asked.peer.cmp(&its.asked.peer),
            By::Query => mine.asked.query.cmp(&its.asked.query),
            By::Phase => self.now.phase.cmp(&other.now.phase),
            By::Behind => self.behind.cmp(&other.behind),
            By::Events => self.now.events.cmp(&other.now.events),
            By::Bytes => self.now.bytes.cmp(&other.now.bytes),
        }
    }

    fn row(&self, epoch: Epoch) -> Row {
        let Line { number, since, format, asked, .. } = &*self.line;
        let Whereabouts { phase, at, reading, events, bytes } = self.now;
        Row {
            number: *number,
            since: instant::text(*since),
            seconds: seconds_since(*since),
            peer: asked.peer.map(|peer| peer.to_string()),
            forwarded: asked.forwarded.clone(),
            format,
            query: asked.query.clone(),
            phase: phase.name(),
            reading: reading.map(|ty| ty.name()),
            position: at.map(|at| place(epoch, at)),
            behind: self.behind.map(Behind::from),
            events,
            bytes,
        }
    }
}

impl From<Distance> for Behind {
    fn from(distance: Distance) -> Self {
        match distance {
            Distance::Changes(count) => Self::Changes(count),
            Distance::Seconds(count) => Self::Seconds(count),
        }
    }
}

fn place(epoch: Epoch, log: LogPosition) -> String {
    Position { epoch, log, members: None, scan: None }.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::{Admission, Asked, OpenStream, Roll};

    /// So many streams of 200 addresses; the n-th is at change n and has sent n events.
    fn open(roll: &Arc<Roll>, count: u16) -> Vec<OpenStream> {
        let stream = |n: u16| {
            let [high, low] = (n % 200).to_be_bytes();
            let peer = Some(([10, 1, high, low], n).into());
            let query =
                format!("/fhir/$export?_type={}", ["Patient", "Observation"][n as usize % 2]);
            let asked = Asked { peer, forwarded: None, query: query.into() };
            let mut open = OpenStream::new(
                "sse",
                Admission { roll: Arc::clone(roll), asked, ..Admission::default() },
            );
            open.enters(if n.is_multiple_of(3) { Phase::Behind } else { Phase::Live });
            open.delivers(
                LogPosition { time: n.into(), consumed: 1 },
                n.into(),
                100 + usize::from(n % 2),
            );
            open
        };
        (0..count).map(stream).collect()
    }

    fn seen(roll: &Roll, end: u64) -> Vec<Seen> {
        let see = |line: Arc<Line>| {
            let now = line.now();
            let behind = now.at.map(|at| Distance::Changes(end - at.time));
            Seen { line, now, behind }
        };
        roll.lines().into_iter().map(see).collect()
    }

    #[test]
    fn of_very_many_a_page_is_shown_and_all_are_counted() {
        let roll = Arc::new(Roll::default());
        let open = open(&roll, 15_000);
        let totals = Totals::of(&seen(&roll, 14_999));
        assert_eq!((totals.streams, totals.bytes), (15_000, 1_507_500));
        assert_eq!((totals.phases["behind"], totals.phases["live"]), (5_000, 10_000));
        let (found, page) = choose(seen(&roll, 14_999), &Wanted::default(), Epoch(1));
        assert_eq!((found, page.len()), (15_000, 100));
        assert_eq!(page[0].behind, Some(Behind::Changes(14_999)), "the farthest behind is first");
        let wanted = Wanted {
            phase: Some(Phase::Behind),
            text: "Observation".into(),
            offset: 2_490,
            ..Wanted::default()
        };
        let (found, page) = choose(seen(&roll, 14_999), &wanted, Epoch(1));
        assert_eq!((found, page.len()), (2_500, 10));
        let wanted = Wanted {
            by: By::Events,
            descending: true,
            limit: 1,
            text: "10.1.0.7:".into(),
            ..Wanted::default()
        };
        let (found, page) = choose(seen(&roll, 14_999), &wanted, Epoch(1));
        assert_eq!((found, page[0].events), (75, 14_807));
        drop(open);
        assert!(roll.lines().is_empty());
    }

    #[test]
    fn every_order_is_total_and_both_ways() {
        let roll = Arc::new(Roll::default());
        let _open = open(&roll, 50);
        for by in By::ALL {
            let order = |descending| {
                let wanted = Wanted { by, descending, ..Wanted::default() };
                let (_, page) = choose(seen(&roll, 49), &wanted, Epoch(1));
                page.iter().map(|row| row.number).collect::<Vec<_>>()
            };
            let (up, down) = (order(false), order(true));
            assert_eq!(up.len(), 50);
            assert_ne!(up, down, "{by:?}");
        }
    }
}
