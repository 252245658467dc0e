//! An index in memory that remembers how it came to be what it is, so that it can be had as it was
//! at any earlier moment. It fails if it is told to.

use std::sync::{
    Arc, Mutex, MutexGuard,
    atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;

use super::{Direction, End, Index, IndexBatch, KeyRange, StorageError};

/// What has been applied to an index, in order. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Story {
    batches: Arc<Mutex<Vec<(IndexBatch, End)>>>,
    fails: Arc<AtomicBool>,
}

impl Story {
    /// Has all of it happen to an empty index; what happens to that later goes on with the story.
    pub(crate) fn happen(&self, empty: Box<dyn Index>) -> Box<dyn Index> {
        for (batch, end) in self.batches().iter() {
            empty.apply(batch.clone(), *end).unwrap();
        }
        Box::new(Remembering { now: empty, story: self.clone() })
    }

    /// A story that begins with so many batches of this one.
    pub(crate) fn first(&self, count: usize) -> Self {
        let batches = self.batches()[..count].to_vec();
        Self { batches: Arc::new(Mutex::new(batches)), ..Self::default() }
    }

    pub(crate) fn len(&self) -> usize {
        self.batches().len()
    }

    /// Forgets what is behind so many batches.
    pub(crate) fn truncate(&self, count: usize) {
        self.batches().truncate(count);
    }

    /// Whether changes are refused from now on.
    pub(crate) fn fail(&self, fails: bool) {
        self.fails.store(fails, Ordering::SeqCst);
    }

    fn batches(&self) -> MutexGuard<'_, Vec<(IndexBatch, End)>> {
        self.batches.lock().unwrap()
    }
}

#[derive(Debug)]
struct Remembering {
    now: Box<dyn Index>,
    story: Story,
}

impl Index for Remembering {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        self.now.get(key)
    }

    fn multi_get(&self, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, StorageError> {
        self.now.multi_get(keys)
    }

    fn scan(
        &self,
        range: KeyRange<'_>,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StorageError> {
        self.now.scan(range, direction, limit)
    }

    fn apply(&self, batch: IndexBatch, applied: End) -> Result<(), StorageError> {
        if self.story.fails.load(Ordering::SeqCst) {
            return Err(StorageError::Index("it is broken on purpose".to_owned()));
        }
        let mut batches = self.story.batches();
        batches.push((batch.clone(), applied));
        self.now.apply(batch, applied)
    }

    fn applied(&self) -> Result<Option<End>, StorageError> {
        self.now.applied()
    }

    fn disk_bytes(&self) -> u64 {
        self.now.disk_bytes()
    }

    fn close(self: Box<Self>) {}
}
