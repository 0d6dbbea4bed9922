use super::*;

fn open(directory: &Path) -> DataFile {
    DataFile::open(directory, 1 << 20).expect("a file").0
}

/// What the file says of itself: how many bytes its log has. Nobody has written that.
const MARK: u64 = 77;

fn mark(file: &DataFile) {
    let (txn, _) = file.begin_write().expect("a transaction");
    txn.open_table(tables::META).unwrap().insert(tables::META_LOG_BYTES, MARK).unwrap();
    txn.commit().unwrap();
}

/// Which file would be written to.
fn inode(file: &DataFile) -> Inode {
    let (txn, inode) = file.begin_write().expect("a transaction");
    txn.abort().unwrap();
    inode
}

/// Writes a change into the log, and knows it to be there.
fn append(file: &DataFile, seq: u64) {
    let row: tables::LogRow = (0, "Basic", "1", b"", b"{}");
    let (txn, inode) = file.begin_write().expect("a transaction");
    txn.open_table(tables::LOG).unwrap().insert(seq, row).unwrap();
    txn.commit().unwrap();
    file.has_written(LastChange::of(seq, row), inode).expect("it is where it was");
}

fn read_mark(file: &DataFile) -> Result<u64, StoreError> {
    file.read(|txn| {
        let meta = txn.open_table(tables::META)?;
        let row = meta.get(tables::META_LOG_BYTES)?;
        Ok(row.map_or(0, |row| row.value()))
    })
}

/// The pause is over.
fn later(file: &DataFile) {
    file.pause().end();
}

