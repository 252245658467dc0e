//! Packed segments: the plain content in frames that are compressed one by one, then a table that
//! says where each is.
//!
//! ```text
//! packed  = header frames table trailer
//! table   = varints: plain_len first_pos last_pos chain(u32), number of frames, per frame:
//!           packed length, crc(u32) of the packed bytes, mark (0, or position + 1 - first, offset)
//! trailer = table_len:u32 table_crc:u32 "PRLREND\0"
//! ```

use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use bytes::{BufMut, Bytes};
use parlour_event::StreamPos;

use super::{
    End,
    format::{HEADER_LEN, SegmentHeader},
    scan::{Scanner, Step},
    segment::{Fault, Mark, Segment, fault_error},
};
use crate::{
    StorageError,
    codec::{self, Reader},
    fs::{FileSystem, StorageFile},
};

/// Plain bytes in one frame; the last one has fewer.
pub(crate) const FRAME_LEN: u64 = 64 << 10;
const TRAILER_LEN: u64 = 16;
const TRAILER_MAGIC: &[u8; 8] = b"PRLREND\0";
const MAX_TABLE: u64 = 64 << 20;
/// Above this, zstd takes much longer for little.
const LEVEL: i32 = 3;

/// Where the frames of a packed segment are.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    /// Length of the plain content, header included.
    pub(crate) plain_len: u64,
    /// The last record.
    pub(crate) end: End,
    /// For most frames, the first record that begins in it.
    pub(crate) marks: Vec<Mark>,
    frames: Vec<Frame>,
}

#[derive(Debug, Clone, Copy)]
struct Frame {
    offset: u64,
    len: u32,
    crc: u32,
}

impl Table {
    /// Reads the table of an open file of that length.
    pub(crate) fn read(file: &dyn StorageFile, file_len: u64) -> Result<Self, Fault> {
        let bad = |what: &str| Fault::Bad(format!("the segment's table: {what}"));
        let trailer_at = file_len.checked_sub(TRAILER_LEN).ok_or_else(|| bad("it is missing"))?;
        let mut trailer = [0; TRAILER_LEN as usize];
        file.read_at(&mut trailer, trailer_at)?;
        let [l0, l1, l2, l3, c0, c1, c2, c3, magic @ ..] = trailer;
        if &magic != TRAILER_MAGIC {
            return Err(bad("the file does not end as it should"));
        }
        let len = u64::from(u32::from_le_bytes([l0, l1, l2, l3]));
        let start = trailer_at.checked_sub(len).filter(|_| len <= MAX_TABLE);
        let start = start.ok_or_else(|| bad("its length cannot be"))?;
        let mut bytes = vec![0; usize::try_from(len).map_err(|_| bad("it is too long"))?];
        file.read_at(&mut bytes, start)?;
        if crc32c::crc32c(&bytes) != u32::from_le_bytes([c0, c1, c2, c3]) {
            return Err(bad("its checksum does not fit"));
        }
        let (table, frames_end) = Self::decode(&bytes.into()).map_err(|what| bad(&what))?;
        if frames_end != start {
            return Err(bad("the frames do not end where it begins"));
        }
        Ok(table)
    }

    /// Makes a table from the frames themselves, up to the first that is no frame.
    pub(crate) fn salvage(file: &dyn StorageFile, file_len: u64) -> std::io::Result<Self> {
        let mut table = Self {
            plain_len: HEADER_LEN,
            end: End::default(),
            marks: Vec::new(),
            frames: Vec::new(),
        };
        let mut offset = HEADER_LEN;
        while offset < file_len {
            // A frame that does not shrink is a little longer than its content.
            let take = (file_len - offset).min(FRAME_LEN + 1024);
            let mut bytes = vec![0; take as usize];
            file.read_at(&mut bytes, offset)?;
            let Ok(len) = zstd::zstd_safe::find_frame_compressed_size(&bytes) else { break };
            let Some(packed) = bytes.get(..len) else { break };
            let Ok(plain) = zstd::bulk::decompress(packed, FRAME_LEN as usize) else { break };
            let crc = crc32c::crc32c(packed);
            let len = u32::try_from(len).unwrap_or(u32::MAX);
            table.frames.push(Frame { offset, len, crc });
            table.plain_len += plain.len() as u64;
            offset += u64::from(len);
        }
        Ok(table)
    }

    /// Returns the table and where, by it, the last frame ends.
    fn decode(bytes: &Bytes) -> Result<(Self, u64), String> {
        let mut reader = Reader { bytes, at: 0 };
        let plain_len = reader.varint()?;
        let first = reader.varint()?;
        let end = End { pos: StreamPos(reader.varint()?), chain: reader.u32()? };
        let count = reader.varint()?;
        let content = plain_len.checked_sub(HEADER_LEN).ok_or("the content is too short")?;
        if count != content.div_ceil(FRAME_LEN) || count > bytes.len() as u64 {
            return Err("the number of frames does not fit".to_owned());
        }
        let (mut frames, mut marks) = (Vec::new(), Vec::new());
        let mut offset = HEADER_LEN;
        for _ in 0..count {
            let len = u32::try_from(reader.varint()?).map_err(|_| "a frame is too long")?;
            frames.push(Frame { offset, len, crc: reader.u32()? });
            offset = offset.checked_add(u64::from(len)).ok_or("a frame is too long")?;
            let mark = reader.varint()?;
            if mark > 0 {
                let pos = first.checked_add(mark - 1).ok_or("a position is too high")?;
                marks.push((StreamPos(pos), reader.varint()?));
            }
        }
        Ok((Self { plain_len, end, marks, frames }, offset))
    }

