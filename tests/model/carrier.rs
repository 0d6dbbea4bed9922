//! Who gives a connection its bytes: its session, or, while it is level, whoever reads the ring,
//! as `connection/audience` does.

use std::{io, mem, pin::Pin, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use fhirtail::{
    live::Hub,
    position::LogPosition,
    session::{Outgoing, Piece, Standing, Voice},
};
use futures_core::Stream;
use futures_util::StreamExt;
use tokio::time::{Instant, timeout};

use crate::replica::Wrong;

/// How often the crowd looks after its seats, and when one is due a checkpoint.
const ROUND: Duration = Duration::from_secs(1);
const CHECKPOINT_AFTER: Duration = Duration::from_secs(4);
const PAGE_BYTES: usize = 64 << 10;

pub struct Carrier {
    hub: Arc<Hub>,
    stage: Stage,
    crowd: bool,
}

enum Stage {
    Direct(Pin<Box<dyn Stream<Item = io::Result<Piece>> + Send>>),
    Crowd(Box<Seat>),
    Nobody,
}

struct Seat {
    outgoing: Box<Outgoing>,
    voice: Voice,
    stands: Standing,
}

/// What the ring has for a seat.
enum Heard {
    Bytes(Bytes),
    Nothing,
    /// Its session has to go on.
    Leaves,
}

impl Carrier {
    pub fn new(hub: Arc<Hub>, outgoing: Outgoing, crowd: bool) -> Self {
        Self { hub, stage: Stage::Direct(Box::pin(Box::new(outgoing).pieces(crowd))), crowd }
    }

    /// The next bytes; `None`: the stream has ended. Cancel-safe.
    pub async fn next(&mut self) -> Option<Result<Bytes, Wrong>> {
        let mut moved = self.hub.subscribe();
        loop {
            match &mut self.stage {
                Stage::Direct(pieces) => match pieces.next().await? {
                    Ok(Piece::Chunk(bytes)) => return Some(Ok(bytes)),
                    Ok(Piece::Level(outgoing)) => self.stage = Seat::take(outgoing)?,
                    Err(broken) => return Some(Err(format!("it broke off: {broken}"))),
                },
                Stage::Crowd(seat) => {
                    moved.mark_unchanged();
                    match seat.hear(&self.hub) {
                        Heard::Bytes(bytes) => return Some(Ok(bytes)),
                        Heard::Nothing => drop(timeout(ROUND, moved.changed()).await),
                        Heard::Leaves => self.leave(),
                    }
                }
                Stage::Nobody => return None,
            }
        }
    }

    /// Whether the ring has, or will have, what follows: else who is there is behind.
    pub fn reaches(&self, at: LogPosition) -> bool {
        self.hub.covers(at)
    }

    fn leave(&mut self) {
        if let Stage::Crowd(seat) = mem::replace(&mut self.stage, Stage::Nobody) {
            let Seat { mut outgoing, stands, .. } = *seat;
            outgoing.session.rise(stands);
            self.stage = Stage::Direct(Box::pin(outgoing.pieces(self.crowd)));
        }
    }
}

impl Seat {
    fn take(mut outgoing: Box<Outgoing>) -> Option<Stage> {
        let voice = outgoing.session.voice();
        let stands = outgoing.session.sit()?;
        Some(Stage::Crowd(Box::new(Self { outgoing, voice, stands })))
    }

    fn hear(&mut self, hub: &Hub) -> Heard {
        let mut out = BytesMut::new();
        loop {
            let Some(page) = hub.read(self.stands.at, PAGE_BYTES) else { return Heard::Leaves };
            let origin = self.stands.origin;
            let due = page.all().filter(|entry| entry.change.is_news_to(origin));
            let spoken = self.voice.speak(self.stands.at, &page, due, &mut out, |_| ());
            self.stands.at = spoken.end;
            if !out.is_empty() {
                return self.told(out);
            }
            if spoken.starts_over {
                return Heard::Leaves;
            }
            if !page.more {
                break;
            }
        }
        let Standing { at, told, told_at, .. } = self.stands;
        if at != told && told_at.elapsed() >= CHECKPOINT_AFTER {
            self.voice.checkpoint(at, &mut out);
            return self.told(out);
        }
        Heard::Nothing
    }

    fn told(&mut self, out: BytesMut) -> Heard {
        (self.stands.told, self.stands.told_at) = (self.stands.at, Instant::now());
        Heard::Bytes(out.freeze())
    }
}
