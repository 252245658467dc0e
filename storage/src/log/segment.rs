//! One segment file, plain or packed, as its readers see it.

use std::{
    io,
    path::Path,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use parlour_event::StreamPos;
use quick_cache::{Weighter, sync::Cache};

use super::{
    format::{self, HEADER_LEN, SegmentHeader},
    pack::{self, Table},
};
use crate::{
    StorageError,
    fs::{FileSystem, StorageFile},
};

/// Decompressed frames that were read lately, by segment and number of the frame.
pub(crate) type FrameCache = Cache<(u64, usize), Bytes, FrameWeight>;

#[derive(Debug, Clone)]
pub(crate) struct FrameWeight;

impl Weighter<(u64, usize), Bytes> for FrameWeight {
    fn weight(&self, _: &(u64, usize), frame: &Bytes) -> u64 {
        frame.len() as u64 + 64
    }
}

/// A cache of at most about that many bytes.
pub(crate) fn frame_cache(bytes: u64) -> Arc<FrameCache> {
    let frames = usize::try_from(bytes / pack::FRAME_LEN).unwrap_or(usize::MAX).max(2);
    Arc::new(Cache::with_weighter(frames, bytes.max(pack::FRAME_LEN * 2), FrameWeight))
}

/// Why content could not be read.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The operating system refused.
    Io(io::Error),
    /// The bytes are not what was written.
    Bad(String),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Bad("the file is too short".to_owned()),
            _ => Self::Io(error),
        }
    }
}

/// A place from which reading can start: a record's position and the offset of its header.
pub(crate) type Mark = (StreamPos, u64);

/// An open segment.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) header: SegmentHeader,
    body: Body,
}

#[derive(Debug)]
enum Body {
    Plain {
        file: Arc<dyn StorageFile>,
        /// How much of it is durable and may be read.
        len: AtomicU64,
        marks: RwLock<Vec<Mark>>,
    },
    Packed {
        file: Arc<dyn StorageFile>,
        table: Table,
        cache: Arc<FrameCache>,
    },
}

impl Segment {
    /// Opens a segment file. A plain one is readable to the end of the file.
    pub(crate) fn open(
        files: &dyn FileSystem,
        path: &Path,
        number: u64,
        write: bool,
        cache: &Arc<FrameCache>,
    ) -> Result<Self, Fault> {
        let file = files.open(path, write)?;
        let mut bytes = [0; HEADER_LEN as usize];
        file.read_at(&mut bytes, 0)?;
        let header = SegmentHeader::decode(&bytes).map_err(Fault::Bad)?;
        if header.number != number {
            return Err(Fault::Bad(format!("it is segment {} by its header", header.number)));
        }
        let len = file.len()?;
        let body = if header.packed {
            let table = Table::read(file.as_ref(), len)?;
            Body::Packed { file, table, cache: cache.clone() }
        } else {
            Body::Plain { file, len: AtomicU64::new(len), marks: RwLock::default() }
        };
        Ok(Self { header, body })
    }

    /// Opens a damaged segment file as well as possible. Nothing that it says may be trusted, except
    /// records whose checksum fits.
    pub(crate) fn salvage(
        files: &dyn FileSystem,
        path: &Path,
        number: u64,
        cache: &Arc<FrameCache>,
    ) -> io::Result<Self> {
        let file = files.open(path, false)?;
        let len = file.len()?;
        let mut bytes = [0; HEADER_LEN as usize];
        let header = match file.read_at(&mut bytes, 0) {
            Ok(()) => SegmentHeader::decode(&bytes).ok(),
            Err(_) => None,
        };
        let table = Table::read(file.as_ref(), len).ok();
        let packed = header.map_or(table.is_some(), |header| header.packed);
        let unknown = SegmentHeader { number, packed, first: StreamPos(0), chain: 0 };
        let header = SegmentHeader { number, ..header.unwrap_or(unknown) };
        let body = if packed {
            let table = match table {
                Some(table) => table,
                None => Table::salvage(file.as_ref(), len)?,
            };
            Body::Packed { file, table, cache: cache.clone() }
        } else {
            Body::Plain { file, len: AtomicU64::new(len), marks: RwLock::default() }
        };
        Ok(Self { header, body })
    }

    /// Creates the file of a new segment and makes it durable, its name too.
    pub(crate) fn create(
        files: &dyn FileSystem,
        dir: &Path,
        header: SegmentHeader,
    ) -> io::Result<Self> {
        let file = files.create(&dir.join(format::file_name(header.number)))?;
        file.write_at(&header.encode(), 0)?;
        file.sync()?;
        files.sync_dir(dir)?;
        let len = AtomicU64::new(HEADER_LEN);
        Ok(Self { header, body: Body::Plain { file, len, marks: RwLock::default() } })
    }

    /// Length of the plain content that may be read, header included, in bytes.
    pub(crate) fn len(&self) -> u64 {
        match &self.body {
            Body::Plain { len, .. } => len.load(Ordering::Acquire),
            Body::Packed { table, .. } => table.plain_len,
        }
    }

