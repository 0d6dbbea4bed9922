//! A primary that a majority does not follow: it takes writes, and nobody confirms them.

use std::time::{Duration, Instant};

use fhirtail::store::{StoreError, WriteError};
use mongodb::bson::doc;
use support::mongod::ReplicaSet;
use tokio::time::timeout;

use crate::tools::{bench_on, patient, text, ty};

/// Much longer than it may take.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_write_that_no_majority_confirms_is_answered() {
    let Some(set) = ReplicaSet::start(3, &[]).await else { return };
    let set: &'static ReplicaSet = Box::leak(Box::new(set));
    let bench = bench_on(set).await;
    bench.write(patient("a", 0)).await;
    let primary = set.primary().await;
    let followers = || (0..3).filter(|node| *node != primary).map(|node| &set.nodes[node]);
    let fetching = async |mode: &str| {
        for node in followers() {
            let stop = doc! {"configureFailPoint": "stopReplProducer", "mode": mode};
            node.client().await.database("admin").run_command(stop).await.expect("set");
        }
    };
    fetching("alwaysOn").await;
    // What is being fetched comes still.
    let mut n = 0;
    let refused = loop {
        n += 1;
        let commit = timeout(PATIENCE, bench.commit(vec![patient("a", n)]));
        if let Err(refused) = commit.await.expect("an answer") {
            break refused;
        }
    };
    let WriteError::Store(StoreError::Unavailable(why)) = refused else { panic!("{refused:?}") };
    assert!(why.contains("nobody knows whether it was written"), "{why}");
    fetching("off").await;
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = bench.commit(vec![patient("a", n + 1)]).await {
        assert!(Instant::now() < deadline, "{error}");
    }
    let now = bench.snapshot().await.read(ty("Patient"), "a").await.expect("read");
    let json = text(&now.expect("a patient"));
    assert!(json.contains(&format!(r#""multipleBirthInteger":{}"#, n + 1)), "{json}");
}
