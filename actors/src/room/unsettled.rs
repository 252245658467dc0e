//! What commits that are not durable yet change in the index, in front of what is stored.
//!
//! The room computes ahead of the disk. Where a step counts on from what an earlier one has
//! counted, it must see that, although storage does not have it yet.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    ops::Bound,
};

use bytes::Bytes;
use parlour_storage::{Direction, Op, StorageError, Store};

/// By key what commits make of it, the newest last; `None` if it goes.
#[derive(Debug, Default)]
pub(crate) struct Unsettled(BTreeMap<Bytes, Vec<(u64, Option<Bytes>)>>);

impl Unsettled {
    /// Notes what a commit changes; says which keys that are.
    pub(crate) fn note(&mut self, seq: u64, ops: &[Op]) -> Vec<Bytes> {
        let changes = ops.iter().map(|op| match op {
            Op::Put { key, value } | Op::PutBlob { key, value, .. } => (key, Some(value.clone())),
            Op::Delete { key } => (key, None),
        });
        let noted = changes.map(|(key, value)| {
            self.0.entry(key.clone()).or_default().push((seq, value));
            key.clone()
        });
        noted.collect()
    }

    /// Storage has what this commit has changed, or the commit has been taken back.
    pub(crate) fn settled(&mut self, seq: u64, keys: &[Bytes]) {
        for key in keys {
            let Entry::Occupied(mut changes) = self.0.entry(key.clone()) else { continue };
            changes.get_mut().retain(|(of, _)| *of != seq);
            if changes.get().is_empty() {
                changes.remove();
            }
        }
    }

    /// What the newest change makes of a key, if it is to change.
    fn newest(&self, key: &[u8]) -> Option<&Option<Bytes>> {
        self.0.get(key).and_then(|changes| changes.last()).map(|(_, value)| value)
    }

    /// The value of a key.
    pub(crate) fn get(&self, store: &Store, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        match self.newest(key) {
            Some(value) => Ok(value.clone()),
            None => Ok(store.get(key)?.map(|entry| entry.value)),
        }
    }

    /// Whether there are any keys that begin with a prefix.
    pub(crate) fn has_any(&self, store: &Store, prefix: &[u8]) -> Result<bool, StorageError> {
        let own = self.0.range::<[u8], _>((Bound::Included(prefix), Bound::Unbounded));
        let own: Vec<_> =
            own.map(|(key, _)| key).take_while(|key| key.starts_with(prefix)).collect();
        if own.iter().any(|key| self.newest(key).is_some_and(Option::is_some)) {
            return Ok(true);
        }
        // So many of the stored keys at most are known to go.
        let stored = store.scan_prefix(prefix, Direction::Backward, own.len().saturating_add(1))?;
        Ok(stored.iter().any(|(key, _)| !self.0.contains_key(key)))
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
        let has_any = |unsettled: &Unsettled, prefix: &str| {
            unsettled.has_any(&store, prefix.as_bytes()).expect("readable")
        };
        assert_eq!(get(&unsettled, "k1").as_deref(), Some(&b"three"[..]));
        assert_eq!(get(&unsettled, "k2"), None);
        assert!(has_any(&unsettled, "k"));
        assert!(!has_any(&unsettled, "k2"));
        // One that is taken back uncovers what was before it.
        let third = unsettled.note(3, &[Op::Delete { key: "k1".into() }]);
        assert!(!has_any(&unsettled, "k"));
        unsettled.settled(3, &third);
        assert_eq!(get(&unsettled, "k1").as_deref(), Some(&b"three"[..]));
        unsettled.settled(1, &first);
        assert_eq!(get(&unsettled, "k1").as_deref(), Some(&b"three"[..]));
        unsettled.settled(2, &second);
        assert!(unsettled.0.is_empty());
    }
}