    /// Says how much of a plain segment may be read.
    pub(crate) fn set_len(&self, to: u64) {
        if let Body::Plain { len, .. } = &self.body {
            len.store(to, Ordering::Release);
        }
    }

    /// The file, if it is plain.
    pub(crate) fn plain_file(&self) -> Option<&Arc<dyn StorageFile>> {
        match &self.body {
            Body::Plain { file, .. } => Some(file),
            Body::Packed { .. } => None,
        }
    }

    /// The table, if it is packed.
    pub(crate) fn table(&self) -> Option<&Table> {
        match &self.body {
            Body::Plain { .. } => None,
            Body::Packed { table, .. } => Some(table),
        }
    }

    /// Remembers where a record begins, if the last one remembered is far enough away.
    pub(crate) fn mark(&self, pos: StreamPos, offset: u64) {
        if let Body::Plain { marks, .. } = &self.body {
            let mut marks = marks.write().unwrap_or_else(PoisonError::into_inner);
            if marks.last().is_none_or(|(_, last)| offset >= last + pack::FRAME_LEN) {
                marks.push((pos, offset));
            }
        }
    }

    /// Where to start reading in order to find the records after this position.
    pub(crate) fn start_for(&self, after: StreamPos) -> Mark {
        let first = (self.header.first, HEADER_LEN);
        let find = |marks: &[Mark]| {
            let past = marks.partition_point(|(pos, _)| *pos <= after);
            past.checked_sub(1).and_then(|at| marks.get(at)).copied().unwrap_or(first)
        };
        match &self.body {
            Body::Plain { marks, .. } => {
                find(&marks.read().unwrap_or_else(PoisonError::into_inner))
            }
            Body::Packed { table, .. } => find(&table.marks),
        }
    }

    /// A position at or shortly before the record that holds this offset.
    pub(crate) fn start_for_offset(&self, offset: u64) -> StreamPos {
        let find = |marks: &[Mark]| {
            let past = marks.partition_point(|(_, at)| *at <= offset);
            past.checked_sub(1).and_then(|at| marks.get(at)).map(|mark| mark.0)
        };
        let found = match &self.body {
            Body::Plain { marks, .. } => {
                find(&marks.read().unwrap_or_else(PoisonError::into_inner))
            }
            Body::Packed { table, .. } => find(&table.marks),
        };
        found.unwrap_or(self.header.first)
    }

    /// The next offset that is worth reading after this one could not be read.
    pub(crate) fn after_unreadable(&self, offset: u64) -> u64 {
        match &self.body {
            Body::Plain { .. } => offset + 1,
            Body::Packed { table, .. } => {
                table.locate(offset).map_or(offset + 1, |(_, start)| start + pack::FRAME_LEN)
            }
        }
    }

    /// Reads that many bytes of the plain content.
    pub(crate) fn read(&self, offset: u64, len: usize) -> Result<Bytes, Fault> {
        let end = offset.checked_add(len as u64);
        if end.is_none_or(|end| end > self.len()) {
            return Err(Fault::Bad("a place past the end of the segment".to_owned()));
        }
        match &self.body {
            Body::Plain { file, .. } => {
                let mut buffer = vec![0; len];
                file.read_at(&mut buffer, offset)?;
                Ok(buffer.into())
            }
            Body::Packed { file, table, cache } => {
                let number = self.header.number;
                read_packed(table, offset, len, |frame| {
                    if let Some(bytes) = cache.get(&(number, frame)) {
                        return Ok(bytes);
                    }
                    let bytes = table.read_frame(file.as_ref(), frame)?;
                    cache.insert((number, frame), bytes.clone());
                    Ok(bytes)
                })
            }
        }
    }

    /// The error that names this segment.
    pub(crate) fn fault(&self, offset: u64, after: StreamPos, fault: Fault) -> StorageError {
        fault_error(self.header.number, offset, after, fault)
    }
}

/// The error for content of this segment that could not be read.
pub(crate) fn fault_error(
    segment: u64,
    offset: u64,
    after: StreamPos,
    fault: Fault,
) -> StorageError {
    match fault {
        Fault::Io(error) => StorageError::io(format!("reading log segment {segment}"), error),
        Fault::Bad(what) => StorageError::Damaged { segment, offset, after, what },
    }
}

/// Puts together what lies in one frame or across several.
fn read_packed(
    table: &Table,
    offset: u64,
    len: usize,
    mut frame: impl FnMut(usize) -> Result<Bytes, Fault>,
) -> Result<Bytes, Fault> {
    let outside = || Fault::Bad("a place outside of the frames".to_owned());
    let mut collected = Vec::new();
    let mut at = offset;
    let end = offset + len as u64;
    while at < end {
        let (number, start) = table.locate(at).ok_or_else(outside)?;
        let bytes = frame(number)?;
        let from = usize::try_from(at - start).map_err(|_| outside())?;
        let until = usize::try_from(end - start).map_err(|_| outside())?.min(bytes.len());
        if from >= until {
            return Err(outside());
        }
        let part = bytes.slice(from..until);
        if part.len() == len {
            return Ok(part);
        }
        at += part.len() as u64;
        collected.extend_from_slice(&part);
    }
    Ok(collected.into())
}
