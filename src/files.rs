//! How many files, sockets among them, the process may have open, and how many streams fit.

use tracing::{info, warn};

use crate::config::{LimitArgs, USUAL_STREAMS};

/// Files that are no client's: the store's, and connections to it.
const OWN: u64 = 128;

/// Files that are not streams': those, and other requests.
const OTHERS: u64 = 256;

/// How many connections there may be that carry no stream.
const OTHER_CONNECTIONS: usize = 1024;

/// What there is room for.
#[derive(Debug)]
pub(crate) struct Room {
    pub(crate) limits: LimitArgs,
    /// How many connections may be open at once.
    pub(crate) connections: usize,
}

/// Raises what the process may have open to what the system lets it, and takes no more streams
/// than then fit, which is said: it is a fault only where somebody asked for a number.
pub(crate) fn make_room(limits: LimitArgs) -> Room {
    let files = rlimit::increase_nofile_limit(u64::MAX).or_else(|error| {
        warn!(%error, "the limit of open files can't be raised");
        rlimit::Resource::NOFILE.get().map(|(soft, _)| soft)
    });
    let files = files.unwrap_or(u64::MAX);
    let max_streams = fitting(files, limits.max_streams);
    if max_streams < limits.max_streams {
        let wanted = limits.max_streams;
        if wanted == USUAL_STREAMS {
            info!(
                max_streams,
                "as many streams as the limit of open files (ulimit -n) leaves room for"
            );
        } else {
            warn!(
                max_streams,
                wanted,
                "the limit of open files (ulimit -n) leaves room for fewer streams than --max-streams"
            );
        }
    }
    let limits = LimitArgs { max_streams, ..limits };
    Room { limits, connections: connections(files, max_streams) }
}

/// How many streams of those wanted fit into so many open files. At least half of the files are
/// for streams.
fn fitting(files: u64, wanted: usize) -> usize {
    at_most(files - OTHERS.min(files / 2), wanted)
}

/// How many connections, so many of them streams, fit into so many open files. Whoever comes then
/// waits, and takes no file from the store. At least three quarters of the files are for them.
fn connections(files: u64, streams: usize) -> usize {
    at_most(files - OWN.min(files / 4), streams.saturating_add(OTHER_CONNECTIONS))
}

fn at_most(room: u64, wanted: usize) -> usize {
    usize::try_from(room).map_or(wanted, |room| room.min(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_streams_as_fit_beside_the_others() {
        assert_eq!(fitting(u64::MAX, 20_000), 20_000);
        assert_eq!(fitting(20_256, 20_000), 20_000);
        assert_eq!(fitting(20_255, 20_000), 19_999);
        assert_eq!(fitting(1024, 20_000), 768);
        assert_eq!(fitting(100, 20_000), 50);
        assert_eq!(fitting(100, 3), 3);
        assert_eq!(fitting(0, 3), 0);
    }

    #[test]
    fn as_many_connections_as_fit_beside_the_store() {
        assert_eq!(connections(u64::MAX, 20_000), 21_024);
        assert_eq!(connections(21_152, 20_000), 21_024);
        assert_eq!(connections(21_151, 20_000), 21_023);
        assert_eq!(connections(100, 3), 75);
        assert_eq!(connections(0, 3), 0);
        for files in [8, 100, 1024, 4096, 20_256] {
            let (streams, all) = (fitting(files, 20_000), connections(files, 20_000));
            assert!(all > streams && (all as u64) < files, "{files}: there is room for requests");
        }
    }
}