/// The file is not what it was when a failed disk makes the store open it again: nothing is begun
/// in its place, and once it is back all goes on.
#[test]
fn another_file_is_never_taken_for_the_one_that_was() {
    let (directory, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = directory.path().join(FILE_NAME);
    let aside = directory.path().join("aside");
    let content = |folder: &Path| std::fs::read(folder.join(FILE_NAME)).unwrap();
    open(other.path()).close();
    let others = content(other.path());
    open(directory.path()).close();
    let former = content(directory.path());
    type Damage<'d> = &'d dyn Fn(&Path);
    let damages: [(&str, Damage<'_>, bool); 5] = [
        ("gone", &|_| (), false),
        ("empty", &|path| std::fs::write(path, b"").unwrap(), true),
        ("another store's", &|path| std::fs::write(path, &others).unwrap(), true),
        ("no store", &|path| std::fs::write(path, b"no store").unwrap(), true),
        ("a backup", &|path| std::fs::write(path, &former).unwrap(), true),
    ];
    let file = open(directory.path());
    mark(&file);
    append(&file, 1);
    for (name, damage, refused) in damages {
        std::fs::rename(&path, &aside).unwrap();
        damage(&path);
        let put = std::fs::read(&path).ok();
        file.reopen(&"a test");
        for _ in 0..2 {
            later(&file);
            let read = read_mark(&file);
            match refused {
                // A mount that is away may come back.
                false => {
                    assert!(matches!(read, Err(StoreError::Unavailable(_))), "{name} {read:?}");
                }
                true => assert!(matches!(read, Err(StoreError::Failed(_))), "{name} {read:?}"),
            }
            assert!(file.begin_write().is_err(), "{name}");
        }
        // redb notes in its own that it has been opened.
        let is_left =
            std::fs::read(&path).ok() == put || ["another store's", "a backup"].contains(&name);
        assert!(is_left, "{name}: it was written to");
        std::fs::rename(&aside, &path).unwrap();
        later(&file);
        assert_eq!(read_mark(&file).unwrap(), MARK, "{name}");
    }
}

/// The folder is moved, or removed, under a store that nobody told: what would be written to a file
/// that has no name any more is refused, and taken again where it was.
#[test]
fn what_nobody_would_find_again_is_not_written() {
    let directory = tempfile::tempdir().unwrap();
    let (path, aside) = (directory.path().join(FILE_NAME), directory.path().join("aside"));
    let file = open(directory.path());
    mark(&file);
    let inode = inode(&file);
    std::fs::rename(&path, &aside).unwrap();
    let refused = file.begin_write().map(drop);
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    let refused = file.has_written(LastChange::default(), inode);
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    open(directory.path()).close();
    let refused = file.begin_write().map(drop);
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    std::fs::rename(&aside, &path).unwrap();
    assert!(file.begin_write().is_ok());
    assert_eq!(read_mark(&file).unwrap(), MARK);
}

/// Opening a large file takes long, and keeps all others out meanwhile.
#[test]
fn after_a_failure_the_file_is_left_alone_for_a_while() {
    let directory = tempfile::tempdir().unwrap();
    let (path, aside) = (directory.path().join(FILE_NAME), directory.path().join("aside"));
    let file = open(directory.path());
    mark(&file);
    file.may_write().expect("nothing has failed");
    let inode = inode(&file);
    file.reopen(&"a test");
    let refused = file.may_write();
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    assert_eq!(read_mark(&file).expect("reads go on"), MARK);
    file.has_written(LastChange::default(), inode).expect("it is where it was");
    file.may_write().expect("the disk works");

    std::fs::rename(&path, &aside).unwrap();
    file.reopen(&"a test");
    std::fs::rename(&aside, &path).unwrap();
    read_mark(&file).expect_err("it is left alone, whoever asks");
    later(&file);
    assert_eq!(read_mark(&file).expect("the disk works"), MARK);
}

/// Nobody writes: what has met the failure opens the file again by itself.
#[test]
fn a_read_that_fails_once_is_not_the_last() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(FILE_NAME);
    let file = DataFile::open(directory.path(), 0).expect("a file").0;
    mark(&file);
    let whole = std::fs::read(&path).unwrap();
    let cut = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    cut.set_len(4096).unwrap();
    read_mark(&file).expect_err("its pages are not there");
    std::fs::write(&path, whole).unwrap();
    later(&file);
    assert_eq!(read_mark(&file).expect("the disk works"), MARK);
}

/// Whoever opens the file keeps all others out.
#[test]
fn a_write_that_can_not_begin_opens_the_file_once() {
    let directory = tempfile::tempdir().unwrap();
    let (path, aside) = (directory.path().join(FILE_NAME), directory.path().join("aside"));
    let file = open(directory.path());
    std::fs::rename(&path, &aside).unwrap();
    file.reopen(&"a test");
    later(&file);
    assert!(file.begin_write().is_err(), "it is not there");
    let left = file.pause().left(Instant::now());
    file.reopen(&"a test");
    assert!(file.pause().left(Instant::now()) <= left, "it has been tried a second time");
}

/// Many may read when the disk fails.
#[test]
fn who_meets_the_same_failure_opens_the_file_once() {
    let directory = tempfile::tempdir().unwrap();
    let file = open(directory.path());
    mark(&file);
    file.heed(&Fault::PreviousIo);
    let left = file.pause().left(Instant::now());
    assert!(left.is_some(), "the file was opened again");
    file.heed(&Fault::PreviousIo);
    file.reopen(&"a test");
    assert!(file.pause().left(Instant::now()) <= left, "it was opened a second time");
    // Who has waited for the file to write would be the next to fail.
    assert!(file.begin_write().is_err(), "it is left alone");
    assert_eq!(read_mark(&file).expect("the disk works"), MARK);
}

/// redb writes as it closes a file, and panics where a page is not what it should be.
#[test]
fn a_panic_as_the_file_closes_ends_there() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(FILE_NAME);
    let file = DataFile::open(directory.path(), 0).expect("a file").0;
    mark(&file);
    let whole = std::fs::read(&path).unwrap();
    let garbage = vec![0xff; whole.len() - 4096];
    let over = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&over, &garbage, 4096).unwrap();
    file.reopen(&"a test");
    assert!(file.may_write().is_err(), "it is left alone for a while");
    std::fs::write(&path, whole).unwrap();
    later(&file);
    assert_eq!(read_mark(&file).expect("the disk works"), MARK);
}
