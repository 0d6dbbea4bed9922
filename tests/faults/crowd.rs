//! Clients that keep track of their last id, and cut and resume at random.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, atomic::Ordering::SeqCst},
    time::{Duration, Instant},
};

use fhirtail::client::sse::Item;
use serde_json::Value;

use crate::{
    lab::{AFTER, LAST, TYPES},
    shared::{Phase, Shared},
    support::{
        chaos::Dice,
        oracle::transcript::{Place, Seen, Transcript},
        stream::{EventStream, client},
    },
    transport::Transport,
};

const DEADLINE: Duration = Duration::from_secs(60);

/// What a client asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wants {
    pub(crate) types: &'static [&'static str],
    /// Of the observations, those alone that are final.
    pub(crate) narrows: bool,
    /// Over HTTP/2.
    pub(crate) by_two: bool,
}

impl Wants {
    /// A third each: patients alone, all, and all of which one type is narrowed, where it may be.
    /// Of each of these a third speaks HTTP/2.
    fn of(seed: u64, may_narrow: bool) -> Self {
        let types: &[&str] = if seed.is_multiple_of(3) { &TYPES[1..] } else { &TYPES };
        Self { types, narrows: may_narrow && seed % 3 == 1, by_two: seed / 3 % 3 == 1 }
    }

    fn path(self) -> String {
        let filter = "&_typeFilter=Observation%3Fstatus%3Dfinal";
        let filter = if self.narrows { filter } else { "" };
        format!("/fhir/$export?_type={}{filter}", self.types.join(","))
    }
}

/// Whether a stream that [narrows](Wants::narrows) holds a resource.
pub(crate) fn is_found(resource: &Value) -> bool {
    resource["resourceType"] != "Observation" || resource["status"] == "final"
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
        let wants = Wants::of(seed, shared.keeps_images);
        let level = Arc::<Mutex<BTreeSet<_>>>::default();
        let reader = Reader {
            shared,
            transport: if wants.by_two { Transport::Two(None) } else { Transport::One(client()) },
            path: wants.path(),
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
    path: String,
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
        self.transport.open(&base, &self.path, &headers).await
    }

    /// Reads a stream for a while; `true`: until it has all that is ever written.
    async fn read(&mut self, mut stream: EventStream) -> bool {
        let (events, time) = (1 + self.dice.roll(self.shared.patience), 50 + self.dice.roll(1_500));
        let end = Instant::now() + Duration::from_millis(time);
        let mut caught_up = false;
        for n in 0.. {
            if !self.is_calm() && (n >= events || Instant::now() > end) {
                return false;
            }
            let item = tokio::time::timeout(Duration::from_millis(50), stream.item()).await;
            let item = match item {
                Err(_silence) => continue,
                Ok(None) => return false,
                Ok(Some(item)) => item,
            };
            self.take(&item, &mut caught_up);
            self.note(Seen::Said(item));
            if self.was_trapped(caught_up).await {
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

    /// Whether it was to stand still here, as it did, and then to be cut off.
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
                        let is = |id: &str| event.data.contains(&format!(r#""id":"{id}""#));
                        self.has.extend([AFTER, LAST].into_iter().filter(|id| is(id)));
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
