//! Opens the segments of a log: what is whole, what a crash tore, what is damaged.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use parlour_event::StreamPos;

use super::{
    End,
    file::FileLogOptions,
    format::{self, HEADER_LEN},
    scan::{Scanner, Step},
    segment::{Fault, FrameCache, Segment, fault_error},
};
use crate::{Progress, StorageError, fs::FileSystem};

/// The segments of a log, lowest number first.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pub(crate) segments: Vec<Arc<Segment>>,
    /// Number of a last segment that a crash left without a whole header: it never held anything.
    pub(crate) unfinished: Option<u64>,
}

/// A log that can be appended to.
#[derive(Debug, Default)]
pub(crate) struct Opened {
    pub(crate) segments: Vec<Arc<Segment>>,
    pub(crate) end: End,
    /// Bytes of a torn group that were cut off.
    pub(crate) torn: Option<u64>,
}

/// Numbers of the segment files in a directory, lowest first.
pub(crate) fn numbers(files: &dyn FileSystem, dir: &Path) -> Result<Vec<u64>, StorageError> {
    let names = files
        .list(dir)
        .map_err(|error| StorageError::io(format!("listing {}", dir.display()), error))?;
    let numbers: BTreeSet<_> = names.iter().filter_map(|n| format::parse_file_name(n)).collect();
    Ok(numbers.into_iter().collect())
}

/// Opens all segment files and checks that none is missing, without reading records.
pub(crate) fn load(
    files: &dyn FileSystem,
    dir: &Path,
    write: bool,
    cache: &Arc<FrameCache>,
) -> Result<Loaded, StorageError> {
    let numbers = numbers(files, dir)?;
    let mut loaded = Loaded::default();
    let mut after = StreamPos(0);
    for (number, expected) in numbers.iter().copied().zip(1..) {
        if number != expected {
            let what = "the segment's file is missing".to_owned();
            return Err(fault_error(expected, 0, after, Fault::Bad(what)));
        }
        let path = dir.join(format::file_name(number));
        // Only the last one is ever written to.
        let last = numbers.last() == Some(&number);
        match Segment::open(files, &path, number, write && last, cache) {
            Ok(segment) => {
                after = StreamPos(segment.header.first.0.saturating_sub(1));
                loaded.segments.push(Arc::new(segment));
            }
            Err(Fault::Bad(what)) => {
                let short = files.open(&path, false).and_then(|file| file.len());
                if last && short.is_ok_and(|len| len <= HEADER_LEN) {
                    loaded.unfinished = Some(number);
                } else {
                    return Err(fault_error(number, 0, after, Fault::Bad(what)));
                }
            }
            Err(fault) => return Err(fault_error(number, 0, after, fault)),
        }
    }
    Ok(loaded)
}

/// Opens a log for appending. Plain segments are checked record by record, packed ones from the
/// newest on as long as their plain content fits into the options' `verify_bytes`.
pub(crate) fn open(
    files: &dyn FileSystem,
    options: &FileLogOptions,
    cache: &Arc<FrameCache>,
    progress: &dyn Progress,
) -> Result<Opened, StorageError> {
    let dir = options.dir.as_path();
    remove_leftovers(files, dir)?;
    let loaded = load(files, dir, true, cache)?;
    let to_scan = to_scan(&loaded.segments, options.verify_bytes);
    progress.start("checking the event log", to_scan.iter().map(|at| at.1).sum());
    let mut opened = Opened::default();
    for (at, segment) in loaded.segments.iter().enumerate() {
        check_joint(segment, opened.end)?;
        let last = at + 1 == loaded.segments.len() && loaded.unfinished.is_none();
        let scan = to_scan.iter().any(|(index, _)| *index == at);
        opened.end = match segment.table() {
            Some(table) if !scan => table.end,
            Some(table) => {
                let end = scan_whole(segment)?;
                if end != table.end {
                    let what = "the table and the records do not agree".to_owned();
                    return Err(segment.fault(segment.len(), end.pos, Fault::Bad(what)));
                }
                end
            }
            None if last => {
                let (end, torn) = recover_tail(segment, options)?;
                opened.torn = torn;
                end
            }
            None => scan_whole(segment)?,
        };
        if scan {
            progress.advance(segment.len());
        }
    }
    progress.finish();
    opened.segments = loaded.segments;
    if let Some(number) = loaded.unfinished {
        let path = dir.join(format::file_name(number));
        let removed = files.remove(&path).and_then(|()| files.sync_dir(dir));
        removed.map_err(|error| {
            StorageError::io(format!("removing the unfinished {}", path.display()), error)
        })?;
    }
    Ok(opened)
}

