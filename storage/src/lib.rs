//! Where Parlour keeps what must not be lost: the event log and its index.
//!
//! The **log** (append-only segment files) is the truth. The **index** (sled) can always be rebuilt
//! from it. A commit counts once its log record is on disk; only then is it applied to the index.

mod backup;
mod codec;
mod error;
mod events;
pub mod faults;
pub mod fs;
mod index;
pub mod key_file;
mod log;
mod options;
mod progress;
mod record;
mod recover;
mod repair;
pub mod schema;
mod store;

pub use backup::{BackupReport, ReindexReport, backup, reindex, restore};
pub use codec::Place;
pub use error::StorageError;
pub use index::{Direction, Index, IndexBatch, IndexEngine, KeyRange, MemoryEngine, SledEngine};
pub use log::{
    Appended, End, Located, Log, Placement, Replay, file::MonotonicClock, memory::MemoryLog,
};
pub use options::{DEFAULT_CACHE_BYTES, DEFAULT_SEGMENT_BYTES, DEFAULT_VERIFY_BYTES, StoreOptions};
pub use progress::{Progress, Quiet};
pub use record::{BlobRef, Entry, Op, Record};
pub use recover::Recovery;
pub use repair::{Loss, RepairMode, RepairReport, repair};
pub use store::{CommitTimings, Store, Writer};
