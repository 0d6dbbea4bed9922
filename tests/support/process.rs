//! The server as a process of its own, killed when dropped.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
};

/// A running `fhirtail serve`.
#[derive(Debug)]
pub struct Process {
    child: Child,
    base: String,
    defects: Arc<Mutex<Vec<String>>>,
}

impl Process {
    /// Starts it on a store, and waits until it has said where it listens.
    pub fn serve(store: &str, arguments: &[&str]) -> Self {
        Self::start("127.0.0.1:0", &[], store, arguments)
    }

    /// The same, with these variables.
    pub fn serve_in(environment: &[(&str, &str)], store: &str, arguments: &[&str]) -> Self {
        Self::start("127.0.0.1:0", environment, store, arguments)
    }

    /// The same at an address: where another one was that is gone.
    pub fn serve_at(listen: &str, store: &str, arguments: &[&str]) -> Self {
        Self::start(listen, &[], store, arguments)
    }

    fn start(listen: &str, environment: &[(&str, &str)], store: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(crate::binary());
        command.args(["serve", "--listen", listen, "--store", store]).args(arguments);
        command.envs(environment.iter().copied());
        let mut child = command.stderr(Stdio::piped()).spawn().expect("the binary");
        let mut lines = BufReader::new(child.stderr.take().expect("stderr")).lines();
        let base = loop {
            let line = lines.next().expect("a line that says where").expect("text");
            if let Some(at) = line.find("http://") {
                break line[at..].split("/fhir").next().expect("a URL").to_owned();
            }
        };
        // Read on, so that the process never waits for its log to be read.
        let shows = std::env::var_os("FHIRTAIL_SHOW_LOG").is_some();
        let defects = Arc::<Mutex<Vec<String>>>::default();
        let found = defects.clone();
        let read = move |line: String| {
            if shows {
                eprintln!("{line}");
            }
            if line.contains("panicked at") {
                found.lock().expect("no panic while locked").push(line);
            }
        };
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(read));
        Self { child, base, defects }
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    pub fn port(&self) -> u16 {
        let (_, port) = self.base.rsplit_once(':').expect("a port");
        port.parse().expect("a port")
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where it panicked.
    pub fn defects(&self) -> Vec<String> {
        self.defects.lock().expect("no panic while locked").clone()
    }

    /// Sends it a signal, such as `-STOP`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([name, &self.pid().to_string()]).status();
        assert!(sent.expect("kill").success());
    }

    /// Waits until it has ended by itself.
    pub fn wait(&mut self) -> ExitStatus {
        self.child.wait().expect("it ends")
    }

    /// No file of it may be longer than that, as if its disk were full; `None`: there is room.
    pub fn limit_files(&self, bytes: Option<u64>) {
        let bytes = bytes.map_or("unlimited".to_owned(), |bytes| bytes.to_string());
        let limit = format!("--fsize={bytes}:");
        let set = Command::new("prlimit").args([&limit, "--pid", &self.pid().to_string()]).status();
        assert!(set.expect("prlimit").success());
    }

    /// How many files it has open.
    pub fn open_files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("its files").count()
    }

    /// How much memory of its own it has, in bytes.
    pub fn memory(&self) -> usize {
        self.status("RssAnon:").parse::<usize>().expect("a number") << 10
    }

    /// Whether a signal has stopped it.
    pub fn is_stopped(&self) -> bool {
        self.status("State:") == "T"
    }

    fn status(&self, name: &str) -> String {
        let status =
            fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("its status");
        let line = status.lines().find(|line| line.starts_with(name)).expect("a line of it");
        line.split_whitespace().nth(1).expect("a word").to_owned()
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

/// A process that does not outlive its test.
#[derive(Debug)]
pub struct Ended(pub Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
