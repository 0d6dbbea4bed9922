//! The floor under any fan-out: one thread that accepts all streams, then makes one `write(2)` of
//! a ready frame per stream and event. Whatever serves streams does at least this, unless it
//! writes several events at once.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::{
    role::{self, Role},
    seed::{Observation, Pace},
};

/// The name of this role.
pub(crate) const ROLE: &str = "floor";

/// What it shall do.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Spec {
    /// How many streams it waits for.
    streams: usize,
}

/// How many events it shall send.
#[derive(Debug, Serialize, Deserialize)]
struct Send {
    events: u32,
    /// How many a second; `None`: as fast as it goes.
    rate: Option<f64>,
}

/// The floor in its process.
pub(crate) struct Floor {
    role: Role,
    pub(crate) address: SocketAddr,
}

impl Floor {
    pub(crate) async fn start(streams: usize) -> Result<Self> {
        let mut role = Role::start(ROLE, &Spec { streams })?;
        let address = role.answer().await?;
        Ok(Self { role, address })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.role.pid()
    }

    /// Sends events, and waits until all are written.
    pub(crate) async fn send(&mut self, events: u32, rate: Option<f64>) -> Result<()> {
        self.role.tell(&Send { events, rate })?;
        self.role.answer().await
    }
}

/// Plays the role until nobody asks any more.
pub(crate) fn run(spec: &Spec) -> Result<()> {
    let mut asks = role::asks::<Send>();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    role::say(&listener.local_addr()?)?;
    let streams = (0..spec.streams).map(|_| grant(&listener));
    let streams = streams.collect::<Result<Vec<TcpStream>>>()?;
    while let Some(send) = asks.blocking_recv() {
        send_all(&streams, &send)?;
        role::say(&())?;
    }
    Ok(())
}

fn grant(listener: &TcpListener) -> Result<TcpStream> {
    let (mut stream, _) = listener.accept()?;
    stream.set_nodelay(true)?;
    // A request is one small segment.
    let _ = stream.read(&mut [0; 2048])?;
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")?;
    Ok(stream)
}

fn send_all(streams: &[TcpStream], send: &Send) -> Result<()> {
    let pace = Pace::start(send.rate);
    for seq in 0..send.events {
        let json = Observation::made(seq, pace.wait(seq)).json();
        // As long as one of the server's own ids.
        let id = format!("1l~floor000~sl2a4u.{seq:08}.1");
        let frame = format!("event: Observation\nid: {id}\ndata: {json}\n\n");
        streams.iter().try_for_each(|mut stream| stream.write_all(frame.as_bytes()))?;
    }
    Ok(())
}
