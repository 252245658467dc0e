//! What commits that are not durable yet change in the index, in front of what is stored.
//!
//! The room computes ahead of the disk. Where a step counts on from what an earlier one has
//! counted, it must see that, although storage does not have it yet.

use std::{collections::BTreeMap, ops::Bound};

use bytes::Bytes;
use parlour_storage::{Direction, Op, StorageError, Store};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Unsettled(BTreeMap<Bytes, (u64, Option<Bytes>)>);

impl Unsettled {
    /// Notes what a commit changes; says which keys that are.
    pub(crate) fn note(&mut self, seq: u64, ops: &[Op]) -> Vec<Bytes> {
        let changes = ops.iter().map(|op| match op {
            Op::Put { key, value } | Op::PutBlob { key, value, .. } => (key, Some(value.clone())),
            Op::Delete { key } => (key, None),
        });
        let noted = changes.map(|(key, value)| {
            self.0.insert(key.clone(), (seq, value));
            key.clone()
        });
        noted.collect()
    }

    /// Storage has what this commit has changed.
    pub(crate) fn settled(&mut self, seq: u64, keys: &[Bytes]) {
        for key in keys {
            if self.0.get(key).is_some_and(|(newest, _)| *newest == seq) {
                self.0.remove(key);
            }
        }
    }

    /// The value of a key.
    pub(crate) fn get(&self, store: &Store, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        match self.0.get(key) {
            Some((_, value)) => Ok(value.clone()),
            None => Ok(store.get(key)?.map(|entry| entry.value)),
        }
    }

    /// The last key that begins with a prefix, apart from one.
    pub(crate) fn last(
        &self,
        store: &Store,
        prefix: &[u8],
        without: &[u8],
    ) -> Result<Option<Bytes>, StorageError> {
        let own = (self.0)
            .range::<[u8], _>((Bound::Included(prefix), Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix));
        let own: Vec<_> = own.map(|(key, (_, value))| (key, value.is_some())).collect();
        // So many of the stored keys at most are known to go.
        let limit = own.len().saturating_add(2);
        let stored = store.scan_prefix(prefix, Direction::Backward, limit)?;
        let stays = |key: &[u8]| key != without && !self.0.contains_key(key);
        let stored = stored.into_iter().map(|(key, _)| key).find(|key| stays(key));
        let own =
            own.into_iter().filter(|(key, there)| *there && *key != without).map(|(key, _)| key);
        Ok(own.cloned().chain(stored).max())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_change_counts_until_it_is_settled() {
        let (store, _writer) = Store::in_memory();
        let mut unsettled = Unsettled::default();
        let put = |key: &'static str, value: &'static str| Op::Put {
            key: Bytes::from(key),
            value: Bytes::from(value),
        };
        let first = unsettled.note(1, &[put("k1", "one"), put("k2", "two")]);
        let second = unsettled.note(2, &[put("k1", "three"), Op::Delete { key: "k2".into() }]);
        let get = |unsettled: &Unsettled, key: &str| {
            unsettled.get(&store, key.as_bytes()).expect("readable")
        };
        let last = |unsettled: &Unsettled, without: &str| {
            unsettled.last(&store, b"k", without.as_bytes()).expect("readable")
        };
        assert_eq!(get(&unsettled, "k1").as_deref(), Some(&b"three"[..]));
        assert_eq!(get(&unsettled, "k2"), None);
        assert_eq!(last(&unsettled, "").as_deref(), Some(&b"k1"[..]));
        assert_eq!(last(&unsettled, "k1"), None);
        unsettled.settled(1, &first);
        assert_eq!(get(&unsettled, "k1").as_deref(), Some(&b"three"[..]));
        unsettled.settled(2, &second);
        assert!(unsettled.0.is_empty());
    }
}
