//! Runs a schedule, to its end and to everybody's rest.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use fhirtail::{
    live::{Hub, HubOptions},
    session::Turns,
    store::{Store, StoreError},
};
use tokio::{
    runtime::Builder,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    client::{Client, Process},
    replica::{Counts, Wrong},
    schedule::{HUBS, Schedule, Step},
    store::{Served, SimStore},
};

/// No event for so long is rest.
const REST: Duration = Duration::from_secs(8);
/// How often a client may be cut off before it comes to rest.
const MOST_ROUNDS: usize = 40;

/// What the clients of a run heard.
pub type Heard = Vec<Counts>;

/// Runs it in a runtime of its own, whose clock moves when nothing else does.
pub fn run(schedule: &Schedule) -> Result<Heard, Wrong> {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.map_err(|e| e.to_string())?;
    let ran = catch_unwind(AssertUnwindSafe(|| runtime.block_on(Run::all_of(schedule))));
    ran.unwrap_or_else(|_| Err("it panicked".into()))
}

struct Run {
    store: Arc<SimStore>,
    processes: Vec<(Process, CancellationToken)>,
    clients: Vec<Client>,
}

impl Run {
    async fn all_of(schedule: &Schedule) -> Result<Heard, Wrong> {
        let store = SimStore::new(schedule.knobs);
        let mut processes = Vec::new();
        for _ in 0..HUBS {
            processes.push(start(&store).await?);
        }
        let client = |query| Client::new(query, Arc::clone(&store));
        let clients = schedule.queries.iter().map(client).collect();
        let mut run = Self { store, processes, clients };
        for (n, step) in schedule.steps.iter().enumerate() {
            run.step(step).await.map_err(|wrong| format!("in step {n}: {wrong}"))?;
        }
        run.come_to_rest().await.map_err(|wrong| format!("at rest: {wrong}"))?;
        Ok(run.clients.iter().map(|client| client.replica.counts).collect())
    }

    async fn step(&mut self, step: &Step) -> Result<(), Wrong> {
        match step {
            Step::Commit(ops) => self.store.change(|world| world.commit(ops)),
            Step::Drop(types) => self.store.change(|world| world.drop_types(types)),
            Step::Pass(times) => self.store.change(|world| world.pass(*times)),
            Step::Trim(keep) => self.store.change(|world| world.trim(*keep)),
            Step::Expire => self.store.expire(),
            Step::Away(call, times) => self.store.away(*call, *times),
            Step::Pause(0) => tokio::task::yield_now().await,
            Step::Pause(ms) => sleep(Duration::from_millis(*ms)).await,
            Step::Open { client, hub, fresh } => {
                self.clients[*client].open(*hub, &self.processes[*hub].0, *fresh)?;
            }
            Step::Cut(client) => self.clients[*client].cut(),
            Step::Take { client, events, patience } => {
                let patience = Duration::from_millis(*patience);
                let taken = self.clients[*client].take(*events, patience).await;
                taken.map_err(|wrong| format!("client {client}: {wrong}"))?;
            }
            Step::Save(client) => self.clients[*client].save(),
            Step::Restore(client) => self.clients[*client].restore(),
            Step::Restart(hub) => {
                self.clients.iter_mut().for_each(|client| client.cut_at(*hub));
                self.processes[*hub].1.cancel();
                self.processes[*hub] = start(&self.store).await?;
            }
        }
        Ok(())
    }

    /// Nobody writes and nothing fails any more: each copy becomes the store's.
    async fn come_to_rest(&mut self) -> Result<(), Wrong> {
        self.store.calm();
        for _ in 0..MOST_ROUNDS {
            let mut all_rest = true;
            for n in 0..self.clients.len() {
                let rests = self.rests(n).await.map_err(|wrong| format!("client {n}: {wrong}"))?;
                all_rest &= rests;
            }
            if all_rest {
                return self.is_whole();
            }
        }
        Err("some never catch up".into())
    }

    /// A client takes all that comes, and connects where it is not. Whether that was all.
    async fn rests(&mut self, n: usize) -> Result<bool, Wrong> {
        let client = &mut self.clients[n];
        if !client.is_open() && !client.replica.done {
            client.open(n % HUBS, &self.processes[n % HUBS].0, false)?;
        }
        let rest = timeout(REST * 100, client.take(usize::MAX, REST)).await;
        rest.map_err(|_| "it never rests".to_owned()).flatten()?;
        Ok(client.replica.done || (client.is_open() && client.replica.caught_up))
    }

    fn is_whole(&self) -> Result<(), Wrong> {
        let world = self.store.world();
        for (n, client) in self.clients.iter().enumerate().filter(|(_, c)| !c.replica.done) {
            let whole = client.replica.compare(world.current(), None, |_, _| false);
            whole.map_err(|wrong| format!("client {n}: {wrong}"))?;
        }
        Ok(())
    }
}

/// Starts a process over the store, however often that takes.
async fn start(store: &Arc<SimStore>) -> Result<(Process, CancellationToken), Wrong> {
    let knobs = store.knobs;
    let options = HubOptions {
        ring_bytes: knobs.ring_bytes,
        look_back: Duration::ZERO,
        readers: knobs.readers,
    };
    let stop = CancellationToken::new();
    let served: Arc<dyn Store> = Arc::new(Served(Arc::clone(store)));
    let hub = Hub::start(served, options, TaskTracker::new(), stop.clone()).await;
    let hub = hub.map_err(|e: StoreError| e.to_string())?;
    Ok((Process { hub, turns: Turns::new(1) }, stop))
}
