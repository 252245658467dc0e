//! How a store is opened.

use std::{fmt, path::PathBuf, sync::Arc};

use crate::{
    IndexEngine, Progress, SledEngine,
    fs::{FileSystem, RealFiles},
    log::file::MonotonicClock,
    progress::Quiet,
};

/// Bytes of a segment before the next one begins.
pub const DEFAULT_SEGMENT_BYTES: u64 = 64 << 20;
/// Bytes of cache for the index and the log together.
pub const DEFAULT_CACHE_BYTES: u64 = 64 << 20;
/// Bytes of the log and of the index that are checked at a start.
pub const DEFAULT_VERIFY_BYTES: u64 = 64 << 20;

/// How a store is opened. [`StoreOptions::new`] has sensible values for everything.
#[derive(Clone)]
pub struct StoreOptions {
    /// The data directory: holds `log/`, `index/` and the lock.
    pub dir: PathBuf,
    /// Bytes of cache: six eighths for the index, one for bodies from packed segments, one for events
    /// as they are read. sled takes about 160 bytes per thousand bytes of index on top.
    pub cache_bytes: u64,
    /// Bytes of a log segment before the next one begins and it is packed.
    pub segment_bytes: u64,
    /// How much is checked at a start: packed segments from the newest on until this many bytes,
    /// and the whole index if its files are not larger. Segments that are not packed yet are always
    /// checked, and everything is checked when it is read.
    pub verify_bytes: u64,
    /// The index engine.
    pub index: Arc<dyn IndexEngine>,
    /// The file system under the log. The index does not use it.
    pub files: Arc<dyn FileSystem>,
    /// Is told how far the start is.
    pub progress: Option<Arc<dyn Progress>>,
    /// For the figures in [`crate::CommitTimings`], which are zero without one.
    pub clock: Option<MonotonicClock>,
}

impl StoreOptions {
    /// A store in this directory, with sled.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            cache_bytes: DEFAULT_CACHE_BYTES,
            segment_bytes: DEFAULT_SEGMENT_BYTES,
            verify_bytes: DEFAULT_VERIFY_BYTES,
            index: Arc::new(SledEngine),
            files: Arc::new(RealFiles),
            progress: None,
            clock: None,
        }
    }

    /// Where the log is.
    pub(crate) fn log_dir(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// Where the index is.
    pub(crate) fn index_dir(&self) -> PathBuf {
        self.dir.join("index")
    }

    pub(crate) fn progress(&self) -> &dyn Progress {
        self.progress.as_deref().unwrap_or(&Quiet)
    }
}

impl fmt::Debug for StoreOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreOptions")
            .field("dir", &self.dir)
            .field("cache_bytes", &self.cache_bytes)
            .field("segment_bytes", &self.segment_bytes)
            .field("verify_bytes", &self.verify_bytes)
            .field("index", &self.index)
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}
