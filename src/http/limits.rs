//! How many streams there may be: in all, from one address, and reading histories at once.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::http::StatusCode;
use metrics::counter;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    config::LimitArgs,
    error::ApiError,
    fhir::outcome::IssueType,
    session::{Place, Turns},
};

/// What is free, and what is taken.
#[derive(Debug)]
pub struct Limits {
    most: usize,
    streams: Arc<Semaphore>,
    per_address: Option<usize>,
    addresses: Mutex<HashMap<IpAddr, Arc<Semaphore>>>,
    scans: Arc<Turns>,
}

/// What there is too much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    Streams,
    Address,
    Scans,
}

impl Limits {
    /// From the arguments.
    #[must_use]
    pub fn new(args: &LimitArgs) -> Self {
        Self {
            most: args.max_streams,
            streams: semaphore(args.max_streams),
            per_address: args.max_streams_per_address,
            addresses: Mutex::default(),
            scans: Turns::new(args.max_scans),
        }
    }

    /// How many streams there may be.
    pub(super) fn most(&self) -> usize {
        self.most
    }

    /// A place for a stream to a peer.
    pub(super) fn place(&self, peer: Option<IpAddr>) -> Result<Place, Full> {
        let mut place = vec![take(&self.streams).ok_or(Full::Streams)?];
        if let (Some(peer), Some(most)) = (peer, self.per_address) {
            place.push(self.place_at(network(peer), most).ok_or(Full::Address)?);
        }
        Ok(place)
    }

    /// Where a history waits for its turn.
    pub(super) fn scans(&self) -> &Arc<Turns> {
        &self.scans
    }

    fn place_at(&self, peer: IpAddr, most: usize) -> Option<OwnedSemaphorePermit> {
        // Taken under the lock: nobody is forgotten in between.
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        // Who has no stream is forgotten once there are many.
        const MANY: usize = 1024;
        if addresses.len() >= MANY && !addresses.contains_key(&peer) {
            addresses.retain(|_, places| places.available_permits() < most);
        }
        take(addresses.entry(peer).or_insert_with(|| semaphore(most)))
    }
}

impl Full {
    /// The refusal; counted.
    pub(super) fn refusal(self, wait: Duration) -> ApiError {
        counter!("fhirtail_streams_refused_total", "limit" => self.name()).increment(1);
        let (status, text) = match self {
            Self::Streams => (
                StatusCode::SERVICE_UNAVAILABLE,
                "this server has as many streams as it takes (--max-streams): come again later, \
                 or ask another replica.",
            ),
            Self::Address => (
                StatusCode::TOO_MANY_REQUESTS,
                "there are as many streams to your address as this server gives one \
                 (--max-streams-per-address): end one, or share one.",
            ),
            Self::Scans => (
                StatusCode::SERVICE_UNAVAILABLE,
                "this server reads as many histories at once as it takes (--max-scans): come \
                 again later, or ask for an event stream, which waits for its turn.",
            ),
        };
        let refusal = ApiError::new(status, IssueType::Throttled, text);
        ApiError { retry_after: Some(wait), ..refusal }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Streams => "streams",
            Self::Address => "address",
            Self::Scans => "scans",
        }
    }
}

/// Whose address it is: one network of IPv6 addresses (/64) is one client's.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

fn semaphore(permits: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS)))
}

fn take(semaphore: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    Arc::clone(semaphore).try_acquire_owned().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(max_streams: usize, max_streams_per_address: Option<usize>) -> Limits {
        Limits::new(&LimitArgs { max_streams, max_streams_per_address, max_scans: 1 })
    }

    fn peer(last: u8) -> Option<IpAddr> {
        Some(IpAddr::from([10, 0, 0, last]))
    }

    #[test]
    fn a_place_is_free_again_once_its_stream_has_ended() {
        let limits = limits(2, None);
        let (first, _second) = (limits.place(peer(1)).unwrap(), limits.place(peer(1)).unwrap());
        assert_eq!(limits.place(peer(2)).unwrap_err(), Full::Streams);
        drop(first);
        assert!(limits.place(peer(2)).is_ok());
    }

    #[test]
    fn one_address_leaves_places_to_others() {
        let limits = limits(10, Some(1));
        let first = limits.place(peer(1)).unwrap();
        assert_eq!(limits.place(peer(1)).unwrap_err(), Full::Address);
        let _other = limits.place(peer(2)).unwrap();
        drop(first);
        assert!(limits.place(peer(1)).is_ok());
    }

    #[test]
    fn who_has_a_network_has_one_address() {
        let limits = limits(10, Some(1));
        let place = |address: &str| limits.place(Some(address.parse().unwrap()));
        let _first = place("2001:db8::1").unwrap();
        assert_eq!(place("2001:db8::ffff:2").unwrap_err(), Full::Address);
        assert!(place("2001:db8:0:1::1").is_ok());
        let _v4 = place("::ffff:10.0.0.1").unwrap();
        assert_eq!(place("10.0.0.1").unwrap_err(), Full::Address);
        assert!(place("::ffff:10.0.0.2").is_ok());
    }

    #[test]
    fn a_refusal_takes_no_place() {
        let limits = limits(2, Some(1));
        let _first = limits.place(peer(1)).unwrap();
        assert!(limits.place(peer(1)).is_err());
        assert!(limits.place(peer(2)).is_ok());
    }
}
