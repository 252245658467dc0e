//! Keys without order in sorted runs, in front of an engine for which each would be a page.
//!
//! An event's id and a transaction's hash fall anywhere among all others of their kind. In sled, with
//! sixteen keys on a page at most, each of them would find, read, split and write a page of its own,
//! and the table of the pages grows in memory. So they are gathered: what is new stands in memory
//! and, so that nothing is lost, in a journal in the engine, which is written with the same batch as
//! everything else. When enough has come together, a thread (`runs/worker.rs`) writes it as a sorted
//! run of blocks, and merges runs of one size when there are several: a small log-structured merge
//! tree. The engine sees few keys, nearly all of them at the end of a row.
//!
//! The newest change of a key counts: in memory, in what is on its way from there into a run, in the
//! newest run that has one. Each run has a Bloom filter in memory, as long as there is room for it:
//! nearly every transaction that is looked for is a new one, and no run is looked at for it.
//!
//! What stands in the engine is in `runs/layout.rs`.

use std::{
    fmt,
    ops::Bound,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
};

use bytes::Bytes;

use self::{
    filter::Fingerprint,
    layout::{Manifest, OWN},
    merge::Merged,
    recent::Recent,
    run::Run,
    worker::Worker,
};
use super::{Direction, Index, IndexBatch, KeyRange, is_empty_range};
use crate::{StorageError, log::End};

mod filter;
mod layout;
mod merge;
mod recent;
mod run;
#[cfg(test)]
mod tests;
mod worker;

/// A piece of the journal of so many bytes takes no more changes.
const PIECE: usize = 4 << 10;

/// One of so many bytes takes none of a later batch, for which all of it would be written again.
const ENOUGH: usize = 1 << 10;

/// All keys.
const ALL: KeyRange<'static> = (Bound::Unbounded, Bound::Unbounded);

/// How large the parts may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Bytes of memory in which changes gather before they become a run. What gathers while they do
    /// takes as much again.
    pub(crate) recent: usize,
    /// Bytes of memory for all filters, also those that are in the making.
    pub(crate) filters: u64,
    /// Bytes of a block.
    pub(crate) block: usize,
    /// So many runs of one level are merged.
    pub(crate) runs: usize,
    /// The most keys that the thread writes at once.
    pub(crate) portion: usize,
}

impl Limits {
    /// What fits into so many bytes of memory.
    pub(crate) fn within(bytes: u64) -> Self {
        let recent = usize::try_from(bytes / 6).unwrap_or(usize::MAX);
        Self { recent, filters: bytes / 6 * 4, block: 4 << 10, runs: 8, portion: 64 }
    }
}

/// See the module.
pub(crate) struct RunIndex {
    shared: Arc<Shared>,
    keyspaces: &'static [u8],
    /// What is in runs and what the engine keeps itself, in the order of keys.
    parts: Vec<Part>,
    worker: Option<JoinHandle<()>>,
}

struct Shared {
    engine: Box<dyn Index>,
    limits: Limits,
    view: RwLock<Arc<View>>,
    /// Held by whoever writes into the engine.
    journal: Mutex<Journal>,
    signal: Mutex<Signal>,
    changed: Condvar,
    /// Bytes of filters of runs that do not count yet.
    in_the_making: AtomicU64,
}

/// What readers see. A key's newest change is in the first of these that has one.
#[derive(Debug, Clone, Default)]
struct View {
    recent: Arc<Recent>,
    /// On its way into a run, and the first piece of the journal that is not in it.
    leaving: Option<(Arc<Recent>, u64)>,
    runs: Vec<Run>,
}

/// Where the journal is.
#[derive(Debug)]
struct Journal {
    /// The place in the log up to which the engine is complete.
    end: End,
    /// The number of the piece that grows.
    number: u64,
    /// What is in it.
    piece: Vec<u8>,
}

/// What the thread is told, and tells.
#[derive(Debug, Default)]
struct Signal {
    has_work: bool,
    is_idle: bool,
    stop: bool,
    failed: Option<String>,
}

/// Keys from a byte up to another, which is excluded.
#[derive(Debug)]
struct Part {
    begin: [u8; 1],
    end: [u8; 1],
    is_in_runs: bool,
}

