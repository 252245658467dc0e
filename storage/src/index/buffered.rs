//! The newest changes in memory, in front of an index that follows behind.
//!
//! A commit counts when the log has it; the index only has to be readable. So changes go into
//! memory first, where readers look first, and a thread of its own hands them to the engine, many
//! commits in one batch. That matters with sled, for which a batch of six keys costs little less
//! than one of six hundred. After a crash the log brings back what the engine had not got yet.

use std::{
    collections::BTreeMap,
    fmt, mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard},
    thread::{self, JoinHandle},
    time::Duration,
};

use bytes::Bytes;

use super::{Direction, Index, IndexBatch, KeyRange, is_empty_range, without_own_keys};
use crate::{StorageError, log::End};

/// How long changes are collected before the engine gets them.
const COLLECT: Duration = Duration::from_millis(100);

/// So many changed keys are not collected any further: readers wait while sled takes a batch.
const ENOUGH: usize = 4_096;

/// How many changed keys may wait in memory, and be on their way; whoever brings more has to wait.
const MAX_WAITING: usize = 16_384;

/// See the module.
pub(crate) struct BufferedIndex {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

struct Shared {
    engine: Box<dyn Index>,
    recent: RwLock<Recent>,
    signal: Mutex<Signal>,
    changed: Condvar,
}

/// Changes that the engine may not have yet. A key's newest value is in the first of: `waiting`,
/// `leaving`, the engine.
#[derive(Default)]
struct Recent {
    waiting: Layer,
    /// On its way into the engine; leaves only when the engine has it.
    leaving: Option<Arc<Layer>>,
}

#[derive(Default)]
struct Layer {
    /// `None` for a key that goes.
    changes: BTreeMap<Bytes, Option<Bytes>>,
    end: Option<End>,
}

/// What the writing thread is told, and tells.
#[derive(Default)]
struct Signal {
    has_work: bool,
    /// There is no time to collect more.
    urgent: bool,
    stop: bool,
    failed: Option<String>,
}

impl BufferedIndex {
    /// Puts memory in front of an engine.
    ///
    /// # Errors
    ///
    /// [`StorageError::Io`] if the system gives no thread.
    pub(crate) fn new(engine: Box<dyn Index>) -> Result<Self, StorageError> {
        let shared = Arc::new(Shared {
            engine,
            recent: RwLock::default(),
            signal: Mutex::default(),
            changed: Condvar::new(),
        });
        let for_thread = shared.clone();
        let writer = thread::Builder::new()
            .name("index-writer".to_owned())
            .spawn(move || for_thread.write_behind())
            .map_err(|error| StorageError::io("starting the index's thread".to_owned(), error))?;
        Ok(Self { shared, writer: Some(writer) })
    }

    /// Hands everything to the engine and ends the thread.
    fn finish(&mut self) {
        self.shared.signal().stop = true;
        self.shared.changed.notify_all();
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!(
                "the index's thread panicked; the log brings back what it had not written"
            );
        }
    }
}

impl Shared {
    fn signal(&self) -> MutexGuard<'_, Signal> {
        self.signal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn recent(&self) -> RwLockReadGuard<'_, Recent> {
        self.recent.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread: collects for a moment, writes, and so on until it is told to stop and nothing
    /// is left, or the engine fails.
    fn write_behind(&self) {
        loop {
            let stopping = self.await_work();
            let Some(layer) = self.take_layer() else {
                if stopping {
                    return;
                }
                continue;
            };
            let batch = layer.changes.iter().map(|(key, value)| (key.clone(), value.clone()));
            let Some(end) = layer.end else { continue };
            let written = self.engine.apply(batch.collect(), end);
            if let Err(error) = written {
                // What is in memory stays there, so that reading goes on.
                self.signal().failed = Some(error.to_string());
                self.changed.notify_all();
                return;
            }
            self.recent.write().unwrap_or_else(PoisonError::into_inner).leaving = None;
        }
    }

    /// Waits for something to write. Returns whether it is the end.
    fn await_work(&self) -> bool {
        let signal = self.signal();
        let idle = |signal: &mut Signal| !signal.has_work && !signal.stop;
        let signal = self.changed.wait_while(signal, idle).unwrap_or_else(PoisonError::into_inner);
        let collecting = |signal: &mut Signal| !signal.urgent && !signal.stop;
        let waited = self.changed.wait_timeout_while(signal, COLLECT, collecting);
        let (mut signal, _) = waited.unwrap_or_else(PoisonError::into_inner);
        signal.has_work = false;
        signal.urgent = false;
        signal.stop
    }

    /// Moves what waits on its way, if there is something.
    fn take_layer(&self) -> Option<Arc<Layer>> {
        let layer = {
            let mut recent = self.recent.write().unwrap_or_else(PoisonError::into_inner);
            if recent.waiting.changes.is_empty() {
                return None;
            }
            let layer = Arc::new(mem::take(&mut recent.waiting));
            recent.leaving = Some(layer.clone());
            layer
        };
        // Whoever waited for room has it now.
        let signal = self.signal();
        self.changed.notify_all();
        drop(signal);
        Some(layer)
    }

