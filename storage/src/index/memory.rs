//! The index in memory: for tests, and for servers that keep nothing.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{PoisonError, RwLock},
};

use bytes::Bytes;

use super::{Direction, Index, IndexBatch, IndexEngine, KeyRange};
use crate::{StorageError, log::End};

/// Opens indexes in memory. They are empty at first and filled from the log.
#[derive(Debug, Clone, Copy, Default)]
pub struct MemoryEngine;

impl IndexEngine for MemoryEngine {
    fn open(&self, _dir: &Path, _cache_bytes: u64) -> Result<Box<dyn Index>, StorageError> {
        Ok(Box::new(MemoryIndex::default()))
    }

    fn set_aside(&self, _dir: &Path) -> Result<(), StorageError> {
        Ok(())
    }
}

/// The index in memory.
#[derive(Debug, Default)]
pub(crate) struct MemoryIndex {
    content: RwLock<Content>,
}

#[derive(Debug, Default)]
struct Content {
    map: BTreeMap<Bytes, Bytes>,
    applied: Option<End>,
}

impl MemoryIndex {
    fn read(&self) -> std::sync::RwLockReadGuard<'_, Content> {
        self.content.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Index for MemoryIndex {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        Ok(self.read().map.get(key).cloned())
    }

    fn multi_get(&self, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, StorageError> {
        let content = self.read();
        Ok(keys.iter().map(|key| content.map.get(*key).cloned()).collect())
    }

    fn scan(
        &self,
        range: KeyRange<'_>,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StorageError> {
        if super::is_empty_range(&range) {
            return Ok(Vec::new());
        }
        let content = self.read();
        let found = content.map.range::<[u8], _>(range).map(|(k, v)| (k.clone(), v.clone()));
        Ok(match direction {
            Direction::Forward => found.take(limit).collect(),
            Direction::Backward => found.rev().take(limit).collect(),
        })
    }

    fn apply(&self, batch: IndexBatch, applied: End) -> Result<(), StorageError> {
        let mut content = self.content.write().unwrap_or_else(PoisonError::into_inner);
        for (key, value) in batch {
            match value {
                Some(value) => content.map.insert(key, value),
                None => content.map.remove(&key),
            };
        }
        content.applied = Some(applied);
        Ok(())
    }

    fn applied(&self) -> Result<Option<End>, StorageError> {
        Ok(self.read().applied)
    }

    fn disk_bytes(&self) -> u64 {
        0
    }

    fn close(self: Box<Self>) {}
}
