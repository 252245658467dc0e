//! What a commit is to storage: keys, values and an announcement, under one stream position.

use bytes::Bytes;
use parlour_event::StreamPos;

/// One commit: everything that becomes true at one stream position, all or nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The commit's place in the stream.
    pub pos: StreamPos,
    /// What changes in the index, in order.
    pub ops: Vec<Op>,
    /// What readers of the log are told; opaque here.
    pub announcement: Bytes,
}

/// One change of the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Sets a key to a small value that is kept in the index itself.
    Put {
        /// The key.
        key: Bytes,
        /// The value.
        value: Bytes,
    },
    /// Sets a key to a small value plus a body that stays in the log; the index keeps its place.
    PutBlob {
        /// The key.
        key: Bytes,
        /// The part kept in the index.
        value: Bytes,
        /// The part kept in the log alone.
        blob: Bytes,
    },
    /// Removes a key.
    Delete {
        /// The key.
        key: Bytes,
    },
}

/// What the index says of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The part kept in the index.
    pub value: Bytes,
    /// Where the body is, if there is one.
    pub blob: Option<BlobRef>,
}

/// The place of a body in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlobRef {
    /// Number of the segment file.
    pub segment: u64,
    /// Byte offset in the segment's uncompressed content.
    pub offset: u64,
    /// Length in bytes.
    pub len: u32,
    /// CRC32C of the body, so that a body read from a damaged segment is never taken for whole.
    pub crc: u32,
}
