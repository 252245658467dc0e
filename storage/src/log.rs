//! The event log: what it must do, and the two that do it.

use std::{fmt, time::Duration};

use bytes::Bytes;
use parlour_event::StreamPos;

use crate::{BlobRef, Record, StorageError, codec::Place};

pub(crate) mod file;
pub(crate) mod format;
pub(crate) mod memory;
pub(crate) mod open;
pub(crate) mod pack;
pub(crate) mod scan;
pub(crate) mod segment;

/// How far a log reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct End {
    /// The last position; 0 in an empty log.
    pub pos: StreamPos,
    /// The checksum of that record. Each record carries that of the one before, so two logs that
    /// agree here agree on everything before.
    pub chain: u32,
}

/// Where a record went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// Number of the segment.
    pub segment: u64,
    /// Offset of the payload in the segment's uncompressed content, in bytes.
    pub offset: u64,
    /// For each operation, where its value and blob begin in the payload.
    pub places: Vec<Place>,
}

/// A record with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// The record.
    pub record: Record,
    /// Its checksum.
    pub chain: u32,
    /// Where it is.
    pub placement: Placement,
}

/// What an append did.
#[derive(Debug, Clone, Default)]
pub struct Appended {
    /// Where the records went, one by one.
    pub placements: Vec<Placement>,
    /// How far the log reaches now.
    pub end: End,
    /// Time that the write took; zero without a clock.
    pub write: Duration,
    /// Time that the flush to disk took; zero without a clock.
    pub flush: Duration,
}

/// Records in order.
pub type Replay = Box<dyn Iterator<Item = Result<Located, StorageError>> + Send>;

/// An append-only log of records with gap-free positions. One caller appends; any number read.
pub trait Log: Send + Sync + fmt::Debug {
    /// How far the log reaches: everything up to here is durable.
    fn end(&self) -> End;

    /// Appends records. When this returns `Ok`, they are durable, all of them; when it returns an
    /// error, none of them counts.
    ///
    /// # Errors
    ///
    /// [`StorageError::Io`] if nothing was written and another try may succeed,
    /// [`StorageError::Stopped`] once it is not known any more what is on disk.
    fn append(&self, records: &[Record]) -> Result<Appended, StorageError>;

    /// Reads a body.
    ///
    /// # Errors
    ///
    /// [`StorageError::Damaged`] if it is not what was written, [`StorageError::Io`].
    fn blob(&self, place: &BlobRef) -> Result<Bytes, StorageError>;

    /// The records after this position, up to the end at the time of the call.
    ///
    /// # Errors
    ///
    /// [`StorageError::Io`]; damage is reported by the iterator, which ends with it.
    fn replay(&self, after: StreamPos) -> Result<Replay, StorageError>;

    /// Bytes of memory that the cache of bodies takes; one in memory is not asked.
    fn memory_bytes(&self) -> u64 {
        0
    }

    /// Stops what runs in the background. Reading stays possible.
    fn close(&self);
}
