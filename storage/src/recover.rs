//! The start: the log is opened, and the index brought up to it, or rebuilt from it.

use std::{
    collections::BTreeMap,
    fs, io,
    ops::Bound,
    path::Path,
    sync::{RwLock, atomic::AtomicU64},
};

use bytes::Bytes;
use parlour_event::StreamPos;

use crate::{
    Direction, Index, Log, Progress, StorageError, StoreOptions,
    backup::remove_index,
    events::EventCache,
    index::{
        IndexBatch,
        blocks::BlockIndex,
        buffered::BufferedIndex,
        runs::{Limits, RunIndex},
    },
    log::{
        End,
        file::{FileLog, FileLogOptions},
    },
    schema::keys,
    store::{Shared, add_located},
};

/// Which part of the index's memory is for keys without order: what gathers, and filters.
const RUNS_PART: u64 = 3;
/// Operations that are applied to the index at once while it is brought up to the log.
const REPLAY_OPS: usize = 4096;
/// Bytes likewise.
const REPLAY_BYTES: usize = 4 << 20;
/// Where a repair writes the log that it puts in place at its end.
pub(crate) const REPAIRED: &str = "log.repairing";
/// From so many records on, a line in the log says that the start takes a while, and why.
const LONG_REPLAY: u64 = 10_000;
/// Records whose effect is looked up in an index before it is trusted.
const SAMPLE: u64 = 256;

/// What a start found and did. All of it is worth a line in the log of the process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Bytes of a torn group, none of it acknowledged, that were cut off the log.
    pub torn_bytes: Option<u64>,
    /// Records that the index had not seen and that were applied to it.
    pub replayed: u64,
    /// Why the index was set aside and rebuilt, if it was.
    pub rebuilt: Option<String>,
    /// If the index knew of commits that the log does not have, the last of them: they are lost.
    /// That happens when the log was replaced by an older copy, or the disk lied.
    pub index_was_ahead: Option<StreamPos>,
}

/// What becomes of the index that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// It stays, if it can be trusted.
    Trusted,
    /// It is only asked how far it had come, and makes room for a new one.
    Nothing,
}

/// Opens a store.
pub(crate) fn open(options: &StoreOptions, keep: Keep) -> Result<Shared, StorageError> {
    let files = &options.files;
    let what = |what: &str| format!("{what} {}", options.dir.display());
    files
        .create_dir_all(&options.dir)
        .map_err(|error| StorageError::io(what("creating"), error))?;
    match files.sync_dir(&crate::fs::parent(&options.dir)) {
        // Whoever may not read the directory above has not made this one.
        Err(error) if error.kind() != io::ErrorKind::PermissionDenied => {
            return Err(StorageError::io(what("making durable the name of"), error));
        }
        _ => {}
    }
    let lock = take_lock(options)?;
    finish_repair(options)?;
    let (index_share, log_share) = (options.cache_bytes / 8 * 6, options.cache_bytes / 8);
    let candidate = open_candidate(options, index_share);
    let log_options = FileLogOptions {
        files: files.clone(),
        dir: options.log_dir(),
        segment_bytes: options.segment_bytes,
        cache_bytes: log_share,
        verify_bytes: options.verify_bytes,
        // The index is only told what is durable, so what it knows cannot be torn.
        durable: candidate.as_ref().map_or(StreamPos(0), |(_, applied)| applied.pos),
        clock: options.clock.clone(),
    };
    let (log, torn_bytes) = FileLog::open(log_options, options.progress())?;
    let mut recovery = Recovery { torn_bytes, ..Recovery::default() };
    let checked = candidate.and_then(|(index, applied)| {
        check(options, &log, index.as_ref(), applied, &mut recovery)?;
        Ok((index, applied))
    });
    let (index, applied) = settle(options, keep, index_share, checked, log.end(), &mut recovery)?;
    recovery.replayed = replay(&log, index.as_ref(), applied, options.progress())?;
    Ok(Shared {
        applied: AtomicU64::new(log.end().pos.0),
        login_revision: AtomicU64::new(0),
        log: Box::new(log),
        index: RwLock::new(Some(Box::new(BufferedIndex::new(index)?))),
        events: EventCache::new(options.cache_bytes / 8),
        suspect: Some(suspect_path(&options.dir)),
        recovery,
        clock: options.clock.clone(),
        lock: RwLock::new(Some(lock)),
    })
}

