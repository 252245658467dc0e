//! The bytes of a record's payload in the log, and of a value in the index.
//!
//! Payload: the number of operations, the operations, the announcement. Numbers are LEB128 varints,
//! byte strings are preceded by their length. Decoding takes any bytes and never panics.

use std::ops::Range;

use bytes::{BufMut, Bytes};
use parlour_event::StreamPos;

use crate::{BlobRef, Op, Record, StorageError};

/// The longest payload of one record, in bytes.
pub(crate) const MAX_PAYLOAD: usize = 64 << 20;
/// The longest key, in bytes.
pub(crate) const MAX_KEY: usize = 4 << 10;
/// The most operations in one record.
pub(crate) const MAX_OPS: usize = 1 << 20;
/// Values longer than this, in bytes, stay in the log; the index keeps their place. It is slow
/// with long values, and above 128 KiB it does not keep them safe.
pub(crate) const MAX_INLINE: usize = 4 << 10;

const PUT: u8 = 0;
const PUT_BLOB: u8 = 1;
const DELETE: u8 = 2;

/// Where in the payload an operation's value and blob begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    /// Offset of the value.
    pub(crate) value: u32,
    /// Offset of the blob.
    pub(crate) blob: u32,
}

/// Checks a record against the limits, before anything is written.
pub(crate) fn check(record: &Record) -> Result<(), StorageError> {
    let refuse = |what: String| Err(StorageError::Refused(format!("{what} (at {})", record.pos)));
    if record.ops.len() > MAX_OPS {
        return refuse(format!("{} operations in one commit", record.ops.len()));
    }
    let mut size = record.announcement.len() + 32;
    for op in &record.ops {
        let (key, value, blob) = match op {
            Op::Put { key, value } => (key, value.len(), 0),
            Op::PutBlob { key, value, blob } => (key, value.len(), blob.len()),
            Op::Delete { key } => (key, 0, 0),
        };
        if key.len() > MAX_KEY || key.first().is_none_or(|byte| matches!(*byte, 0 | u8::MAX)) {
            return refuse(format!(
                "a key of {} bytes, empty or starting with 0 or 255",
                key.len()
            ));
        }
        size = size.saturating_add(key.len() + 32).saturating_add(value).saturating_add(blob);
    }
    if size > MAX_PAYLOAD {
        return refuse(format!("a commit of {size} bytes"));
    }
    Ok(())
}

/// Appends a record's payload to the buffer. Places count from the payload's first byte.
pub(crate) fn encode(record: &Record, buffer: &mut Vec<u8>) -> Vec<Place> {
    let start = buffer.len();
    put_varint(buffer, record.ops.len() as u64);
    let mut places = Vec::with_capacity(record.ops.len());
    for op in &record.ops {
        let mut place = Place::default();
        match op {
            Op::Put { key, value } => {
                buffer.put_u8(PUT);
                put_bytes(buffer, start, key);
                place.value = put_bytes(buffer, start, value);
            }
            Op::PutBlob { key, value, blob } => {
                buffer.put_u8(PUT_BLOB);
                put_bytes(buffer, start, key);
                place.value = put_bytes(buffer, start, value);
                place.blob = put_bytes(buffer, start, blob);
            }
            Op::Delete { key } => {
                buffer.put_u8(DELETE);
                put_bytes(buffer, start, key);
            }
        }
        places.push(place);
    }
    put_bytes(buffer, start, &record.announcement);
    places
}

/// Reads a payload; the error says what does not fit.
pub(crate) fn decode(pos: StreamPos, payload: &Bytes) -> Result<(Record, Vec<Place>), String> {
    let mut reader = Reader { bytes: payload, at: 0 };
    let count = reader.varint()?;
    // Each operation takes at least two bytes.
    if count > MAX_OPS as u64 || count > payload.len() as u64 / 2 {
        return Err(format!("{count} operations in {} bytes", payload.len()));
    }
    let mut ops = Vec::new();
    let mut places = Vec::new();
    for _ in 0..count {
        let tag = reader.byte()?;
        let (key, _) = reader.byte_string()?;
        let mut place = Place::default();
        let op = match tag {
            PUT => {
                let value;
                (value, place.value) = reader.byte_string()?;
                Op::Put { key, value }
            }
            PUT_BLOB => {
                let (value, blob);
                (value, place.value) = reader.byte_string()?;
                (blob, place.blob) = reader.byte_string()?;
                Op::PutBlob { key, value, blob }
            }
            DELETE => Op::Delete { key },
            other => return Err(format!("operation of unknown kind {other}")),
        };
        ops.push(op);
        places.push(place);
    }
    let (announcement, _) = reader.byte_string()?;
    if reader.at != payload.len() {
        return Err("bytes after the end of the record".to_owned());
    }
    Ok((Record { pos, ops, announcement }, places))
}

