//! The log in segment files.

use std::{
    collections::BTreeMap,
    fmt, io,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::Duration,
};

use bytes::Bytes;
use parlour_event::StreamPos;

use super::{
    Appended, End, Located, Log, Placement, Replay,
    format::{self, HEADER_LEN, RECORD_HEADER_LEN, RecordHeader, SegmentHeader},
    open::{self, Opened},
    pack,
    scan::{Scanner, Step},
    segment::{self, Fault, FrameCache, Segment},
};
use crate::{
    BlobRef, Progress, Record, StorageError, codec,
    fs::{FileSystem, StorageFile},
};

/// Tells how long the process has been running, or anything else that only grows.
pub type MonotonicClock = Arc<dyn Fn() -> Duration + Send + Sync>;

/// What a file log is opened with.
#[derive(Clone)]
pub(crate) struct FileLogOptions {
    pub(crate) files: Arc<dyn FileSystem>,
    pub(crate) dir: PathBuf,
    pub(crate) segment_bytes: u64,
    pub(crate) cache_bytes: u64,
    pub(crate) verify_bytes: u64,
    /// Everything up to here is known to have been durable.
    pub(crate) durable: StreamPos,
    pub(crate) clock: Option<MonotonicClock>,
}

/// The log in segment files.
pub(crate) struct FileLog {
    options: FileLogOptions,
    catalog: Arc<Catalog>,
    active: Mutex<Active>,
    packer: Mutex<Option<Packer>>,
}

/// The segments, for readers.
struct Catalog {
    segments: RwLock<BTreeMap<u64, Arc<Segment>>>,
    end: RwLock<End>,
    cache: Arc<FrameCache>,
}

/// The writer's side.
struct Active {
    segment: Option<Arc<Segment>>,
    next_number: u64,
    /// How long the segment's file is: from its content to here there are zeros.
    reserved: u64,
    /// Why nothing more is accepted.
    stopped: Option<String>,
    buffer: Vec<u8>,
}

/// How far ahead of the records a segment's file is filled with zeros. A flush into what is there
/// already need not make a new length and new blocks durable, which is the larger part of its work
/// (with a journal, by far).
const AHEAD: u64 = 256 << 10;

/// The thread that packs sealed segments.
struct Packer {
    jobs: mpsc::Sender<u64>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl fmt::Debug for FileLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileLog({})", self.options.dir.display())
    }
}

impl FileLog {
    /// Opens the log, which is created if there is none. Says how many bytes of a torn tail were
    /// cut off.
    pub(crate) fn open(
        options: FileLogOptions,
        progress: &dyn Progress,
    ) -> Result<(Self, Option<u64>), StorageError> {
        let files = options.files.clone();
        let create = || format!("creating {}", options.dir.display());
        files.create_dir_all(&options.dir).map_err(|error| StorageError::io(create(), error))?;
        files
            .sync_dir(&crate::fs::parent(&options.dir))
            .map_err(|error| StorageError::io(create(), error))?;
        let cache = segment::frame_cache(options.cache_bytes);
        let Opened { segments, end, torn } =
            open::open(files.as_ref(), &options, &cache, progress)?;
        let next_number = segments.last().map_or(0, |last| last.header.number) + 1;
        let active = segments.last().filter(|last| last.table().is_none()).cloned();
        let to_pack: Vec<_> = segments
            .iter()
            .filter(|segment| segment.table().is_none())
            .map(|segment| segment.header.number)
            .filter(|number| number + 1 != next_number)
            .collect();
        let segments = segments.into_iter().map(|s| (s.header.number, s)).collect();
        let catalog = Catalog { segments: RwLock::new(segments), end: RwLock::new(end), cache };
        let catalog = Arc::new(catalog);
        let packer = Packer::start(&options, catalog.clone())?;
        to_pack.into_iter().for_each(|number| packer.pack(number));
        let reserved = match active.as_ref().and_then(|segment| segment.plain_file()) {
            Some(file) => {
                file.len().map_err(|error| StorageError::io("opening the event log", error))?
            }
            None => 0,
        };
        let active =
            Active { segment: active, next_number, reserved, stopped: None, buffer: Vec::new() };
        let log =
            Self { options, catalog, active: Mutex::new(active), packer: Mutex::new(Some(packer)) };
        Ok((log, torn))
    }

