//! The file: how it is opened, and opened again after a failure of the disk.
//!
//! redb refuses all further work after an I/O error, be it of a read, until the file is opened anew.
//! So the store holds the database here, where who has met one gives it back and opens it again; where
//! that fails too, a later use does. Between two tries lies a [`Pause`].

use std::{
    fmt::Display,
    fs::File,
    io, mem,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard},
    time::Instant,
};

use redb::{
    Database, ReadTransaction, ReadableDatabase, StorageError, WriteTransaction,
    backends::FileBackend,
};

use super::{
    pause::Pause,
    same::{Inode, LastChange},
    tables::{self, FORMAT, Fault},
    work::unwinding,
};
use crate::{position::Epoch, store::StoreError};

/// The name of the file within the store's directory.
pub(super) const FILE_NAME: &str = "fhirtail.redb";

/// Why an embedded store can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process (or another handle in this one) has it open.
    #[error("the store in {0} is in use by another process")]
    Locked(PathBuf),
    /// The file is no store, or its content does not hold together.
    #[error("the store's file {0} is damaged: {1}")]
    Damaged(PathBuf, String),
    /// There is something at the path, and it is not a directory.
    #[error("{0} is not a directory")]
    NotADirectory(PathBuf),
    /// The directory or the file may not be read and written.
    #[error("no permission to read and write {0}")]
    NoPermission(PathBuf),
    /// A newer fhirtail made the file.
    #[error(
        "the store's file {path} has format {found}; this fhirtail knows formats up to {FORMAT}: use a newer one"
    )]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u64,
    },
    /// Anything else that the operating system says.
    #[error("the store in {0} can't be opened: {1}")]
    Io(PathBuf, String),
}

/// The open database, and which file it is.
#[derive(Debug)]
struct Open {
    db: Database,
    inode: Inode,
}

impl Open {
    /// The database in a file, which is begun where the file is empty. By this handle alone: another
    /// file may get its name meanwhile.
    fn of(file: File, cache_bytes: usize) -> Result<Self, Fault> {
        let inode = Inode::of(&file.metadata()?);
        let backend = FileBackend::new(file)?;
        let builder = redb::Builder::new().set_cache_size(cache_bytes).create_with_backend(backend);
        Ok(Self { db: builder?, inode })
    }
}

/// The open database, or what has become of it.
#[derive(Debug)]
enum State {
    Open(Open),
    /// The disk failed; the next use tries to open the file again.
    Failed,
    Closed,
}

/// The store's file. All calls block.
#[derive(Debug)]
pub(super) struct DataFile {
    path: PathBuf,
    cache_bytes: usize,
    epoch: u32,
    /// The last change that is known to be on the disk.
    last: Mutex<LastChange>,
    state: RwLock<State>,
    /// Taken after `state`, where both are.
    pause: Mutex<Pause>,
}

impl DataFile {
    /// Opens the file in a directory; makes both where they are missing.
    pub(super) fn open(directory: &Path, cache_bytes: usize) -> Result<(Self, Epoch), OpenError> {
        make_directory(directory).map_err(|e| no_directory(directory, &e))?;
        let path = directory.join(FILE_NAME);
        // What redb would begin anew is what a copy leaves that found no room.
        if is_empty(&path) {
            let why = "it is empty. Put it back from a backup, or remove it to begin anew";
            return Err(OpenError::Damaged(path, why.into()));
        }
        let opened = unwinding(|| -> Result<_, Fault> {
            let file =
                File::options().read(true).write(true).create(true).truncate(false).open(&path)?;
            let open = Open::of(file, cache_bytes)?;
            let (format, epoch) = tables::prepare(&open.db, random())?;
            let known = format <= FORMAT;
            let last = if known { LastChange::read(&open.db)? } else { LastChange::default() };
            Ok((open, last, format, epoch))
        });
        let (open, last, found, epoch) = match opened {
            Ok(opened) => opened.map_err(|fault| refusal(&path, fault))?,
            Err(panic) => return Err(OpenError::Damaged(path, panic)),
        };
        if found > FORMAT {
            return Err(OpenError::NewerFormat { path, found });
        }
        // The file's name is durable once its directory is.
        let synced = std::fs::File::open(directory).and_then(|dir| dir.sync_all());
        synced.map_err(|e| OpenError::Io(directory.into(), e.to_string()))?;
        let state = RwLock::new(State::Open(open));
        let (last, pause) = (Mutex::new(last), Mutex::default());
        Ok((Self { path, cache_bytes, epoch, last, state, pause }, Epoch(epoch)))
    }