    /// Wakes the thread if it has nothing to do, not while it collects: to wake a thread costs as
    /// much as the rest of a small commit. Waits if there is too much for it.
    fn announce_work(&self) -> Result<(), StorageError> {
        let waiting = |shared: &Self| shared.recent().waiting.changes.len();
        let mut signal = self.signal();
        let was_idle = !mem::replace(&mut signal.has_work, true);
        let is_enough = waiting(self) >= ENOUGH && !mem::replace(&mut signal.urgent, true);
        if was_idle || is_enough {
            self.changed.notify_all();
        }
        while signal.failed.is_none() && waiting(self) >= MAX_WAITING {
            signal.urgent = true;
            self.changed.notify_all();
            signal = self.changed.wait(signal).unwrap_or_else(PoisonError::into_inner);
        }
        match &signal.failed {
            Some(why) => Err(StorageError::Index(why.clone())),
            None => Ok(()),
        }
    }
}

impl Recent {
    /// The newest change of a key, if memory has one.
    fn get(&self, key: &[u8]) -> Option<&Option<Bytes>> {
        let leaving = || self.leaving.as_ref().and_then(|layer| layer.changes.get(key));
        self.waiting.changes.get(key).or_else(leaving)
    }

    /// The changes of a range.
    fn range(&self, range: KeyRange<'_>) -> BTreeMap<Bytes, Option<Bytes>> {
        let leaving = self.leaving.iter().flat_map(|layer| layer.changes.range::<[u8], _>(range));
        let all = leaving.chain(self.waiting.changes.range::<[u8], _>(range));
        // Of two changes of one key the later one stays, which is the one that waits.
        all.map(|(key, value)| (key.clone(), value.clone())).collect()
    }
}

/// Lays changes over what the engine has, both in the order of the scan.
fn merge(
    engine: Vec<(Bytes, Bytes)>,
    changes: impl Iterator<Item = (Bytes, Option<Bytes>)>,
    direction: Direction,
    limit: usize,
) -> Vec<(Bytes, Bytes)> {
    let comes_first = |left: &Bytes, right: &Bytes| match direction {
        Direction::Forward => left < right,
        Direction::Backward => left > right,
    };
    let mut merged = Vec::with_capacity(engine.len().min(limit));
    let (mut engine, mut changes) = (engine.into_iter().peekable(), changes.peekable());
    while merged.len() < limit {
        let next = match (engine.peek(), changes.peek()) {
            (None, None) => break,
            (Some((old, _)), Some((new, _))) if comes_first(old, new) => engine.next(),
            (Some(_), None) => engine.next(),
            (old, Some((new, _))) => {
                if old.is_some_and(|(old, _)| old == new) {
                    engine.next();
                }
                changes.next().and_then(|(key, value)| Some((key, value?)))
            }
        };
        merged.extend(next);
    }
    merged
}

impl Index for BufferedIndex {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        if let Some(value) = self.shared.recent().get(key) {
            return Ok(value.clone());
        }
        self.shared.engine.get(key)
    }

    fn multi_get(&self, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, StorageError> {
        let recent: Vec<_> = {
            let recent = self.shared.recent();
            keys.iter().map(|key| recent.get(key).cloned()).collect()
        };
        let others = keys.iter().zip(&recent).filter(|(_, value)| value.is_none());
        let others: Vec<_> = others.map(|(key, _)| *key).collect();
        let mut others = self.shared.engine.multi_get(&others)?.into_iter();
        Ok(recent
            .into_iter()
            .map(|value| value.unwrap_or_else(|| others.next().flatten()))
            .collect())
    }

    fn scan(
        &self,
        range: KeyRange<'_>,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StorageError> {
        let range = without_own_keys(range);
        if is_empty_range(&range) || limit == 0 {
            return Ok(Vec::new());
        }
        // The lock is not held while the engine reads: a long scan must not hold up a commit.
        let changes = self.shared.recent().range(range);
        // As many more as may turn out to be gone: so what the engine gives is enough for `limit`.
        let gone = changes.values().filter(|value| value.is_none()).count();
        let engine = self.shared.engine.scan(range, direction, limit.saturating_add(gone))?;
        Ok(match direction {
            Direction::Forward => merge(engine, changes.into_iter(), direction, limit),
            Direction::Backward => merge(engine, changes.into_iter().rev(), direction, limit),
        })
    }

    fn apply(&self, batch: IndexBatch, applied: End) -> Result<(), StorageError> {
        {
            let mut recent = self.shared.recent.write().unwrap_or_else(PoisonError::into_inner);
            recent.waiting.changes.extend(batch);
            recent.waiting.end = Some(applied);
        }
        self.shared.announce_work()
    }

    fn applied(&self) -> Result<Option<End>, StorageError> {
        let recent = self.shared.recent();
        let leaving = || recent.leaving.as_ref().and_then(|layer| layer.end);
        match recent.waiting.end.or_else(leaving) {
            Some(end) => Ok(Some(end)),
            None => self.shared.engine.applied(),
        }
    }

    fn disk_bytes(&self) -> u64 {
        self.shared.engine.disk_bytes()
    }

    fn memory_bytes(&self) -> u64 {
        self.shared.engine.memory_bytes()
    }

    fn close(self: Box<Self>) {
        drop(self);
    }
}

