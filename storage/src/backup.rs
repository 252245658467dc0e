//! Backup of a log while it is written to, restore, and the rebuilding of the index.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
};

use parlour_event::StreamPos;

use crate::{
    Progress, StorageError, Store, StoreOptions,
    fs::{FileSystem, RealFiles},
    key_file,
    log::{
        End, format,
        open::{self, Tail},
        pack, segment,
    },
    recover::{self, Recovery},
};

/// The file that a backup gets last: without it, it is not one.
const MANIFEST: &str = "parlour-backup";

/// What was backed up or restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackupReport {
    /// The last position in it.
    pub through: StreamPos,
    /// Log segments in it.
    pub segments: u64,
    /// Bytes of the log, not compressed.
    pub bytes: u64,
}

/// Copies the log of a data directory, and its signing keys if it has any, to an empty or new
/// directory, checking every record. The
/// store may be open and in use meanwhile, by this process or another: the copy is what was written
/// at the beginning.
///
/// # Errors
///
/// [`StorageError::Refused`] if there is something in `target`, [`StorageError::Damaged`] if the
/// log is, [`StorageError::Io`].
pub fn backup(
    dir: &Path,
    target: &Path,
    progress: &dyn Progress,
) -> Result<BackupReport, StorageError> {
    let files = RealFiles;
    let log = target.join("log");
    require_log(dir)?;
    make_empty_dir(target)?;
    files.create_dir_all(&log).map_err(|error| io_error("creating", &log, error))?;
    let cache = segment::frame_cache(0);
    let loaded = open::load(&files, &dir.join("log"), false, &cache)?;
    progress.start("copying the event log", loaded.segments.iter().map(|s| s.len()).sum());
    let mut end = End::default();
    let mut report = BackupReport { through: StreamPos(0), segments: 0, bytes: 0 };
    for (at, source) in loaded.segments.iter().enumerate() {
        open::check_joint(source, end)?;
        let mut len = source.len();
        if at + 1 == loaded.segments.len() && source.table().is_none() {
            // A commit may be on its way into it.
            let (Tail::Torn(_, whole) | Tail::Whole(_, whole)) = open::find_tail(source, len)?;
            len = whole;
        }
        if len > format::HEADER_LEN {
            let path = log.join(format::file_name(source.header.number));
            let packed = pack::pack(&files, source, len, &path, &AtomicBool::new(false))?;
            end = packed.unwrap_or(end);
            report.segments += 1;
            report.bytes += len;
        }
        progress.advance(source.len());
    }
    report.through = end.pos;
    copy_keys(dir, target)?;
    files.sync_dir(&log).map_err(|error| io_error("flushing", &log, error))?;
    write_manifest(target, end, report.segments)?;
    progress.finish();
    Ok(report)
}

/// Makes a data directory from a backup, checking every record, and builds its index. `dir` must be
/// empty or new, except for what a restore that was cut short left.
///
/// # Errors
///
/// [`StorageError::Refused`] if `dir` holds a log or `backup` is not a complete backup,
/// [`StorageError::Damaged`] if the backup is, [`StorageError::Io`].
pub fn restore(
    backup: &Path,
    dir: &Path,
    progress: &Arc<dyn Progress>,
) -> Result<BackupReport, StorageError> {
    let files = RealFiles;
    let options = StoreOptions { progress: Some(progress.clone()), ..StoreOptions::new(dir) };
    files.create_dir_all(dir).map_err(|error| io_error("creating", dir, error))?;
    let lock = recover::take_lock(&options)?;
    for taken in [options.log_dir(), options.index_dir()] {
        if taken.exists() {
            return Err(StorageError::Refused(format!("{} exists already", taken.display())));
        }
    }
    let report = check_backup(backup, progress.as_ref()).map_err(|error| match error {
        // It is not the log of this directory that is damaged.
        StorageError::Damaged { segment, offset, after, what } => StorageError::Refused(format!(
            "the backup {} is damaged: segment {segment}, byte {offset} (after stream position \
             {after}): {what}. Take another one",
            backup.display()
        )),
        error => error,
    })?;
    let unfinished = dir.join("log.restoring");
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished)
            .map_err(|error| io_error("removing", &unfinished, error))?;
    }
    copy_log(&backup.join("log"), &unfinished, progress.as_ref())?;
    // Before the log is in its place: a log without its keys is of little use.
    copy_keys(backup, dir)?;
    let log = options.log_dir();
    files
        .rename(&unfinished, &log)
        .and_then(|()| files.sync_dir(dir))
        .map_err(|error| io_error("putting in place", &log, error))?;
    drop(lock);
    let (_, writer) = Store::open(options)?;
    writer.close();
    Ok(report)
}

/// What the rebuilding of an index found and did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReindexReport {
    /// The last position in the index.
    pub through: StreamPos,
    /// What was found: a torn tail that was cut off, an old index that was ahead of the log.
    pub recovery: Recovery,
}

/// Throws the index away and builds it again from the log, every record of which is checked. The old
/// index is only asked how far it had come: what it knows of must not be cut off as torn.
///
/// # Errors
///
/// As [`Store::open`].
pub fn reindex(dir: &Path, progress: &Arc<dyn Progress>) -> Result<ReindexReport, StorageError> {
    let options = StoreOptions {
        progress: Some(progress.clone()),
        verify_bytes: u64::MAX,
        ..StoreOptions::new(dir)
    };
    require_log(dir)?;
    let (store, writer) = Store::open_anew(&options)?;
    writer.close();
    Ok(ReindexReport { through: store.applied(), recovery: store.recovery().clone() })
}

