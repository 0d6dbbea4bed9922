//! A server as a process of its own, whose log is read.

use std::{
    fs::OpenOptions,
    io::{BufRead, BufReader, ErrorKind, Lines, PipeReader, Write},
    os::unix::fs::OpenOptionsExt,
    process::{Child, Command, ExitStatus},
};

use serde_json::Value;

use super::{
    Bench, embedded,
    writes::{commit, patient, put},
};

/// An embedded store with `count` patients of about `bytes`, free for another process.
pub async fn left_alone(count: usize, bytes: usize) -> Bench {
    let bench = embedded();
    for n in 0..count {
        commit(bench.store.as_ref(), vec![put(&patient(n, &"x".repeat(bytes)))]).await;
    }
    bench.store.close().await;
    bench
}

/// Fills the pipe that a process has as its standard error, to the last byte.
pub fn fill_log(pid: u32) {
    /// On Linux.
    const NONBLOCK: i32 = 0o4000;
    // A way of our own into it: the process's writes wait as before.
    let mut way = OpenOptions::new();
    let way = way.write(true).custom_flags(NONBLOCK).open(format!("/proc/{pid}/fd/2"));
    let mut way = way.expect("a pipe");
    loop {
        match way.write(b" ") {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            Err(error) => panic!("{error}"),
        }
    }
}

/// A server whose log is read line by line; standard output goes there too, as in a journal. Killed
/// when dropped.
pub struct Logged {
    child: Child,
    pub base: String,
    pub lines: Lines<BufReader<PipeReader>>,
    /// What it said before it said where it is.
    pub before: Vec<Value>,
}

impl Logged {
    pub fn serve(store: &str, arguments: &[&str]) -> Self {
        Self::told(Command::new(crate::binary()), store, arguments)
    }

    /// One that `command` starts, with the arguments that it is given.
    pub fn told(mut command: Command, store: &str, arguments: &[&str]) -> Self {
        command.args(["serve", "--listen", "127.0.0.1:0", "--store", store]).args(arguments);
        let (log, end) = std::io::pipe().expect("a pipe");
        command.stdout(end.try_clone().expect("a pipe")).stderr(end);
        let child = command.spawn().expect("the binary");
        // The child's ends of the pipe are its alone: the log ends with it.
        drop(command);
        let lines = BufReader::new(log).lines();
        let mut logged = Self { child, base: String::new(), lines, before: Vec::new() };
        loop {
            let line = logged.line();
            let text = line["message"].as_str().expect("a message");
            if text.starts_with("fhirtail serves") {
                let at = text.find("http").expect("a URL");
                logged.base = text[at..].split("/fhir").next().expect("a URL").to_owned();
                return logged;
            }
            logged.before.push(line);
        }
    }

    /// The next line of its log.
    pub fn line(&mut self) -> Value {
        let line = self.lines.next().expect("a line").expect("text");
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("no JSON: {line}"))
    }

    /// The next line whose message begins like this.
    pub fn says(&mut self, message: &str) -> Value {
        loop {
            let line = self.line();
            if line["message"].as_str().is_some_and(|said| said.starts_with(message)) {
                return line;
            }
        }
    }

    /// The next word of a stream's end.
    pub fn ended(&mut self) -> Value {
        self.says("stream ended")
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// Where it listens.
    pub fn address(&self) -> std::net::SocketAddr {
        let (_, address) = self.base.split_once("://").expect("a URL");
        address.parse().expect("an address")
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended, and how.
    pub fn end(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("its state")
    }

    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([name, &self.pid().to_string()]).status();
        assert!(sent.expect("kill").success());
    }
}

impl Drop for Logged {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
