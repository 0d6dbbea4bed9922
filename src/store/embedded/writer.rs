//! The one writer: a thread that takes all commits waiting, writes them in one transaction of
//! the file, and answers them once that is on the disk.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use redb::{ReadableTable, Table, WriteTransaction};
use tokio::sync::{mpsc, oneshot, watch};

use super::{
    Clock,
    file::{DataFile, fault},
    retention::{Age, Retention},
    same::LastChange,
    tables::{self, Fault, LogRow},
    work::guarded,
};
use crate::{
    fhir::resource::Resource,
    store::{Action, Effect, Expect, StoreError, Write, WriteError, Written},
};

/// How many commits, and about how many bytes of JSON, share one transaction of the file.
const GROUP_JOBS: usize = 256;
const GROUP_BYTES: usize = 8 << 20;

type Outcome = Result<Vec<Written>, WriteError>;

/// A commit on its way to the writer.
pub(super) struct Job {
    pub(super) writes: Vec<Write>,
    pub(super) answer: oneshot::Sender<Outcome>,
}

/// The writer's end of the store.
pub(super) struct Writer {
    pub(super) file: Arc<DataFile>,
    pub(super) jobs: mpsc::Receiver<Job>,
    pub(super) clock: Clock,
    pub(super) age: Age,
    pub(super) retention: Retention,
    /// Told after each transaction that wrote.
    pub(super) committed: watch::Sender<()>,
}

impl Writer {
    /// Works until every sender of jobs is gone and all jobs are answered.
    pub(super) fn run(mut self) {
        while let Some(first) = self.jobs.blocking_recv() {
            if let Err(refused) = self.file.may_write() {
                let _ = first.answer.send(Err(refused.into()));
                continue;
            }
            let mut waiting = Vec::new();
            match guarded(|| self.commit_group(first, &mut waiting)) {
                Ok(outcomes) => {
                    for (answer, outcome) in waiting.into_iter().zip(outcomes) {
                        // Whoever went away has no use for the answer.
                        let _ = answer.send(outcome);
                    }
                }
                Err(error) => self.fail_group(waiting, &error),
            }
        }
    }

    /// Performs the first job and all that wait behind it, each wholly or not at all; on the
    /// disk when it returns.
    fn commit_group(
        &mut self,
        first: Job,
        waiting: &mut Vec<oneshot::Sender<Outcome>>,
    ) -> Result<Vec<Outcome>, StoreError> {
        let Job { mut writes, answer } = first;
        waiting.push(answer);
        let (txn, file) = self.file.begin_write()?;
        let mut outcomes = Vec::new();
        let mut group = Group::open(&txn).map_err(fault)?;
        loop {
            outcomes.push(group.perform(writes, (self.clock)()).map_err(fault)?);
            if outcomes.len() == GROUP_JOBS || group.bytes >= GROUP_BYTES {
                break;
            }
            let Ok(job) = self.jobs.try_recv() else { break };
            waiting.push(job.answer);
            writes = job.writes;
        }
        if group.rows == 0 {
            drop(group);
            txn.abort().map_err(fault)?;
        } else {
            let (open_ms, last) = (self.age.now(group.open_ms), group.appended);
            group.finish(&self.retention, open_ms).map_err(fault)?;
            txn.commit().map_err(fault)?;
            self.file.has_written(last, file)?;
            self.committed.send_replace(());
        }
        Ok(outcomes)
    }

    fn fail_group(&self, waiting: Vec<oneshot::Sender<Outcome>>, error: &StoreError) {
        tracing::error!(%error, commits = waiting.len(), "a group of commits failed");
        self.file.reopen(error);
        for answer in waiting {
            let _ = answer.send(Err(error.clone().into()));
        }
        // The file may hold the group after all: whoever reads the log should look.
        self.committed.send_replace(());
    }
}

/// One transaction of the file, open for writing.
struct Group<'t> {
    meta: Table<'t, &'static str, u64>,
    resources: Table<'t, (&'static str, &'static str), (u64, i64, &'static [u8])>,
    updated: Table<'t, (&'static str, i64, &'static str), ()>,
    deleted: Table<'t, (&'static str, &'static str), (u64, i64)>,
    log: Table<'t, u64, LogRow>,
    ages: Table<'t, u64, u64>,
    /// The last change of before.
    last: u64,
    next_seq: u64,
    appended: LastChange,
    /// For how long the store had been open when that was committed.
    open_ms: u64,
    log_bytes: u64,
    /// Rows put into the log.
    rows: usize,
    /// Bytes put into the log.
    bytes: usize,
}

/// What a resource is before a write.
struct Current {
    version: u64,
    updated_ms: i64,
    json: Bytes,
}

impl<'t> Group<'t> {
    fn open(txn: &'t WriteTransaction) -> Result<Self, Fault> {
        let meta = txn.open_table(tables::META)?;
        let log = txn.open_table(tables::LOG)?;
        let number = |name| Ok::<_, Fault>(meta.get(name)?.map_or(0, |row| row.value()));
        let (log_bytes, open_ms) = (number(tables::META_LOG_BYTES)?, number(tables::META_OPEN_MS)?);
        let (_, last) = tables::log_span(&log)?;
        Ok(Self {
            meta,
            resources: txn.open_table(tables::RESOURCES)?,
            updated: txn.open_table(tables::UPDATED)?,
            deleted: txn.open_table(tables::DELETED)?,
            log,
            ages: txn.open_table(tables::AGES)?,
            last,
            next_seq: last + 1,
            appended: LastChange::default(),
            open_ms,
            log_bytes,
            rows: 0,
            bytes: 0,
        })
    }

