//! What can be saved of a damaged log.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use parlour_event::StreamPos;

use crate::{
    Log, Progress, Record, StorageError, StoreOptions,
    backup::{io_error, remove_index, require_log},
    codec,
    fs::{FileSystem, RealFiles},
    log::{
        End,
        file::{FileLog, FileLogOptions},
        format::{self, HEADER_LEN},
        open::{self, Tail},
        scan::{RawRecord, Scanner, Step},
        segment::{self, Fault, FrameCache, Segment},
    },
    progress::Quiet,
    recover,
};

/// Records that are written at once.
const GROUP: usize = 256;

/// What a repair may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RepairMode {
    /// Only look.
    Report,
    /// Keep everything before the first damage and nothing after it: the log is as it was once.
    CutAtDamage,
    /// Keep every record that is whole; those that are lost are replaced by empty ones.
    FillGaps,
}

/// Positions that are lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// The first of them.
    pub first: StreamPos,
    /// The last of them; `None` at the end of the log, where nobody knows.
    pub last: Option<StreamPos>,
    /// Number of the segment in which the damage begins.
    pub segment: u64,
    /// Byte offset in its uncompressed content.
    pub offset: u64,
    /// What does not fit.
    pub what: String,
}

/// What a repair found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RepairReport {
    /// Everything up to here is whole.
    pub whole_through: StreamPos,
    /// Records that are whole, those after damage too.
    pub whole_records: u64,
    /// What is lost, in order. Empty if the log is whole.
    pub losses: Vec<Loss>,
    /// Bytes of a group at the end that was being written when the process or the machine stopped.
    /// Nothing of it was acknowledged, unless the last group has been damaged since.
    pub torn_bytes: Option<u64>,
    /// Where the log as it was has been put, if another one was written in its place.
    pub set_aside: Option<PathBuf>,
}

/// Looks for what is whole in the log of a store that is not open and, if the mode says so and
/// something is wrong, writes a log of it in its place. The damaged one is kept; the index is
/// removed and will be built again at the next start.
///
/// # Errors
///
/// [`StorageError::Locked`], [`StorageError::Refused`] if there is no log, [`StorageError::Io`].
/// Damage is not an error here.
pub fn repair(
    dir: &Path,
    mode: RepairMode,
    progress: &Arc<dyn Progress>,
) -> Result<RepairReport, StorageError> {
    let options = StoreOptions::new(dir);
    require_log(dir)?;
    let _lock = recover::take_lock(&options)?;
    let mut report = RepairReport::default();
    walk(&options, progress.as_ref(), &mut report, &mut |_| Ok(()))?;
    let wrong = !report.losses.is_empty() || report.torn_bytes.is_some();
    if mode == RepairMode::Report || !wrong {
        return Ok(report);
    }
    let cut = (mode == RepairMode::CutAtDamage).then_some(report.whole_through);
    let repaired = dir.join(recover::REPAIRED);
    write_log(&options, &repaired, cut, progress.as_ref())?;
    report.set_aside = Some(put_in_place(&options, &repaired)?);
    remove_index(&options)?;
    Ok(report)
}

/// Writes what is whole to a log in another directory.
fn write_log(
    options: &StoreOptions,
    target: &Path,
    cut: Option<StreamPos>,
    progress: &dyn Progress,
) -> Result<(), StorageError> {
    if target.exists() {
        std::fs::remove_dir_all(target).map_err(|error| io_error("removing", target, error))?;
    }
    let log_options = FileLogOptions {
        files: options.files.clone(),
        dir: target.to_owned(),
        segment_bytes: options.segment_bytes,
        cache_bytes: 0,
        verify_bytes: 0,
        durable: StreamPos(0),
        clock: None,
    };
    let (log, _) = FileLog::open(log_options, &Quiet)?;
    let mut group: Vec<Record> = Vec::with_capacity(GROUP);
    let mut next = 1;
    let put = |record: Record, group: &mut Vec<Record>| {
        group.push(record);
        if group.len() < GROUP {
            return Ok(());
        }
        log.append(group).map(|_| group.clear())
    };
    walk(options, progress, &mut RepairReport::default(), &mut |record| {
        if cut.is_some_and(|cut| record.pos > cut) {
            return Ok(());
        }
        for lost in next..record.pos.0 {
            let (ops, announcement) = (Vec::new(), Bytes::new());
            put(Record { pos: StreamPos(lost), ops, announcement }, &mut group)?;
        }
        next = record.pos.0 + 1;
        put(record, &mut group)
    })?;
    log.append(&group)?;
    log.close();
    Ok(())
}

