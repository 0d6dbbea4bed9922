//! The state file: which stream, and the position up to which it has been written.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use reqwest::Url;
use serde::{Deserialize, Serialize};

use crate::client::Failure;

/// What a position belongs to: going on with it under another URL or for other event types would
/// leave something out in silence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Binding {
    url: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    event_types: Vec<String>,
}

impl Binding {
    pub(super) fn new(url: &Url, event_types: &[String]) -> Self {
        let mut url = url.clone();
        // Fails only for URLs that have no place for a password.
        let _ = url.set_password(None);
        let mut event_types = event_types.to_vec();
        event_types.sort();
        event_types.dedup();
        Self { url: url.into(), event_types }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Content {
    #[serde(flatten)]
    binding: Binding,
    last_event_id: String,
}

/// The file of one stream.
#[derive(Debug)]
pub(super) struct StateFile {
    path: PathBuf,
    binding: Binding,
}

impl StateFile {
    /// The file, and the position in it if it exists.
    ///
    /// # Errors
    /// It can't be read, is no state file, or is another stream's.
    pub(super) fn open(path: PathBuf, binding: Binding) -> Result<(Self, Option<String>), Failure> {
        let name = path.display();
        let position = match fs::read(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(Failure::new(format!("{name} can't be read: {e}"))),
            Ok(text) => {
                let content: Content = serde_json::from_slice(&text).map_err(|e| {
                    Failure::new(format!("{name} is no state file of fhirtail follow: {e}"))
                })?;
                belongs(&name.to_string(), &content.binding, &binding)?;
                Some(content.last_event_id)
            }
        };
        Ok((Self { path, binding }, position))
    }

    /// Replaces the position: after a crash the file holds the old one or the new one, whole.
    pub(super) fn save(&self, position: &str) -> Result<(), Failure> {
        let content = Content { binding: self.binding.clone(), last_event_id: position.to_owned() };
        serde_json::to_vec(&content)
            .map_err(io::Error::from)
            .and_then(|text| replace(&self.path, &text))
            .map_err(|e| Failure::new(format!("{} can't be written: {e}", self.path.display())))
    }
}

fn belongs(name: &str, saved: &Binding, asked: &Binding) -> Result<(), Failure> {
    if saved.url != asked.url {
        return Err(Failure::new(format!(
            "{name} is the state of {}, not of {}: use another state file",
            saved.url, asked.url
        )));
    }
    if saved.event_types != asked.event_types {
        let list = |types: &[String]| match types {
            [] => "all".to_owned(),
            some => some.join(","),
        };
        return Err(Failure::new(format!(
            "{name} is the state for the event types {}, not for {}: use another state file",
            list(&saved.event_types),
            list(&asked.event_types)
        )));
    }
    Ok(())
}

fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let written = File::create(&temporary).and_then(|mut file| {
        file.write_all(text)?;
        file.write_all(b"\n")?;
        file.sync_all()
    });
    if let Err(e) = written.and_then(|()| fs::rename(&temporary, path)) {
        let _ = fs::remove_file(&temporary);
        return Err(e);
    }
    sync_folder(path)
}

/// Makes the rename last, where folders can be synced.
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binding(url: &str, types: &[&str]) -> Binding {
        let types: Vec<_> = types.iter().map(|&ty| ty.to_owned()).collect();
        Binding::new(&url.parse().expect("a URL"), &types)
    }

    #[test]
    fn what_is_saved_is_read_by_its_own_stream_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("state");
        let open = |binding| StateFile::open(path.clone(), binding);
        let mine = binding("http://user:secret@h/fhir/$export?_type=Patient", &["b", "a"]);
        let (file, none) = open(mine.clone()).expect("opens");
        assert_eq!(none, None);
        file.save("1l~x").expect("saves");
        file.save("2l~y").expect("saves");

        assert_eq!(open(mine).expect("opens").1.as_deref(), Some("2l~y"));
        assert!(!fs::read_to_string(&path).expect("text").contains("secret"));
        assert_eq!(fs::read_dir(folder.path()).expect("a listing").count(), 1);
        let other = open(binding("http://user@h/fhir/$export", &["a", "b"])).expect_err("other");
        assert!(other.0.contains("_type=Patient"), "{other}");
        let types = open(binding("http://user@h/fhir/$export?_type=Patient", &["a"]));
        assert!(types.expect_err("other types").0.contains("event types a,b, not for a"));
        fs::write(&path, "{}").expect("writes");
        assert!(open(binding("http://h/", &[])).expect_err("no state").0.contains("no state file"));
    }

    #[test]
    fn a_folder_that_is_not_there_is_said() {
        let path = PathBuf::from("/nonexistent/state");
        let (file, _) = StateFile::open(path, binding("http://h/", &[])).expect("opens");
        assert!(file.save("x").expect_err("no folder").0.contains("/nonexistent/state"));
    }
}