const HAS_BLOB: u8 = 1;
const SPILLED: u8 = 2;

/// What stands behind a key in the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    /// The value itself.
    Inline(Bytes),
    /// Where in the log a value too long for the index is.
    Spilled(BlobRef),
}

/// The bytes behind a key in the index.
pub(crate) fn encode_entry(value: &Value, blob: Option<&BlobRef>) -> Vec<u8> {
    let inline = if let Value::Inline(value) = value { value.len() } else { 0 };
    let mut buffer = Vec::with_capacity(inline + 24);
    let spilled = if matches!(value, Value::Spilled(_)) { SPILLED } else { 0 };
    buffer.put_u8(spilled | if blob.is_some() { HAS_BLOB } else { 0 });
    if let Some(blob) = blob {
        put_blob_ref(&mut buffer, blob);
    }
    match value {
        Value::Inline(value) => buffer.extend_from_slice(value),
        Value::Spilled(place) => put_blob_ref(&mut buffer, place),
    }
    buffer
}

/// Reads what stands behind a key in the index.
pub(crate) fn decode_entry(bytes: &Bytes) -> Result<(Value, Option<BlobRef>), String> {
    let mut reader = Reader { bytes, at: 0 };
    let tag = reader.byte()?;
    if tag & !(HAS_BLOB | SPILLED) != 0 {
        return Err(format!("entry of unknown kind {tag}"));
    }
    let blob = if tag & HAS_BLOB == 0 { None } else { Some(reader.blob_ref()?) };
    if tag & SPILLED == 0 {
        return Ok((Value::Inline(bytes.slice(reader.at..)), blob));
    }
    let place = reader.blob_ref()?;
    if reader.at != bytes.len() {
        return Err("bytes after the end of the entry".to_owned());
    }
    Ok((Value::Spilled(place), blob))
}

pub(crate) fn put_varint(buffer: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        buffer.push((value as u8 & 0x7f) | 0x80);
        value >>= 7;
    }
    buffer.push(value as u8);
}

/// Returns where the bytes begin, counted from `start`.
fn put_bytes(buffer: &mut Vec<u8>, start: usize, bytes: &[u8]) -> u32 {
    put_varint(buffer, bytes.len() as u64);
    // A payload that reaches u32::MAX has been refused before.
    let at = u32::try_from(buffer.len() - start).unwrap_or(u32::MAX);
    buffer.extend_from_slice(bytes);
    at
}

fn put_blob_ref(buffer: &mut Vec<u8>, blob: &BlobRef) {
    put_varint(buffer, blob.segment);
    put_varint(buffer, blob.offset);
    put_varint(buffer, u64::from(blob.len));
    buffer.put_u32_le(blob.crc);
}

/// Takes values off untrusted bytes.
pub(crate) struct Reader<'a> {
    pub(crate) bytes: &'a Bytes,
    pub(crate) at: usize,
}

