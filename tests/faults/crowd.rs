//! Clients that keep track of their last id, and cut and resume at random.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, atomic::Ordering::SeqCst},
    time::{Duration, Instant},
};

use fhirtail::client::sse::{Event, Item};
use jiff::Timestamp;
use serde_json::Value;
use support::{
    chaos::Dice,
    oracle::transcript::{Place, Seen, Transcript},
    stream::{EventStream, PATIENCE, client},
};

use crate::{
    lab::{AFTER, LAST, TYPES},
    shared::{Phase, Shared},
    transport::Transport,
    writers::SUBJECTS,
};

const DEADLINE: Duration = Duration::from_secs(60);

/// What a client asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wants {
    pub(crate) types: &'static [&'static str],
    pub(crate) part: Part,
    /// Its history is of what was updated later than this.
    pub(crate) since: Option<Timestamp>,
    /// Over HTTP/2.
    pub(crate) by_two: bool,
}

/// What of its types a stream holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    All,
    /// Of the observations those alone that are final.
    Final,
    /// Those alone of one patient.
    OfOne,
}

impl Part {
    pub(crate) fn finds(self, resource: &Value) -> bool {
        match self {
            Self::All => true,
            Self::Final => {
                resource["resourceType"] != "Observation" || resource["status"] == "final"
            }
            Self::OfOne => resource["subject"]["reference"] == SUBJECTS[0],
        }
    }
}

impl Wants {
    /// A fifth each: patients alone, all, all of which one type is narrowed, one patient's, and what
    /// was updated since the crowd came. Where nobody may ask for a part, all instead. Of each of
    /// these a third speaks HTTP/2.
    fn of(seed: u64, shared: &Shared) -> Self {
        let may_narrow = shared.keeps_images;
        let (types, part): (&[&str], _) = match seed % 5 {
            0 => (&TYPES[1..], Part::All),
            2 if may_narrow => (&TYPES, Part::Final),
            3 if may_narrow => (&TYPES[..1], Part::OfOne),
            _ => (&TYPES, Part::All),
        };
        let since = (seed % 5 == 4).then(|| shared.since());
        Self { types, part, since, by_two: seed / 5 % 3 == 1 }
    }

    fn path(self) -> String {
        let types = self.types.join(",");
        match self.part {
            Part::All => {
                let since = self.since.map(|since| format!("&_since={since}"));
                format!("/fhir/$export?_type={types}{}", since.unwrap_or_default())
            }
            Part::Final => {
                format!("/fhir/$export?_type={types}&_typeFilter=Observation%3Fstatus%3Dfinal")
            }
            Part::OfOne => {
                format!("/fhir/Patient/$export?_type={types}&patient={}", SUBJECTS[0])
            }
        }
    }

