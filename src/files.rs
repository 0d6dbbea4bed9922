//! How many files, sockets among them, the process may have open, and how many streams fit.

use tracing::{info, warn};

use crate::config::{LimitArgs, USUAL_STREAMS};

/// Files that are not streams': the store's, connections to it, other requests.
const OTHERS: u64 = 256;

/// Raises what the process may have open to what the system lets it, and takes no more streams
/// than then fit, which is said: it is a fault only where somebody asked for a number.
#[must_use]
pub(crate) fn make_room(limits: LimitArgs) -> LimitArgs {
    let files = rlimit::increase_nofile_limit(u64::MAX).or_else(|error| {
        warn!(%error, "the limit of open files can't be raised");
        rlimit::Resource::NOFILE.get().map(|(soft, _)| soft)
    });
    let max_streams = fitting(files.unwrap_or(u64::MAX), limits.max_streams);
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
    LimitArgs { max_streams, ..limits }
}

/// How many streams of those wanted fit into so many open files. At least half of the files are
/// for streams.
fn fitting(files: u64, wanted: usize) -> usize {
    let room = files - OTHERS.min(files / 2);
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
}
