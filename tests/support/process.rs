//! The server as a process of its own, killed when dropped.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

/// A running `fhirtail serve`.
pub struct Process {
    child: Child,
    base: String,
}

impl Process {
    /// Starts it on a store, and waits until it has said where it listens.
    pub fn serve(store: &str, arguments: &[&str]) -> Self {
        Self::serve_at("127.0.0.1:0", store, arguments)
    }

    /// The same at an address: where another one was that is gone.
    pub fn serve_at(listen: &str, store: &str, arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_fhirtail"))
            .args(["serve", "--listen", listen, "--store", store])
            .args(arguments)
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary");
        let mut lines = BufReader::new(child.stderr.take().expect("stderr")).lines();
        let base = loop {
            let line = lines.next().expect("a line that says where").expect("text");
            if let Some(at) = line.find("http://") {
                break line[at..].split("/fhir").next().expect("a URL").to_owned();
            }
        };
        // Read on, so that the process never waits for its log to be read.
        let shows = std::env::var_os("FHIRTAIL_SHOW_LOG").is_some();
        let show = move |line: String| {
            if shows {
                eprintln!("{line}");
            }
        };
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(show));
        Self { child, base }
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
