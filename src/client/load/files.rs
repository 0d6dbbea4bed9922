//! Which files to load: those named, and those found in folders.

use std::{
    fs::{self, DirEntry},
    io,
    path::{Path, PathBuf},
};

use crate::client::Failure;

/// A file to load, or stdin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Source {
    /// `None` is stdin.
    pub(super) path: Option<PathBuf>,
    /// The size of the file, 0 for stdin.
    pub(super) bytes: u64,
    /// Why it is left out, to be told in its place.
    pub(super) left_out: Option<String>,
}

impl Source {
    fn file(path: PathBuf, bytes: u64) -> Self {
        Self { path: Some(path), bytes, left_out: None }
    }

    fn left_out(path: PathBuf, why: impl Into<String>) -> Self {
        Self { path: Some(path), bytes: 0, left_out: Some(why.into()) }
    }

    fn unreadable(path: PathBuf, error: &io::Error) -> Self {
        Self::left_out(path, format!("it can't be read: {error}"))
    }

    /// For messages.
    pub(super) fn name(&self) -> String {
        self.path.as_ref().map_or_else(|| "stdin".into(), |path| path.display().to_string())
    }
}

/// It may lead in a circle, and what lies behind it may be anybody's.
const LINKED_FOLDER: &str = "a link to a folder is not followed: name the folder itself";

const KINDS: &str = "only .json and .ndjson files are loaded, plain or as .gz";

/// Everything to load, folders by name. What of a folder can't be read is among it, and why: files
/// of other kinds alone are left out in silence.
///
/// # Errors
/// A path that is not there, or one that is named and of no kind that is loaded, or holds none.
pub(super) fn sources(paths: &[PathBuf]) -> Result<Vec<Source>, Failure> {
    let mut found = Vec::new();
    for path in paths {
        if path.as_os_str() == "-" {
            found.push(Source { path: None, bytes: 0, left_out: None });
            continue;
        }
        let failed = |e: io::Error| Failure::new(format!("{}: {e}", path.display()));
        let meta = fs::metadata(path).map_err(failed)?;
        if meta.is_dir() {
            let before = found.len();
            walk(path, &mut found).map_err(failed)?;
            if found.len() == before {
                return Err(Failure::new(format!("{}: nothing to load: {KINDS}", path.display())));
            }
        } else if kind(path).is_none() {
            return Err(Failure::new(format!("{}: {KINDS}", path.display())));
        } else {
            found.push(Source::file(path.clone(), meta.len()));
        }
    }
    Ok(found)
}

fn walk(folder: &Path, found: &mut Vec<Source>) -> io::Result<()> {
    let mut entries = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(DirEntry::file_name);
    for entry in entries {
        let (name, path) = (entry.file_name(), entry.path());
        if name.as_encoded_bytes().starts_with(b".") || name == "package.json" {
            continue;
        }
        if let Err(e) = take(&entry, found) {
            found.push(Source::unreadable(path, &e));
        }
    }
    Ok(())
}

/// Takes what an entry of a folder stands for. Links to files are followed.
fn take(entry: &DirEntry, found: &mut Vec<Source>) -> io::Result<()> {
    let path = entry.path();
    if entry.file_type()?.is_dir() {
        return walk(&path, found);
    }
    // Of a link that leads nowhere nobody knows whether it was one to a folder.
    let meta = fs::metadata(&path)?;
    if meta.is_dir() {
        found.push(Source::left_out(path, LINKED_FOLDER));
    } else if kind(&path).is_none() {
        // Not for us, whatever it is.
    } else if meta.is_file() {
        found.push(Source::file(path, meta.len()));
    } else {
        found.push(Source::left_out(path, "it is no file"));
    }
    Ok(())
}

/// What a file's name says about its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Json,
    Ndjson,
}

/// `None`: no kind that is loaded. By the bytes of the name, which need not be UTF-8.
pub(super) fn kind(path: &Path) -> Option<Kind> {
    let name = path.file_name()?.as_encoded_bytes().to_ascii_lowercase();
    let name = name.strip_suffix(b".gz").unwrap_or(&name);
    let dot = name.iter().rposition(|byte| *byte == b'.')?;
    match &name[dot + 1..] {
        b"json" => Some(Kind::Json),
        b"ndjson" => Some(Kind::Ndjson),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_can_be_loaded_and_refuses_what_can_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("b/.git")).expect("folders");
        for name in
            ["z.json", "a.NDJSON.gz", "b/c.json.gz", "b/.d.json", "b/.git/e.json", "package.json"]
        {
            fs::write(at(name), "{}").expect("writes");
        }
        fs::write(at("b/readme.md"), "").expect("writes");
        let found = sources(&[folder.path().to_owned(), "-".into()]).expect("found");
        let paths: Vec<_> = found.into_iter().map(|source| source.path).collect();
        let expected = ["a.NDJSON.gz", "b/c.json.gz", "z.json"].map(|name| Some(at(name)));
        assert_eq!(paths, [expected.to_vec(), vec![None]].concat());

        let named = sources(&[at("b/readme.md")]).expect_err("refused");
        assert!(named.0.contains("readme.md: only .json"), "{named}");
        assert!(sources(&[at("nothing.json")]).expect_err("refused").0.contains("nothing.json"));
        fs::create_dir(at("none")).expect("a folder");
        let empty = sources(&[at("none")]).expect_err("refused");
        assert!(empty.0.contains("none: nothing to load"), "{empty}");
        assert_eq!(sources(&[at("package.json")]).expect("named").len(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn what_can_not_be_read_of_a_folder_is_not_left_out_in_silence() {
        use std::{ffi::OsStr, os::unix::ffi::OsStrExt, os::unix::fs::symlink};

        let (folder, other) =
            (tempfile::tempdir().expect("one"), tempfile::tempdir().expect("two"));
        let at = |name: &str| folder.path().join(name);
        let odd = folder.path().join(OsStr::from_bytes(b"a\xff.JSON"));
        fs::write(&odd, "{}").expect("writes");
        fs::write(other.path().join("file.json"), "{}").expect("writes");
        symlink(other.path().join("file.json"), at("b.json")).expect("links");
        symlink(folder.path(), at("circle")).expect("links");
        symlink(other.path(), at("folder.json")).expect("links");
        symlink(other.path().join("gone"), at("nowhere.ndjson")).expect("links");
        let _socket = std::os::unix::net::UnixListener::bind(at("socket.json")).expect("binds");
        let found = sources(&[folder.path().to_owned()]).expect("found");
        let told: Vec<_> = found.into_iter().map(|s| (s.path, s.left_out)).collect();
        let expected = [
            (Some(odd), None),
            (Some(at("b.json")), None),
            (Some(at("circle")), Some(LINKED_FOLDER.into())),
            (Some(at("folder.json")), Some(LINKED_FOLDER.into())),
            (Some(at("nowhere.ndjson")), {
                Some("it can't be read: No such file or directory (os error 2)".into())
            }),
            (Some(at("socket.json")), Some("it is no file".into())),
        ];
        assert_eq!(told, expected);
    }
}