    fn encode(&self, first: StreamPos) -> Vec<u8> {
        let mut bytes = Vec::new();
        codec::put_varint(&mut bytes, self.plain_len);
        codec::put_varint(&mut bytes, first.0);
        codec::put_varint(&mut bytes, self.end.pos.0);
        bytes.put_u32_le(self.end.chain);
        codec::put_varint(&mut bytes, self.frames.len() as u64);
        let mut marks = self.marks.iter().peekable();
        for (number, frame) in self.frames.iter().enumerate() {
            codec::put_varint(&mut bytes, u64::from(frame.len));
            bytes.put_u32_le(frame.crc);
            let ours = |(_, offset): &&Mark| self.locate(*offset).map(|at| at.0) == Some(number);
            match marks.next_if(ours) {
                None => codec::put_varint(&mut bytes, 0),
                Some((pos, offset)) => {
                    codec::put_varint(&mut bytes, pos.0.saturating_sub(first.0) + 1);
                    codec::put_varint(&mut bytes, *offset);
                }
            }
        }
        let crc = crc32c::crc32c(&bytes);
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        bytes.put_u32_le(len);
        bytes.put_u32_le(crc);
        bytes.put_slice(TRAILER_MAGIC);
        bytes
    }

    /// The frame that holds this offset, and the offset at which the frame begins.
    pub(crate) fn locate(&self, offset: u64) -> Option<(usize, u64)> {
        let number = offset.checked_sub(HEADER_LEN)? / FRAME_LEN;
        let index = usize::try_from(number).ok().filter(|index| *index < self.frames.len())?;
        Some((index, HEADER_LEN + number * FRAME_LEN))
    }

    /// Reads and decompresses a frame.
    pub(crate) fn read_frame(&self, file: &dyn StorageFile, index: usize) -> Result<Bytes, Fault> {
        let bad = |what: &str| Fault::Bad(format!("compressed frame {index}: {what}"));
        let frame = self.frames.get(index).ok_or_else(|| bad("there is none"))?;
        let mut packed = vec![0; frame.len as usize];
        file.read_at(&mut packed, frame.offset)?;
        if crc32c::crc32c(&packed) != frame.crc {
            return Err(bad("its checksum does not fit"));
        }
        let start = HEADER_LEN + index as u64 * FRAME_LEN;
        let expected = self.plain_len.saturating_sub(start).min(FRAME_LEN);
        let plain = zstd::bulk::decompress(&packed, FRAME_LEN as usize)
            .map_err(|error| bad(&error.to_string()))?;
        if plain.len() as u64 != expected {
            return Err(bad("its length does not fit"));
        }
        Ok(plain.into())
    }
}

/// Writes a packed copy of the segment's first `len` plain bytes to `path` and makes it durable,
/// checking every record. The last record is returned, or `None` if `stop` was set meanwhile.
pub(crate) fn pack(
    files: &dyn FileSystem,
    segment: &Segment,
    len: u64,
    path: &Path,
    stop: &AtomicBool,
) -> Result<Option<End>, StorageError> {
    let Some((end, marks)) = check(segment, len, stop)? else { return Ok(None) };
    let what = || format!("writing {}", path.display());
    let out = files.create(path).map_err(|error| StorageError::io(what(), error))?;
    let header = SegmentHeader { packed: true, ..segment.header };
    let write = |bytes: &[u8], at: u64| {
        out.write_at(bytes, at).map_err(|error| StorageError::io(what(), error))
    };
    write(&header.encode(), 0)?;
    let mut table = Table { plain_len: len, end, marks, frames: Vec::new() };
    let mut compressor = zstd::bulk::Compressor::new(LEVEL)
        .map_err(|error| StorageError::io("starting zstd", error))?;
    let (mut at, mut offset) = (HEADER_LEN, HEADER_LEN);
    while at < len {
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let take = (len - at).min(FRAME_LEN);
        let plain = segment
            .read(at, take as usize)
            .map_err(|fault| fault_error(segment.header.number, at, end.pos, fault))?;
        let packed =
            compressor.compress(&plain).map_err(|error| StorageError::io(what(), error))?;
        write(&packed, offset)?;
        let len = u32::try_from(packed.len()).unwrap_or(u32::MAX);
        table.frames.push(Frame { offset, len, crc: crc32c::crc32c(&packed) });
        offset += packed.len() as u64;
        at += take;
    }
    write(&table.encode(segment.header.first), offset)?;
    out.sync().map_err(|error| StorageError::io(what(), error))?;
    Ok(Some(end))
}

/// Checks every record up to `len` and notes the first that begins in each frame.
fn check(
    segment: &Segment,
    len: u64,
    stop: &AtomicBool,
) -> Result<Option<(End, Vec<Mark>)>, StorageError> {
    let mut marks = Vec::new();
    let mut last_frame = None;
    let mut scanner = Scanner::new(segment, len);
    loop {
        match scanner.step()? {
            Step::Record(record) => {
                let frame = (record.offset - HEADER_LEN) / FRAME_LEN;
                if last_frame != Some(frame) {
                    marks.push((record.header.pos, record.offset));
                    last_frame = Some(frame);
                }
            }
            Step::End => return Ok(Some((scanner.end(), marks))),
            Step::Bad { offset, what } => {
                let after = scanner.end().pos;
                return Err(segment.fault(offset, after, Fault::Bad(what)));
            }
        }
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
    }
}
