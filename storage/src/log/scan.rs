//! Walks the records of a segment, checking each.

use bytes::Bytes;
use parlour_event::StreamPos;

use super::{
    End,
    format::{HEADER_LEN, RECORD_HEADER_LEN, RecordHeader},
    segment::{Fault, Segment, fault_error},
};
use crate::{StorageError, codec::MAX_PAYLOAD};

/// Bytes that are read at once.
const WINDOW: u64 = 256 << 10;

/// A whole record whose checksum fits.
#[derive(Debug, Clone)]
pub(crate) struct RawRecord {
    pub(crate) header: RecordHeader,
    pub(crate) payload: Bytes,
    /// Offset of the record's header.
    pub(crate) offset: u64,
}

impl RawRecord {
    /// Offset of the payload.
    pub(crate) fn payload_offset(&self) -> u64 {
        self.offset + RECORD_HEADER_LEN as u64
    }
}

/// One step of a walk.
#[derive(Debug)]
pub(crate) enum Step {
    /// The next record.
    Record(RawRecord),
    /// There are no more records: no more bytes, or only the zeros that were written ahead of
    /// records.
    End,
    /// The bytes here are not the next record. The walk stays here.
    Bad { offset: u64, what: String },
}

/// A walk through one segment.
#[derive(Debug)]
pub(crate) struct Scanner<S> {
    segment: S,
    offset: u64,
    limit: u64,
    end: End,
    /// Whether `end.chain` is known; it isn't after a start in the middle.
    chained: bool,
    window: Bytes,
    window_at: u64,
}

impl<S: std::ops::Deref<Target = Segment>> Scanner<S> {
    /// From the segment's first record to the byte at `limit`.
    pub(crate) fn new(segment: S, limit: u64) -> Self {
        let header = segment.header;
        let end = End { pos: StreamPos(header.first.0.saturating_sub(1)), chain: header.chain };
        Self::at(segment, HEADER_LEN, limit, end, true)
    }

    /// From the segment's first byte of content, after a record elsewhere.
    pub(crate) fn resume(segment: S, limit: u64, end: End) -> Self {
        Self::at(segment, HEADER_LEN, limit, end, true)
    }

    /// From close before the first record after `after`.
    pub(crate) fn from(segment: S, limit: u64, after: StreamPos) -> Self {
        let (pos, offset) = segment.start_for(after);
        if offset == HEADER_LEN {
            return Self::new(segment, limit);
        }
        let end = End { pos: StreamPos(pos.0.saturating_sub(1)), chain: 0 };
        Self::at(segment, offset, limit, end, false)
    }

    fn at(segment: S, offset: u64, limit: u64, end: End, chained: bool) -> Self {
        Self { segment, offset, limit, end, chained, window: Bytes::new(), window_at: 0 }
    }

    /// The last record that was walked over.
    pub(crate) fn end(&self) -> End {
        self.end
    }

    /// The next record.
    ///
    /// # Errors
    ///
    /// Only what the operating system refuses.
    pub(crate) fn step(&mut self) -> Result<Step, StorageError> {
        if self.offset >= self.limit {
            return Ok(Step::End);
        }
        let (end, chained) = (self.end, self.chained);
        match self.read_record(self.offset) {
            Ok(record) => match misfit(&record.header, end, chained) {
                Some(what) => Ok(Step::Bad { offset: self.offset, what }),
                None => {
                    self.pass(&record);
                    Ok(Step::Record(record))
                }
            },
            Err(Fault::Bad(_)) if self.only_zeros_follow() => Ok(Step::End),
            Err(Fault::Bad(what)) => Ok(Step::Bad { offset: self.offset, what }),
            Err(fault) => Err(fault_error(self.segment.header.number, self.offset, end.pos, fault)),
        }
    }

    /// Whether nothing but zeros lies between here and the limit. What can't be read is no zero.
    fn only_zeros_follow(&mut self) -> bool {
        let mut at = self.offset;
        while at < self.limit {
            let len = (self.limit - at).min(WINDOW);
            let Ok(bytes) = self.bytes(at, usize::try_from(len).unwrap_or(0)) else { return false };
            if bytes.iter().any(|byte| *byte != 0) {
                return false;
            }
            at += len;
        }
        true
    }