    fn now(&self) -> Duration {
        self.options.clock.as_ref().map_or(Duration::ZERO, |clock| clock())
    }

    /// The segment to append to: a new one if there is none or it is full.
    fn roll(&self, active: &mut Active) -> Result<Arc<Segment>, StorageError> {
        if let Some(segment) = &active.segment
            && segment.len() < self.options.segment_bytes.max(HEADER_LEN + 1)
        {
            return Ok(segment.clone());
        }
        let end = self.end();
        let header = SegmentHeader {
            number: active.next_number,
            packed: false,
            first: StreamPos(end.pos.0 + 1),
            chain: end.chain,
        };
        let segment = Segment::create(self.options.files.as_ref(), &self.options.dir, header)
            .map_err(|error| StorageError::io("creating a log segment", error))?;
        let segment = Arc::new(segment);
        active.next_number += 1;
        active.reserved = segment.len();
        self.catalog.put(segment.clone());
        if let Some(sealed) = active.segment.replace(segment.clone()) {
            let packer = self.packer.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(packer) = packer.as_ref() {
                packer.pack(sealed.header.number);
            }
        }
        Ok(segment)
    }

    /// Writes the buffer and flushes it, or takes it back.
    fn write(
        &self,
        active: &mut Active,
        segment: &Segment,
    ) -> Result<(Duration, Duration), StorageError> {
        let offset = segment.len();
        let stopped = |what: &str| StorageError::Stopped(what.to_owned());
        let file = segment.plain_file().ok_or_else(|| stopped("the last segment is packed"))?;
        let started = self.now();
        let end = offset + active.buffer.len() as u64;
        let reserve = if end > active.reserved { self.ahead_of(end) } else { active.reserved };
        let written = file.write_at(&active.buffer, offset).and_then(|()| match reserve {
            same if same == active.reserved => Ok(()),
            more => write_zeros(file.as_ref(), end, more),
        });
        if let Err(error) = written {
            active.reserved = offset;
            if let Err(second) = file.truncate(offset) {
                let why = format!("writing the event log: {error}; taking it back: {second}");
                active.stopped = Some(why);
            }
            return Err(StorageError::io("writing the event log", error));
        }
        active.reserved = reserve;
        let written = self.now();
        if let Err(error) = file.sync() {
            // The kernel may have dropped the pages and call them clean: a second try that succeeds
            // would prove nothing. Taking the bytes back keeps a restart from trusting them.
            let why = match file.truncate(offset) {
                Ok(()) => format!("flushing the event log: {error}"),
                Err(second) => format!("flushing the event log: {error}; taking it back: {second}"),
            };
            active.stopped = Some(why.clone());
            return Err(StorageError::Stopped(why));
        }
        Ok((written.saturating_sub(started), self.now().saturating_sub(written)))
    }

    /// Takes back the zeros that were written ahead. They do no harm: whoever meets them after a
    /// crash knows them for what they are.
    fn trim(&self) {
        let mut active = self.active.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(segment) = active.segment.clone() else { return };
        if active.stopped.is_none()
            && active.reserved > segment.len()
            && let Some(file) = segment.plain_file()
            && file.truncate(segment.len()).is_ok()
        {
            active.reserved = segment.len();
        }
    }

    /// How long a segment's file gets when its content does not fit any more.
    fn ahead_of(&self, end: u64) -> u64 {
        end.saturating_add(AHEAD).min(self.options.segment_bytes).max(end)
    }
}

/// Fills a file with zeros from one offset to another.
fn write_zeros(file: &dyn StorageFile, from: u64, to: u64) -> io::Result<()> {
    const ZEROS: &[u8] = &[0; 64 << 10];
    let mut at = from;
    while at < to {
        let len = usize::try_from(to - at).map_or(ZEROS.len(), |left| left.min(ZEROS.len()));
        file.write_at(&ZEROS[..len], at)?;
        at += len as u64;
    }
    Ok(())
}

