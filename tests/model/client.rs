//! A client: a connection that it reads as it likes, cuts and opens again.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use fhirtail::{
    client::sse::{Item, Parser},
    frame::Format,
    live::Hub,
    plan::Plan,
    position::Position,
    session::{Admission, Outgoing, Session, Times, Turns},
    store::Store,
};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::{
    carrier::Carrier,
    replica::{Replica, Wrong},
    schedule::Query,
    store::{Served, SimStore},
};

/// One process.
pub struct Process {
    pub hub: Arc<Hub>,
    pub turns: Arc<Turns>,
}

pub struct Client {
    plan: Arc<Plan>,
    store: Arc<SimStore>,
    connection: Option<Connection>,
    pub replica: Replica,
    saved: Replica,
}

struct Connection {
    /// At which hub.
    at: usize,
    carrier: Carrier,
    parser: Parser,
    /// What was received and is not yet processed.
    inbox: VecDeque<Item>,
}

impl Connection {
    /// Who is told right now that it has caught up is in the ring.
    fn says_the_truth(&self, items: &[Item]) -> Result<(), Wrong> {
        for item in items {
            let Item::Event(event) = item else { continue };
            let level = |at: Position| self.carrier.reaches(at.log);
            if event.event == "caught-up" && !event.id.parse().is_ok_and(level) {
                return Err(format!("caught up behind the ring, at {event:?}"));
            }
        }
        Ok(())
    }
}

impl Client {
    pub fn new(query: &Query, store: Arc<SimStore>) -> Self {
        let plan = Arc::new(query.plan());
        let replica = Replica::new(Arc::clone(&plan));
        Self { plan, store, connection: None, saved: replica.clone(), replica }
    }

    pub fn open(&mut self, at: usize, process: &Process, fresh: bool) -> Result<(), Wrong> {
        self.connection = None;
        if fresh || self.replica.id.is_empty() {
            self.replica.begin_anew();
        }
        self.replica.connects(&self.store.world());
        let id = self.replica.id.clone();
        let start = match id.as_str() {
            "" => None,
            id => Some(id.parse::<Position>().map_err(|e| format!("{id:?}: {e}"))?),
        };
        let store: Arc<dyn Store> = Arc::new(Served(Arc::clone(&self.store)));
        let (plan, hub) = (Arc::clone(&self.plan), Arc::clone(&process.hub));
        let mut session = Session::new(plan, store, Arc::clone(&hub), Format::Sse, start);
        if self.store.knobs.in_turn {
            session.scans_in_turn(Arc::clone(&process.turns), None);
        }
        let outgoing = Outgoing::new(session, times(), Admission::default());
        let carrier = Carrier::new(hub, outgoing, self.store.knobs.crowd);
        let (parser, inbox) = (Parser::resuming(id), VecDeque::new());
        self.connection = Some(Connection { at, carrier, parser, inbox });
        Ok(())
    }

    pub fn is_open(&self) -> bool {
        self.connection.is_some()
    }

    /// What it has not processed is lost.
    pub fn cut(&mut self) {
        self.connection = None;
    }

    /// Its connection ends if it is at that hub.
    pub fn cut_at(&mut self, hub: usize) {
        self.connection.take_if(|connection| connection.at == hub);
    }

    pub fn save(&mut self) {
        self.saved = self.replica.clone();
    }

    /// It comes back as it was saved.
    pub fn restore(&mut self) {
        self.cut();
        let counts = self.replica.counts;
        self.replica = self.saved.clone();
        self.replica.counts = counts;
    }

    /// Takes events until there are so many, or none came for that long.
    pub async fn take(&mut self, events: usize, patience: Duration) -> Result<(), Wrong> {
        let mut taken = 0;
        while taken < events {
            let Some(connection) = &mut self.connection else { break };
            if let Some(item) = connection.inbox.pop_front() {
                taken += usize::from(matches!(item, Item::Event(_)));
                self.replica.take(&item, &self.store.world())?;
                continue;
            }
            match timeout(patience, connection.carrier.next()).await {
                Ok(Some(bytes)) => {
                    let mut items = Vec::new();
                    connection.parser.feed(&bytes?, &mut items).map_err(|e| e.to_string())?;
                    if self.plan.follow {
                        connection.says_the_truth(&items)?;
                    }
                    connection.inbox.extend(items);
                }
                // Whoever follows is never left, whatever becomes of the store.
                Ok(None) if self.plan.follow => return Err("the stream has ended".into()),
                Ok(None) => self.connection = None,
                Err(_) => break,
            }
        }
        Ok(())
    }
}

fn times() -> Times {
    Times {
        keep_alive: Duration::from_secs(3_600),
        retry: Duration::from_secs(3),
        drain: CancellationToken::new(),
        drain_over: Duration::ZERO,
    }
}
