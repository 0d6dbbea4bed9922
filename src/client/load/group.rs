//! Groups on their way: several at once, and yet the writes of one resource in their order.

use std::{collections::HashSet, mem, sync::Arc, time::Duration};

use tokio::task::JoinSet;

use super::{
    progress::Tally,
    read::Place,
    sink::{SendError, Sink},
};
use crate::{
    client::Failure,
    fhir::ResourceType,
    store::{Action, Write},
};

/// A group is written as one commit.
const MAX_WRITES: usize = 200;
const MAX_BYTES: usize = 4 << 20;

type Name = (ResourceType, String);

/// Takes writes, sends groups.
pub(super) struct Groups {
    sink: Sink,
    parallel: usize,
    patience: Duration,
    tally: Arc<Tally>,
    group: Group,
    /// What the group and those on their way hold: no group may hold any of it too.
    named: HashSet<Name>,
    sending: JoinSet<Result<Vec<Name>, Failure>>,
}

#[derive(Default)]
struct Group {
    places: Vec<Place>,
    writes: Vec<Write>,
    bytes: usize,
}

impl Groups {
    pub(super) fn new(sink: Sink, parallel: usize, patience: Duration, tally: Arc<Tally>) -> Self {
        Self {
            sink,
            parallel,
            patience,
            tally,
            group: Group::default(),
            named: HashSet::new(),
            sending: JoinSet::new(),
        }
    }

    /// Takes one write, and sends the group that is full.
    ///
    /// # Errors
    /// The sink takes nothing any more.
    pub(super) async fn push(&mut self, place: Place, write: Write) -> Result<(), Failure> {
        let name = (write.ty, write.id.clone());
        let bytes = size(&write);
        // Of two writes of one resource the later must win: it waits for the earlier.
        if self.named.contains(&name) {
            self.finish().await?;
        }
        if self.group.writes.len() >= MAX_WRITES || self.group.bytes + bytes > MAX_BYTES {
            self.send().await?;
        }
        self.named.insert(name);
        self.group.places.push(place);
        self.group.writes.push(write);
        self.group.bytes += bytes;
        Ok(())
    }

    /// Sends what is left and waits for all that is on its way.
    ///
    /// # Errors
    /// The sink takes nothing any more.
    pub(super) async fn finish(&mut self) -> Result<(), Failure> {
        self.send().await?;
        while !self.sending.is_empty() {
            self.one_done().await?;
        }
        Ok(())
    }

    async fn send(&mut self) -> Result<(), Failure> {
        while self.sending.len() >= self.parallel {
            self.one_done().await?;
        }
        let group = mem::take(&mut self.group);
        if !group.writes.is_empty() {
            let (sink, tally) = (self.sink.clone(), Arc::clone(&self.tally));
            self.sending.spawn(send(sink, tally, self.patience, group));
        }
        Ok(())
    }

    async fn one_done(&mut self) -> Result<(), Failure> {
        let Some(done) = self.sending.join_next().await else { return Ok(()) };
        let names = done.map_err(|e| Failure::new(format!("a group broke off: {e}")))??;
        for name in names {
            self.named.remove(&name);
        }
        Ok(())
    }
}

fn size(write: &Write) -> usize {
    match &write.action {
        Action::Put(resource) => resource.to_json().len(),
        Action::Delete => 0,
    }
}

/// Sends a group; where it is refused its halves, and so on down to the writes at fault.
async fn send(
    sink: Sink,
    tally: Arc<Tally>,
    patience: Duration,
    group: Group,
) -> Result<Vec<Name>, Failure> {
    let mut parts = vec![(group.places.as_slice(), group.writes.as_slice())];
    while let Some((places, writes)) = parts.pop() {
        match sink.send(writes, patience).await {
            Ok(effects) => effects.into_iter().for_each(|effect| tally.good(effect)),
            Err(SendError::Refused(_)) if writes.len() > 1 => {
                let (places, writes) =
                    (places.split_at(places.len() / 2), writes.split_at(writes.len() / 2));
                parts.push((places.1, writes.1));
                parts.push((places.0, writes.0));
            }
            Err(SendError::Refused(why)) => tally.bad(&places[0], &why),
            Err(SendError::Fatal(why) | SendError::Later(why, _)) => return Err(Failure(why)),
        }
    }
    Ok(group.writes.into_iter().map(|write| (write.ty, write.id)).collect())
}
