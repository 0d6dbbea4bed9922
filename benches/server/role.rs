//! This binary in another role: a process of its own, so that the kernel counts its CPU and
//! memory apart. It is asked, and answers, by lines of JSON on its standard input and output,
//! and ends when its input does.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, Command, Stdio},
};

use anyhow::{Context, Result};
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::mpsc;

/// The argument that makes this binary play a role: its name and what it shall do follow.
pub(crate) const FLAG: &str = "--role";

/// A process in a role.
pub(crate) struct Role {
    child: Child,
    asks: ChildStdin,
    answers: mpsc::UnboundedReceiver<String>,
}

impl Role {
    pub(crate) fn start<S: Serialize>(name: &str, spec: &S) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args([FLAG, name, &serde_json::to_string(spec)?])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let asks = child.stdin.take().context("its input")?;
        let output = BufReader::new(child.stdout.take().context("its output")?);
        let (sender, answers) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Ok(Self { child, asks, answers })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn tell<A: Serialize>(&mut self, ask: &A) -> Result<()> {
        Ok(writeln!(self.asks, "{}", serde_json::to_string(ask)?)?)
    }

    /// The next answer.
    pub(crate) async fn answer<T: DeserializeOwned>(&mut self) -> Result<T> {
        let line = self.answers.recv().await.context("a helper process ended")?;
        Ok(serde_json::from_str(&line)?)
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// In a role: what is asked, line by line. The process ends with its input.
pub(crate) fn asks<A: DeserializeOwned + Send + 'static>() -> mpsc::UnboundedReceiver<A> {
    let (sender, asks) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        let lines = std::io::stdin().lines().map_while(Result::ok);
        for ask in lines.map_while(|line| serde_json::from_str(&line).ok()) {
            if sender.send(ask).is_err() {
                break;
            }
        }
        std::process::exit(0);
    });
    asks
}

/// In a role: says something.
pub(crate) fn say<T: Serialize>(answer: &T) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(answer)?)?;
    Ok(out.flush()?)
}
