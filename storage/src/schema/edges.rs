//! Where a room's history ends that is here, and what of it stands outside the timeline.

use parlour_event::{EventNum, RoomNum};
use serde::{Deserialize, Serialize};

use super::{
    codec::{Stored, decode_number},
    keys::{self, KeyReader},
    rooms::EventMeta,
};
use crate::{Direction, StorageError, Store};

/// An event that is not here and that events of a room follow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackwardEntry {
    /// The greatest depth of such a follower.
    pub depth: u64,
    /// Whether one of them is in the room's history, and not soft-failed.
    pub is_followed: bool,
}

impl Stored for BackwardEntry {}

impl Store {
    /// A room's backward extremities: events that are not here and that events of it follow, each
    /// with the greatest depth of such a follower. At most `limit` of them, in no order that means
    /// anything.
    ///
    /// # Errors
    ///
    /// If the index cannot be read.
    pub fn backward_extremities(
        &self,
        room: RoomNum,
        limit: usize,
    ) -> Result<Vec<(String, u64)>, StorageError> {
        let prefix = keys::KeyBuilder::new(keys::BACKWARD).number(room.0).build();
        let entries = self.scan_prefix(&prefix, Direction::Forward, limit)?.into_iter();
        let read = |(key, entry): (bytes::Bytes, crate::Entry)| {
            let mut reader = KeyReader::new(&key);
            let event_id = reader.number().and_then(|_room| reader.text()).unwrap_or_default();
            Ok((event_id, BackwardEntry::decode(&key, &entry.value)?.depth))
        };
        entries.map(read).collect()
    }

    /// A room's events that are not in its timeline (outliers, backfilled, rejected and soft-failed
    /// ones), from a number on, at most `limit`.
    ///
    /// # Errors
    ///
    /// If the index cannot be read.
    pub fn off_timeline(
        &self,
        room: RoomNum,
        from: EventNum,
        limit: usize,
    ) -> Result<Vec<EventNum>, StorageError> {
        let (low, high) =
            (keys::off_timeline(room, from), keys::off_timeline(room, EventNum(u64::MAX)));
        let range = (std::ops::Bound::Included(&low[..]), std::ops::Bound::Included(&high[..]));
        let found = self.scan(range, Direction::Forward, limit)?.into_iter();
        let nums = found.filter_map(|(key, _)| keys::last_numbers(&key)).map(|(_, num)| num);
        Ok(nums.filter(|num| *num != 0).map(EventNum).collect())
    }

    /// The numbers of many event ids, in their order.
    ///
    /// # Errors
    ///
    /// If the index cannot be read.
    pub fn event_nums(&self, event_ids: &[&str]) -> Result<Vec<Option<EventNum>>, StorageError> {
        let keys: Vec<_> = event_ids.iter().map(|id| keys::event_id(id)).collect();
        let entries = self.multi_get(&keys)?;
        let num = |(key, entry): (_, Option<crate::Entry>)| match entry {
            Some(entry) => Ok(Some(EventNum(decode_number(key, &entry.value)?))),
            None => Ok(None),
        };
        keys.iter().map(|key| &key[..]).zip(entries).map(num).collect()
    }

    /// What is known of many events, without their bodies, in their order.
    ///
    /// # Errors
    ///
    /// If the index cannot be read.
    pub fn event_metas(&self, nums: &[EventNum]) -> Result<Vec<Option<EventMeta>>, StorageError> {
        let keys: Vec<_> = nums.iter().map(|num| keys::event(*num)).collect();
        let entries = self.multi_get(&keys)?;
        let meta = |(key, entry): (&bytes::Bytes, Option<crate::Entry>)| {
            entry.map(|entry| EventMeta::decode(key, &entry.value)).transpose()
        };
        keys.iter().zip(entries).map(meta).collect()
    }
}
