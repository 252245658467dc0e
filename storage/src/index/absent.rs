//! Which keys are surely not there, in front of an engine that has to look for them.
//!
//! Before a message is made, its transaction is looked up, and hardly ever found: whoever asks an
//! engine for that pays for the way through its tree, and waits while it takes a batch. A Bloom
//! filter of the keyspace knows most of what is absent. It is filled from the engine at the start,
//! by a thread if that takes a while, and asked when it is complete.

use std::{
    fmt,
    hash::{DefaultHasher, Hasher as _},
    ops::Bound,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
};

use bytes::Bytes;

use super::{Direction, Index, IndexBatch, KeyRange, prefix_range};
use crate::{StorageError, log::End};

/// How many bits a key sets.
const BITS_OF_KEY: u64 = 4;

/// A filter with fewer bits for each key says so little that it is not filled any further.
const FEWEST_BITS: u64 = 4;

/// How many keys are read at once. What has no more needs no thread.
const PAGE: usize = 4_096;

/// See the module.
pub(crate) struct AbsentKeys {
    shared: Arc<Shared>,
    filling: Option<JoinHandle<()>>,
}

struct Shared {
    engine: Box<dyn Index>,
    /// The first byte of the keys in the filter.
    keyspace: u8,
    filter: Filter,
    /// All keys are in the filter.
    is_complete: AtomicBool,
    stop: AtomicBool,
}

struct Filter(Box<[AtomicU64]>);

impl AbsentKeys {
    /// Puts a filter of so many bytes in front of an engine, for keys that begin with `keyspace`.
    ///
    /// # Errors
    ///
    /// [`StorageError::Index`] if the engine fails, [`StorageError::Io`] if the system gives no
    /// thread.
    pub(crate) fn new(
        engine: Box<dyn Index>,
        keyspace: u8,
        bytes: u64,
    ) -> Result<Self, StorageError> {
        let (is_complete, stop) = (AtomicBool::new(false), AtomicBool::new(false));
        let filter = Filter::new(bytes);
        let shared = Arc::new(Shared { engine, keyspace, filter, is_complete, stop });
        let Some(last) = shared.take_page(None)? else {
            return Ok(Self { shared, filling: None });
        };
        let for_thread = shared.clone();
        let filling = thread::Builder::new()
            .name("index-filter".to_owned())
            .spawn(move || for_thread.fill(last))
            .map_err(|error| StorageError::io("starting the index's thread".to_owned(), error))?;
        Ok(Self { shared, filling: Some(filling) })
    }
}

impl Shared {
    /// The thread: takes the keys behind this one.
    fn fill(&self, mut last: Bytes) {
        let mut keys = PAGE as u64;
        while keys * FEWEST_BITS < self.filter.bits() && !self.stop.load(Ordering::Relaxed) {
            match self.take_page(Some(&last)) {
                Ok(Some(next)) => last = next,
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(%error, "the index is asked for absent keys, too");
                    return;
                }
            }
            keys += PAGE as u64;
        }
    }

    /// Takes some keys into the filter. Returns the last of them, if there may be more.
    fn take_page(&self, after: Option<&[u8]>) -> Result<Option<Bytes>, StorageError> {
        let (keyspace, mut end) = ([self.keyspace], Vec::new());
        let (low, high) = prefix_range(&keyspace, &mut end);
        let low = after.map_or(low, Bound::Excluded);
        let mut found = self.engine.scan((low, high), Direction::Forward, PAGE)?;
        found.iter().for_each(|(key, _)| self.filter.add(key));
        if found.len() == PAGE {
            return Ok(found.pop().map(|(key, _)| key));
        }
        self.is_complete.store(true, Ordering::Release);
        Ok(None)
    }

    fn is_in_filter(&self, key: &[u8]) -> bool {
        key.first() == Some(&self.keyspace)
    }

    fn is_absent(&self, key: &[u8]) -> bool {
        self.is_in_filter(key)
            && self.is_complete.load(Ordering::Acquire)
            && !self.filter.may_have(key)
    }
}

impl Filter {
    fn new(bytes: u64) -> Self {
        let words = (bytes / 8).max(1);
        Self((0..words).map(|_| AtomicU64::new(0)).collect())
    }

    fn bits(&self) -> u64 {
        self.0.len() as u64 * u64::from(u64::BITS)
    }

    /// The words in which a key has its bits, and these.
    fn places(&self, key: &[u8]) -> impl Iterator<Item = (&AtomicU64, u64)> {
        let mut hasher = DefaultHasher::new();
        hasher.write(key);
        let (hash, bits) = (hasher.finish(), self.bits());
        let step = hash.rotate_left(32) | 1;
        (0..BITS_OF_KEY).filter_map(move |number| {
            let bit = hash.wrapping_add(step.wrapping_mul(number)) % bits;
            let word = usize::try_from(bit / u64::from(u64::BITS)).ok();
            Some((self.0.get(word?)?, 1 << (bit % u64::from(u64::BITS))))
        })
    }

