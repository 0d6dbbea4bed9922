//! What a primary writes that no other node gets, and what is rolled back once another is
//! elected: no client may ever hear of it, and all else comes.

use std::time::{Duration, Instant};

use mongodb::{
    Client, Database,
    bson::{Document, doc},
};
use support::stream::EventStream;
use tokio::time::sleep;

use crate::{
    ground::Set,
    lab::{Cast, Faulty, Lab, fault_time, survive, survive_on},
};

/// How a primary loses its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loses {
    /// It is killed, and comes back.
    Life,
    /// It steps down and stays.
    Primacy,
}

/// A primary from which no other node fetches anything.
struct CutOff<'s> {
    set: &'s Set,
    node: usize,
    /// A client of this node alone.
    client: Client,
    rollbacks: i32,
}

impl<'s> CutOff<'s> {
    async fn new(set: &'s Set) -> Self {
        // A new primary would else fetch what the old one has and it has not.
        let mut config = set.set.admin(doc! {"replSetGetConfig": 1}).await;
        let mut config = config.get_document_mut("config").expect("a config").clone();
        let version = config.get_i32("version").expect("a version");
        config.insert("version", version + 1);
        let settings = config.get_document_mut("settings").expect("settings");
        settings.insert("catchUpTimeoutMillis", 0);
        set.set.admin(doc! {"replSetReconfig": config}).await;

        let node = set.primary().await;
        let client = set.set.nodes[node].client().await;
        let cut = Self { set, node, rollbacks: rollbacks(&client).await, client };
        for other in cut.others() {
            cut.fetching(other, "alwaysOn").await;
        }
        for other in cut.others() {
            cut.waits(other).await;
        }
        cut
    }

    fn others(&self) -> impl Iterator<Item = usize> + use<> {
        let node = self.node;
        (0..self.set.set.nodes.len()).filter(move |other| *other != node)
    }

    async fn fetching(&self, node: usize, mode: &str) {
        let stop = doc! {"configureFailPoint": "stopReplProducer", "mode": mode};
        self.set.tell(node, stop).await;
    }

    /// Waits until a node fetches nothing more.
    async fn waits(&self, node: usize) {
        let admin = self.set.set.nodes[node].client().await.database("admin");
        let start = Instant::now();
        loop {
            let said = admin.run_command(doc! {"getLog": "global"}).await.expect("its log");
            let lines = said.get_array("log").expect("lines");
            let waits = |line: &&str| line.contains("stopReplProducer fail point enabled");
            if lines.iter().filter_map(|line| line.as_str()).any(|line| waits(&line)) {
                return;
            }
            assert!(start.elapsed() < Duration::from_secs(30), "it goes on fetching");
            sleep(Duration::from_millis(50)).await;
        }
    }

    fn db(&self) -> Database {
        self.client.database("fhir")
    }

    /// Another is elected, and this node rolls back.
    async fn loses(self, what: Loses) {
        let old = &self.set.set.nodes[self.node];
        if what == Loses::Life {
            old.crash();
        } else {
            let command = doc! {"replSetStepDown": 60, "force": true};
            self.set.tell(self.node, command).await;
        }
        let elected = self.set.primary().await;
        assert_ne!(elected, self.node);
        // Not before: they would fetch it still.
        for other in self.others() {
            self.fetching(other, "off").await;
        }
        if what == Loses::Life {
            old.restart();
        }
        let client = old.client().await;
        let start = Instant::now();
        while rollbacks(&client).await <= self.rollbacks {
            assert!(start.elapsed() < Duration::from_secs(30), "nothing is rolled back");
            sleep(Duration::from_millis(50)).await;
        }
    }
}

/// How often a node has rolled back, about; 0: it does not answer at the moment.
async fn rollbacks(node: &Client) -> i32 {
    let asked = node.database("admin").run_command(doc! {"replSetGetRBID": 1}).await;
    asked.ok().and_then(|reply| reply.get_i32("rbid").ok()).unwrap_or(0)
}

async fn whatever_was_written_alone(lab: &Lab, what: Loses) {
    let cut = CutOff::new(&lab.ground).await;
    let patients = cut.db().collection::<Document>("Patient");
    let alone = doc! {"_id": "alone", "resourceType": "Patient", "id": "alone"};
    let insert =
        doc! {"insert": "Patient", "documents": [alone], "writeConcern": {"w": 1, "j": true}};
    cut.db().run_command(insert).await.expect("written");
    // On the primary's word alone it is there: clients that are live, and such as begin.
    let here = patients.find_one(doc! {"_id": "alone"}).await.expect("an answer");
    assert!(here.is_some(), "it is to be there for now");
    sleep(fault_time()).await;
    cut.loses(what).await;
    let there = lab.ground.mongo.db.collection::<Document>("Patient");
    let there = there.find_one(doc! {"_id": "alone"}).await.expect("an answer");
    assert!(there.is_none(), "{there:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_is_rolled_back_by_a_crash() {
    survive("rollback after kill -9", Faulty::Store, async |lab: &Lab| {
        whatever_was_written_alone(lab, Loses::Life).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_is_rolled_back_by_a_step_down() {
    survive("rollback after step-down", Faulty::Store, async |lab: &Lab| {
        whatever_was_written_alone(lab, Loses::Primacy).await;
    })
    .await;
}

/// Who begins while a drop is there that nobody will ever have heard of gets all the same what
/// was there.
async fn whatever_was_dropped_alone(name: &str, comes_again: bool, time: Duration) {
    let Some(set) = Set::start(&[]).await else { return };
    let cast = Cast { keeps_images: false, faulty: Faulty::Store, ..Cast::USUAL };
    survive_on(name, set, cast, async |lab: &Lab| {
        // No writer touches it: only a history can tell of it.
        let kept = doc! {"_id": "kept", "resourceType": "Observation", "id": "kept"};
        let observations = lab.ground.mongo.db.collection::<Document>("Observation");
        observations.insert_one(kept).await.expect("written");
        let cut = CutOff::new(&lab.ground).await;
        let drop = doc! {"drop": "Observation", "writeConcern": {"w": 1, "j": true}};
        cut.db().run_command(drop).await.expect("dropped");
        if comes_again {
            let create = doc! {"create": "Observation", "writeConcern": {"w": 1, "j": true}};
            match cut.db().run_command(create).await {
                Ok(_) => {}
                // A writer was there first.
                Err(error) => assert!(error.to_string().contains("NamespaceExists"), "{error}"),
            }
        }
        let url = format!("{}/fhir/$export?_type=Observation,Patient", lab.shared.urls()[0]);
        let mut begins = EventStream::open(&url, None).await;
        sleep(time).await;
        cut.loses(Loses::Life).await;
        let events = begins.until("caught-up").await;
        let is_kept = |data: &str| data.contains(r#""id":"kept""#);
        let kept = events.iter().filter(|event| is_kept(&event.data)).count();
        assert_eq!(kept, 1, "a history with a hole: {} events", events.len());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drop_is_rolled_back() {
    whatever_was_dropped_alone("rollback of a drop", false, fault_time()).await;
}

/// A snapshot of before can't be read while the new collection is there: a history waits, however
/// long that is.
#[tokio::test(flavor = "multi_thread")]
async fn a_drop_is_rolled_back_and_the_collection_that_came_after_it() {
    let time = fault_time().max(Duration::from_secs(12));
    whatever_was_dropped_alone("rollback of a drop and a new collection", true, time).await;
}