/// The index to work with, and how far it has come: the one that was checked, or a new one.
fn settle(
    options: &StoreOptions,
    keep: Keep,
    cache_bytes: u64,
    checked: Result<(Box<dyn Index>, End), StorageError>,
    log_end: End,
    recovery: &mut Recovery,
) -> Result<(Box<dyn Index>, End), StorageError> {
    match checked {
        Ok((index, applied)) if keep == Keep::Nothing => {
            tracing::debug!(through = %applied.pos, "the index makes room for a new one");
            drop(index);
            remove_index(options)?;
            Ok((open_index(options, cache_bytes)?, End::default()))
        }
        Ok((index, applied)) => {
            if applied == End::default() && log_end != applied {
                recovery.rebuilt = Some("there was none, or an empty one".to_owned());
            }
            Ok((index, applied))
        }
        Err(StorageError::Index(why)) => {
            Ok((replace_index(options, cache_bytes, why, recovery)?, End::default()))
        }
        // What is wrong with the log, or with the disk, is not cured by another index.
        Err(error) => Err(error),
    }
}

/// A repair that was stopped between its last two steps has a whole log under another name: without
/// this, the store would begin anew, empty.
fn finish_repair(options: &StoreOptions) -> Result<(), StorageError> {
    let (log, repaired) = (options.log_dir(), options.dir.join(REPAIRED));
    if log.exists() || !repaired.exists() {
        return Ok(());
    }
    tracing::warn!("the last step of a repair that was stopped is done now");
    remove_index(options)?;
    fs::rename(&repaired, &log)
        .and_then(|()| fs::File::open(&options.dir)?.sync_all())
        .map_err(|error| StorageError::io(format!("putting {} in place", log.display()), error))
}

/// Takes the lock of the data directory.
pub(crate) fn take_lock(
    options: &StoreOptions,
) -> Result<Box<dyn crate::fs::FileLock>, StorageError> {
    let path = options.dir.join("lock");
    options.files.lock(&path).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => {
            StorageError::Locked { dir: options.dir.display().to_string() }
        }
        _ => StorageError::io(format!("locking {}", path.display()), error),
    })
}

/// The file that says that the index failed.
pub(crate) fn suspect_path(dir: &Path) -> std::path::PathBuf {
    dir.join("index.suspect")
}

/// Opens the index that is there, or an empty one, and asks it where it is.
fn open_candidate(
    options: &StoreOptions,
    cache_bytes: u64,
) -> Result<(Box<dyn Index>, End), StorageError> {
    if suspect_path(&options.dir).exists() {
        return Err(StorageError::Index("it failed while it was used".to_owned()));
    }
    let index = open_index(options, cache_bytes)?;
    let applied = index.applied()?.unwrap_or_default();
    Ok((index, applied))
}

/// Opens the engine's index and has the keys that come in rows kept in blocks, and those that come
/// in no order in runs.
fn open_index(options: &StoreOptions, cache_bytes: u64) -> Result<Box<dyn Index>, StorageError> {
    let runs_bytes = cache_bytes / RUNS_PART;
    let engine = options.index.open(&options.index_dir(), cache_bytes - runs_bytes)?;
    let blocks = BlockIndex::new(engine, keys::row);
    let limits = Limits::within(runs_bytes);
    Ok(Box::new(RunIndex::new(Box::new(blocks), keys::WITHOUT_ORDER, limits)?))
}

/// Puts an empty index in the place of one that cannot be trusted.
fn replace_index(
    options: &StoreOptions,
    cache_bytes: u64,
    why: String,
    recovery: &mut Recovery,
) -> Result<Box<dyn Index>, StorageError> {
    tracing::warn!(why, "the index is set aside and rebuilt from the log");
    let dir = options.index_dir();
    options.index.set_aside(&dir)?;
    // Only now: if this start is cut short, the next one must not trust what it finds.
    remove_if_there(&suspect_path(&options.dir))?;
    recovery.rebuilt = Some(why);
    open_index(options, cache_bytes)
}

