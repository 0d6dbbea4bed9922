//! Which files to load: those named, and those found in folders.

use std::{
    fs, io,
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
}

impl Source {
    /// For messages.
    pub(super) fn name(&self) -> String {
        self.path.as_ref().map_or_else(|| "stdin".into(), |path| path.display().to_string())
    }
}

const KINDS: &str = "only .json and .ndjson files are loaded, plain or as .gz";

/// Everything to load, folders by name.
///
/// # Errors
/// A path that is not there, or one that is named and of no kind that is loaded, or holds none.
pub(super) fn sources(paths: &[PathBuf]) -> Result<Vec<Source>, Failure> {
    let mut found = Vec::new();
    for path in paths {
        if path.as_os_str() == "-" {
            found.push(Source { path: None, bytes: 0 });
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
            found.push(Source { path: Some(path.clone()), bytes: meta.len() });
        }
    }
    Ok(found)
}

fn walk(folder: &Path, found: &mut Vec<Source>) -> io::Result<()> {
    let mut entries = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let (name, path) = (entry.file_name(), entry.path());
        if name.as_encoded_bytes().starts_with(b".") || name == "package.json" {
            continue;
        }
        // Links to files are followed; links to folders are not, since they may lead in a circle.
        if entry.file_type()?.is_dir() {
            walk(&path, found)?;
        } else if kind(&path).is_some()
            && let Ok(meta) = fs::metadata(&path)
            && meta.is_file()
        {
            found.push(Source { path: Some(path), bytes: meta.len() });
        }
    }
    Ok(())
}

/// What a file's name says about its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Json,
    Ndjson,
}

/// `None`: no kind that is loaded.
pub(super) fn kind(path: &Path) -> Option<Kind> {
    let name = path.file_name()?.to_str()?.to_ascii_lowercase();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    match name.rsplit_once('.')?.1 {
        "json" => Some(Kind::Json),
        "ndjson" => Some(Kind::Ndjson),
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
}
