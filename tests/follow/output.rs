//! What stands in the file that stdout is, after a kill, a full disk, or a shell that emptied it.

use std::{
    fmt::Write as _,
    io::Write as _,
    process::{Command, Output},
};

use fhirtail::client::follow::follow;
use tokio_util::sync::CancellationToken;

use crate::{Files, Server, cut, hold, saved, sse, status};

fn event(id: usize, line: &str) -> String {
    format!("event: Patient\nid: {id}\ndata: {line}\n\n")
}

/// Two runs that end: each is sent these events.
async fn two_runs(first: &str, second: &str) -> Server {
    let end = || cut(status("204 No Content", "", ""));
    let play = |events: &str| cut(sse(&format!("retry: 1\n\n{events}")));
    Server::play(vec![play(first), end(), play(second), end()]).await
}

/// The program, with its state, in the files' folder, from this line of a shell.
async fn run(shell: &'static str, files: &Files, url: &str) -> Output {
    let mut command = Command::new("sh");
    command.current_dir(files.folder.path()).args(["-c", shell, "sh"]);
    command.args([env!("CARGO_BIN_EXE_fhirtail"), "follow", url, "--state", "state"]);
    let output = tokio::task::spawn_blocking(move || command.output());
    output.await.expect("no panic").expect("a shell")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn a_line_that_a_kill_tore_comes_whole() {
    let mut server = two_runs(&event(1, r#"{"n":1}"#), &event(2, r#"{"n":2}"#)).await;
    let files = Files::new();
    for torn in [r#"{"n"#, ""] {
        let arguments = files.with_state(&server.url(), &[]);
        let stop = CancellationToken::new();
        follow(arguments, files.append_out(), stop).await.expect("204 ends");
        files.append_out().write_all(torn.as_bytes()).expect("written");
    }
    for id in ["", "1", "1", "2"] {
        assert_eq!(server.next_id().await, id);
    }
    assert_eq!(files.out(), "{\"n\":1}\n{\"n\":2}\n");
}

#[tokio::test]
async fn a_full_disk_leaves_whole_lines_and_the_state_of_the_last() {
    // No sum of lines is a limit in blocks of 512 or 1024 bytes.
    let line = |id: usize| format!(r#"{{"n":{},"x":"{}"}}"#, 100 + id, "x".repeat(83));
    let events: String = (1..=40).map(|id| event(id, &line(id))).collect();
    let server = Server::play(vec![hold(sse(&events))]).await;
    let files = Files::new();
    let shell = r#"ulimit -f 2; exec "$@" >> out"#;
    let full = run(shell, &files, &server.url()).await;
    assert_eq!(full.status.code(), Some(1), "{}", said(&full));
    let whole = files.out().lines().count();
    let expected = (1..=whole).fold(String::new(), |mut lines, id| {
        writeln!(lines, "{}", line(id)).expect("a text takes all");
        lines
    });
    assert!(whole > 0);
    assert_eq!(files.out(), expected);
    assert_eq!(saved(&files.state()), whole.to_string());
    assert!(said(&full).contains("did not go whole is cut off the output"), "{}", said(&full));
}

#[tokio::test]
async fn lines_that_a_shell_emptied_the_file_of_are_said_to_be_missing() {
    let (append, empty) = (r#"exec "$@" >> out"#, r#"exec "$@" > out"#);
    for (shell, lost) in [(append, false), (empty, true)] {
        let server = two_runs(&event(1, "{}"), &event(2, "{}")).await;
        let files = Files::new();
        let first = run(shell, &files, &server.url()).await;
        assert!(!said(&first).contains("the output"), "{}", said(&first));
        let second = run(shell, &files, &server.url()).await;
        assert_eq!(said(&second).contains("the output is empty"), lost, "{}", said(&second));
        assert_eq!(files.out(), if lost { "{}\n" } else { "{}\n{}\n" });
    }
}
