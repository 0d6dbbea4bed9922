//! The store in a process that dies, and on a disk that fails: what was acknowledged stays.
//!
//! The process is this test program, run again for one of its ignored tests.

use std::{
    io::{BufRead, BufReader, Lines, Write as _},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use fhirtail::{
    position::LogPosition,
    store::{
        ChangeKind, Lookup, Store, StoreError, Write, WriteError,
        embedded::{EmbeddedOptions, EmbeddedStore, OpenError},
    },
};

use crate::{FILE, support::*};

const DIRECTORY: &str = "FHIRTAIL_TEST_DIRECTORY";

/// This program again, ended when it goes out of scope.
struct Again {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Again {
    fn start(mut command: Command, test: &str, directory: &Path) -> Self {
        command.args(["--ignored", "--exact", "--nocapture", test]);
        command.env(DIRECTORY, directory).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("this program");
        let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        Self { child, lines }
    }

    /// The next thing it says.
    fn said(&mut self) -> String {
        loop {
            let line = self.lines.next().expect("it says more").expect("a line");
            if let Some((_, said)) = line.split_once("says: ") {
                return said.to_owned();
            }
        }
    }
}

impl Drop for Again {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn say(what: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\nsays: {what}").and_then(|()| out.flush()).expect("someone listens");
}

fn this_program() -> std::path::PathBuf {
    std::env::current_exe().expect("this program")
}

fn open_here() -> Arc<dyn Store> {
    let directory = std::env::var_os(DIRECTORY).expect("a directory");
    EmbeddedStore::open(Path::new(&directory), EmbeddedOptions::default()).expect("a store")
}

/// Commit number n: a patient of its own, and one that all share.
fn numbered(n: usize, padding: &str) -> Vec<Write> {
    let own = put("Patient", &n.to_string(), &format!(r#""language":"{padding}""#));
    vec![own, patient("shared", n)]
}

#[tokio::test]
#[ignore = "the part of another process"]
async fn commits_until_it_is_killed() {
    let store = open_here();
    for n in 0.. {
        store.commit(numbered(n, "")).await.expect("a commit");
        say(&n.to_string());
    }
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut next = 0;
    for _ in 0..3 {
        let test = "crash::commits_until_it_is_killed";
        let mut child = Again::start(Command::new(this_program()), test, directory.path());
        let mut acknowledged = 0;
        while acknowledged < next + 40 {
            acknowledged = child.said().parse().expect("a number");
        }
        let locked = EmbeddedStore::open(directory.path(), EmbeddedOptions::default());
        assert!(matches!(locked, Err(OpenError::Locked(_))), "{locked:?}");
        drop(child);

        let store: Arc<dyn Store> =
            EmbeddedStore::open(directory.path(), EmbeddedOptions::default()).expect("a store");
        assert_whole(&store, acknowledged).await;
        store.close().await;
        next += 40;
    }
}

/// All up to commit `acknowledged` is there, and what else is there is there wholly.
async fn assert_whole(store: &Arc<dyn Store>, acknowledged: usize) {
    let snapshot = store.snapshot().await.expect("a snapshot");
    let kept = Replica::of(&*snapshot, &["Patient"]).await;
    for n in 0..=acknowledged {
        assert!(kept.0.contains_key(&(ty("Patient"), n.to_string())), "{n} of {acknowledged}");
    }
    let mut replayed = Replica::default();
    let changes = changes_since(store, LogPosition::default()).await;
    changes.iter().for_each(|change| replayed.apply(change));
    assert_eq!(replayed, kept, "the log and the resources tell the same");
    let last = changes.last().expect("changes");
    let ChangeKind::Upsert { id, .. } = &last.kind else { panic!("{last:?}") };
    assert_eq!(&**id, "shared", "no commit is there by half");
}

#[tokio::test]
#[ignore = "the part of another process"]
async fn commits_until_the_disk_fails_and_then_on() {
    let store = open_here();
    let padding = "x".repeat(50_000);
    let mut n = 0;
    let error = loop {
        match store.commit(numbered(n, &padding)).await {
            Ok(_) => n += 1,
            Err(WriteError::Store(error)) => break error,
            Err(other) => panic!("{other}"),
        }
    };
    assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    // What it has can be read, and it goes on saying no.
    let read = store.read(ty("Patient"), "0").await.expect("a read");
    assert!(matches!(read, Lookup::Found { .. }), "{read:?}");
    let head = store.head().await.expect("a head");
    let refused = store.commit(numbered(n, &padding.repeat(100))).await;
    assert!(matches!(refused, Err(WriteError::Store(StoreError::Unavailable(_)))), "{refused:?}");
    assert_eq!(store.head().await.expect("a head"), head);
    reads_go_on_while_writes_are_refused(&store, &numbered(n, &padding.repeat(100))).await;
    say(&n.to_string());

    let mut line = String::new();
    std::io::stdin().read_line(&mut line).expect("a word");
    let deadline = Instant::now() + PATIENCE;
    while let Err(refused) = store.commit(numbered(n, &padding)).await {
        assert!(matches!(refused, WriteError::Store(StoreError::Unavailable(_))), "{refused}");
        assert!(Instant::now() < deadline, "{refused}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for n in n + 1..n + 100 {
        store.commit(numbered(n, &padding)).await.expect("the disk works again");
    }
    store.close().await;
    say("done");
}

/// What ends every snapshot is that the file is opened anew, for each write that fails. Now and then
/// one is tried.
async fn reads_go_on_while_writes_are_refused(store: &Arc<dyn Store>, writes: &[Write]) {
    const REFUSED: usize = 20;
    for _ in 0..10 {
        let snapshot = store.snapshot().await.expect("a snapshot");
        for _ in 0..REFUSED {
            let refused = store.commit(writes.to_vec()).await;
            assert!(
                matches!(refused, Err(WriteError::Store(StoreError::Unavailable(_)))),
                "{refused:?}"
            );
        }
        if snapshot.read(ty("Patient"), "0").await.is_ok() {
            return;
        }
    }
    panic!("no snapshot lives as long as {REFUSED} refused writes");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_failed_disk_loses_nothing_and_ends_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let open = || EmbeddedStore::open(directory.path(), EmbeddedOptions::default());
    open().expect("a store").close().await;
    let length = std::fs::metadata(directory.path().join(FILE)).expect("the file").len();

    // A limit on the length of files (in units of 512 bytes) is the disk that is full.
    let mut limited = Command::new("sh");
    limited.arg("-c").arg("trap '' XFSZ; ulimit -S -f \"$0\"; exec \"$@\"");
    limited.arg(((length + (4 << 20)) / 512).to_string()).arg(this_program());
    let test = "crash::commits_until_the_disk_fails_and_then_on";
    let mut child = Again::start(limited, test, directory.path());
    let acknowledged: usize = child.said().parse().expect("a number");
    assert!(acknowledged > 0);

    let pid = child.child.id().to_string();
    let lifted = Command::new("prlimit").args(["--fsize=unlimited", "--pid", &pid]).status();
    assert!(lifted.expect("prlimit").success());
    let mut word = child.child.stdin.take().expect("its input");
    writeln!(word, "go on").expect("it listens");
    assert_eq!(child.said(), "done");
    assert!(child.child.wait().expect("it ends").success());

    let store: Arc<dyn Store> = open().expect("a store");
    assert_whole(&store, acknowledged + 99).await;
    store.close().await;
}