    /// One job. All of its expectations are checked before anything is written, so that a
    /// refused job leaves nothing behind in the transaction it shares.
    fn perform(&mut self, writes: Vec<Write>, now: Timestamp) -> Result<Outcome, Fault> {
        for (index, write) in writes.iter().enumerate() {
            if let Err(refused) = self.check(index, write)? {
                return Ok(Err(refused));
            }
        }
        let now_ms = now.as_millisecond();
        let perform = |write: Write| match write.action {
            Action::Put(resource) => self.put(&write.id, resource, now_ms),
            Action::Delete => self.delete(write.ty.name(), &write.id, now_ms),
        };
        Ok(Ok(writes.into_iter().map(perform).collect::<Result<_, _>>()?))
    }

    fn check(&self, index: usize, write: &Write) -> Result<Result<(), WriteError>, Fault> {
        if let Action::Put(resource) = &write.action
            && resource.ty() != write.ty
        {
            let why = format!("the resource is a {}, not a {}", resource.ty(), write.ty);
            return Ok(Err(WriteError::Unstorable { index, why }));
        }
        let found = match write.expect {
            Expect::Any => return Ok(Ok(())),
            Expect::Absent | Expect::Version(_) => self.version(write.ty.name(), &write.id)?,
        };
        let holds = match write.expect {
            Expect::Version(expected) => found == Some(expected),
            Expect::Any | Expect::Absent => found.is_none(),
        };
        Ok(if holds { Ok(()) } else { Err(WriteError::Conflict { index, found }) })
    }

    fn put(&mut self, id: &str, resource: Resource, now_ms: i64) -> Result<Written, Fault> {
        let ty = resource.ty().name();
        let resource = resource.with_id(id);
        let before = self.current(ty, id)?;
        if let Some(current) = &before
            && Resource::parse(&current.json).is_ok_and(|kept| kept.same_content(&resource))
        {
            return Ok(written(Effect::Unchanged, current, true));
        }
        let version = match &before {
            Some(current) => current.version,
            None => self.deleted.remove((ty, id))?.map_or(0, |row| row.value().0),
        } + 1;
        let json = resource.stamped(version, instant(now_ms)).to_json();
        self.resources.insert((ty, id), (version, now_ms, &json[..]))?;
        if let Some(current) = &before {
            self.updated.remove((ty, current.updated_ms, id))?;
        }
        self.updated.insert((ty, now_ms, id), ())?;
        let before_json = before.as_ref().map_or(&[][..], |current| &current.json);
        self.append((now_ms, ty, id, before_json, &json))?;
        let effect = if before.is_some() { Effect::Updated } else { Effect::Created };
        Ok(written(effect, &Current { version, updated_ms: now_ms, json }, true))
    }

    fn delete(&mut self, ty: &str, id: &str, now_ms: i64) -> Result<Written, Fault> {
        let Some(before) = self.current(ty, id)? else {
            let row = self.deleted.get((ty, id))?.map(|row| row.value());
            let (version, updated_ms) = row.unwrap_or((0, now_ms));
            let gone = Current { version, updated_ms, json: Bytes::new() };
            return Ok(written(Effect::Missing, &gone, false));
        };
        let version = before.version + 1;
        self.resources.remove((ty, id))?;
        self.updated.remove((ty, before.updated_ms, id))?;
        self.deleted.insert((ty, id), (version, now_ms))?;
        self.append((now_ms, ty, id, &before.json, &[]))?;
        let gone = Current { version, updated_ms: now_ms, json: Bytes::new() };
        Ok(written(Effect::Deleted, &gone, false))
    }

    fn append(&mut self, row: (i64, &str, &str, &[u8], &[u8])) -> Result<(), Fault> {
        let bytes = tables::log_row_bytes(row);
        self.log.insert(self.next_seq, row)?;
        self.appended = LastChange::of(self.next_seq, row);
        self.next_seq += 1;
        self.log_bytes += bytes;
        self.rows += 1;
        self.bytes = self.bytes.saturating_add(usize::try_from(bytes).unwrap_or(usize::MAX));
        Ok(())
    }

    fn current(&self, ty: &str, id: &str) -> Result<Option<Current>, Fault> {
        Ok(self.resources.get((ty, id))?.map(|row| {
            let (version, updated_ms, json) = row.value();
            Current { version, updated_ms, json: Bytes::copy_from_slice(json) }
        }))
    }

    fn version(&self, ty: &str, id: &str) -> Result<Option<u64>, Fault> {
        Ok(self.resources.get((ty, id))?.map(|row| row.value().0))
    }

    /// Trims the log; what is left is to commit.
    fn finish(mut self, retention: &Retention, open_ms: u64) -> Result<(), Fault> {
        retention.note(&mut self.ages, (self.open_ms, self.last), open_ms)?;
        let tables = (&mut self.log, &mut self.ages);
        let bytes = retention.trim(tables, self.log_bytes, self.rows, open_ms)?;
        self.meta.insert(tables::META_LOG_BYTES, bytes)?;
        self.meta.insert(tables::META_OPEN_MS, open_ms)?;
        Ok(())
    }
}

fn written(effect: Effect, current: &Current, present: bool) -> Written {
    Written {
        effect,
        version: current.version,
        last_updated: instant(current.updated_ms),
        json: present.then(|| current.json.clone()),
    }
}

/// The instant that many milliseconds after 1970.
pub(super) fn instant(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(ms).unwrap_or_default()
}
