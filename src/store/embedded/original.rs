//! Which file the store's is. Another one in its place, be it a copy from yesterday, knows nothing of
//! what was written since, and of the positions that clients have.

use std::{
    fs::{self, File, Metadata},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::{file::fault, tables::Fault};
use crate::store::StoreError;

/// The file as it was opened first, whatever its name is by now.
#[derive(Debug)]
pub(super) struct Original {
    path: PathBuf,
    inode: Inode,
    /// As long as it is open, no other file is given its number.
    _held: File,
}

impl Original {
    /// The file that is under a name now.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let held = File::open(path)?;
        Ok(Self { path: path.to_owned(), inode: Inode::of(&held.metadata()?), _held: held })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it still has its name, so that it would be found again.
    ///
    /// # Errors
    /// It was moved or removed.
    pub(super) fn is_there(&self) -> Result<(), StoreError> {
        match fs::metadata(&self.path) {
            Ok(there) if Inode::of(&there) == self.inode => Ok(()),
            Ok(_) => Err(StoreError::Unavailable(
                "another file is in the place of the store's: put that back, or start the server \
                 anew with this one"
                    .into(),
            )),
            Err(error) => Err(fault(Fault::Io(error))),
        }
    }
}

/// A file's number, and that of what it is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Inode {
    device: u64,
    number: u64,
}

impl Inode {
    fn of(file: &Metadata) -> Self {
        Self { device: file.dev(), number: file.ino() }
    }
}
