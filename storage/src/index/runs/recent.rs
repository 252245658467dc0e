//! The newest changes, in memory and in no run yet.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{PoisonError, RwLock, RwLockReadGuard},
};

use bytes::Bytes;

use super::{
    super::{Direction, KeyRange, borrow, is_empty_range, to_owned},
    merge::{Change, Source},
};

/// What a change takes besides its key and value: its share of the tree, and what the allocator
/// rounds up.
const OVERHEAD: usize = 80;

/// How many changes are copied at once.
const PAGE: usize = 256;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Recent {
    content: RwLock<Content>,
}

#[derive(Debug, Default)]
struct Content {
    /// `None` for a key that goes. Boxes, since [`Bytes`] would take half as much again.
    changes: BTreeMap<Box<[u8]>, Option<Box<[u8]>>>,
    bytes: usize,
}

impl Recent {
    fn read(&self) -> RwLockReadGuard<'_, Content> {
        self.content.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest change of a key.
    pub(super) fn get(&self, key: &[u8]) -> Option<Option<Bytes>> {
        let content = self.read();
        content.changes.get(key).map(|value| value.as_deref().map(Bytes::copy_from_slice))
    }

    /// Takes changes, in their order.
    pub(super) fn extend<'c>(&self, changes: impl Iterator<Item = &'c Change>) {
        let mut content = self.content.write().unwrap_or_else(PoisonError::into_inner);
        for (key, value) in changes {
            let value: Option<Box<[u8]>> = value.as_deref().map(Box::from);
            content.bytes += OVERHEAD + key.len() + value.as_deref().map_or(0, <[u8]>::len);
            if let Some(old) = content.changes.insert(key[..].into(), value) {
                content.bytes -= OVERHEAD + key.len() + old.as_deref().map_or(0, <[u8]>::len);
            }
        }
    }

    /// How many changes there are.
    pub(super) fn len(&self) -> u64 {
        self.read().changes.len() as u64
    }

    /// Bytes of memory.
    pub(super) fn bytes(&self) -> usize {
        self.read().bytes
    }

    /// The changes of a range.
    pub(super) fn source<'a>(&'a self, range: KeyRange<'_>, direction: Direction) -> Source<'a> {
        let (mut low, mut high) = (to_owned(range.0), to_owned(range.1));
        Source::new(move || {
            let page = self.page((borrow(&low), borrow(&high)), direction);
            let Some((last, _)) = page.last() else { return Ok(None) };
            match direction {
                Direction::Forward => low = Bound::Excluded(last.clone()),
                Direction::Backward => high = Bound::Excluded(last.clone()),
            }
            Ok(Some(page))
        })
    }

    fn page(&self, range: KeyRange<'_>, direction: Direction) -> Vec<Change> {
        if is_empty_range(&range) {
            return Vec::new();
        }
        let content = self.read();
        let found = content.changes.range::<[u8], _>(range).map(|(key, value)| {
            (Bytes::copy_from_slice(key), value.as_deref().map(Bytes::copy_from_slice))
        });
        match direction {
            Direction::Forward => found.take(PAGE).collect(),
            Direction::Backward => found.rev().take(PAGE).collect(),
        }
    }
}
