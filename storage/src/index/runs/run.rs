//! A sorted run: how it is read, and how it is written.

use std::{ops::Bound, sync::Arc};

use bytes::Bytes;

use super::{
    super::{Direction, Index, IndexBatch, KeyRange, borrow, is_in, to_owned},
    filter::{Filter, Fingerprint},
    layout::{self, RunMeta, block_key},
    merge::Source,
};
use crate::StorageError;

/// A run as readers know it.
#[derive(Debug, Clone)]
pub(super) struct Run {
    /// Shared by whoever reads in the run: it is not removed from the engine before they have let
    /// go of it.
    pub(super) meta: Arc<RunMeta>,
    /// Without one the run is looked at for every key.
    pub(super) filter: Option<Arc<Filter>>,
}

impl Run {
    pub(super) fn new(meta: RunMeta, filter: Option<Filter>) -> Self {
        Self { meta: Arc::new(meta), filter: filter.map(Arc::new) }
    }

    pub(super) fn filter_bytes(&self) -> u64 {
        self.filter.as_ref().map_or(0, |filter| filter.bytes())
    }

    /// What is written into the engine beside the run's blocks.
    pub(super) fn filter_pieces(&self) -> impl Iterator<Item = (Bytes, Option<Bytes>)> {
        let pieces = self.filter.iter().flat_map(|filter| filter.pieces());
        let key = |piece| layout::filter_key(self.meta.number, piece).into();
        (0..).zip(pieces).map(move |(number, piece)| (key(number), Some(piece)))
    }

    /// What the run says of a key, if it says anything.
    pub(super) fn get(
        &self,
        engine: &dyn Index,
        key: &[u8],
        fingerprint: Fingerprint,
    ) -> Result<Option<Option<Bytes>>, StorageError> {
        if self.filter.as_ref().is_some_and(|filter| !filter.may_have(fingerprint)) {
            return Ok(None);
        }
        let (begin, at) = (block_key(self.meta.number, &[]), block_key(self.meta.number, key));
        let range = (Bound::Included(&begin[..]), Bound::Included(&at[..]));
        match engine.scan(range, Direction::Backward, 1)?.pop() {
            Some((_, block)) => layout::find(&block, key),
            None => Ok(None),
        }
    }
}

/// The changes of a range in a run.
pub(super) fn source<'a>(
    engine: &'a dyn Index,
    run: u64,
    range: KeyRange<'_>,
    direction: Direction,
) -> Result<Source<'a>, StorageError> {
    let all = layout::blocks(run);
    let wanted = (to_owned(range.0), to_owned(range.1));
    let mut high = match range.1 {
        Bound::Included(key) => Bound::Included(block_key(run, key)),
        Bound::Excluded(key) => Bound::Excluded(block_key(run, key)),
        Bound::Unbounded => Bound::Excluded(all.end),
    };
    // The block that reaches into the range from below.
    let first = match range.0 {
        Bound::Included(key) | Bound::Excluded(key) => {
            let at = block_key(run, key);
            let below = (Bound::Included(&all.begin[..]), Bound::Included(&at[..]));
            engine.scan(below, Direction::Backward, 1)?.pop()
        }
        Bound::Unbounded => None,
    };
    let mut low = Bound::Included(first.map_or(all.begin, |(key, _)| key.to_vec()));
    Ok(Source::new(move || {
        let range = (borrow(&low), borrow(&high));
        // One block at a time: sled only notices how much is in its cache when it is asked often.
        let Some((key, block)) = engine.scan(range, direction, 1)?.pop() else { return Ok(None) };
        match direction {
            Direction::Forward => low = Bound::Excluded(key.to_vec()),
            Direction::Backward => high = Bound::Excluded(key.to_vec()),
        }
        let mut page = layout::changes(&block)?;
        let wanted = (borrow(&wanted.0), borrow(&wanted.1));
        page.retain(|(key, _)| is_in(wanted, key));
        if direction == Direction::Backward {
            page.reverse();
        }
        Ok(Some(page))
    }))
}

/// Collects what a new run puts into the engine.
pub(super) struct RunWriter {
    meta: RunMeta,
    filter: Option<Filter>,
    block_bytes: usize,
    first: Option<Bytes>,
    block: Vec<u8>,
    batch: IndexBatch,
}

impl RunWriter {
    pub(super) fn new(number: u64, level: u8, filter: Option<Filter>, block_bytes: usize) -> Self {
        let meta = RunMeta { number, level, changes: 0 };
        let block = Vec::with_capacity(block_bytes + block_bytes / 4);
        Self { meta, filter, block_bytes, first: None, block, batch: IndexBatch::new() }
    }

    /// Adds the change that follows in the order of keys.
    pub(super) fn add(&mut self, key: &Bytes, value: Option<&[u8]>) {
        if let Some(filter) = &mut self.filter {
            filter.add(Fingerprint::of(key));
        }
        self.first.get_or_insert_with(|| key.clone());
        layout::put_change(&mut self.block, key, value);
        self.meta.changes += 1;
        if self.block.len() >= self.block_bytes {
            self.end_block();
        }
    }

    fn end_block(&mut self) {
        if let Some(first) = self.first.take() {
            let block = Bytes::copy_from_slice(&self.block);
            self.batch.push((block_key(self.meta.number, &first).into(), Some(block)));
            self.block.clear();
        }
    }

    /// What can be written, if that is so many blocks or more.
    pub(super) fn take(&mut self, blocks: usize) -> Option<IndexBatch> {
        (self.batch.len() >= blocks).then(|| std::mem::take(&mut self.batch))
    }

    /// The rest of the blocks, and the run, if there is anything in it.
    pub(super) fn finish(mut self) -> Option<(IndexBatch, Run)> {
        if self.meta.changes == 0 {
            return None;
        }
        self.end_block();
        Some((self.batch, Run::new(self.meta, self.filter)))
    }
}

/// Reads the filter of a run, if it has one.
pub(super) fn read_filter(engine: &dyn Index, run: u64) -> Result<Option<Filter>, StorageError> {
    let pieces = engine.scan(layout::filter(run).range(), Direction::Forward, usize::MAX)?;
    Filter::from_pieces(pieces.into_iter().map(|(_, piece)| piece))
}
