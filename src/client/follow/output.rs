//! An output that is a file holds whole lines: what a kill or a full disk left of one would
//! swallow the next line, and the state moves past that.

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom, Write},
};

use serde::de::IgnoredAny;

use crate::client::note;

/// How a file ends.
#[derive(Debug, PartialEq, Eq)]
enum Ending {
    Whole,
    /// In a line that lacks its newline: JSON to its end, or none from the start.
    Open,
    /// In the beginning of an object, from here on: of no use to anybody, and it comes again.
    Torn(u64),
}

/// What a shell does with '>' at each start.
const EMPTIED: &str = "the output is empty, and the state goes on: earlier lines, if there were any, are not in it ('>' empties a file, '>>' appends)";

/// Has the next line begin behind everything that is there, as a line of its own. What is done for
/// that is said; and that earlier lines are gone, where the state goes on behind some.
pub(super) fn prepare(out: &mut File, goes_on: bool) -> io::Result<()> {
    let file = out.metadata()?;
    if !file.is_file() {
        return Ok(());
    }
    // For as long as this process lives. What another writes at the moment only looks torn.
    let is_ours = out.try_lock().is_ok();
    match file.len() {
        0 if goes_on => note(EMPTIED),
        0 => {}
        length => end_last_line(out, length, is_ours)?,
    }
    Ok(())
}

fn end_last_line(out: &mut File, length: u64, is_ours: bool) -> io::Result<()> {
    let ending = reader(out).and_then(|mut file| ending(&mut file, length));
    out.seek(SeekFrom::End(0))?;
    match ending {
        Ok(Ending::Whole) => return Ok(()),
        Ok(Ending::Torn(start)) if is_ours && cut(out, length, start).is_ok() => {
            note("the output ended in a torn line, which is cut off");
            return Ok(());
        }
        Ok(_) => note("the output's last line had no end, and is given one"),
        Err(e) => note(&format!("a newline goes behind the output: it can't be read back ({e})")),
    }
    out.write_all(b"\n")
}

/// Takes back what went of a line whose write failed: the `torn` bytes that the last write ended
/// with.
pub(super) fn take_back(out: &mut File, torn: u64) -> io::Result<()> {
    let end = out.stream_position()?;
    cut(out, end, end.saturating_sub(torn))
}

/// Cuts a file that ends at `end` back to `to`. One that ends elsewhere has been written by
/// somebody else meanwhile, and stays as it is.
fn cut(out: &mut File, end: u64, to: u64) -> io::Result<()> {
    let now = out.metadata()?;
    if !now.is_file() || now.len() != end {
        return Err(io::Error::other("it ends with what others wrote"));
    }
    out.set_len(to)?;
    // Where it is not open for appending, the next write would leave a hole.
    out.seek(SeekFrom::Start(to)).map(drop)
}

/// The same file for reading: a shell opens what stands behind `>>` for writing alone. Linux opens
/// it anew; others give the same open file once more, which then can't be read.
#[cfg(unix)]
fn reader(out: &File) -> io::Result<File> {
    File::open(format!("/dev/fd/{}", std::os::fd::AsRawFd::as_raw_fd(out)))
}

#[cfg(not(unix))]
fn reader(out: &File) -> io::Result<File> {
    out.try_clone()
}

fn ending(file: &mut File, length: u64) -> io::Result<Ending> {
    let start = last_line(file, length)?;
    if start == length {
        return Ok(Ending::Whole);
    }
    let mut first = [0];
    file.seek(SeekFrom::Start(start))?;
    file.read_exact(&mut first)?;
    if first != *b"{" {
        return Ok(Ending::Open);
    }
    // To the parser, a number that breaks off is wrong; with a digit more it is unfinished too.
    for more in ["", "0"] {
        file.seek(SeekFrom::Start(start))?;
        let line = file.take(length - start).chain(more.as_bytes());
        match serde_json::from_reader::<_, IgnoredAny>(BufReader::new(line)) {
            Err(e) if e.is_io() => return Err(e.into()),
            Err(e) if e.is_eof() => return Ok(Ending::Torn(start)),
            _ => {}
        }
    }
    Ok(Ending::Open)
}

