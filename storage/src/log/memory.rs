//! The log in memory: for tests, and for servers that keep nothing.

use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use parlour_event::StreamPos;

use super::{Appended, End, Located, Log, Placement, Replay};
use crate::{BlobRef, Record, StorageError, codec};

/// The log in memory. Each record is its own segment, numbered by its position.
#[derive(Debug, Clone, Default)]
pub struct MemoryLog {
    payloads: Arc<RwLock<Vec<(Bytes, u32)>>>,
}

impl MemoryLog {
    fn at(&self, pos: u64) -> Option<(Bytes, u32)> {
        let index = usize::try_from(pos.checked_sub(1)?).ok()?;
        self.payloads.read().unwrap_or_else(PoisonError::into_inner).get(index).cloned()
    }
}

impl Log for MemoryLog {
    fn end(&self) -> End {
        let payloads = self.payloads.read().unwrap_or_else(PoisonError::into_inner);
        let chain = payloads.last().map_or(0, |(_, chain)| *chain);
        End { pos: StreamPos(payloads.len() as u64), chain }
    }

    fn append(&self, records: &[Record]) -> Result<Appended, StorageError> {
        let mut end = self.end();
        let mut placements = Vec::with_capacity(records.len());
        let mut encoded = Vec::with_capacity(records.len());
        for record in records {
            if record.pos.0 != end.pos.0 + 1 {
                let what = format!("position {} where {} is next", record.pos, end.pos.0 + 1);
                return Err(StorageError::Refused(what));
            }
            codec::check(record)?;
            let mut payload = Vec::new();
            let places = codec::encode(record, &mut payload);
            end = End { pos: record.pos, chain: crc32c::crc32c_append(end.chain, &payload) };
            encoded.push((Bytes::from(payload), end.chain));
            placements.push(Placement { segment: record.pos.0, offset: 0, places });
        }
        self.payloads.write().unwrap_or_else(PoisonError::into_inner).extend(encoded);
        Ok(Appended { placements, end, ..Appended::default() })
    }

    fn blob(&self, place: &BlobRef) -> Result<Bytes, StorageError> {
        let body = self.at(place.segment).and_then(|(payload, _)| {
            let from = usize::try_from(place.offset).ok()?;
            let until = from.checked_add(place.len as usize)?;
            (until <= payload.len()).then(|| payload.slice(from..until))
        });
        body.filter(|body| crc32c::crc32c(body) == place.crc).ok_or(StorageError::Damaged {
            segment: place.segment,
            offset: place.offset,
            after: StreamPos(place.segment.saturating_sub(1)),
            what: "there is no such body".to_owned(),
        })
    }

    fn replay(&self, after: StreamPos) -> Result<Replay, StorageError> {
        let log = self.clone();
        let end = self.end().pos.0;
        let first = after.0.saturating_add(1);
        Ok(Box::new((first..=end).map_while(move |pos| log.at(pos).map(|at| (pos, at))).map(
            |(segment, (payload, chain))| {
                let pos = StreamPos(segment);
                let (record, places) =
                    codec::decode(pos, &payload).map_err(|what| StorageError::Damaged {
                        segment,
                        offset: 0,
                        after: StreamPos(segment - 1),
                        what,
                    })?;
                let placement = Placement { segment, offset: 0, places };
                Ok(Located { record, chain, placement })
            },
        )))
    }

    fn close(&self) {}
}
