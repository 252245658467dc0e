//! A plain map: what every index must read like.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::{Direction, Index, IndexBatch, KeyRange, is_empty_range};

#[derive(Debug, Clone, Default)]
pub(super) struct Model(BTreeMap<Bytes, Bytes>);

impl Model {
    pub(super) fn change(&mut self, batch: &IndexBatch) {
        for (key, value) in batch.clone() {
            match value {
                Some(value) => self.0.insert(key, value),
                None => self.0.remove(&key),
            };
        }
    }

    /// Compares what an index has in a range.
    pub(super) fn check_scan(
        &self,
        index: &dyn Index,
        range: KeyRange<'_>,
        direction: Direction,
        limit: usize,
    ) {
        let expected = match is_empty_range(&range) {
            true => Vec::new(),
            false => self.0.range::<[u8], _>(range).collect(),
        };
        let expected = expected.into_iter().map(|(k, v)| (k.clone(), v.clone()));
        let expected: Vec<_> = match direction {
            Direction::Forward => expected.take(limit).collect(),
            Direction::Backward => expected.rev().take(limit).collect(),
        };
        assert_eq!(index.scan(range, direction, limit).unwrap(), expected);
    }

    /// Compares what an index has under some keys, asked for together and one by one.
    pub(super) fn check_keys(&self, index: &dyn Index, keys: impl IntoIterator<Item = Bytes>) {
        let keys: Vec<_> = keys.into_iter().collect();
        let keys: Vec<&[u8]> = keys.iter().map(|key| &key[..]).collect();
        for (key, found) in keys.iter().zip(index.multi_get(&keys).unwrap()) {
            assert_eq!(found.as_ref(), self.0.get(*key));
            assert_eq!(index.get(key).unwrap(), found);
        }
    }
}

pub(super) fn direction() -> impl Strategy<Value = Direction> {
    prop_oneof![Just(Direction::Forward), Just(Direction::Backward)]
}
