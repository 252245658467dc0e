//! What can go wrong in storage.

use parlour_event::StreamPos;

/// An error of the log or the index.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The operating system refused a read or a write.
    #[error("{what}: {source}")]
    Io {
        /// What was being done, with the path.
        what: String,
        /// The reason.
        source: std::io::Error,
    },
    /// A log record other than a torn last one does not fit its checksum.
    #[error(
        "the event log is damaged: segment {segment}, byte {offset} (after stream position \
         {after}): {what}. Run `parlour repair` to see what can be saved, or restore a backup"
    )]
    Damaged {
        /// Number of the segment file.
        segment: u64,
        /// Byte offset of the bad record in it.
        offset: u64,
        /// The last stream position before it that is whole.
        after: StreamPos,
        /// What does not fit.
        what: String,
    },
    /// The index engine failed; the log can rebuild it.
    #[error("the index failed: {0}. It is rebuilt from the log at the next start")]
    Index(String),
    /// A value in the index is not what its key says that it is.
    #[error("the index holds an unreadable value for {key}: {what}")]
    Value {
        /// The key, readable.
        key: String,
        /// What does not fit.
        what: String,
    },
    /// Another process (or another instance in this one) uses the directory.
    #[error("{dir} is in use by another process. Only one may have it open at a time")]
    Locked {
        /// The data directory.
        dir: String,
    },
    /// What was asked for is outside the limits of storage, or not possible here.
    #[error("refused: {0}")]
    Refused(String),
    /// An earlier write failed; nothing more is accepted until a restart.
    #[error("storage stopped accepting writes after an earlier failure: {0}")]
    Stopped(String),
}

impl StorageError {
    /// An I/O error with what was being done.
    pub(crate) fn io(what: impl Into<String>, source: std::io::Error) -> Self {
        Self::Io { what: what.into(), source }
    }
}