    /// Reads as of now, and heeds a disk that fails.
    pub(super) fn read<T>(
        &self,
        work: impl FnOnce(ReadTransaction) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        let begun = self.with(|open| open.db.begin_read().map_err(Fault::from))?;
        begun.and_then(work).map_err(|error| {
            self.heed(&error);
            fault(error)
        })
    }

    /// The one write transaction, and which file it is of. Whoever fails with it calls
    /// [`DataFile::reopen`].
    ///
    /// # Errors
    /// The disk fails, or has failed a moment ago: the file may have been opened again while this
    /// waited for it, and a second failure so soon would take it from those who read. Or the file was
    /// moved or removed: what is written to it then nobody would find again.
    pub(super) fn begin_write(&self) -> Result<(WriteTransaction, Inode), StoreError> {
        self.with(|open| {
            self.may_write()?;
            self.is_found(open.inode)?;
            Ok((open.db.begin_write().map_err(fault)?, open.inode))
        })?
    }

    /// Opens the file again if reading it has met a disk that fails.
    pub(super) fn heed(&self, error: &Fault) {
        if matches!(error, Fault::Io(_) | Fault::PreviousIo) {
            self.reopen(error);
        }
    }

    /// Whether writes may be tried.
    ///
    /// # Errors
    /// The disk has failed a moment ago.
    pub(super) fn may_write(&self) -> Result<(), StoreError> {
        match self.pause().left(Instant::now()) {
            None => Ok(()),
            Some(left) => {
                let ms = left.as_millis();
                let why = format!("its disk has failed; writes are tried again in {ms} ms");
                Err(StoreError::Unavailable(why))
            }
        }
    }

    /// What was written has come to the disk, up to this change, in this file.
    ///
    /// # Errors
    /// The file was moved or removed meanwhile, and what was written with it.
    pub(super) fn has_written(&self, last: LastChange, to: Inode) -> Result<(), StoreError> {
        self.pause().end();
        *self.last() = last;
        self.is_found(to)
    }

    /// Whether a file is the one that would be found.
    fn is_found(&self, inode: Inode) -> Result<(), StoreError> {
        match std::fs::metadata(&self.path) {
            Ok(file) if Inode::of(&file) == inode => Ok(()),
            Ok(_) => Err(StoreError::Unavailable("another file is in its place".into())),
            Err(error) => Err(fault(Fault::Io(error))),
        }
    }