/// Encodes records one after the other, as they go to `offset`; returns where they go.
fn encode_group(
    records: &[Record],
    mut end: End,
    segment: &Segment,
    buffer: &mut Vec<u8>,
) -> Result<(Vec<Placement>, End), StorageError> {
    let durable = end.pos.0;
    let offset = segment.len();
    buffer.clear();
    let mut placements = Vec::with_capacity(records.len());
    for record in records {
        if record.pos.0 != end.pos.0 + 1 {
            let what = format!("position {} where {} is next", record.pos, end.pos.0 + 1);
            return Err(StorageError::Refused(what));
        }
        codec::check(record)?;
        let start = buffer.len();
        buffer.resize(start + RECORD_HEADER_LEN, 0);
        let places = codec::encode(record, buffer);
        let too_long = |_| StorageError::Refused("a commit that is too long".to_owned());
        let header = RecordHeader {
            crc: 0,
            len: u32::try_from(buffer.len() - start - RECORD_HEADER_LEN).map_err(too_long)?,
            pos: record.pos,
            chain: end.chain,
            behind: u32::try_from(record.pos.0 - durable).map_err(too_long)?,
        };
        end =
            End { pos: record.pos, chain: header.seal(buffer.get_mut(start..).unwrap_or(&mut [])) };
        let offset = offset + (start + RECORD_HEADER_LEN) as u64;
        placements.push(Placement { segment: segment.header.number, offset, places });
    }
    Ok((placements, end))
}

impl Log for FileLog {
    fn end(&self) -> End {
        *self.catalog.end.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn append(&self, records: &[Record]) -> Result<Appended, StorageError> {
        let mut active = self.active.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(why) = &active.stopped {
            return Err(StorageError::Stopped(why.clone()));
        }
        if records.is_empty() {
            return Ok(Appended { end: self.end(), ..Appended::default() });
        }
        let segment = self.roll(&mut active)?;
        let offset = segment.len();
        let (placements, end) = encode_group(records, self.end(), &segment, &mut active.buffer)?;
        let (write, flush) = self.write(&mut active, &segment)?;
        segment.set_len(offset + active.buffer.len() as u64);
        active.buffer.shrink_to(1 << 20);
        for (record, placement) in records.iter().zip(&placements) {
            segment.mark(record.pos, placement.offset - RECORD_HEADER_LEN as u64);
        }
        *self.catalog.end.write().unwrap_or_else(PoisonError::into_inner) = end;
        Ok(Appended { placements, end, write, flush })
    }

    fn blob(&self, place: &BlobRef) -> Result<Bytes, StorageError> {
        let bad = |what: &str| {
            let segment = self.catalog.get(place.segment);
            let near = segment.map_or(0, |segment| segment.start_for_offset(place.offset).0);
            let after = StreamPos(near.saturating_sub(1));
            let what = what.to_owned();
            StorageError::Damaged { segment: place.segment, offset: place.offset, after, what }
        };
        let segment =
            self.catalog.get(place.segment).ok_or_else(|| bad("there is no such segment"))?;
        match segment.read(place.offset, place.len as usize) {
            Ok(bytes) if crc32c::crc32c(&bytes) == place.crc => Ok(bytes),
            Ok(_) => Err(bad("the checksum of an event's body does not fit")),
            Err(Fault::Bad(what)) => Err(bad(&what)),
            Err(fault) => Err(segment.fault(place.offset, StreamPos(0), fault)),
        }
    }

    fn replay(&self, after: StreamPos) -> Result<Replay, StorageError> {
        let segments = self.catalog.segments.read().unwrap_or_else(PoisonError::into_inner);
        // The last segment that begins at or before the wanted position, and all later ones.
        let mut wanted: Vec<_> = Vec::new();
        for segment in segments.values().rev() {
            wanted.push((segment.clone(), segment.len()));
            if segment.header.first.0 <= after.0.saturating_add(1) {
                break;
            }
        }
        Ok(Box::new(FileReplay { wanted, scanner: None, after, failed: false }))
    }

    fn memory_bytes(&self) -> u64 {
        self.catalog.cache.weight()
    }

    fn close(&self) {
        self.trim();
        let packer = self.packer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(packer) = packer {
            packer.stop();
        }
    }
}

impl Drop for FileLog {
    fn drop(&mut self) {
        self.close();
    }
}

impl Catalog {
    fn get(&self, number: u64) -> Option<Arc<Segment>> {
        self.segments.read().unwrap_or_else(PoisonError::into_inner).get(&number).cloned()
    }

