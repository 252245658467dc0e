//! What other servers are told of the devices and keys of users here, in the index.

use std::ops::Bound::{Excluded, Included};

use bytes::Bytes;
use parlour_event::{RoomNum, StreamPos};
use serde::{Deserialize, Serialize};

use super::{
    codec::Stored,
    keys::{self, DEVICE_LIST, KeyBuilder, last_number},
};
use crate::{Direction, StorageError, Store};

/// How many updates of a user are remembered. A server that has missed more asks for the whole
/// list.
const REMEMBERED: usize = 20;

/// The newest updates of a user's device list. Their ids count from 1 without gaps, so that each
/// names the one before it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceList {
    /// The id of the newest update; 0 if there was none.
    pub newest: u64,
    /// When the newest updates were made, of which devices, in order.
    recent: Vec<(StreamPos, String)>,
    /// When the user's cross-signing keys last changed.
    pub signing: StreamPos,
}

impl Stored for DeviceList {}

/// An update of a device list: what is to be said of the device is what is stored of it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceUpdate {
    /// Its id.
    pub stream_id: u64,
    /// The id of the one before, if there is one.
    pub prev_id: Option<u64>,
    /// The device.
    pub device: String,
}

impl DeviceList {
    /// Devices change at a position.
    pub fn add(&mut self, pos: StreamPos, devices: impl IntoIterator<Item = String>) {
        let before = self.recent.len();
        self.recent.extend(devices.into_iter().map(|device| (pos, device)));
        self.newest += (self.recent.len() - before) as u64;
        let surplus = self.recent.len().saturating_sub(REMEMBERED);
        self.recent.drain(..surplus);
    }

    /// The updates after a position. Where not all of them are remembered it is the newest alone:
    /// whoever does not know the one before it asks for the whole list.
    #[must_use]
    pub fn after(&self, pos: StreamPos) -> Vec<DeviceUpdate> {
        let known = self.recent.partition_point(|(at, _)| *at <= pos);
        let has_forgotten = self.newest > self.recent.len() as u64;
        let first = match known == 0 && has_forgotten {
            true => self.recent.len().saturating_sub(1),
            false => known,
        };
        self.remembered().skip(first).collect()
    }

    /// The same, but for those that came after another position.
    #[must_use]
    pub fn within(&self, after: StreamPos, until: StreamPos) -> Vec<DeviceUpdate> {
        let later = self.recent.iter().filter(|(pos, _)| *pos > until).count();
        let mut updates = self.after(after);
        updates.truncate(updates.len().saturating_sub(later));
        updates
    }

    /// The newest update.
    #[must_use]
    pub fn last(&self) -> Option<DeviceUpdate> {
        self.remembered().last()
    }

    fn remembered(&self) -> impl Iterator<Item = DeviceUpdate> {
        let ids = (self.newest + 1 - self.recent.len() as u64)..;
        ids.zip(&self.recent).map(|(stream_id, (_, device))| {
            let prev_id = Some(stream_id - 1).filter(|id| *id > 0);
            DeviceUpdate { stream_id, prev_id, device: device.clone() }
        })
    }
}

/// That other servers are to be told of users' devices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyNewsEntry {
    /// The users.
    pub users: Vec<String>,
    /// The rooms that they are in.
    pub rooms: Vec<RoomNum>,
    /// Nothing has changed, but they have come into these rooms.
    pub have_come: bool,
}

impl Stored for KeyNewsEntry {}

/// [`DEVICE_LIST`], a user's updates.
#[must_use]
pub fn device_list(user: &str) -> Bytes {
    KeyBuilder::new(DEVICE_LIST).kind(b'l').text(user).build()
}

/// [`DEVICE_LIST`], something that other servers are to be told.
#[must_use]
pub fn key_news(pos: StreamPos) -> Bytes {
    KeyBuilder::new(DEVICE_LIST).kind(b'n').number(pos.0).build()
}

impl Store {
    /// What other servers are to be told, after a position, in order.
    ///
    /// # Errors
    ///
    /// If the index cannot be read.
    pub fn key_news(
        &self,
        after: StreamPos,
        limit: usize,
    ) -> Result<Vec<(StreamPos, KeyNewsEntry)>, StorageError> {
        let (low, high) = (key_news(after), key_news(StreamPos(u64::MAX)));
        let found = self.scan((Excluded(&low), Included(&high)), Direction::Forward, limit)?;
        let read = |(key, entry): (Bytes, crate::Entry)| {
            let pos = StreamPos(last_number(&key).unwrap_or_default());
            Ok((pos, KeyNewsEntry::decode(&key, &entry.value)?))
        };
        found.into_iter().map(read).collect()
    }

    /// Whose keys have changed in a room, after a position, in order: of each the newest change.
    ///
    /// # Errors
    ///
    /// If the index cannot be read.
    pub fn key_feed(
        &self,
        room: RoomNum,
        after: StreamPos,
        limit: usize,
    ) -> Result<Vec<(StreamPos, String)>, StorageError> {
        let (low, high) = (keys::key_feed(room, after), keys::key_feed(room, StreamPos(u64::MAX)));
        let found = self.scan((Excluded(&low), Included(&high)), Direction::Forward, limit)?;
        let read = |(key, entry): (Bytes, crate::Entry)| {
            let pos = StreamPos(last_number(&key)?);
            Some((pos, keys::read_key_feed(&entry.value)?.1))
        };
        Ok(found.into_iter().filter_map(read).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(list: &DeviceList, after: u64) -> Vec<(u64, Option<u64>)> {
        let updates = list.after(StreamPos(after));
        updates.into_iter().map(|update| (update.stream_id, update.prev_id)).collect()
    }

    #[test]
    fn updates_form_a_chain() {
        let mut list = DeviceList::default();
        assert_eq!(ids(&list, 0), []);
        list.add(StreamPos(10), ["A".to_owned()]);
        list.add(StreamPos(20), ["A".to_owned(), "B".to_owned()]);
        list.add(StreamPos(30), []);
        assert_eq!(ids(&list, 0), [(1, None), (2, Some(1)), (3, Some(2))]);
        assert_eq!(ids(&list, 10), [(2, Some(1)), (3, Some(2))]);
        assert_eq!(ids(&list, 20), []);
        assert_eq!(list.after(StreamPos(19))[1].device, "B");
        assert_eq!(list.within(StreamPos(0), StreamPos(29)), list.after(StreamPos(0)));
        assert_eq!(list.within(StreamPos(10), StreamPos(19)), []);
        assert_eq!(list.within(StreamPos(0), StreamPos(19)), list.after(StreamPos(0))[..1]);
    }

    #[test]
    fn who_has_missed_too_much_gets_the_newest_alone() {
        let mut list = DeviceList::default();
        (1..=50).for_each(|pos| list.add(StreamPos(pos), [format!("{pos}")]));
        assert_eq!(list.recent.len(), REMEMBERED);
        assert_eq!(ids(&list, 7), [(50, Some(49))]);
        assert_eq!(ids(&list, 48), [(49, Some(48)), (50, Some(49))]);
        assert_eq!(list.after(StreamPos(30)).len(), 1, "it may have missed others before");
        assert_eq!(list.after(StreamPos(31)).len(), 19);
        let many = (0..500).map(|number| number.to_string());
        list.add(StreamPos(51), many);
        assert_eq!((list.newest, ids(&list, 50)), (550, vec![(550, Some(549))]));
    }
}