    /// Gives the database back after the disk has failed, and tries to open it again. Transactions of
    /// before end with it. A pause begins; who has met the same failure, and comes within it, finds
    /// that done.
    pub(super) fn reopen(&self, why: &dyn Display) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if matches!(*state, State::Open(_)) && self.pause().left(Instant::now()).is_none() {
            let failed = mem::replace(&mut *state, State::Failed);
            let began = Instant::now();
            tracing::warn!(%why, "the embedded store's disk has failed: its file is opened again");
            // Before it is opened again. redb writes as it closes, and may meet what it panics at.
            if let Err(panic) = unwinding(|| drop(failed)) {
                tracing::warn!(%panic, "the embedded store's file did not close cleanly");
            }
            if let Err(error) = self.recover(&mut state) {
                tracing::error!(%error, "the embedded store stays closed for a while");
            }
            self.pause_after(began);
        }
    }

    /// Reads the whole file, page by page, against what redb knows of each. Nobody may have a
    /// transaction open.
    ///
    /// # Errors
    /// The file is damaged, or the disk fails.
    pub(super) fn verify(&self) -> Result<(), StoreError> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        match &mut *state {
            // Where only the list of free pages was wrong, redb has made a new one.
            State::Open(open) => open.db.check_integrity().map(drop).map_err(fault),
            State::Failed | State::Closed => {
                Err(StoreError::Unavailable("the store is closed".into()))
            }
        }
    }

    /// Flushes and unlocks the file, whoever still holds a transaction.
    pub(super) fn close(&self) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if let State::Open(open) = mem::replace(&mut *state, State::Closed)
            && let Err(error) = open.db.close()
        {
            tracing::warn!(%error, "the embedded store did not close cleanly");
        }
    }

    fn with<T>(&self, work: impl FnOnce(&Open) -> T) -> Result<T, StoreError> {
        let mut state = self.read_state();
        if matches!(*state, State::Failed) {
            drop(state);
            self.try_again()?;
            state = self.read_state();
        }
        match &*state {
            State::Open(open) => Ok(work(open)),
            State::Failed => Err(StoreError::Unavailable("its disk fails".into())),
            State::Closed => Err(StoreError::Unavailable("the store is closed".into())),
        }
    }

    /// Opens the file that could not be opened, unless that was a moment ago.
    fn try_again(&self) -> Result<(), StoreError> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if matches!(*state, State::Failed) && self.pause().left(Instant::now()).is_none() {
            let began = Instant::now();
            return self.recover(&mut state).inspect_err(|_| self.pause_after(began));
        }
        Ok(())
    }

    fn pause_after(&self, began: Instant) {
        let now = Instant::now();
        self.pause().begin(now.saturating_duration_since(began), now);
    }

    /// Opens the file as it is, if it is the same store's and goes on from what was written: any other
    /// knows nothing of the positions that clients have.
    fn recover(&self, state: &mut State) -> Result<(), StoreError> {
        let named = File::options().read(true).write(true).open(&self.path);
        let file = named.map_err(|error| fault(Fault::Io(error)))?;
        if file.metadata().is_ok_and(|file| file.len() == 0) {
            return Err(damaged("it is empty".into()));
        }
        // Closed here too, if it is refused: that may panic as well.
        let opened = unwinding(|| -> Result<_, StoreError> {
            let open = Open::of(file, self.cache_bytes).map_err(fault)?;
            if tables::identity(&open.db).map_err(fault)? != (FORMAT, self.epoch) {
                return Err(damaged("it is another store's".into()));
            }
            if !self.last().is_in(&open.db).map_err(fault)? {
                return Err(damaged("it is a copy that lacks what was written since".into()));
            }
            Ok((LastChange::read(&open.db).map_err(fault)?, open))
        });
        let (last, open) = opened.map_err(damaged)??;
        *self.last() = last;
        *state = State::Open(open);
        Ok(())
    }

    fn last(&self) -> MutexGuard<'_, LastChange> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn pause(&self) -> MutexGuard<'_, Pause> {
        self.pause.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_empty(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|file| file.len() == 0)
}

/// Health data: a new directory is its owner's alone.
fn make_directory(path: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(path)
}

/// 32 bits from the operating system, by way of the hash maps' seed.
fn random() -> u32 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let hash = RandomState::new().build_hasher().finish();
    (hash ^ hash >> 32) as u32
}

fn no_directory(path: &Path, error: &io::Error) -> OpenError {
    let path = path.to_owned();
    match error.kind() {
        io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => {
            OpenError::NotADirectory(path)
        }
        io::ErrorKind::PermissionDenied => OpenError::NoPermission(path),
        _ => OpenError::Io(path, error.to_string()),
    }
}

fn refusal(path: &Path, fault: Fault) -> OpenError {
    let path = path.to_owned();
    match fault {
        Fault::DatabaseAlreadyOpen | Fault::LockProtocolMismatch => OpenError::Locked(path),
        Fault::Io(e) => match e.kind() {
            io::ErrorKind::PermissionDenied => OpenError::NoPermission(path),
            _ if is_damage(&e) => OpenError::Damaged(path, e.to_string()),
            _ => OpenError::Io(path, e.to_string()),
        },
        other => OpenError::Damaged(path, other.to_string()),
    }
}

/// The disk works; what is on it is not what should be.
fn is_damage(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}

/// What a failure of redb means to the store's callers.
pub(super) fn fault(fault: impl Into<Fault>) -> StoreError {
    match fault.into() {
        Fault::DatabaseClosed => StoreError::Unavailable("the store is closed".into()),
        Fault::PreviousIo => StoreError::Unavailable("its disk has failed".into()),
        Fault::DatabaseAlreadyOpen | Fault::LockProtocolMismatch => {
            StoreError::Unavailable("its file is still in use".into())
        }
        Fault::Io(error) if is_damage(&error) => damaged(error.to_string()),
        Fault::Io(error) => StoreError::Unavailable(format!("its disk fails: {error}")),
        Fault::ValueTooLarge(bytes) => {
            StoreError::Failed(StorageError::ValueTooLarge(bytes).to_string())
        }
        other => damaged(other.to_string()),
    }
}

pub(super) fn damaged(what: String) -> StoreError {
    StoreError::Failed(format!("the embedded store's file is damaged: {what}"))
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
