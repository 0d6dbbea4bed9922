//! What the kernel says of a process: CPU, memory, sockets, children. From `/proc`.

use std::{fs, time::Duration};

use anyhow::{Context, Result};

/// CPU that a process has used, all its threads, in user and in kernel mode. Steps of 10 ms.
pub(crate) fn cpu(pid: u32) -> Result<Duration> {
    const TICK: Duration = Duration::from_millis(10);
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in brackets, may hold anything; utime and stime are the 14th and 15th field.
    let after_name = stat.rsplit_once(") ").context("a stat line")?.1;
    let ticks: u32 = after_name.split(' ').skip(11).take(2).flat_map(str::parse::<u32>).sum();
    Ok(TICK * ticks)
}

/// Resident memory now, in KB.
pub(crate) fn rss(pid: u32) -> Result<f64> {
    status(pid, "VmRSS:")
}

/// The most resident memory since the start or [`forget_peak`], in KB.
pub(crate) fn peak(pid: u32) -> Result<f64> {
    status(pid, "VmHWM:")
}

/// Lets [`peak`] start again from now.
pub(crate) fn forget_peak(pid: u32) -> Result<()> {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").context("clear_refs")
}

fn status(pid: u32, name: &str) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().next()).context("a status line")?;
    Ok(number.parse()?)
}

/// Bytes that a process has written by `write(2)` and the like, to whatever.
pub(crate) fn written(pid: u32) -> Result<u64> {
    let io = fs::read_to_string(format!("/proc/{pid}/io"))?;
    let line = io.lines().find_map(|line| line.strip_prefix("wchar: ")).context("wchar")?;
    Ok(line.parse()?)
}

/// The processes that a process has started.
pub(crate) fn children(pid: u32) -> Result<Vec<u32>> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    Ok(children.split_whitespace().flat_map(str::parse).collect())
}

/// A server's established connections from 127.0.`net`.x, and the bytes that wait in them to be
/// taken.
pub(crate) fn connections(port: u16, net: u8) -> Result<(usize, u64)> {
    const ESTABLISHED: &str = "01";
    // An address stands as the hex of its 32 bits in the machine's order.
    let local = format!(":{port:04X}");
    let remote = |address: &str| u32::from_str_radix(address.get(..8)?, 16).ok();
    let (mut count, mut waiting) = (0, 0);
    for line in fs::read_to_string("/proc/net/tcp")?.lines().skip(1) {
        let mut fields = line.split_whitespace().skip(1);
        let (Some(at), Some(from)) = (fields.next(), fields.next()) else { continue };
        let (Some(state), Some(queues)) = (fields.next(), fields.next()) else { continue };
        let ours = at.ends_with(&local)
            && state == ESTABLISHED
            && remote(from).is_some_and(|address| address.to_ne_bytes()[..3] == [127, 0, net]);
        if ours {
            count += 1;
            let sending = queues.split(':').next().unwrap_or_default();
            waiting += u64::from_str_radix(sending, 16).unwrap_or(0);
        }
    }
    Ok((count, waiting))
}
