//! Clients that read while others write: at rest each one's copy is the database.

use std::{sync::Arc, time::Duration};

use fhirtail::store::Store;
use tokio::task::JoinHandle;

use super::{
    replica::{Copy, Replica},
    stream::{EventStream, PATIENCE},
    writes::{commit, patient, put},
};

/// The last write of a test: a client that has it has all.
pub const LAST: &str = "Patient/p999999";

pub async fn write_last(store: &dyn Store) {
    commit(store, vec![put(&patient(999_999, "last"))]).await;
}

/// A client that reads at its own pace until it has the last write and is level.
pub fn client(url: String, pause: Duration) -> JoinHandle<Replica> {
    tokio::spawn(async move {
        let mut stream = EventStream::open(&url, None).await;
        let mut replica = Replica::default();
        while !(replica.caught_up && replica.copy.contains_key(LAST)) {
            replica.take(&stream.event().await.expect("the stream goes on"));
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
        }
        replica
    })
}

/// A client that cuts its stream after some events and resumes by the last id, again and again.
pub fn restless_client(urls: Vec<String>, every: usize) -> JoinHandle<Replica> {
    tokio::spawn(async move {
        let mut replica = Replica::default();
        let mut last_id: Option<String> = None;
        for url in urls.iter().cycle() {
            let mut stream = EventStream::open(url, last_id.as_deref()).await;
            replica.caught_up = false;
            for _ in 0..every {
                let event = stream.event().await.expect("the stream goes on");
                last_id = Some(event.id.clone()).filter(|id| !id.is_empty());
                replica.take(&event);
                if replica.caught_up && replica.copy.contains_key(LAST) {
                    return replica;
                }
            }
        }
        unreachable!("there is a url")
    })
}

/// Waits for the clients; each copy must be the database's.
pub async fn assert_equal(clients: Vec<JoinHandle<Replica>>, database: &Copy) -> Vec<Replica> {
    let mut replicas = Vec::new();
    for (n, client) in clients.into_iter().enumerate() {
        let replica = tokio::time::timeout(3 * PATIENCE, client).await;
        let replica = replica.expect("a client comes to rest").expect("a client's own checks");
        assert_same(&replica.copy, database, n);
        replicas.push(replica);
    }
    replicas
}

fn assert_same(copy: &Copy, database: &Copy, client: usize) {
    let missing: Vec<_> = database.keys().filter(|url| !copy.contains_key(*url)).collect();
    let extra: Vec<_> = copy.keys().filter(|url| !database.contains_key(*url)).collect();
    assert!(
        missing.is_empty() && extra.is_empty(),
        "{client}: without {missing:?}, with {extra:?}"
    );
    for (url, json) in database {
        assert_eq!(&copy[url], json, "client {client}: {url}");
    }
}

/// Ten clients of the kinds that there are: quick, slow, restless.
pub fn crowd(urls: &[String]) -> Vec<JoinHandle<Replica>> {
    let url = |n: usize| urls[n % urls.len()].clone();
    let mut clients: Vec<_> = (0..4).map(|n| client(url(n), Duration::ZERO)).collect();
    clients.extend((0..2).map(|n| client(url(n), Duration::from_micros(300))));
    clients.extend((0..4).map(|n| restless_client(urls.to_vec(), 7 + 31 * n)));
    clients
}

/// Runs writers until all have written, then the last write.
pub async fn written(writers: Vec<JoinHandle<()>>, store: &Arc<dyn Store>) {
    for writer in writers {
        writer.await.expect("a writer");
    }
    write_last(store.as_ref()).await;
}
