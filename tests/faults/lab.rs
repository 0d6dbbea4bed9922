//! The laboratory: a store, servers over it, writers, a crowd, a fault, and then the oracle over
//! all that anyone saw.

use std::{
    sync::{Arc, Mutex, MutexGuard, atomic::Ordering::SeqCst},
    time::{Duration, Instant},
};
use support::{process::Process, proxy::Proxy};

use crate::{
    crowd,
    exports::Exports,
    ground::{Ground, Set},
    report,
    shared::Shared,
    writers,
};

/// What the clients stream; the writers write nothing else.
pub(crate) const TYPES: [&str; 2] = ["Observation", "Patient"];
/// The first write after the fault, and the last of all.
pub(crate) const AFTER: &str = "after";
pub(crate) const LAST: &str = "last";

/// Within what time all clients are back.
const BACK: Duration = Duration::from_secs(10);

/// How long a fault lasts, about.
pub(crate) fn fault_time() -> Duration {
    Duration::from_secs(setting("FHIRTAIL_FAULT_SECONDS", 3))
}

/// How many clients there are.
pub(crate) fn clients() -> u64 {
    setting("FHIRTAIL_FAULT_CLIENTS", 10)
}

fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// Whether streams may have to start over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resets {
    Never,
    Allowed,
}

/// What a fault is of: whatever it is not of answers each client, and ends no stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Faulty {
    Nothing,
    /// Whether a patient is there it can't be asked then.
    Store,
    Server,
}

/// Who takes part.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cast {
    pub(crate) servers: usize,
    pub(crate) arguments: &'static [&'static str],
    pub(crate) environment: &'static [(&'static str, &'static str)],
    pub(crate) writers: u64,
    /// How long a text is that each resource holds.
    pub(crate) padding: usize,
    pub(crate) resets: Resets,
    pub(crate) faulty: Faulty,
    /// Each change of an observation comes with what it was before. A collection that others'
    /// writes bring anew keeps nothing of the kind.
    pub(crate) keeps_images: bool,
    /// How many ask for the history as lines, beside the crowd.
    pub(crate) exports: u64,
}

impl Cast {
    pub(crate) const USUAL: Self = Self {
        servers: 1,
        arguments: &[],
        environment: &[],
        writers: 3,
        padding: 400,
        resets: Resets::Never,
        faulty: Faulty::Nothing,
        keeps_images: true,
        exports: 2,
    };
}

pub(crate) struct Lab<G = Set> {
    pub(crate) ground: G,
    pub(crate) shared: Arc<Shared>,
    servers: Mutex<Vec<Process>>,
    /// Clients come to the servers by way of this.
    balancer: Mutex<Option<Proxy>>,
    /// Where servers panicked that are no more.
    defects: Mutex<Vec<String>>,
    cast: Cast,
}

impl<G: Ground> Lab<G> {
    fn new(ground: G, cast: Cast) -> Self {
        let mut shared = Shared::new(ground.sink(), cast.padding, cast.writers);
        shared.keeps_images = cast.keeps_images;
        shared.servers_fail = cast.faulty == Faulty::Server;
        let lab = Self {
            shared: Arc::new(shared),
            ground,
            servers: Mutex::default(),
            balancer: Mutex::default(),
            defects: Mutex::default(),
            cast,
        };
        (0..cast.servers).for_each(|_| lab.start_server());
        lab
    }