/// Refuses a directory that is none of ours: nothing must be created in it by mistake.
pub(crate) fn require_log(dir: &Path) -> Result<(), StorageError> {
    if dir.join("log").is_dir() {
        return Ok(());
    }
    Err(StorageError::Refused(format!("{} holds no event log", dir.display())))
}

/// Removes the index of a store that is not open.
pub(crate) fn remove_index(options: &StoreOptions) -> Result<(), StorageError> {
    let index = options.index_dir();
    match fs::remove_dir_all(&index) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(io_error("removing", &index, error));
        }
        _ => {}
    }
    recover::remove_if_there(&recover::suspect_path(&options.dir))
}

pub(crate) fn io_error(what: &str, path: &Path, error: io::Error) -> StorageError {
    StorageError::io(format!("{what} {}", path.display()), error)
}

/// Copies the signing keys. Others that are there already are not written over.
fn copy_keys(from: &Path, to: &Path) -> Result<(), StorageError> {
    let failed = |dir: &Path, error| io_error("copying", &key_file::path(dir), error);
    let Some(keys) = key_file::read(from).map_err(|error| failed(from, error))? else {
        return Ok(());
    };
    match key_file::read(to).map_err(|error| failed(to, error))? {
        Some(there) if there == keys => Ok(()),
        Some(_) => {
            let path = key_file::path(to);
            Err(StorageError::Refused(format!("{} exists already", path.display())))
        }
        None => key_file::write(to, &keys).map_err(|error| failed(to, error)),
    }
}

fn make_empty_dir(dir: &Path) -> Result<(), StorageError> {
    fs::create_dir_all(dir).map_err(|error| io_error("creating", dir, error))?;
    let mut entries = fs::read_dir(dir).map_err(|error| io_error("reading", dir, error))?;
    match entries.next() {
        None => Ok(()),
        Some(_) => Err(StorageError::Refused(format!("{} is not empty", dir.display()))),
    }
}

fn write_manifest(target: &Path, end: End, segments: u64) -> Result<(), StorageError> {
    let path = target.join(MANIFEST);
    let failed = |error| io_error("writing", &path, error);
    let temporary = path.with_extension("tmp");
    let text = format!("1 {} {} {segments}", end.pos, end.chain);
    let text = format!("{text} {}\n", crc32c::crc32c(text.as_bytes()));
    fs::write(&temporary, text).map_err(failed)?;
    fs::File::open(&temporary).and_then(|file| file.sync_all()).map_err(failed)?;
    fs::rename(&temporary, &path).map_err(failed)?;
    RealFiles.sync_dir(target).map_err(failed)
}

fn read_manifest(backup: &Path) -> Result<(End, u64), StorageError> {
    let path = backup.join(MANIFEST);
    let text = fs::read_to_string(&path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => StorageError::Refused(format!(
            "{} is not a backup, or one that was cut short: it has no file {MANIFEST}",
            backup.display()
        )),
        _ => io_error("reading", &path, error),
    })?;
    let parsed = text.trim_end().rsplit_once(' ').and_then(|(values, crc)| {
        if crc.parse() != Ok(crc32c::crc32c(values.as_bytes())) {
            return None;
        }
        let mut values = values.strip_prefix("1 ")?.split(' ');
        let pos = StreamPos(values.next()?.parse().ok()?);
        let end = End { pos, chain: values.next()?.parse().ok()? };
        Some((end, values.next()?.parse().ok()?))
    });
    parsed.ok_or_else(|| StorageError::Refused(format!("{} is damaged", path.display())))
}

/// Checks every record of a backup and that it is complete.
fn check_backup(backup: &Path, progress: &dyn Progress) -> Result<BackupReport, StorageError> {
    let (expected, count) = read_manifest(backup)?;
    let cache = segment::frame_cache(0);
    let loaded = open::load(&RealFiles, &backup.join("log"), false, &cache)?;
    let bytes = loaded.segments.iter().map(|segment| segment.len()).sum();
    progress.start("checking the backup", bytes);
    let mut end = End::default();
    for segment in &loaded.segments {
        open::check_joint(segment, end)?;
        end = open::scan_whole(segment)?;
        progress.advance(segment.len());
    }
    progress.finish();
    let segments = loaded.segments.len() as u64;
    if end != expected || segments != count {
        return Err(StorageError::Damaged {
            segment: segments + 1,
            offset: 0,
            after: end.pos,
            what: format!("the backup should reach to position {}", expected.pos),
        });
    }
    Ok(BackupReport { through: end.pos, segments, bytes })
}

fn copy_log(from: &Path, to: &PathBuf, progress: &dyn Progress) -> Result<(), StorageError> {
    fs::create_dir_all(to).map_err(|error| io_error("creating", to, error))?;
    let numbers = open::numbers(&RealFiles, from)?;
    progress.start("copying the event log", numbers.len() as u64);
    for number in numbers {
        let path = to.join(format::file_name(number));
        fs::copy(from.join(format::file_name(number)), &path)
            .and_then(|_| fs::File::open(&path)?.sync_all())
            .map_err(|error| io_error("writing", &path, error))?;
        progress.advance(1);
    }
    progress.finish();
    RealFiles.sync_dir(to).map_err(|error| io_error("flushing", to, error))
}
