//! A state beside a pipe: what its reader took is its own, what lay in it comes again.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::OwnedFd,
};

use fhirtail::client::follow::follow;
use tokio_util::sync::CancellationToken;

use crate::{Files, Server, hold, saved, sse, until};

/// The events of these numbers, each with a line that says which.
fn numbered(ids: impl IntoIterator<Item = usize>) -> String {
    let event = |id| format!("event: Patient\nid: {id}\ndata: {{\"n\":{id}}}\n\n");
    ids.into_iter().map(event).collect()
}

#[tokio::test]
async fn what_lay_in_a_pipe_when_its_reader_died_comes_again() {
    let server = Server::play(vec![hold(sse(&numbered(1..=10)))]).await;
    let files = Files::new();
    let (mut reader, writer) = io::pipe().expect("a pipe");
    let out = File::from(OwnedFd::from(writer));
    let arguments = files.with_state(&server.url(), &[]);
    let running = tokio::spawn(follow(arguments, out, CancellationToken::new()));

    // The first line and not a byte more, though all ten are in the pipe.
    let mut line = vec![0; "{\"n\":1}\n".len()];
    let read = tokio::task::spawn_blocking(move || {
        reader.read_exact(&mut line).expect("a line");
        (reader, line)
    });
    let (reader, line) = read.await.expect("read");
    assert_eq!(line, b"{\"n\":1}\n");
    until(|| saved(&files.state()) == "1").await;
    drop(reader);
    server.more.send(numbered([11])).expect("sent");
    running.await.expect("no panic").expect("an orderly end");
    assert_eq!(saved(&files.state()), "1");
}

#[tokio::test]
async fn the_end_waits_for_the_reader_of_a_pipe() {
    let all = sse(&(numbered(1..=10) + "event: caught-up\nid: 11\ndata: {}\n\n"));
    let server = Server::play(vec![hold(all)]).await;
    let files = Files::new();
    let (mut reader, writer) = io::pipe().expect("a pipe");
    let out = File::from(OwnedFd::from(writer));
    let arguments = files.with_state(&server.url(), &["--until-caught-up"]);
    let running = tokio::spawn(follow(arguments, out, CancellationToken::new()));
    let mut byte = [0];
    let read = tokio::task::spawn_blocking(move || {
        reader.read_exact(&mut byte).expect("a byte");
        reader
    });
    let mut reader = read.await.expect("read");
    assert_eq!(saved(&files.state()), "");
    let mut rest = String::new();
    let read = tokio::task::spawn_blocking(move || reader.read_to_string(&mut rest).map(|_| rest));
    running.await.expect("no panic").expect("caught up");
    assert_eq!(saved(&files.state()), "11");
    assert_eq!(read.await.expect("no panic").expect("read").lines().count(), 10);
}
