//! The index: what it must do, and the two that do it. It can always be rebuilt from the log.

use std::{fmt, ops::Bound, path::Path};

use bytes::Bytes;

use crate::{StorageError, log::End};

pub(crate) mod blocks;
pub(crate) mod buffered;
pub(crate) mod memory;
pub(crate) mod runs;
pub(crate) mod sled;
#[cfg(test)]
#[path = "../tests/support/story.rs"]
mod story;
#[cfg(test)]
mod tests;

pub use self::{memory::MemoryEngine, sled::SledEngine};

/// The order of a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the lowest key up.
    Forward,
    /// From the highest key down.
    Backward,
}

/// Changes of the index in order: a key and its new value, or `None` if it goes. A key may occur
/// more than once; the last counts.
pub type IndexBatch = Vec<(Bytes, Option<Bytes>)>;

/// A range of keys.
pub type KeyRange<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// An ordered map of keys and values with the place in the log up to which it is complete. One
/// caller writes; any number read. Keys that begin with a byte 0 or 255 are the index's own.
pub trait Index: Send + Sync + fmt::Debug {
    /// The value of a key.
    ///
    /// # Errors
    ///
    /// [`StorageError::Index`] if the engine fails, here and below.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError>;

    /// The values of many keys.
    ///
    /// # Errors
    ///
    /// As [`Index::get`].
    fn multi_get(&self, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, StorageError>;

    /// At most `limit` keys of a range with their values.
    ///
    /// # Errors
    ///
    /// As [`Index::get`].
    fn scan(
        &self,
        range: KeyRange<'_>,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StorageError>;

    /// Carries out changes and moves the applied place, all or nothing. It need not be durable at
    /// once; after a crash the index may be an older one, but never a mixture.
    ///
    /// # Errors
    ///
    /// As [`Index::get`].
    fn apply(&self, batch: IndexBatch, applied: End) -> Result<(), StorageError>;

    /// The place in the log up to which the index is complete; `None` in an empty index.
    ///
    /// # Errors
    ///
    /// As [`Index::get`]; also if the index holds something without knowing its place.
    fn applied(&self) -> Result<Option<End>, StorageError>;

    /// Bytes on disk; an index in memory has none.
    fn disk_bytes(&self) -> u64;

    /// Bytes of memory that it takes at most at this moment; one in memory is not asked.
    fn memory_bytes(&self) -> u64 {
        0
    }

    /// Makes everything durable if possible and frees the files.
    fn close(self: Box<Self>);
}

/// Opens indexes of one kind.
pub trait IndexEngine: Send + Sync + fmt::Debug {
    /// Opens the index in this directory, or an empty one.
    ///
    /// # Errors
    ///
    /// [`StorageError::Index`] if what is there cannot be used.
    fn open(&self, dir: &Path, cache_bytes: u64) -> Result<Box<dyn Index>, StorageError>;

    /// Puts aside what is in the directory, so that the next open begins with an empty index. At
    /// most two broken ones are kept.
    ///
    /// # Errors
    ///
    /// [`StorageError::Io`].
    fn set_aside(&self, dir: &Path) -> Result<(), StorageError>;
}

/// The key of the applied place.
pub(crate) const APPLIED_KEY: &[u8] = b"\0applied";

pub(crate) fn encode_applied(end: End) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(16);
    bytes.extend_from_slice(&end.pos.0.to_le_bytes());
    bytes.extend_from_slice(&end.chain.to_le_bytes());
    let crc = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

pub(crate) fn decode_applied(bytes: &[u8]) -> Option<End> {
    let (value, crc) = bytes.split_last_chunk::<4>()?;
    let (pos, chain) = value.split_first_chunk::<8>()?;
    let chain = u32::from_le_bytes(chain.try_into().ok()?);
    let pos = parlour_event::StreamPos(u64::from_le_bytes(*pos));
    (crc32c::crc32c(value) == u32::from_le_bytes(*crc)).then_some(End { pos, chain })
}

/// Whether a range can hold any key. Sorted maps panic on some that cannot.
pub(crate) fn is_empty_range(range: &KeyRange<'_>) -> bool {
    match range {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        (Bound::Included(low), Bound::Included(high)) => low > high,
        (
            Bound::Included(low) | Bound::Excluded(low),
            Bound::Included(high) | Bound::Excluded(high),
        ) => low >= high,
    }
}

/// The range without the index's own keys.
pub(crate) fn without_own_keys<'a>(range: KeyRange<'a>) -> KeyRange<'a> {
    match range.0 {
        Bound::Included(low) | Bound::Excluded(low) if low >= [1].as_slice() => range,
        _ => (Bound::Included(&[1]), range.1),
    }
}

/// A bound of keys that are kept.
pub(crate) fn to_owned(bound: Bound<&[u8]>) -> Bound<Bytes> {
    bound.map(Bytes::copy_from_slice)
}

pub(crate) fn borrow<K: AsRef<[u8]>>(bound: &Bound<K>) -> Bound<&[u8]> {
    bound.as_ref().map(AsRef::as_ref)
}

/// Whether a range holds a key.
pub(crate) fn is_in((low, high): KeyRange<'_>, key: &[u8]) -> bool {
    let above = match low {
        Bound::Included(low) => key >= low,
        Bound::Excluded(low) => key > low,
        Bound::Unbounded => true,
    };
    above
        && match high {
            Bound::Included(high) => key <= high,
            Bound::Excluded(high) => key < high,
            Bound::Unbounded => true,
        }
}

/// The range of all keys that begin with a prefix. The bytes of its end are kept in `end`.
pub(crate) fn prefix_range<'a>(prefix: &'a [u8], end: &'a mut Vec<u8>) -> KeyRange<'a> {
    end.extend_from_slice(prefix);
    while end.last() == Some(&u8::MAX) {
        end.pop();
    }
    match end.last_mut() {
        None => (Bound::Included(prefix), Bound::Unbounded),
        Some(last) => {
            *last += 1;
            (Bound::Included(prefix), Bound::Excluded(end))
        }
    }
}
