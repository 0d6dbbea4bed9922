use tempfile::TempDir;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::*;
use crate::{
    fhir::resource::Resource,
    live::HubOptions,
    plan::Grant,
    store::{
        Action, Expect, Window, Write,
        embedded::{EmbeddedOptions, EmbeddedStore},
    },
};

/// A store, its hub, and what they need.
struct Ground {
    store: Arc<dyn Store>,
    hub: Arc<Hub>,
    _folder: TempDir,
}

impl Ground {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> =
            EmbeddedStore::open(folder.path(), EmbeddedOptions::default()).unwrap();
        write(&*store).await;
        let (options, stop) = (HubOptions::default(), CancellationToken::new());
        let hub = Hub::start(store.clone(), options, TaskTracker::new(), stop).await.unwrap();
        Self { store, hub, _folder: folder }
    }

    fn session(&self, log: LogPosition) -> Session {
        let plan = Plan::new(Scope::System, None, Window::default(), true, Grant::Everything);
        let start = Position { epoch: self.store.epoch(), log, members: None, scan: None };
        let (store, hub) = (Arc::clone(&self.store), Arc::clone(&self.hub));
        Session::new(Arc::new(plan), store, hub, Format::Sse, Some(start))
    }
}

/// One change.
async fn write(store: &dyn Store) {
    let action = Action::Put(Resource::parse(br#"{"resourceType":"Basic","id":"a"}"#).unwrap());
    let ty = ResourceType::parse("Basic").unwrap();
    let (deleted, put) = (Action::Delete, action);
    for action in [deleted, put] {
        let write = Write { ty, id: "a".into(), action, expect: Expect::Any };
        store.commit(vec![write]).await.unwrap();
    }
}

fn at(time: u64) -> LogPosition {
    LogPosition { time, consumed: 1 }
}

/// What repeats a change that it has from the ring is no news to a stream, wherever it was carried
/// meanwhile.
#[tokio::test]
async fn a_stream_that_sits_and_rises_stays_of_the_ring_since_it_came() {
    let ground = Ground::new().await;
    let mut session = ground.session(at(1));
    let follow = ground.hub.follow_since(at(0), at(1));
    session.stage = Stage::Live { follow, goal: None };
    for time in [1, 3, 9] {
        let stood = session.sit().expect("it follows");
        assert_eq!(stood.origin, at(0));
        session.rise(Standing { at: at(time), ..stood });
    }
    assert_eq!(session.sit().map(|stood| (stood.at, stood.origin)), Some((at(9), at(0))));
}

/// Longer than MongoDB's election timeout: a primary that nobody follows any more still answers.
#[tokio::test(start_paused = true)]
async fn a_position_ahead_of_the_log_is_believed_for_as_long_as_an_election_takes() {
    let ground = Ground::new().await;
    let head = ground.store.head().await.unwrap();
    let mut session = ground.session(at(head.time + 2));
    let began = Instant::now();
    while began.elapsed().as_secs() < 12 && session.out.is_empty() {
        session.step().await.unwrap();
    }
    assert!(session.out.is_empty(), "it waits");
    write(&*ground.store).await;
    write(&*ground.store).await;
    while !session.is_level() {
        session.step().await.unwrap();
        let (_, out) = session.take_out();
        let out = String::from_utf8(out.to_vec()).unwrap();
        assert!(!out.contains("event: reset"), "{out}");
    }
}