    pub(crate) fn servers(&self) -> MutexGuard<'_, Vec<Process>> {
        self.servers.lock().expect("no panic while locked")
    }

    pub(crate) fn start_server(&self) {
        self.start_server_with(&[]);
    }

    fn start_server_with(&self, more: &[&str]) {
        let store = self.ground.store();
        let Cast { environment, arguments, .. } = self.cast;
        let arguments = [arguments, more].concat();
        let serve = || Process::serve_in(environment, &store, &arguments);
        let server = tokio::task::block_in_place(serve);
        self.servers().push(server);
        self.publish();
    }

    /// Tells all the world where the servers are.
    fn publish(&self) {
        let servers = self.servers();
        let mut urls = servers.iter().map(|server| server.url("")).collect();
        if let Some(balancer) = &*self.balancer.lock().expect("no panic while locked") {
            balancer.send_to(servers.iter().map(Process::port).collect());
            urls = vec![format!("http://127.0.0.1:{}", balancer.port)];
        }
        *self.shared.urls.lock().expect("no panic while locked") = urls;
    }

    /// From now on clients come by way of a balancer.
    pub(crate) async fn balance(&self) {
        let balancer = Proxy::to(0).await;
        *self.balancer.lock().expect("no panic while locked") = Some(balancer);
        self.publish();
    }

    /// Kills the server that has been there longest; `start` another after a while.
    pub(crate) async fn replace_server(&self, after: Duration) {
        self.kill_server();
        tokio::time::sleep(after).await;
        self.start_server();
    }

    fn kill_server(&self) {
        let mut oldest = self.servers().remove(0);
        self.publish();
        oldest.kill();
        self.bury(&oldest);
    }

    /// Servers that remember nothing of the log, in the place of those that there are.
    fn start_anew(&self) {
        let count = self.servers().len();
        for _ in 0..count {
            self.kill_server();
            self.start_server_with(&["--look-back", "0"]);
        }
    }

    /// Asks the server that has been there longest to end, as a deployment would, and waits for
    /// it; clients may come to it until it takes no more.
    pub(crate) fn end_server(&self) {
        let mut oldest = self.servers().remove(0);
        oldest.signal("-TERM");
        let ended = tokio::task::block_in_place(|| oldest.wait());
        assert!(ended.success(), "{ended}");
        self.publish();
        self.bury(&oldest);
    }

    fn bury(&self, server: &Process) {
        self.defects.lock().expect("no panic while locked").extend(server.defects());
    }

    /// Where any server panicked.
    fn defects(&self) -> Vec<String> {
        self.defects.lock().expect("no panic while locked").clone()
    }
}

/// One laboratory at a time: the machine is small.
static ONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Runs writers and a crowd through a fault of a three-node set.
pub(crate) async fn survive(name: &str, faulty: Faulty, fault: impl AsyncFnOnce(&Lab)) {
    let _one = ONE.lock().await;
    let Some(set) = Set::start(&[]).await else { return };
    run(name, set, Cast { faulty, ..Cast::USUAL }, fault).await;
}

/// Runs writers and a crowd through a fault of whatever is on this ground.
pub(crate) async fn survive_on<G: Ground>(
    name: &str,
    ground: G,
    cast: Cast,
    fault: impl AsyncFnOnce(&Lab<G>),
) {
    let _one = ONE.lock().await;
    run(name, ground, cast, fault).await;
}

/// Nothing may be lost or repeated, and each client is back within ten seconds of the fault; and
/// once more, of a restart, where no write comes to its help.
async fn run<G: Ground>(name: &str, ground: G, cast: Cast, fault: impl AsyncFnOnce(&Lab<G>)) {
    let lab = Lab::new(ground, cast);
    let shared = &lab.shared;
    writers::first(shared).await;
    let write = |n| tokio::spawn(writers::write(shared.clone(), n));
    let writers: Vec<_> = (0..cast.writers).map(write).collect();
    until("the writers write", 30, || shared.acknowledged() > 150).await;
    let clients: Vec<_> =
        (0..clients()).map(|seed| crowd::Client::start(shared.clone(), seed)).collect();
    let exports = Exports::start(shared, cast.exports).await;
    until("all has been caught up once", 60, || clients.iter().all(|c| c.was_level(None))).await;

    fault(&lab).await;

    let end = Instant::now();
    shared.calm.store(true, SeqCst);
    writers::last(shared, AFTER).await;
    let acked = end.elapsed();
    until(name, 60, || clients.iter().all(|client| client.was_level(Some(AFTER)))).await;
    let back = end.elapsed();
    shared.enough.store(true, SeqCst);
    for writer in writers {
        writer.await.expect("a writer");
    }
    writers::last(shared, LAST).await;
    until("all have it all", 60, || clients.iter().all(|c| c.was_level(Some(LAST)))).await;
    lab.start_anew();
    let start = Instant::now();
    shared.rest.store(true, SeqCst);
    let mut seen = Vec::new();
    for client in clients {
        seen.push(client.end().await);
    }
    let at_rest = start.elapsed();
    let exported = exports.end().await;
    while !lab.servers().is_empty() {
        lab.kill_server();
    }
    let report = report::of(&lab, seen, exported).await;
    eprintln!(
        "fault: {name}, {report}, recovery {:.1} s (writers {:.1} s, at rest {:.1} s)",
        back.as_secs_f64(),
        acked.as_secs_f64(),
        at_rest.as_secs_f64()
    );
    report.assert_clean(cast);
    assert!(lab.defects().is_empty(), "{name}: {:#?}", lab.defects());
    assert!(back < BACK, "{name}: {back:?} to recovery");
    assert!(at_rest < BACK, "{name}: {at_rest:?} to recovery where nobody writes");
}

/// Waits for a condition.
pub(crate) async fn until(what: &str, seconds: u64, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(seconds), "it does not come: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