    /// Where the next record is, or would be.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    fn pass(&mut self, record: &RawRecord) {
        self.offset = record.offset + record.header.whole_len();
        self.end = End { pos: record.header.pos, chain: record.header.crc };
        self.chained = true;
    }

    /// From a bad place on, looks at every offset for a whole record of a later position, and goes
    /// past it. `None` at the end.
    ///
    /// # Errors
    ///
    /// Only what the operating system refuses.
    pub(crate) fn resync(&mut self) -> Result<Option<RawRecord>, StorageError> {
        let last = self.end.pos.0;
        let mut at = self.offset;
        while at < self.limit {
            if let Err(Fault::Bad(_)) = self.bytes(at, 1) {
                at = self.segment.after_unreadable(at);
                continue;
            }
            // Every record takes some bytes, which bounds how far positions can have come.
            let highest = last
                .saturating_add(1 + (self.limit - at) / RECORD_HEADER_LEN as u64)
                .saturating_add((at - self.offset) / RECORD_HEADER_LEN as u64);
            let plausible = |header: &RecordHeader| header.pos.0 > last && header.pos.0 <= highest;
            match self.read_checked(at, plausible) {
                Ok(record) => {
                    self.pass(&record);
                    return Ok(Some(record));
                }
                Err(Fault::Bad(_)) => at += 1,
                Err(fault) => {
                    return Err(fault_error(self.segment.header.number, at, self.end.pos, fault));
                }
            }
        }
        Ok(None)
    }

    fn read_record(&mut self, at: u64) -> Result<RawRecord, Fault> {
        self.read_checked(at, |_| true)
    }

    /// Reads the record at an offset if its header is wanted and its checksum fits.
    fn read_checked(
        &mut self,
        at: u64,
        wanted: impl Fn(&RecordHeader) -> bool,
    ) -> Result<RawRecord, Fault> {
        let bad = |what: &str| Err(Fault::Bad(what.to_owned()));
        if self.limit - at < RECORD_HEADER_LEN as u64 {
            return bad("the record is cut off");
        }
        let head = self.bytes(at, RECORD_HEADER_LEN)?;
        let Some(head) = head.first_chunk() else { return bad("the record is cut off") };
        let header = RecordHeader::decode(head);
        if !wanted(&header) {
            return bad("another position");
        }
        if header.len as usize > MAX_PAYLOAD || header.whole_len() > self.limit - at {
            return bad("the record's length reaches past the end, or the record is cut off");
        }
        let record = self.bytes(at, RECORD_HEADER_LEN + header.len as usize)?;
        if record.get(4..).map(crc32c::crc32c) != Some(header.crc) {
            return bad("the record's checksum does not fit");
        }
        Ok(RawRecord { header, payload: record.slice(RECORD_HEADER_LEN..), offset: at })
    }

    fn bytes(&mut self, at: u64, len: usize) -> Result<Bytes, Fault> {
        let held = |scanner: &Self| {
            let from = usize::try_from(at.checked_sub(scanner.window_at)?).ok()?;
            let until = from.checked_add(len).filter(|until| *until <= scanner.window.len())?;
            Some(scanner.window.slice(from..until))
        };
        if let Some(bytes) = held(self) {
            return Ok(bytes);
        }
        let take = (self.limit - at).min(WINDOW.max(len as u64));
        let take = usize::try_from(take).map_err(|_| Fault::Bad("too long".to_owned()))?;
        match self.segment.read(at, take) {
            Ok(window) => {
                self.window = window;
                self.window_at = at;
                Ok(self.window.slice(..len))
            }
            // Beyond what is asked for there may be damage that is none of this record's.
            Err(Fault::Bad(_)) if take > len => self.segment.read(at, len),
            Err(fault) => Err(fault),
        }
    }
}

/// Why a whole record is not the next one.
fn misfit(header: &RecordHeader, end: End, chained: bool) -> Option<String> {
    if header.pos.0 != end.pos.0 + 1 {
        return Some(format!("position {} where {} should be", header.pos, end.pos.0 + 1));
    }
    if chained && header.chain != end.chain {
        return Some("the record belongs to another log".to_owned());
    }
    None
}
