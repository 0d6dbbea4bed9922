//! The one idea: a snapshot at T and the changes after T are the whole truth, under load.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Instant,
};

use fhirtail::store::{ChangeKind, Scan, ScanKey, Snapshot, Store, Write};
use tokio::task::JoinHandle;

use crate::support::*;

const TYPES: [&str; 2] = ["Observation", "Patient"];
const WRITERS: usize = 3;

/// Writers that create, update and delete among a few ids, alone and several in one commit,
/// until told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    commits: Arc<AtomicUsize>,
    writers: Vec<JoinHandle<()>>,
}

impl Load {
    fn on(store: &Arc<dyn Store>) -> Self {
        let (stop, commits) = (Arc::default(), Arc::default());
        let writer = |seed| write_on(store.clone(), seed, Arc::clone(&stop), Arc::clone(&commits));
        let writers = (1..=WRITERS).map(|seed| tokio::spawn(writer(seed as u64))).collect();
        Self { stop, commits, writers }
    }

    /// Returns once so many more commits have been acknowledged.
    async fn pass(&self, commits: usize) {
        let goal = self.commits.load(Ordering::SeqCst) + commits;
        let deadline = Instant::now() + PATIENCE;
        while self.commits.load(Ordering::SeqCst) < goal {
            assert!(Instant::now() < deadline, "the writers stand still");
            assert!(self.writers.iter().all(|writer| !writer.is_finished()), "a writer fell");
            tokio::task::yield_now().await;
        }
    }

    async fn end(self) {
        self.stop.store(true, Ordering::SeqCst);
        for writer in self.writers {
            writer.await.expect("a writer");
        }
    }
}

async fn write_on(
    store: Arc<dyn Store>,
    seed: u64,
    stop: Arc<AtomicBool>,
    commits: Arc<AtomicUsize>,
) {
    let mut random = Random(seed);
    while !stop.load(Ordering::SeqCst) {
        let count = if random.below(4) == 0 { 2 + random.below(4) } else { 1 };
        let mut writes: Vec<Write> = Vec::new();
        for _ in 0..count {
            let write = random.write();
            if !writes.iter().any(|other| (other.ty, &other.id) == (write.ty, &write.id)) {
                writes.push(write);
            }
        }
        store.commit(writes).await.expect("a commit");
        commits.fetch_add(1, Ordering::SeqCst);
    }
}

/// A small generator (xorshift64*), the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % end
    }

    fn write(&mut self) -> Write {
        let name = TYPES[self.below(2) as usize];
        let id = self.below(60).to_string();
        match self.below(4) {
            0 => delete(name, &id),
            _ => put(name, &id, &format!(r#""language":"{}""#, self.below(1 << 30))),
        }
    }
}

async fn seed(store: &Arc<dyn Store>) {
    for name in TYPES {
        let writes = (0..30).map(|n| put(name, &n.to_string(), "")).collect();
        store.commit(writes).await.expect("a commit");
    }
}

async fn snapshot(store: &Arc<dyn Store>) -> Arc<dyn Snapshot> {
    store.snapshot().await.expect("a snapshot")
}

pub async fn snapshot_and_changes_make_the_final_state(under_test: &StoreUnderTest) {
    const ROUNDS: usize = 8;
    let store = &under_test.store;
    seed(store).await;
    let load = Load::on(store);
    let mut copies = Vec::new();
    for _ in 0..ROUNDS {
        load.pass(10).await;
        let snapshot = snapshot(store).await;
        // Some scans run while the log moves on below them.
        load.pass(5).await;
        let replica = Replica::of(&*snapshot, &TYPES).await;
        copies.push((replica, snapshot.position()));
    }
    load.pass(20).await;
    load.end().await;

    let truth = Replica::of(&*snapshot(store).await, &TYPES).await;
    for (mut replica, position) in copies {
        let changes = changes_since(store, position).await;
        assert!(changes.len() > 20, "the writers wrote behind the snapshot");
        changes.iter().for_each(|change| replica.apply(change));
        assert_eq!(replica, truth);
    }
}

/// The life of a stream whose history never fits one snapshot: a few keys from each, the changes
/// between them replayed for the part that is scanned.
pub async fn a_scan_cut_at_any_key_goes_on_in_a_new_snapshot(under_test: &StoreUnderTest) {
    let store = &under_test.store;
    seed(store).await;
    let load = Load::on(store);
    let mut at: Option<ScanKey> = None;
    let mut current = snapshot(store).await;
    let mut replica = Replica::default();
    loop {
        let scan_on = Scan { after: at.clone(), ..whole("Patient") };
        let part = scan(&*current, scan_on).await;
        if part.is_empty() {
            break;
        }
        for resource in part.into_iter().take(4) {
            let key = (ty("Patient"), id_of(&resource.json));
            assert!(replica.0.insert(key, resource.json).is_none(), "sent twice");
            at = Some(resource.key);
        }
        load.pass(5).await;
        let next = snapshot(store).await;
        replay(store, &*current, &*next, at.as_ref(), &mut replica).await;
        current = next;
    }
    load.end().await;
    for change in changes_since(store, current.position()).await {
        if is_patient(&change.kind) {
            replica.apply(&change);
        }
    }
    assert_eq!(replica, Replica::of(&*snapshot(store).await, &["Patient"]).await);
}

/// Applies the changes between two snapshots to the part up to `at`.
async fn replay(
    store: &Arc<dyn Store>,
    from: &dyn Snapshot,
    to: &dyn Snapshot,
    at: Option<&ScanKey>,
    replica: &mut Replica,
) {
    let mut reader = Reader::after(store, from.position()).await.expect("a reader");
    let changes = reader.until(store.head().await.expect("a head")).await;
    let between = changes.iter().filter(|c| c.position <= to.position() && is_patient(&c.kind));
    for change in between {
        let (ChangeKind::Upsert { doc, .. } | ChangeKind::Delete { doc, .. }) = &change.kind else {
            panic!("{change:?}")
        };
        let key = at.and_then(|at| at.same_order(doc, None));
        if key.as_ref() <= at {
            replica.apply(change);
        }
    }
}

fn is_patient(kind: &ChangeKind) -> bool {
    match kind {
        ChangeKind::Upsert { ty: of, .. }
        | ChangeKind::Delete { ty: of, .. }
        | ChangeKind::Deferred { ty: of, .. }
        | ChangeKind::Replaced { ty: of } => *of == ty("Patient"),
    }
}