    fn put(&self, segment: Arc<Segment>) {
        let mut segments = self.segments.write().unwrap_or_else(PoisonError::into_inner);
        segments.insert(segment.header.number, segment);
    }
}

/// Reads segment after segment.
struct FileReplay {
    /// What is still to be read, the next one last, with how much of it.
    wanted: Vec<(Arc<Segment>, u64)>,
    scanner: Option<(Arc<Segment>, Scanner<Arc<Segment>>)>,
    after: StreamPos,
    failed: bool,
}

impl FileReplay {
    fn advance(&mut self) -> Result<Option<Located>, StorageError> {
        loop {
            let Some((segment, scanner)) = &mut self.scanner else {
                let Some((segment, len)) = self.wanted.pop() else { return Ok(None) };
                let scanner = Scanner::from(segment.clone(), len, self.after);
                self.scanner = Some((segment, scanner));
                continue;
            };
            let record = match scanner.step()? {
                Step::Record(record) if record.header.pos <= self.after => continue,
                Step::Record(record) => record,
                Step::End => {
                    self.scanner = None;
                    continue;
                }
                Step::Bad { offset, what } => {
                    return Err(segment.fault(offset, scanner.end().pos, Fault::Bad(what)));
                }
            };
            let damaged = |what| segment.fault(record.offset, self.after, Fault::Bad(what));
            if record.header.pos.0 != self.after.0 + 1 {
                return Err(damaged(format!("positions after {} are missing", self.after)));
            }
            let (decoded, places) =
                codec::decode(record.header.pos, &record.payload).map_err(damaged)?;
            self.after = record.header.pos;
            let (segment, offset) = (segment.header.number, record.payload_offset());
            let placement = Placement { segment, offset, places };
            return Ok(Some(Located { record: decoded, chain: record.header.crc, placement }));
        }
    }
}

impl Iterator for FileReplay {
    type Item = Result<Located, StorageError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let next = self.advance().transpose();
        self.failed = matches!(next, Some(Err(_)));
        next
    }
}

impl Packer {
    fn start(options: &FileLogOptions, catalog: Arc<Catalog>) -> Result<Self, StorageError> {
        let (jobs, queue) = mpsc::channel::<u64>();
        let stop = Arc::new(AtomicBool::new(false));
        let (options, stopped) = (options.clone(), stop.clone());
        let thread = std::thread::Builder::new()
            .name("log-packer".to_owned())
            .spawn(move || {
                for number in queue {
                    if stopped.load(Ordering::Relaxed) {
                        return;
                    }
                    if let Err(error) = pack_one(&options, &catalog, number, &stopped) {
                        // It stays plain, which loses nothing, and is tried again at the next start.
                        tracing::warn!(segment = number, %error, "a log segment was not compressed");
                    }
                }
            })
            .map_err(|error| StorageError::io("starting the thread that packs segments", error))?;
        Ok(Self { jobs, stop, thread })
    }

    fn pack(&self, number: u64) {
        // If the thread is gone, the segment stays plain until the next start.
        let _ = self.jobs.send(number);
    }

    fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        drop(self.jobs);
        if self.thread.join().is_err() {
            tracing::warn!("the thread that packs segments had panicked");
        }
    }
}

/// Puts a packed copy in the place of a plain segment.
fn pack_one(
    options: &FileLogOptions,
    catalog: &Catalog,
    number: u64,
    stop: &AtomicBool,
) -> Result<(), StorageError> {
    let Some(plain) = catalog.get(number).filter(|segment| segment.table().is_none()) else {
        return Ok(());
    };
    let files = options.files.as_ref();
    let path = options.dir.join(format::file_name(number));
    let temporary = path.with_extension("tmp");
    let packed = pack::pack(files, &plain, plain.len(), &temporary, stop);
    if !matches!(packed, Ok(Some(_))) {
        // What is left is removed at the next start at the latest.
        drop(files.remove(&temporary));
        return packed.map(drop);
    }
    let what = || format!("putting the packed {} in place", path.display());
    files
        .rename(&temporary, &path)
        .and_then(|()| files.sync_dir(&options.dir))
        .map_err(|error| StorageError::io(what(), error))?;
    let segment = Segment::open(files, &path, number, false, &catalog.cache)
        .map_err(|fault| segment::fault_error(number, 0, plain.header.first, fault))?;
    catalog.put(Arc::new(segment));
    Ok(())
}