/// Puts the repaired log in the place of the damaged one, which is kept.
fn put_in_place(options: &StoreOptions, repaired: &Path) -> Result<PathBuf, StorageError> {
    let log = options.log_dir();
    let aside = (1..)
        .map(|number: u64| options.dir.join(format!("log.damaged-{number}")))
        .find(|path| !path.exists())
        .unwrap_or_else(|| options.dir.join("log.damaged"));
    RealFiles
        .rename(&log, &aside)
        .and_then(|()| RealFiles.rename(repaired, &log))
        .and_then(|()| RealFiles.sync_dir(&options.dir))
        .map_err(|error| io_error("putting in place", &log, error))?;
    Ok(aside)
}

/// The state of a walk through a log that may be damaged.
struct Walk<'a> {
    end: End,
    report: &'a mut RepairReport,
    found: &'a mut dyn FnMut(Record) -> Result<(), StorageError>,
    /// Damage whose last lost position is not known yet.
    open: Option<Loss>,
}

/// Visits every whole record of a log, in order, and notes what is wrong.
fn walk(
    options: &StoreOptions,
    progress: &dyn Progress,
    report: &mut RepairReport,
    found: &mut dyn FnMut(Record) -> Result<(), StorageError>,
) -> Result<(), StorageError> {
    let dir = options.log_dir();
    let numbers = open::numbers(&RealFiles, &dir)?;
    let cache = segment::frame_cache(0);
    progress.start("reading the event log", numbers.len() as u64);
    let mut walk = Walk { end: End::default(), report, found, open: None };
    let mut expected = 1;
    for number in &numbers {
        if *number != expected {
            walk.lose(expected, 0, "the segment's file is missing");
        }
        expected = number + 1;
        walk.segment(&dir, *number, numbers.last() == Some(number), &cache)?;
        progress.advance(1);
    }
    progress.finish();
    walk.report.losses.extend(walk.open.take());
    if walk.report.losses.is_empty() {
        walk.report.whole_through = walk.end.pos;
    }
    Ok(())
}

impl Walk<'_> {
    /// Notes that what comes next is damaged, if that is not known already.
    fn lose(&mut self, segment: u64, offset: u64, what: &str) {
        if self.open.is_some() {
            return;
        }
        if self.report.losses.is_empty() {
            self.report.whole_through = self.end.pos;
        }
        let first = StreamPos(self.end.pos.0 + 1);
        self.open = Some(Loss { first, last: None, segment, offset, what: what.to_owned() });
    }

    fn segment(
        &mut self,
        dir: &Path,
        number: u64,
        last: bool,
        cache: &Arc<FrameCache>,
    ) -> Result<(), StorageError> {
        let path = dir.join(format::file_name(number));
        let opened = Segment::open(&RealFiles, &path, number, false, cache);
        let segment = match opened {
            Ok(segment) => segment,
            Err(Fault::Io(error)) => return Err(io_error("reading", &path, error)),
            Err(Fault::Bad(what)) => {
                let salvaged = Segment::salvage(&RealFiles, &path, number, cache)
                    .map_err(|error| io_error("reading", &path, error))?;
                // A last file without a record is what a crash leaves.
                if !last || salvaged.len() > HEADER_LEN {
                    self.lose(number, 0, &what);
                }
                salvaged
            }
        };
        let first = segment.header.first.0;
        if first > self.end.pos.0 + 1 {
            self.lose(number, 0, "records before the segment are missing");
            self.end = End { pos: StreamPos(first - 1), chain: segment.header.chain };
        }
        let mut limit = segment.len();
        if last
            && segment.table().is_none()
            && self.open.is_none()
            && let Ok(Tail::Torn(_, offset)) = open::find_tail(&segment, limit)
        {
            self.report.torn_bytes = Some(limit - offset);
            limit = offset;
        }
        self.records(&segment, limit)
    }

    fn records(&mut self, segment: &Segment, limit: u64) -> Result<(), StorageError> {
        let number = segment.header.number;
        let mut scanner = Scanner::resume(segment, limit, self.end);
        loop {
            let record = match scanner.step()? {
                Step::End => return Ok(()),
                Step::Record(record) => record,
                Step::Bad { offset, what } => {
                    self.lose(number, offset, &what);
                    match scanner.resync()? {
                        Some(record) => record,
                        None => return Ok(()),
                    }
                }
            };
            self.record(number, &record)?;
        }
    }

    fn record(&mut self, segment: u64, raw: &RawRecord) -> Result<(), StorageError> {
        let record = match codec::decode(raw.header.pos, &raw.payload) {
            Ok((record, _)) => record,
            Err(what) => {
                self.lose(segment, raw.offset, &what);
                return Ok(());
            }
        };
        if let Some(mut loss) = self.open.take() {
            let last = StreamPos(record.pos.0 - 1);
            // Damage that hit no record, such as one in a header, is no loss of a position.
            loss.last = Some(last.max(StreamPos(loss.first.0 - 1)));
            self.report.losses.push(loss);
        }
        self.end = End { pos: record.pos, chain: raw.header.crc };
        self.report.whole_records += 1;
        (self.found)(record)
    }
}
