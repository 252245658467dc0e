//! The index in sled 0.34.
//!
//! What shapes this file, found by measuring 0.34.7: damage shows as an error, a panic or a loss of
//! the newest writes, at open or later; a process killed inside `open` may leave a snapshot that the
//! next one refuses; dropping a database whose flush thread has died never returns.

use std::{
    fs, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::Duration,
};

use bytes::Bytes;

use super::{APPLIED_KEY, Direction, Index, IndexBatch, IndexEngine, KeyRange};
use crate::{StorageError, log::End};

/// How often sled writes in the background; what is lost meanwhile comes back from the log.
const FLUSH_EVERY_MS: u64 = 500;
/// How long a database may take to close before it is left to itself.
const CLOSE_LIMIT: Duration = Duration::from_secs(10);

/// The file that has the data, and that a database locks while it is open.
const FILE: &str = "db";

/// sled counts its pages as they are on disk. In memory they take about so much more.
const IN_MEMORY: u64 = 2;

/// Opens indexes in sled.
#[derive(Debug, Clone, Copy, Default)]
pub struct SledEngine;

/// An index in sled.
#[derive(Debug)]
struct SledIndex {
    /// The one tree. `None` only while it is dropped.
    db: Option<::sled::Db>,
    dir: PathBuf,
    /// What it may take in memory.
    memory: u64,
}

impl IndexEngine for SledEngine {
    fn open(&self, dir: &Path, cache_bytes: u64) -> Result<Box<dyn Index>, StorageError> {
        remove_unfinished_snapshots(dir)?;
        let config = ::sled::Config::new()
            .path(dir)
            .cache_capacity(cache_bytes / IN_MEMORY)
            .flush_every_ms(Some(FLUSH_EVERY_MS));
        let db = guarded(|| config.open())?;
        Ok(Box::new(SledIndex { db: Some(db), dir: dir.to_owned(), memory: cache_bytes }))
    }

    fn set_aside(&self, dir: &Path) -> Result<(), StorageError> {
        let failed = |error| StorageError::io(format!("setting {} aside", dir.display()), error);
        let broken = |number: u8| dir.with_extension(format!("broken-{number}"));
        if !dir.try_exists().map_err(failed)? {
            return Ok(());
        }
        if broken(1).try_exists().map_err(failed)? {
            if broken(2).try_exists().map_err(failed)? {
                fs::remove_dir_all(broken(2)).map_err(failed)?;
            }
            fs::rename(broken(1), broken(2)).map_err(failed)?;
        }
        fs::rename(dir, broken(1)).map_err(failed)
    }
}

/// Removes what a process that was killed inside `open` left: sled takes it for a snapshot.
fn remove_unfinished_snapshots(dir: &Path) -> Result<(), StorageError> {
    let failed = |error| StorageError::io(format!("clearing up in {}", dir.display()), error);
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            fs::remove_file(entry.path()).map_err(failed)?;
        }
    }
    Ok(())
}

/// Runs a piece of sled and turns its panics into errors.
fn guarded<T>(work: impl FnOnce() -> ::sled::Result<T>) -> Result<T, StorageError> {
    // Nothing of ours is left half done by a panic in there; what is sled's is set aside.
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(|error| StorageError::Index(error.to_string())),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            Err(StorageError::Index(format!("sled panicked: {}", text.unwrap_or("no message"))))
        }
    }
}

fn bytes(value: &::sled::IVec) -> Bytes {
    Bytes::copy_from_slice(value)
}

impl SledIndex {
    /// Runs a piece of sled on the tree.
    fn run<T>(
        &self,
        work: impl FnOnce(&::sled::Db) -> ::sled::Result<T>,
    ) -> Result<T, StorageError> {
        let db = self.db.as_ref().ok_or_else(|| StorageError::Index("it is closed".to_owned()))?;
        guarded(|| work(db))
    }
}

impl Index for SledIndex {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        self.run(|db| Ok(db.get(key)?.as_ref().map(bytes)))
    }

    fn multi_get(&self, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, StorageError> {
        self.run(|db| keys.iter().map(|key| Ok(db.get(key)?.as_ref().map(bytes))).collect())
    }

    fn scan(
        &self,
        range: KeyRange<'_>,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StorageError> {
        let range = super::without_own_keys(range);
        if super::is_empty_range(&range) || limit == 0 {
            return Ok(Vec::new());
        }
        self.run(|db| {
            let found = db.range::<&[u8], KeyRange<'_>>(range);
            let entry = |entry: ::sled::Result<(::sled::IVec, ::sled::IVec)>| {
                entry.map(|(key, value)| (bytes(&key), bytes(&value)))
            };
            match direction {
                Direction::Forward => found.map(entry).take(limit).collect(),
                Direction::Backward => found.rev().map(entry).take(limit).collect(),
            }
        })
    }

    fn apply(&self, changes: IndexBatch, applied: End) -> Result<(), StorageError> {
        let mut batch = ::sled::Batch::default();
        for (key, value) in changes {
            match value {
                Some(value) => batch.insert(key.as_ref(), value.as_ref()),
                None => batch.remove(key.as_ref()),
            }
        }
        batch.insert(APPLIED_KEY, super::encode_applied(applied));
        self.run(|db| db.apply_batch(batch))
    }

    fn applied(&self) -> Result<Option<End>, StorageError> {
        let broken = |what: &str| Err(StorageError::Index(what.to_owned()));
        match self.run(|db| db.get(APPLIED_KEY))? {
            Some(value) => match super::decode_applied(&value) {
                Some(end) => Ok(Some(end)),
                None => broken("the applied position is unreadable"),
            },
            None if self.run(|db| db.first())?.is_some() => {
                broken("it has lost its applied position")
            }
            None => Ok(None),
        }
    }

    fn disk_bytes(&self) -> u64 {
        let size = |path: &Path| fs::metadata(path).map_or(0, |metadata| metadata.len());
        size(&self.dir.join(FILE))
    }

    fn memory_bytes(&self) -> u64 {
        // sled does not tell what it takes: so much at most.
        self.memory
    }

    fn close(self: Box<Self>) {
        drop(self);
    }
}

impl Drop for SledIndex {
    fn drop(&mut self) {
        let Some(db) = self.db.take() else { return };
        let (done, wait) = mpsc::channel();
        let lock = self.dir.join(FILE);
        let closer = thread::Builder::new().name("index-closer".to_owned()).spawn(move || {
            let closed = guarded(|| {
                db.flush()?;
                Ok(())
            });
            drop(db);
            // A thread of sled's may still hold it for a moment, and whoever opened it now would be
            // refused. It is free when its lock is.
            drop(fs::File::open(lock).and_then(|file| file.lock()));
            // Nobody may wait any more.
            drop(done.send(closed));
        });
        match closer.map(|_| wait.recv_timeout(CLOSE_LIMIT)) {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => tracing::warn!(%error, "the index did not close cleanly"),
            Ok(Err(_)) => tracing::warn!("the index did not close in time and is left open"),
            Err(error) => tracing::warn!(%error, "no thread to close the index"),
        }
    }
}
