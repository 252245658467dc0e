//! Changes from several places in one order, of which the newest of a key counts.

use std::{
    cmp::Ordering,
    collections::{BinaryHeap, binary_heap::PeekMut},
    mem, vec,
};

use bytes::Bytes;

use super::super::Direction;
use crate::StorageError;

/// A key with its value, or `None` if it goes.
pub(super) type Change = (Bytes, Option<Bytes>);

type Page = Result<Option<Vec<Change>>, StorageError>;

/// Changes in the order of their keys, each key once, fetched a page at a time.
pub(super) struct Source<'a> {
    page: vec::IntoIter<Change>,
    fetch: Box<dyn FnMut() -> Page + 'a>,
}

impl<'a> Source<'a> {
    /// `fetch` gives the next page, `None` at the end.
    pub(super) fn new(fetch: impl FnMut() -> Page + 'a) -> Self {
        Self { page: Vec::new().into_iter(), fetch: Box::new(fetch) }
    }

    fn next(&mut self) -> Result<Option<Change>, StorageError> {
        loop {
            if let Some(change) = self.page.next() {
                return Ok(Some(change));
            }
            match (self.fetch)()? {
                Some(page) => self.page = page.into_iter(),
                None => return Ok(None),
            }
        }
    }
}

/// See the module.
pub(super) struct Merged<'a> {
    sources: Vec<Source<'a>>,
    heads: BinaryHeap<Head>,
}

/// The next change of a source. The greatest is the one that comes first.
struct Head {
    change: Change,
    source: usize,
    direction: Direction,
}

impl<'a> Merged<'a> {
    /// Merges sources, the newest first, that go in this direction.
    pub(super) fn new(
        mut sources: Vec<Source<'a>>,
        direction: Direction,
    ) -> Result<Self, StorageError> {
        let mut heads = BinaryHeap::with_capacity(sources.len());
        for (source, changes) in sources.iter_mut().enumerate() {
            heads.extend(changes.next()?.map(|change| Head { change, source, direction }));
        }
        Ok(Self { sources, heads })
    }

    /// The newest change of the next key.
    pub(super) fn next(&mut self) -> Result<Option<Change>, StorageError> {
        let Some(newest) = self.pop()? else { return Ok(None) };
        while self.heads.peek().is_some_and(|head| head.change.0 == newest.0) {
            self.pop()?;
        }
        Ok(Some(newest))
    }

    fn pop(&mut self) -> Result<Option<Change>, StorageError> {
        let Some(mut head) = self.heads.peek_mut() else { return Ok(None) };
        let source = self.sources.get_mut(head.source);
        Ok(Some(match source.map(Source::next).transpose()?.flatten() {
            Some(next) => mem::replace(&mut head.change, next),
            None => PeekMut::pop(head).change,
        }))
    }
}

impl Ord for Head {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_key = match self.direction {
            Direction::Forward => other.change.0.cmp(&self.change.0),
            Direction::Backward => self.change.0.cmp(&other.change.0),
        };
        by_key.then(other.source.cmp(&self.source))
    }
}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Head {}