    /// Whether an event brings what is written last of a write of note, for such a client.
    fn is_last_of(self, event: &Event, id: &str) -> bool {
        self.types.last() == Some(&event.event.as_str())
            && event.data.contains(&format!(r#""id":"{id}""#))
    }
}

/// A client, and what is known of it meanwhile.
pub(crate) struct Client {
    wants: Wants,
    /// The ids of the writes of note that it has had by the time it was level; "" for being so.
    level: Arc<Mutex<BTreeSet<&'static str>>>,
    task: tokio::task::JoinHandle<Vec<Transcript>>,
}

/// All that a client saw. It forgets all now and then and begins as another; the last of these
/// was there to the end.
pub(crate) struct Saw {
    pub(crate) wants: Wants,
    pub(crate) transcripts: Vec<Transcript>,
}

impl Client {
    pub(crate) fn start(shared: Arc<Shared>, seed: u64) -> Self {
        let wants = Wants::of(seed, &shared);
        let level = Arc::<Mutex<BTreeSet<_>>>::default();
        let reader = Reader {
            shared,
            transport: if wants.by_two { Transport::Two(None) } else { Transport::One(client()) },
            wants,
            dice: Dice(seed ^ 0xc0de),
            level: level.clone(),
            has: BTreeSet::new(),
            transcripts: vec![Transcript::default()],
            last_id: None,
        };
        Self { wants, level, task: tokio::spawn(reader.run()) }
    }

    /// Whether it has caught up, having had this write.
    pub(crate) fn was_level(&self, having: Option<&'static str>) -> bool {
        self.level.lock().expect("no panic while locked").contains(having.unwrap_or_default())
    }

    pub(crate) async fn end(self) -> Saw {
        let transcripts = tokio::time::timeout(DEADLINE, self.task).await;
        let transcripts = transcripts.expect("a client comes to its end").expect("no panic");
        Saw { wants: self.wants, transcripts }
    }
}

struct Reader {
    shared: Arc<Shared>,
    transport: Transport,
    wants: Wants,
    dice: Dice,
    level: Arc<Mutex<BTreeSet<&'static str>>>,
    has: BTreeSet<&'static str>,
    transcripts: Vec<Transcript>,
    last_id: Option<String>,
}

impl Reader {
    async fn run(mut self) -> Vec<Transcript> {
        let mut at_rest = false;
        loop {
            let asked = self.shared.acknowledged() as u64;
            if let Some(stream) = self.connect().await {
                let from = self.last_id.clone();
                // How many writes were acknowledged: the report makes a time of that.
                self.note(Seen::Connected { from, written: asked });
                if self.read(stream).await {
                    if at_rest {
                        return self.transcripts;
                    }
                    while !self.shared.rest.load(SeqCst) {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                    at_rest = true;
                }
            }
            tokio::time::sleep(Duration::from_millis(10 + self.dice.roll(90))).await;
            if !self.is_calm() && self.dice.roll(6) == 0 {
                self.transcripts.push(Transcript::default());
                self.last_id = None;
                self.has.clear();
            }
        }
    }

    fn note(&mut self, seen: Seen) {
        self.transcripts.last_mut().expect("a transcript").seen.push(seen);
    }

    fn is_calm(&self) -> bool {
        self.shared.calm.load(SeqCst)
    }

    async fn connect(&mut self) -> Option<EventStream> {
        let base = {
            let urls = self.shared.urls();
            if urls.is_empty() {
                return None;
            }
            urls[self.dice.below(urls.len())].clone()
        };
        let mut headers = Vec::new();
        if let Some(id) = &self.last_id {
            headers.push(("last-event-id", id.as_str()));
        }
        // Some, as browsers do.
        if self.dice.roll(3) == 0 {
            headers.push(("accept-encoding", "gzip, deflate, br, zstd"));
        }
        // Whether its patient is there the store has to say first.
        let waits_for_store = self.wants.part == Part::OfOne;
        let patience = match waits_for_store || self.shared.servers_fail {
            true => Duration::from_secs(2),
            false => PATIENCE,
        };
        let stream = self.transport.open(&base, &self.wants.path(), &headers, patience).await;
        if stream.is_none() && !waits_for_store {
            self.shared.unreached.fetch_add(1, SeqCst);
        }
        stream
    }

    /// Reads a stream for a while; `true`: until it has all that is ever written.
    async fn read(&mut self, mut stream: EventStream) -> bool {
        let (events, time) = (1 + self.dice.roll(self.shared.patience), 50 + self.dice.roll(1_500));
        let end = Instant::now() + Duration::from_millis(time);
        let (mut caught_up, mut says_why) = (false, false);
        for n in 0.. {
            if !self.is_calm() && (n >= events || Instant::now() > end) {
                return false;
            }
            let item = tokio::time::timeout(Duration::from_millis(50), stream.item()).await;
            let item = match item {
                Err(_silence) => continue,
                Ok(None) => {
                    self.shared.ended.fetch_add(usize::from(!says_why), SeqCst);
                    return false;
                }
                Ok(Some(item)) => item,
            };
            says_why |= matches!(&item, Item::Event(event) if event.event == "OperationOutcome");
            let brings = matches!(&item, Item::Event(event) if !event.event.contains('-'));
            self.take(&item, &mut caught_up);
            self.note(Seen::Said(item));
            if brings && self.was_trapped(caught_up).await {
                return false;
            }
            if caught_up {
                let mut level = self.level.lock().expect("no panic while locked");
                level.insert("");
                level.extend(&self.has);
                if self.has.contains(LAST) {
                    return true;
                }
            }
        }
        false
    }

    /// Whether it was to stand still here, behind a change or a resource, as it did, and then to be
    /// cut off.
    async fn was_trapped(&self, caught_up: bool) -> bool {
        let place = self.last_id.as_deref().and_then(Place::of);
        let phase = match place {
            None => return false,
            Some(place) if place.scans && place.at.consumed == 0 => Phase::History,
            Some(place) if place.scans => Phase::Replay,
            Some(_) if caught_up => Phase::Live,
            Some(_) => Phase::CatchUp,
        };
        if !self.shared.is_trapped(phase) {
            return false;
        }
        self.shared.trapped.fetch_add(1, SeqCst);
        while self.shared.is_trapped(phase) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        true
    }

    fn take(&mut self, item: &Item, caught_up: &mut bool) {
        let id = match item {
            Item::Event(event) => {
                match event.event.as_str() {
                    "caught-up" => *caught_up = true,
                    "fell-behind" => *caught_up = false,
                    "reset" => {
                        *caught_up = false;
                        self.has.clear();
                    }
                    // Why the stream ends; it has no id.
                    "OperationOutcome" => return,
                    _ => {
                        let is = |id: &&str| self.wants.is_last_of(event, id);
                        self.has.extend([AFTER, LAST].into_iter().filter(is));
                    }
                }
                &event.id
            }
            Item::Checkpoint(id) => id,
            Item::Retry(_) => return,
        };
        self.last_id = Some(id.clone()).filter(|id| !id.is_empty());
    }
}
