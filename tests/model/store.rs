//! The simulated store: a [`World`] behind the contract of `store`, with faults as the schedule
//! orders them.

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use fhirtail::{
    fhir::ResourceType,
    position::{Epoch, LogPosition},
    store::{Changes, Lookup, Snapshot, Store, StoreError, Write, WriteError, Written},
};
use jiff::Timestamp;
use support::chaos::Dice;
use tokio::sync::Notify;

use crate::{
    changes::Reader,
    schedule::{Call, Knobs},
    snapshot::Still,
    world::World,
};

#[derive(Debug)]
pub struct SimStore {
    pub knobs: Knobs,
    world: Mutex<World>,
    weather: Mutex<Weather>,
    /// Wakes readers of the log, always in one order: a `watch` would not.
    pub committed: Notify,
}

/// What happens to calls.
#[derive(Debug)]
struct Weather {
    dice: Dice,
    away: Vec<(Call, u32)>,
    /// Snapshots with a lower number have expired.
    expired: u64,
    snapshots: u64,
    /// Nothing fails or lags any more.
    fair: bool,
}

impl SimStore {
    pub fn new(knobs: Knobs) -> Arc<Self> {
        let (away, dice) = (Vec::new(), Dice(knobs.seed ^ 0x5707e));
        let weather = Weather { dice, away, expired: 0, snapshots: 0, fair: false };
        Arc::new(Self {
            knobs,
            world: Mutex::new(World::new(knobs)),
            weather: Mutex::new(weather),
            committed: Notify::new(),
        })
    }

    pub fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().expect("nobody panics in there")
    }

    /// Changes the world, and tells readers of the log.
    pub fn change(&self, change: impl FnOnce(&mut World)) {
        change(&mut self.world());
        self.committed.notify_waiters();
    }

    pub fn expire(&self) {
        let mut weather = self.weather();
        weather.expired = weather.snapshots;
    }

    pub fn away(&self, call: Call, times: u32) {
        self.weather().away.push((call, times));
    }

    /// From here on all goes well.
    pub fn calm(&self) {
        self.weather().fair = true;
    }

    pub fn is_expired(&self, snapshot: u64, batches: u64) -> bool {
        let weather = self.weather();
        !weather.fair
            && (snapshot < weather.expired || self.knobs.life.is_some_and(|life| batches > life))
    }

    /// A number below `sides`; 0 once all goes well.
    pub fn roll(&self, sides: u64) -> u64 {
        let mut weather = self.weather();
        if weather.fair { 0 } else { weather.dice.roll(sides) }
    }

    /// A call comes: it may take a while, and it may fail.
    pub async fn meet(&self, call: Call) -> Result<(), StoreError> {
        if self.roll(8) > 5 {
            tokio::time::sleep(Duration::from_millis(self.roll(20))).await;
        }
        let mut weather = self.weather();
        if weather.fair {
            return Ok(());
        }
        match weather.away.iter_mut().find(|(of, left)| *of == call && *left > 0) {
            Some((_, left)) => {
                *left -= 1;
                Err(StoreError::Unavailable("the schedule says so".into()))
            }
            None => Ok(()),
        }
    }

    fn weather(&self) -> MutexGuard<'_, Weather> {
        self.weather.lock().expect("nobody panics in there")
    }
}

/// The store as the product has it.
#[derive(Debug)]
pub struct Served(pub Arc<SimStore>);

#[async_trait]
impl Store for Served {
    fn epoch(&self) -> Epoch {
        Epoch(7)
    }

    fn describe(&self) -> String {
        "a simulation".into()
    }

    async fn head(&self) -> Result<LogPosition, StoreError> {
        self.0.meet(Call::Head).await?;
        Ok(self.0.world().head())
    }

    async fn recent(&self, _: Duration) -> Result<LogPosition, StoreError> {
        let back = usize::try_from(self.0.roll(4)).expect("small");
        let world = self.0.world();
        let instant = world.instants().rev().nth(back).filter(|time| *time > world.trimmed());
        Ok(instant.map_or(world.head(), LogPosition::before))
    }

    async fn oldest(&self) -> Result<Option<Timestamp>, StoreError> {
        Ok(None)
    }

    async fn snapshot(&self) -> Result<Arc<dyn Snapshot>, StoreError> {
        self.0.meet(Call::Snapshot).await?;
        let number = {
            let mut weather = self.0.weather();
            weather.snapshots += 1;
            weather.snapshots - 1
        };
        // A node that lags knows less, but for the group, which was there first.
        let lag = self.0.roll(12).saturating_sub(9);
        let lag = usize::try_from(lag).expect("small");
        let world = self.0.world();
        let time = match lag {
            0 => world.now(),
            lag => world.instants().skip(1).rev().nth(lag).unwrap_or(world.now()),
        };
        let state = world.state_at(LogPosition::past(time));
        drop(world);
        Ok(Arc::new(Still::new(Arc::clone(&self.0), number, time, state)))
    }

    async fn changes(&self, after: LogPosition) -> Result<Box<dyn Changes>, StoreError> {
        self.0.meet(Call::Changes).await?;
        self.0.world().honours(after)?;
        Ok(Box::new(Reader::new(Arc::clone(&self.0), after)))
    }

    async fn read(&self, _: ResourceType, _: &str) -> Result<Lookup, StoreError> {
        Err(StoreError::Failed("streams read snapshots".into()))
    }

    async fn commit(&self, _: Vec<Write>) -> Result<Vec<Written>, WriteError> {
        Err(StoreError::Failed("the schedule writes".into()).into())
    }

    fn before_images(&self, _: ResourceType) -> Result<(), String> {
        self.0.knobs.images.then_some(()).ok_or_else(|| "the schedule says so".into())
    }

    async fn close(&self) {}
}