/// Removes what a packer or a backup that was cut short left behind.
fn remove_leftovers(files: &dyn FileSystem, dir: &Path) -> Result<(), StorageError> {
    let what = || format!("clearing up in {}", dir.display());
    let names = files.list(dir).map_err(|error| StorageError::io(what(), error))?;
    for name in names.iter().filter(|name| name.ends_with(".tmp")) {
        files.remove(&dir.join(name)).map_err(|error| StorageError::io(what(), error))?;
    }
    Ok(())
}

/// Indices and lengths of the segments whose records are to be checked.
fn to_scan(segments: &[Arc<Segment>], verify_bytes: u64) -> Vec<(usize, u64)> {
    let mut left = verify_bytes;
    let mut chosen = Vec::new();
    for (at, segment) in segments.iter().enumerate().rev() {
        let len = segment.len();
        let fits = len <= left;
        left = if fits { left - len } else { 0 };
        if fits || segment.table().is_none() {
            chosen.push((at, len));
        }
    }
    chosen
}

/// Checks that a segment goes on where the one before ended.
pub(crate) fn check_joint(segment: &Segment, end: End) -> Result<(), StorageError> {
    let header = &segment.header;
    if header.first.0 == end.pos.0 + 1 && header.chain == end.chain {
        return Ok(());
    }
    let what = format!(
        "the segment begins at position {} where {} should be, or belongs to another log",
        header.first,
        end.pos.0 + 1
    );
    Err(segment.fault(0, end.pos, Fault::Bad(what)))
}

/// Checks every record of a segment that had been durable as a whole.
pub(crate) fn scan_whole(segment: &Segment) -> Result<End, StorageError> {
    let mut scanner = Scanner::new(segment, segment.len());
    loop {
        match scanner.step()? {
            Step::Record(record) => segment.mark(record.header.pos, record.offset),
            Step::End => {
                segment.set_len(scanner.offset());
                return Ok(scanner.end());
            }
            Step::Bad { offset, what } => {
                return Err(segment.fault(offset, scanner.end().pos, Fault::Bad(what)));
            }
        }
    }
}

/// How a plain last segment ends.
#[derive(Debug)]
pub(crate) enum Tail {
    /// With a whole record. The next one would begin at this offset; what is there are zeros that
    /// were written ahead.
    Whole(End, u64),
    /// With a group that was being written when the process or the machine stopped. It begins at
    /// this offset; nothing of it was acknowledged.
    Torn(End, u64),
}

/// Finds out how a plain last segment ends.
///
/// # Errors
///
/// [`StorageError::Damaged`] if what is bad had been durable: a later whole record says so.
pub(crate) fn find_tail(segment: &Segment, len: u64) -> Result<Tail, StorageError> {
    let mut scanner = Scanner::new(segment, len);
    loop {
        match scanner.step()? {
            Step::Record(record) => segment.mark(record.header.pos, record.offset),
            Step::End => return Ok(Tail::Whole(scanner.end(), scanner.offset())),
            Step::Bad { offset, what } => {
                let end = scanner.end();
                while let Some(later) = scanner.resync()? {
                    if later.header.durable_before() > end.pos.0 {
                        return Err(segment.fault(offset, end.pos, Fault::Bad(what)));
                    }
                }
                return Ok(Tail::Torn(end, offset));
            }
        }
    }
}

/// Cuts a torn tail off and makes what is left durable: a process that was killed may have left
/// whole records that had not been flushed yet.
fn recover_tail(
    segment: &Segment,
    options: &FileLogOptions,
) -> Result<(End, Option<u64>), StorageError> {
    let what = |what: &str| format!("{what} the last log segment in {}", options.dir.display());
    let len = segment.len();
    let (end, offset, is_torn) = match find_tail(segment, len)? {
        Tail::Whole(end, offset) => (end, offset, false),
        Tail::Torn(end, offset) => (end, offset, true),
    };
    if offset < len && end.pos < options.durable {
        let what = format!("the index knows of commits up to {}", options.durable);
        return Err(segment.fault(offset, end.pos, Fault::Bad(what)));
    }
    segment.set_len(offset);
    let Some(file) = segment.plain_file() else { return Ok((end, None)) };
    if is_torn {
        file.truncate(offset).map_err(|error| StorageError::io(what("cutting"), error))?;
    }
    file.sync().map_err(|error| StorageError::io(what("flushing"), error))?;
    Ok((end, is_torn.then_some(len - offset)))
}
