//! What stands in the engine, and under which keys.
//!
//! | key | value |
//! |---|---|
//! | `m` | [`Manifest`] |
//! | `j`, number | a piece of the journal: changes in the order in which they came |
//! | `r`, run, `b`, first key | a block of a run: changes in the order of their keys |
//! | `r`, run, `f`, number | a piece of the run's filter |
//!
//! All of them begin with [`OWN`]; numbers are big-endian.
//!
//! ```text
//! change = length of the key, the key, 0 if it goes, else 1 + the length of its value, its value
//! ```

use std::ops::Bound;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    super::{IndexBatch, KeyRange, prefix_range},
    merge::Change,
};
use crate::{
    StorageError,
    codec::{self, Reader},
};

/// The first byte of all keys in this file.
pub(crate) const OWN: u8 = u8::MAX;

/// Says which of the runs and pieces in the engine count. What is not in it is left of something
/// that was not finished.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    /// The first piece of the journal that is in no run.
    pub(super) journal: u64,
    /// The runs, the newest first.
    pub(super) runs: Vec<RunMeta>,
}

/// A run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RunMeta {
    pub(super) number: u64,
    /// How often its changes have been merged. Never less than that of a newer run.
    pub(super) level: u8,
    pub(super) changes: u64,
}

/// A range of the engine's keys, the end excluded.
#[derive(Debug, Clone)]
pub(super) struct Span {
    pub(super) begin: Vec<u8>,
    pub(super) end: Vec<u8>,
}

impl Span {
    fn of_prefix(begin: Vec<u8>) -> Self {
        let mut end = Vec::with_capacity(begin.len());
        prefix_range(&begin, &mut end);
        Self { begin, end }
    }

    pub(super) fn range(&self) -> KeyRange<'_> {
        (Bound::Included(&self.begin), Bound::Excluded(&self.end))
    }
}

pub(super) const MANIFEST: &[u8] = &[OWN, b'm'];

fn numbered(kind: u8, number: u64) -> Vec<u8> {
    let mut key = Vec::with_capacity(64);
    key.extend([OWN, kind]);
    key.extend(number.to_be_bytes());
    key
}

/// The number in the key of a piece of the journal, or of anything of a run.
pub(super) fn number_of(key: &[u8]) -> Option<u64> {
    key.get(2..)?.first_chunk().map(|number| u64::from_be_bytes(*number))
}

pub(super) fn piece_key(number: u64) -> Vec<u8> {
    numbered(b'j', number)
}

/// The pieces of the journal between two numbers, the second excluded.
pub(super) fn journal(from: u64, to: u64) -> Span {
    Span { begin: piece_key(from), end: piece_key(to) }
}

/// All of the journal from a number on.
pub(super) fn journal_from(number: u64) -> Span {
    Span { begin: piece_key(number), end: vec![OWN, b'j' + 1] }
}

/// All runs from a number on.
pub(super) fn runs_from(number: u64) -> Span {
    Span { begin: numbered(b'r', number), end: vec![OWN, b'r' + 1] }
}

/// Everything of a run.
pub(super) fn run(number: u64) -> Span {
    Span::of_prefix(numbered(b'r', number))
}

/// The blocks of a run.
pub(super) fn blocks(run: u64) -> Span {
    Span::of_prefix(block_key(run, &[]))
}

/// The key of the block that begins with a key.
pub(super) fn block_key(run: u64, first: &[u8]) -> Vec<u8> {
    let mut key = numbered(b'r', run);
    key.push(b'b');
    key.extend_from_slice(first);
    key
}

/// The pieces of a run's filter.
pub(super) fn filter(run: u64) -> Span {
    let mut key = numbered(b'r', run);
    key.push(b'f');
    Span::of_prefix(key)
}

pub(super) fn filter_key(run: u64, piece: u32) -> Vec<u8> {
    let mut key = filter(run).begin;
    key.extend(piece.to_be_bytes());
    key
}

impl Manifest {
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, StorageError> {
        postcard::from_bytes(bytes)
            .map_err(|error| StorageError::Index(format!("its list of runs: {error}")))
    }

    pub(super) fn encode(&self) -> Result<IndexBatch, StorageError> {
        let bytes = postcard::to_allocvec(self)
            .map_err(|error| StorageError::Index(format!("its list of runs: {error}")))?;
        Ok(vec![(Bytes::from_static(MANIFEST), Some(bytes.into()))])
    }
}

/// Adds a change to a block or piece.
pub(super) fn put_change(block: &mut Vec<u8>, key: &[u8], value: Option<&[u8]>) {
    codec::put_varint(block, key.len() as u64);
    block.extend_from_slice(key);
    match value {
        Some(value) => {
            codec::put_varint(block, 1 + value.len() as u64);
            block.extend_from_slice(value);
        }
        None => block.push(0),
    }
}

/// The changes of a block or piece.
pub(super) fn changes(block: &Bytes) -> Result<Vec<Change>, StorageError> {
    let mut changes = Vec::with_capacity(block.len() / 32);
    walk(block, |key, value| {
        changes.push((block.slice_ref(key), value()));
        true
    })?;
    Ok(changes)
}

/// What a block says of a key.
pub(super) fn find(block: &Bytes, wanted: &[u8]) -> Result<Option<Option<Bytes>>, StorageError> {
    let mut found = None;
    walk(block, |key, value| {
        if key == wanted {
            found = Some(value());
        }
        key < wanted
    })?;
    Ok(found)
}

/// Visits the changes of a block until it is told that this is enough.
fn walk(
    block: &Bytes,
    mut visit: impl FnMut(&[u8], &dyn Fn() -> Option<Bytes>) -> bool,
) -> Result<(), StorageError> {
    let bad = |what: String| StorageError::Index(format!("a run makes no sense: {what}"));
    let mut reader = Reader { bytes: block, at: 0 };
    while reader.at < block.len() {
        let key = reader.span().map_err(bad)?;
        let value = match reader.varint().map_err(bad)? {
            0 => None,
            len => Some(reader.take(len - 1).map_err(bad)?),
        };
        let key = block.get(key).unwrap_or_default();
        if !visit(key, &|| value.clone().map(|value| block.slice(value))) {
            break;
        }
    }
    Ok(())
}
