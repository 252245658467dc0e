//! The bytes of a segment file.
//!
//! ```text
//! segment  = header, then records (plain) or frames, table, trailer (packed)
//! header   = "PRLRSEG\0" version:u16 kind:u8 packing:u8 number:u64 first:u64 chain:u32
//!            through:u64 zeros crc:u32                                       (64 bytes)
//! record   = crc:u32 len:u32 pos:u64 chain:u32 behind:u32 payload            (24 bytes + len)
//! ```
//!
//! Behind the records of the segment that is being written, zeros are written ahead of those to come.
//!
//! Numbers are little-endian. `chain` is the checksum of the record before. `behind` says how far
//! behind `pos` the log was durable when this record was written: it tells a torn group (nothing of
//! it was acknowledged) from damage to what had been durable.
//!
//! `kind` 1 marks a base segment, which compaction will write: it replaces all segments with lower
//! numbers, that is all positions up to `through`. Offsets always count in the plain content,
//! header included, so packing a segment moves nothing.

use parlour_event::StreamPos;

pub(crate) const HEADER_LEN: u64 = 64;
pub(crate) const RECORD_HEADER_LEN: usize = 24;
const MAGIC: &[u8; 8] = b"PRLRSEG\0";
const VERSION: u16 = 1;
const KIND_NORMAL: u8 = 0;
const KIND_BASE: u8 = 1;

/// The first bytes of a segment file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) number: u64,
    /// Whether the records are in compressed frames.
    pub(crate) packed: bool,
    /// Position of the first record.
    pub(crate) first: StreamPos,
    /// Checksum of the record before it.
    pub(crate) chain: u32,
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; HEADER_LEN as usize] {
        let mut bytes = [0; HEADER_LEN as usize];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..10].copy_from_slice(&VERSION.to_le_bytes());
        bytes[10] = KIND_NORMAL;
        bytes[11] = u8::from(self.packed);
        bytes[12..20].copy_from_slice(&self.number.to_le_bytes());
        bytes[20..28].copy_from_slice(&self.first.0.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.chain.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads a header; the error says what does not fit.
    pub(crate) fn decode(bytes: &[u8; HEADER_LEN as usize]) -> Result<Self, String> {
        if &bytes[..8] != MAGIC {
            return Err("the file does not begin as a log segment does".to_owned());
        }
        if crc32c::crc32c(&bytes[..60]) != u32_at(bytes, 60) {
            return Err("the checksum of the segment's header does not fit".to_owned());
        }
        let version = u16::from_le_bytes([bytes[8], bytes[9]]);
        if version != VERSION {
            return Err(format!("segment format {version} is unknown to this version of Parlour"));
        }
        match bytes[10] {
            KIND_NORMAL => {}
            KIND_BASE => return Err("base segments need a later version of Parlour".to_owned()),
            kind => return Err(format!("segment kind {kind} is unknown")),
        }
        if bytes[11] > 1 {
            return Err(format!("segment packing {} is unknown", bytes[11]));
        }
        Ok(Self {
            number: u64_at(bytes, 12),
            packed: bytes[11] == 1,
            first: StreamPos(u64_at(bytes, 20)),
            chain: u32_at(bytes, 28),
        })
    }
}

/// What stands in front of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RecordHeader {
    pub(crate) crc: u32,
    pub(crate) len: u32,
    pub(crate) pos: StreamPos,
    pub(crate) chain: u32,
    pub(crate) behind: u32,
}

impl RecordHeader {
    /// Writes the header over the first bytes of `record`, whose payload is in place; returns the
    /// record's checksum.
    pub(crate) fn seal(mut self, record: &mut [u8]) -> u32 {
        if let Some(head) = record.first_chunk_mut::<RECORD_HEADER_LEN>() {
            head[4..8].copy_from_slice(&self.len.to_le_bytes());
            head[8..16].copy_from_slice(&self.pos.0.to_le_bytes());
            head[16..20].copy_from_slice(&self.chain.to_le_bytes());
            head[20..24].copy_from_slice(&self.behind.to_le_bytes());
        }
        self.crc = record.get(4..).map_or(0, crc32c::crc32c);
        if let Some(place) = record.first_chunk_mut::<4>() {
            *place = self.crc.to_le_bytes();
        }
        self.crc
    }

    pub(crate) fn decode(bytes: &[u8; RECORD_HEADER_LEN]) -> Self {
        Self {
            crc: u32_at(bytes, 0),
            len: u32_at(bytes, 4),
            pos: StreamPos(u64_at(bytes, 8)),
            chain: u32_at(bytes, 16),
            behind: u32_at(bytes, 20),
        }
    }

    /// Length of the record with its header, in bytes.
    pub(crate) fn whole_len(&self) -> u64 {
        RECORD_HEADER_LEN as u64 + u64::from(self.len)
    }

    /// The last position that was durable before this record was written.
    pub(crate) fn durable_before(&self) -> u64 {
        self.pos.0.saturating_sub(u64::from(self.behind))
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|part| part.try_into().ok()).map_or(0, u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|part| part.try_into().ok()).map_or(0, u64::from_le_bytes)
}

/// The name of a segment's file.
pub(crate) fn file_name(number: u64) -> String {
    format!("{number:016}.seg")
}

/// The number in the name of a segment's file.
pub(crate) fn parse_file_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".seg")?;
    let number = digits.parse().ok()?;
    (digits.len() == 16 && number > 0 && file_name(number) == name).then_some(number)
}