/// Where what stands behind the last newline begins.
fn last_line(file: &mut File, length: u64) -> io::Result<u64> {
    let mut block = Vec::new();
    let mut end = length;
    while end > 0 {
        let start = end.saturating_sub(1 << 16);
        file.seek(SeekFrom::Start(start))?;
        block.clear();
        file.take(end - start).read_to_end(&mut block)?;
        if let Some(at) = block.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use super::*;

    /// A file with this text, opened as a shell does it for `>>`.
    fn appending(text: &str) -> (tempfile::TempDir, PathBuf, File) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("out");
        fs::write(&path, text).expect("written");
        let out = File::options().append(true).open(&path).expect("a file");
        (folder, path, out)
    }

    /// What the file holds once it is prepared, and a line written.
    fn gone_on(text: &str) -> String {
        let (_folder, path, mut out) = appending(text);
        prepare(&mut out, true).expect("prepared");
        out.write_all(b"{}\n").expect("written");
        fs::read_to_string(path).expect("text")
    }

    #[test]
    fn only_an_unfinished_beginning_of_json_is_cut_off() {
        let line = r#"{"é":[-1.50e+7,0,-0.1E-2,true,null],"b":"\u00e9\\\"","c":{}, "d":[{}]}"#;
        for end in 1..line.len() {
            let (_folder, _, mut out) = appending("");
            out.write_all(&line.as_bytes()[..end]).expect("written");
            let mut file = reader(&out).expect("a reader");
            assert_eq!(ending(&mut file, end as u64).expect("read"), Ending::Torn(0), "{end}");
        }
        let long = format!("{{\"a\":\"{}", "x".repeat(200_000));
        for torn in ["{\"resourceType\":\"Obs", &long] {
            assert_eq!(gone_on(&format!("{{\"n\":1}}\n{torn}")), "{\"n\":1}\n{}\n");
            assert_eq!(gone_on(torn), "{}\n");
        }
        for open in
            [line, "{\"n\":1}", "{\"n\":1}\n{\"n\":2}", "a: \"text", "[12", "\n# somebody's notes"]
        {
            assert_eq!(gone_on(open), format!("{open}\n{{}}\n"));
        }
        for whole in ["", "\n", "{\"n\":1}\n", "a text\n"] {
            assert_eq!(gone_on(whole), format!("{whole}{{}}\n"));
        }
    }

    #[test]
    fn who_comes_second_cuts_nothing() {
        let (_folder, path, mut out) = appending("");
        prepare(&mut out, false).expect("prepared");
        out.write_all(b"{\"n\":").expect("written");
        let mut second = File::options().append(true).open(&path).expect("a file");
        prepare(&mut second, true).expect("prepared");
        assert_eq!(fs::read_to_string(path).expect("text"), "{\"n\":\n");
    }

    #[test]
    fn a_file_that_is_not_opened_for_appending_is_gone_on_with_at_its_end() {
        let (_folder, path, _) = appending("{\"n\":1}\n{\"n\":");
        let mut out = File::options().write(true).open(&path).expect("a file");
        prepare(&mut out, true).expect("prepared");
        out.write_all(b"{}\n{\"to").expect("written");
        take_back(&mut out, 4).expect("cut");
        out.write_all(b"[]\n").expect("written");
        assert_eq!(fs::read_to_string(path).expect("text"), "{\"n\":1}\n{}\n[]\n");
    }

    #[test]
    fn what_others_wrote_is_never_taken_back() {
        let (_folder, path, mut out) = appending("{\"n\":1}\n");
        let mut other = File::options().append(true).open(&path).expect("a file");
        out.write_all(b"{}\n{\"to").expect("written");
        other.write_all(b"{\"other\":1}\n").expect("written");
        take_back(&mut out, 4).expect_err("not ours");
        out.write_all(b"{\"to").expect("written");
        take_back(&mut out, 4).expect("cut");
        let text = fs::read_to_string(path).expect("text");
        assert_eq!(text, "{\"n\":1}\n{}\n{\"to{\"other\":1}\n");
    }
}