impl Reader<'_> {
    pub(crate) fn byte(&mut self) -> Result<u8, String> {
        let byte = *self.bytes.get(self.at).ok_or("it ends too early")?;
        self.at += 1;
        Ok(byte)
    }

    pub(crate) fn varint(&mut self) -> Result<u64, String> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let part = u64::from(byte & 0x7f);
            if shift == 63 && part > 1 {
                break;
            }
            value |= part << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err("a number of more than 64 bits".to_owned())
    }

    pub(crate) fn u32(&mut self) -> Result<u32, String> {
        let mut bytes = [0; 4];
        for byte in &mut bytes {
            *byte = self.byte()?;
        }
        Ok(u32::from_le_bytes(bytes))
    }

    /// Where the next byte string is.
    pub(crate) fn span(&mut self) -> Result<Range<usize>, String> {
        let len = self.varint()?;
        self.take(len)
    }

    /// Where the next so many bytes are.
    pub(crate) fn take(&mut self, len: u64) -> Result<Range<usize>, String> {
        let left = self.bytes.len() - self.at;
        let len = usize::try_from(len).ok().filter(|len| *len <= left);
        let len = len.ok_or("a length that reaches past the end")?;
        let span = self.at..self.at + len;
        self.at = span.end;
        Ok(span)
    }

    fn byte_string(&mut self) -> Result<(Bytes, u32), String> {
        let span = self.span()?;
        let at = u32::try_from(span.start).map_err(|_| "it is too long")?;
        Ok((self.bytes.slice(span), at))
    }

    fn blob_ref(&mut self) -> Result<BlobRef, String> {
        let (segment, offset) = (self.varint()?, self.varint()?);
        let len = u32::try_from(self.varint()?).map_err(|_| "a body that is too long")?;
        Ok(BlobRef { segment, offset, len, crc: self.u32()? })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes() -> impl Strategy<Value = Bytes> {
        prop::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from)
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            (bytes(), bytes()).prop_map(|(key, value)| Op::Put { key, value }),
            (bytes(), bytes(), bytes()).prop_map(|(key, value, blob)| Op::PutBlob {
                key,
                value,
                blob
            }),
            bytes().prop_map(|key| Op::Delete { key }),
        ]
    }

    proptest! {
        #[test]
        fn a_record_comes_back_and_its_places_are_right(
            ops in prop::collection::vec(op(), 0..10),
            announcement in bytes(),
            before in prop::collection::vec(any::<u8>(), 0..5),
        ) {
            let record = Record { pos: StreamPos(7), ops, announcement };
            let mut buffer = before.clone();
            let places = encode(&record, &mut buffer);
            let payload = Bytes::from(buffer).slice(before.len()..);
            let (decoded, again) = decode(StreamPos(7), &payload).unwrap();
            prop_assert_eq!(&decoded, &record);
            prop_assert_eq!(&again, &places);
            for (op, place) in record.ops.iter().zip(places) {
                if let Op::PutBlob { value, blob, .. } = op {
                    prop_assert!(payload[place.value as usize..].starts_with(value));
                    prop_assert!(payload[place.blob as usize..].starts_with(blob));
                }
            }
        }

        #[test]
        fn garbage_is_an_error_or_a_record_that_encodes_again(
            garbage in prop::collection::vec(any::<u8>(), 0..200)
        ) {
            let _ = decode_entry(&Bytes::from(garbage.clone()));
            if let Ok((record, _)) = decode(StreamPos(1), &Bytes::from(garbage)) {
                let mut buffer = Vec::new();
                encode(&record, &mut buffer);
                prop_assert_eq!(decode(StreamPos(1), &Bytes::from(buffer)).unwrap().0, record);
            }
        }

        #[test]
        fn a_cut_record_is_an_error(ops in prop::collection::vec(op(), 1..5), cut in any::<u16>()) {
            let record = Record { pos: StreamPos(7), ops, announcement: Bytes::from_static(b"x") };
            let mut buffer = Vec::new();
            encode(&record, &mut buffer);
            buffer.truncate(usize::from(cut) % buffer.len());
            prop_assert!(decode(StreamPos(7), &Bytes::from(buffer)).is_err());
        }

        #[test]
        fn an_entry_comes_back(
            value in bytes(), spilled: bool, with_blob: bool, numbers: (u64, u64, u32, u32)
        ) {
            let (segment, offset, len, crc) = numbers;
            let place = BlobRef { segment, offset, len, crc };
            let value = if spilled { Value::Spilled(place) } else { Value::Inline(value) };
            let blob = with_blob.then_some(place);
            let bytes = Bytes::from(encode_entry(&value, blob.as_ref()));
            prop_assert_eq!(decode_entry(&bytes).unwrap(), (value, blob));
        }
    }
}
