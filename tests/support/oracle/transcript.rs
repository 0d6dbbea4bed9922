//! What one client that keeps track of its last id saw, over all its connections. Pure.

use fhirtail::{
    client::sse::{Event, Item},
    position::LogPosition,
};

/// One line of a transcript.
#[derive(Debug, Clone)]
pub enum Seen {
    Connected {
        /// The id that it resumed from.
        from: Option<String>,
        /// The cluster time of a write that was acknowledged before it asked: `caught-up` says
        /// that all up to then is sent.
        written: u64,
    },
    Said(Item),
}

/// All that one client saw.
#[derive(Debug, Clone, Default)]
pub struct Transcript {
    pub seen: Vec<Seen>,
}

impl Transcript {
    pub fn events(&self) -> impl Iterator<Item = &Event> {
        self.seen.iter().filter_map(|seen| match seen {
            Seen::Said(Item::Event(event)) => Some(event),
            _ => None,
        })
    }
}

/// What an id says of a client: where in the log it is, and whether its history is still read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub at: LogPosition,
    pub scans: bool,
}

impl Place {
    /// Reads an id, by the words of its documentation.
    pub fn of(id: &str) -> Option<Self> {
        let mut fields = id.split('~');
        let scans = match fields.next()? {
            "1l" => false,
            "1h" => true,
            _ => return None,
        };
        let _epoch = fields.next()?;
        let number = |text: &str| u64::from_str_radix(text, 36).ok();
        let parts: Option<Vec<u64>> = fields.next()?.split('.').map(number).collect();
        let [seconds, increment, consumed] = *parts?.as_slice() else { return None };
        let at = LogPosition {
            time: seconds << 32 | increment,
            consumed: u32::try_from(consumed).ok()?,
        };
        Some(Self { at, scans })
    }
}

/// How far a history has come, as an id says it: the place of the type among those that are read,
/// the time of the last resource where it goes along that (ms since 1970), and its id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    pub ty: usize,
    pub updated: Option<i64>,
    pub id: String,
}

impl Cursor {
    /// Reads an id, by the words of its documentation.
    pub fn of(id: &str) -> Option<Self> {
        let mut fields = id.splitn(6, '~').skip(4);
        let ty = usize::from_str_radix(fields.next()?, 36).ok()?;
        let key = fields.next()?;
        let (updated, id) = match key.strip_prefix('u') {
            None => (None, key),
            Some(key) => {
                let (updated, id) = key.split_once('.')?;
                (Some(i64::from_str_radix(updated, 36).ok()?), id)
            }
        };
        Some(Self { ty, updated, id: id.strip_prefix('i')?.to_owned() })
    }
}