impl RunIndex {
    /// Keeps the keys that begin with one of these bytes, in their order, in runs.
    ///
    /// # Errors
    ///
    /// [`StorageError::Index`] if the engine fails or what is there cannot be used,
    /// [`StorageError::Io`] if the system gives no thread.
    pub(crate) fn new(
        engine: Box<dyn Index>,
        keyspaces: &'static [u8],
        limits: Limits,
    ) -> Result<Self, StorageError> {
        let manifest = engine.get(layout::MANIFEST)?;
        let manifest = manifest.map_or(Ok(Manifest::default()), |it| Manifest::decode(&it))?;
        let (recent, number) = read_journal(&*engine, manifest.journal)?;
        let runs = layout::runs_from(0);
        let last = engine.scan(runs.range(), Direction::Backward, 1)?.pop();
        let last = last.and_then(|(key, _)| layout::number_of(&key));
        let runs = manifest.runs.into_iter().map(|meta| Run::new(meta, None)).collect();
        let end = engine.applied()?.unwrap_or_default();
        let shared = Arc::new(Shared {
            engine,
            limits,
            view: RwLock::new(Arc::new(View { recent: Arc::new(recent), leaving: None, runs })),
            journal: Mutex::new(Journal { end, number, piece: Vec::new() }),
            signal: Mutex::default(),
            changed: Condvar::new(),
            in_the_making: AtomicU64::new(0),
        });
        let worker = Worker::new(shared.clone(), last.map_or(0, |last| last + 1), manifest.journal);
        let worker = thread::Builder::new()
            .name("index-runs".to_owned())
            .spawn(move || worker.run())
            .map_err(|error| StorageError::io("starting the index's thread".to_owned(), error))?;
        Ok(Self { shared, keyspaces, parts: parts(keyspaces), worker: Some(worker) })
    }

    fn is_in_runs(&self, key: &[u8]) -> bool {
        key.first().is_some_and(|keyspace| self.keyspaces.contains(keyspace))
    }
}

/// All keys that others may see, cut where it changes who has them.
fn parts(keyspaces: &[u8]) -> Vec<Part> {
    let mut parts = Vec::with_capacity(2 * keyspaces.len() + 1);
    let mut begin = [1];
    for &keyspace in keyspaces {
        parts.push(Part { begin, end: [keyspace], is_in_runs: false });
        begin = [keyspace + 1];
        parts.push(Part { begin: [keyspace], end: begin, is_in_runs: true });
    }
    parts.push(Part { begin, end: [OWN], is_in_runs: false });
    parts
}

impl Part {
    /// What of a range is in this part.
    fn clip<'a>(&'a self, (low, high): KeyRange<'a>) -> KeyRange<'a> {
        let low = match low {
            Bound::Included(key) | Bound::Excluded(key) if key >= &self.begin[..] => low,
            _ => Bound::Included(&self.begin[..]),
        };
        let high = match high {
            Bound::Included(key) | Bound::Excluded(key) if key < &self.end[..] => high,
            _ => Bound::Excluded(&self.end[..]),
        };
        (low, high)
    }
}

/// What is in the journal from a piece on, and the number of the next piece.
fn read_journal(engine: &dyn Index, mut number: u64) -> Result<(Recent, u64), StorageError> {
    const PAGE: usize = 64;
    let recent = Recent::default();
    loop {
        let pieces = layout::journal_from(number);
        let found = engine.scan(pieces.range(), Direction::Forward, PAGE)?;
        for (key, piece) in &found {
            recent.extend(layout::changes(piece)?.iter());
            let bad = || StorageError::Index("a piece of the journal has no number".to_owned());
            number = layout::number_of(key).ok_or_else(bad)? + 1;
        }
        if found.len() < PAGE {
            return Ok((recent, number));
        }
    }
}

impl Shared {
    fn signal(&self) -> MutexGuard<'_, Signal> {
        self.signal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn view(&self) -> Arc<View> {
        self.view.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change_view(&self, change: impl FnOnce(&mut View)) {
        let mut view = self.view.write().unwrap_or_else(PoisonError::into_inner);
        let mut new = View::clone(&view);
        change(&mut new);
        *view = Arc::new(new);
    }

    /// Writes what changes nothing of what the index holds.
    fn write(&self, batch: IndexBatch) -> Result<(), StorageError> {
        let journal = self.journal();
        self.engine.apply(batch, journal.end)
    }

    /// Waits until there is room in memory for more changes.
    fn make_room(&self) -> Result<(), StorageError> {
        let mut signal = self.signal();
        while signal.failed.is_none() && self.view().recent.bytes() >= self.limits.recent {
            if self.view().leaving.is_none() {
                self.send_off();
                signal.has_work = true;
                self.changed.notify_all();
            } else {
                signal = self.changed.wait(signal).unwrap_or_else(PoisonError::into_inner);
            }
        }
        match &signal.failed {
            Some(why) => Err(StorageError::Index(why.clone())),
            None => Ok(()),
        }
    }

    /// What has gathered leaves the memory, and more may gather.
    fn send_off(&self) {
        let mut journal = self.journal();
        journal.end_piece();
        self.change_view(|view| {
            view.leaving = Some((std::mem::take(&mut view.recent), journal.number));
        });
    }
}

impl Journal {
    /// Adds changes to the journal, and what has changed of it to a batch.
    fn add(&mut self, changes: &[merge::Change], batch: &mut IndexBatch) {
        for (at, (key, value)) in (1..).zip(changes) {
            layout::put_change(&mut self.piece, key, value.as_deref());
            let is_last = at == changes.len();
            if is_last || self.piece.len() >= PIECE {
                let piece = Bytes::copy_from_slice(&self.piece);
                batch.push((layout::piece_key(self.number).into(), Some(piece)));
            }
            if self.piece.len() >= if is_last { ENOUGH } else { PIECE } {
                self.end_piece();
            }
        }
    }