impl Drop for BufferedIndex {
    fn drop(&mut self) {
        self.finish();
    }
}

impl fmt::Debug for BufferedIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waiting = self.shared.recent().waiting.changes.len();
        f.debug_struct("BufferedIndex").field("waiting", &waiting).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use parlour_event::StreamPos;
    use proptest::prelude::*;

    use super::{
        super::{
            memory::MemoryIndex,
            story::Story,
            tests::{Model, direction},
        },
        *,
    };

    /// One step of a story: changes of a few keys, a read, or a pause in which the engine may
    /// catch up.
    #[derive(Debug, Clone)]
    enum Step {
        Apply(Vec<(u8, Option<u8>)>),
        Scan { low: u8, high: u8, direction: Direction, limit: usize },
        Pause,
    }

    fn step() -> impl Strategy<Value = Step> {
        let change = (1..40_u8, proptest::option::weighted(0.7, any::<u8>()));
        prop_oneof![
            4 => proptest::collection::vec(change, 1..6).prop_map(Step::Apply),
            4 => (0..42_u8, 0..42_u8, direction(), 0..12_usize).prop_map(
                |(low, high, direction, limit)| Step::Scan { low, high, direction, limit }
            ),
            1 => Just(Step::Pause),
        ]
    }

    fn key(key: u8) -> Bytes {
        Bytes::from(vec![key])
    }

    /// Lets the thread take over what waits, so that all three places are read from.
    fn catch_up(index: &BufferedIndex) {
        index.shared.signal().urgent = true;
        index.shared.changed.notify_all();
        while index.shared.recent().leaving.is_some() {
            thread::yield_now();
        }
    }

    fn check(index: &BufferedIndex, steps: Vec<Step>) {
        let mut model = Model::default();
        let mut end = End::default();
        for step in steps {
            match step {
                Step::Apply(changes) => {
                    end.pos = StreamPos(end.pos.0 + 1);
                    let value = |value: Option<u8>| value.map(|value| Bytes::from(vec![value]));
                    let batch = changes.iter().map(|(k, v)| (key(*k), value(*v)));
                    let batch: IndexBatch = batch.collect();
                    model.change(&batch);
                    index.apply(batch, end).unwrap();
                    assert_eq!(index.applied().unwrap(), Some(end));
                }
                Step::Scan { low, high, direction, limit } => {
                    let (low, high) = (key(low.min(high)), key(low.max(high)));
                    let range =
                        (std::ops::Bound::Included(&low[..]), std::ops::Bound::Excluded(&high[..]));
                    model.check_scan(index, range, direction, limit);
                    model.check_keys(index, (1..40).map(key));
                }
                Step::Pause => catch_up(index),
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

        #[test]
        fn reads_like_a_plain_map(steps in proptest::collection::vec(step(), 1..40)) {
            let index = BufferedIndex::new(Box::new(MemoryIndex::default())).unwrap();
            check(&index, steps);
        }
    }

    #[test]
    fn a_failed_engine_is_told_to_the_next_writer_and_reading_goes_on() {
        let story = Story::default();
        let engine = story.happen(Box::<MemoryIndex>::default());
        let index = BufferedIndex::new(engine).unwrap();
        let mut end = End::default();
        let mut write = |number: u8| {
            end.pos = StreamPos(end.pos.0 + 1);
            index.apply(vec![(key(number), Some(key(number)))], end)
        };
        write(1).unwrap();
        catch_up(&index);
        story.fail(true);
        // Sooner or later the engine is given another batch, and refuses it.
        let mut number = 1;
        let error = loop {
            number += 1;
            match write(number) {
                Ok(()) => thread::sleep(COLLECT / 4),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, StorageError::Index(_)), "{error}");
        for written in 1..number {
            assert_eq!(index.get(&[written]).unwrap(), Some(key(written)));
        }
    }

    #[test]
    fn everything_is_in_the_engine_when_it_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let engine = super::super::SledEngine;
        let open = || super::super::IndexEngine::open(&engine, dir.path(), 1 << 20).unwrap();
        let index = Box::new(BufferedIndex::new(open()).unwrap());
        let mut end = End::default();
        for number in 1..=200_u8 {
            end.pos = StreamPos(u64::from(number));
            index.apply(vec![(key(number), Some(key(number)))], end).unwrap();
        }
        index.close();
        let engine = open();
        assert_eq!(engine.applied().unwrap(), Some(end));
        let all = engine.scan(
            (std::ops::Bound::Unbounded, std::ops::Bound::Unbounded),
            Direction::Forward,
            1_000,
        );
        assert_eq!(all.unwrap().len(), 200);
    }
}