    /// Whoever may know that the key is there has been told by way of a lock, which orders this.
    fn add(&self, key: &[u8]) {
        self.places(key).for_each(|(word, bit)| _ = word.fetch_or(bit, Ordering::Relaxed));
    }

    fn may_have(&self, key: &[u8]) -> bool {
        self.places(key).all(|(word, bit)| word.load(Ordering::Relaxed) & bit != 0)
    }
}

impl Index for AbsentKeys {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        if self.shared.is_absent(key) {
            return Ok(None);
        }
        self.shared.engine.get(key)
    }

    fn multi_get(&self, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, StorageError> {
        self.shared.engine.multi_get(keys)
    }

    fn scan(
        &self,
        range: KeyRange<'_>,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StorageError> {
        self.shared.engine.scan(range, direction, limit)
    }

    fn apply(&self, batch: IndexBatch, applied: End) -> Result<(), StorageError> {
        let keys = batch.iter().filter(|(key, value)| {
            // What has gone stays in the filter, and is looked for.
            value.is_some() && self.shared.is_in_filter(key)
        });
        keys.for_each(|(key, _)| self.shared.filter.add(key));
        self.shared.engine.apply(batch, applied)
    }

    fn applied(&self) -> Result<Option<End>, StorageError> {
        self.shared.engine.applied()
    }

    fn disk_bytes(&self) -> u64 {
        self.shared.engine.disk_bytes()
    }

    fn memory_bytes(&self) -> u64 {
        self.shared.engine.memory_bytes() + self.shared.filter.bits() / 8
    }

    fn close(self: Box<Self>) {
        drop(self);
    }
}

impl Drop for AbsentKeys {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(filling) = self.filling.take()
            && filling.join().is_err()
        {
            tracing::error!("the thread that fills the index's filter panicked");
        }
    }
}

impl fmt::Debug for AbsentKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AbsentKeys").field(&self.shared.engine).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::{super::memory::MemoryIndex, *};

    const BYTES: u64 = 64 << 10;

    fn key(keyspace: u8, number: u32) -> Bytes {
        [&[keyspace][..], &number.to_be_bytes()].concat().into()
    }

    fn put(index: &dyn Index, keys: impl Iterator<Item = Bytes>) {
        let batch = keys.map(|key| (key.clone(), Some(key))).collect();
        index.apply(batch, End::default()).unwrap();
    }

    fn wait_until_filled(index: &mut AbsentKeys) {
        index.filling.take().map(JoinHandle::join).transpose().unwrap();
    }

    /// How many of these keys the engine is asked for.
    fn asked(index: &AbsentKeys, keys: impl Iterator<Item = Bytes>) -> usize {
        keys.filter(|key| !index.shared.is_absent(key)).count()
    }

    #[test]
    fn what_is_there_is_found_however_it_came_there() {
        for before in [0, 1, PAGE as u32, 3 * PAGE as u32 + 7] {
            let engine = Box::<MemoryIndex>::default();
            put(
                &*engine,
                (0..before).flat_map(|number| [b'W', b'X', b'Y'].map(|k| key(k, number))),
            );
            let mut index = AbsentKeys::new(engine, b'X', BYTES).unwrap();
            put(&index, (before..before + 100).map(|number| key(b'X', number)));
            wait_until_filled(&mut index);
            for number in 0..before + 100 {
                assert_eq!(index.get(&key(b'X', number)).unwrap(), Some(key(b'X', number)));
            }
            assert_eq!(index.get(&key(b'W', before)).unwrap(), None);
            let absent = (before + 100..before + 10_100).map(|number| key(b'X', number));
            assert!(asked(&index, absent) < 1_000);
        }
    }

    #[test]
    fn what_has_gone_is_not_found() {
        let index = AbsentKeys::new(Box::<MemoryIndex>::default(), b'X', BYTES).unwrap();
        put(&index, (0..10).map(|number| key(b'X', number)));
        index.apply(vec![(key(b'X', 3), None)], End::default()).unwrap();
        assert_eq!(index.get(&key(b'X', 3)).unwrap(), None);
        assert_eq!(index.get(&key(b'X', 4)).unwrap(), Some(key(b'X', 4)));
    }

    #[test]
    fn a_filter_that_is_far_too_small_is_not_asked() {
        let engine = Box::<MemoryIndex>::default();
        let keys = 4 * PAGE as u32;
        put(&*engine, (0..keys).map(|number| key(b'X', number)));
        let mut index = AbsentKeys::new(engine, b'X', 1 << 10).unwrap();
        wait_until_filled(&mut index);
        assert_eq!(asked(&index, (keys..keys + 10).map(|number| key(b'X', number))), 10);
    }
}