    fn end_piece(&mut self) {
        if !self.piece.is_empty() {
            self.piece.clear();
            self.number += 1;
        }
    }
}

impl View {
    /// The newest change of a key.
    fn get(&self, engine: &dyn Index, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        let leaving = || self.leaving.as_ref().and_then(|(leaving, _)| leaving.get(key));
        if let Some(value) = self.recent.get(key).or_else(leaving) {
            return Ok(value);
        }
        let fingerprint = Fingerprint::of(key);
        for run in &self.runs {
            if let Some(value) = run.get(engine, key, fingerprint)? {
                return Ok(value);
            }
        }
        Ok(None)
    }

    fn scan(
        &self,
        engine: &dyn Index,
        range: KeyRange<'_>,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StorageError> {
        let leaving = self.leaving.iter().map(|(leaving, _)| leaving);
        let memory = std::iter::once(&self.recent).chain(leaving);
        let memory = memory.map(|recent| Ok(recent.source(range, direction)));
        let runs =
            self.runs.iter().map(|run| run::source(engine, run.meta.number, range, direction));
        let mut changes = Merged::new(memory.chain(runs).collect::<Result<_, _>>()?, direction)?;
        let mut found = Vec::new();
        while found.len() < limit
            && let Some((key, value)) = changes.next()?
        {
            found.extend(value.map(|value| (key, value)));
        }
        Ok(found)
    }

    /// Lets go of the filters of the oldest runs if all of them are more than so many bytes.
    fn trim_filters(&mut self, bytes: u64) {
        let mut sum = 0;
        for run in &mut self.runs {
            sum += run.filter_bytes();
            if sum > bytes {
                run.filter = None;
            }
        }
    }
}

impl Index for RunIndex {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        match self.is_in_runs(key) {
            true => self.shared.view().get(&*self.shared.engine, key),
            false => self.shared.engine.get(key),
        }
    }

    fn multi_get(&self, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, StorageError> {
        let others: Vec<_> = keys.iter().copied().filter(|key| !self.is_in_runs(key)).collect();
        let mut others = self.shared.engine.multi_get(&others)?.into_iter();
        let view = self.shared.view();
        let get = |key: &&[u8]| match self.is_in_runs(key) {
            true => view.get(&*self.shared.engine, key),
            false => Ok(others.next().flatten()),
        };
        keys.iter().map(get).collect()
    }

    fn scan(
        &self,
        range: KeyRange<'_>,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StorageError> {
        let mut found = Vec::new();
        let mut scan = |part: &Part| {
            let (range, left) = (part.clip(range), limit - found.len());
            if left > 0 && !is_empty_range(&range) {
                found.append(&mut match part.is_in_runs {
                    true => {
                        self.shared.view().scan(&*self.shared.engine, range, direction, left)?
                    }
                    false => self.shared.engine.scan(range, direction, left)?,
                });
            }
            Ok(())
        };
        match direction {
            Direction::Forward => self.parts.iter().try_for_each(&mut scan),
            Direction::Backward => self.parts.iter().rev().try_for_each(&mut scan),
        }?;
        Ok(found)
    }

    fn apply(&self, batch: IndexBatch, applied: End) -> Result<(), StorageError> {
        self.shared.make_room()?;
        let (changes, mut batch): (IndexBatch, _) =
            batch.into_iter().partition(|(key, _)| self.is_in_runs(key));
        {
            let mut journal = self.shared.journal();
            journal.add(&changes, &mut batch);
            self.shared.engine.apply(batch, applied)?;
            journal.end = applied;
        }
        self.shared.view().recent.extend(changes.iter());
        Ok(())
    }

    fn applied(&self) -> Result<Option<End>, StorageError> {
        self.shared.engine.applied()
    }

    fn disk_bytes(&self) -> u64 {
        self.shared.engine.disk_bytes()
    }

    fn memory_bytes(&self) -> u64 {
        let view = self.shared.view();
        let leaving = view.leaving.as_ref().map_or(0, |(leaving, _)| leaving.bytes());
        let filters = view.runs.iter().map(Run::filter_bytes).sum::<u64>();
        self.shared.engine.memory_bytes()
            + (view.recent.bytes() + leaving) as u64
            + filters
            + self.shared.in_the_making.load(Ordering::Relaxed)
    }

    fn close(self: Box<Self>) {
        drop(self);
    }
}

impl Drop for RunIndex {
    fn drop(&mut self) {
        self.shared.signal().stop = true;
        self.shared.changed.notify_all();
        if let Some(worker) = self.worker.take()
            && worker.join().is_err()
        {
            tracing::error!("the thread that merges the index's runs panicked");
        }
    }
}

impl fmt::Debug for RunIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let runs: Vec<_> = self.shared.view().runs.iter().map(|run| *run.meta).collect();
        f.debug_struct("RunIndex").field("runs", &runs).finish_non_exhaustive()
    }
}
