//! An output that is a pipe: what went into it is its reader's once the reader has taken it. What
//! lies in it when the reader dies is nobody's.

use std::{collections::VecDeque, fs::File, io, time::Duration};

/// The bytes that went into a pipe, and who has them.
#[derive(Debug, Default)]
pub(super) struct Pipe {
    /// How many went in.
    written: u64,
    /// Behind which byte each line ends that has not been taken, with the position of whoever has
    /// it and the number of entries that this stands for.
    lying: VecDeque<(u64, String, usize)>,
}

impl Pipe {
    /// `None`: the output is something else.
    pub(super) fn of(out: &File) -> Option<Self> {
        is_pipe(out).then(Self::default)
    }

    /// Whether all that went in has been taken.
    pub(super) fn is_empty(&self) -> bool {
        self.lying.is_empty()
    }

    /// So many bytes more went in. Where among them entries end, and the position behind each.
    pub(super) fn wrote(&mut self, bytes: usize, ends: Vec<(usize, String)>) {
        for (end, position) in ends {
            let end = self.written + end as u64;
            match self.lying.back_mut() {
                Some((at, last, entries)) if *at == end => {
                    *last = position;
                    *entries += 1;
                }
                _ => self.lying.push_back((end, position, 1)),
            }
        }
        self.written += bytes as u64;
    }

    /// The position up to which the reader has taken everything since this was last asked, and
    /// the number of entries, where so many bytes still lie there. Those of others who write count
    /// as ours: rather a line comes twice.
    pub(super) fn taken(&mut self, unread: u64) -> Option<(String, usize)> {
        let taken = self.written.saturating_sub(unread);
        let (mut position, mut entries) = (None, 0);
        while self.lying.front().is_some_and(|(end, ..)| *end <= taken) {
            let (_, last, count) = self.lying.pop_front()?;
            (position, entries) = (Some(last), entries + count);
        }
        Some((position?, entries))
    }
}

#[cfg(unix)]
fn is_pipe(out: &File) -> bool {
    use std::os::unix::fs::FileTypeExt;
    out.metadata().is_ok_and(|meta| meta.file_type().is_fifo())
}

/// How many bytes lie in a pipe.
#[cfg(unix)]
pub(super) fn unread(out: &File) -> io::Result<u64> {
    Ok(rustix::io::ioctl_fionread(out)?)
}

/// Waits a moment for the reader of a pipe; `false`: there is none any more.
#[cfg(unix)]
pub(super) fn wait(out: &File) -> io::Result<bool> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let moment = Timespec::try_from(Duration::from_millis(50)).map_err(io::Error::other)?;
    // Of a pipe that is written to, poll says without being asked that its reader has gone.
    match poll(&mut [PollFd::new(out, PollFlags::empty())], Some(&moment)) {
        Ok(events) => Ok(events == 0),
        Err(rustix::io::Errno::INTR) => Ok(true),
        Err(e) => Err(e.into()),
    }
}

#[cfg(not(unix))]
fn is_pipe(_: &File) -> bool {
    false
}

#[cfg(not(unix))]
pub(super) fn unread(_: &File) -> io::Result<u64> {
    Ok(0)
}

#[cfg(not(unix))]
pub(super) fn wait(_: &File) -> io::Result<bool> {
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_behind_what_the_reader_has_taken() {
        let at = |position: &str, entries| Some((position.to_owned(), entries));
        let ends = |ends: &[(usize, &str)]| {
            ends.iter().map(|(end, position)| (*end, (*position).to_owned())).collect()
        };
        let mut pipe = Pipe::default();
        // The first, and the last two, have no line.
        pipe.wrote(20, ends(&[(0, "0"), (10, "1"), (20, "2"), (20, "3"), (20, "4")]));
        assert_eq!(pipe.taken(20), at("0", 1));
        assert_eq!(pipe.taken(11), None);
        assert_eq!(pipe.taken(10), at("1", 1));
        // Of the last line the beginning went in.
        pipe.wrote(15, ends(&[(10, "5")]));
        assert_eq!(pipe.taken(15), at("4", 3));
        assert!(!pipe.is_empty());
        // Others have written too.
        assert_eq!(pipe.taken(1_000), None);
        assert_eq!(pipe.taken(0), at("5", 1));
        assert!(pipe.is_empty());
        assert_eq!(pipe.taken(0), None);
    }
}