/// Removes a file that may be missing.
pub(crate) fn remove_if_there(path: &Path) -> Result<(), StorageError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(StorageError::io(format!("removing {}", path.display()), error))
        }
        _ => Ok(()),
    }
}

/// Checks whether an index can be trusted; [`StorageError::Index`] says why it can't.
fn check(
    options: &StoreOptions,
    log: &FileLog,
    index: &dyn Index,
    applied: End,
    recovery: &mut Recovery,
) -> Result<(), StorageError> {
    let end = log.end().pos;
    if applied.pos > end {
        recovery.index_was_ahead = Some(applied.pos);
        let at = applied.pos;
        let why = format!("it is ahead of the log: at {at} where the log ends at {end}");
        return Err(StorageError::Index(why));
    }
    check_sample(log, index, applied)?;
    if index.disk_bytes() <= options.verify_bytes {
        check_readable(index)?;
    }
    Ok(())
}

/// Checks that the index is one of this log, and that the newest records that it says to have are
/// in it.
fn check_sample(log: &dyn Log, index: &dyn Index, applied: End) -> Result<(), StorageError> {
    let mut expected = BTreeMap::new();
    let mut end = End::default();
    let after = StreamPos(applied.pos.0.saturating_sub(SAMPLE));
    for located in log.replay(after)? {
        let located = located?;
        if located.record.pos > applied.pos {
            break;
        }
        end = End { pos: located.record.pos, chain: located.chain };
        let mut batch = IndexBatch::new();
        add_located(&located, &mut batch);
        expected.extend(batch);
    }
    if end != applied {
        return Err(StorageError::Index("it belongs to another log".to_owned()));
    }
    let keys: Vec<&[u8]> = expected.keys().map(Bytes::as_ref).collect();
    let found = index.multi_get(&keys)?;
    match found.iter().zip(expected.values()).all(|(found, expected)| found == expected) {
        true => Ok(()),
        false => Err(StorageError::Index("it does not hold what the log says".to_owned())),
    }
}

/// Reads the whole index once, so that damage shows now.
fn check_readable(index: &dyn Index) -> Result<(), StorageError> {
    const STEP: usize = 1024;
    let mut after: Bytes = Bytes::from_static(&[0]);
    loop {
        let range = (Bound::Excluded(after.as_ref()), Bound::Unbounded);
        let found = index.scan(range, Direction::Forward, STEP)?;
        let mut last = after.clone();
        for (key, value) in found.iter() {
            if *key <= last || crate::codec::decode_entry(value).is_err() {
                return Err(StorageError::Index("its keys or values make no sense".to_owned()));
            }
            last = key.clone();
        }
        if found.len() < STEP {
            return Ok(());
        }
        after = last;
    }
}

/// Applies what the log has and the index has not; returns how many records that were.
pub(crate) fn replay(
    log: &dyn Log,
    index: &dyn Index,
    applied: End,
    progress: &dyn Progress,
) -> Result<u64, StorageError> {
    let missing = log.end().pos.0.saturating_sub(applied.pos.0);
    if missing == 0 {
        return Ok(0);
    }
    progress.start("bringing the index up to the event log", missing);
    if missing >= LONG_REPLAY {
        tracing::info!(records = missing, "bringing the index up to the event log");
    }
    let mut batch = IndexBatch::new();
    let (mut records, mut bytes, mut end) = (0, 0, applied);
    for located in log.replay(applied.pos)? {
        let located = located?;
        let before = batch.len();
        add_located(&located, &mut batch);
        let added = batch.iter().skip(before);
        bytes += added.map(|(k, v)| k.len() + v.as_ref().map_or(0, Bytes::len)).sum::<usize>();
        end = End { pos: located.record.pos, chain: located.chain };
        records += 1;
        if batch.len() >= REPLAY_OPS || bytes >= REPLAY_BYTES {
            index.apply(std::mem::take(&mut batch), end)?;
            progress.advance(records);
            (records, bytes) = (0, 0);
        }
    }
    if records > 0 {
        index.apply(batch, end)?;
        progress.advance(records);
    }
    progress.finish();
    if end != log.end() {
        let what = "the records do not reach to the end of the log".to_owned();
        return Err(StorageError::Damaged { segment: 0, offset: 0, after: end.pos, what });
    }
    Ok(missing)
}
