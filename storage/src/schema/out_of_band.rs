//! Memberships of rooms that this server is not in.

use parlour_event::RoomNum;
use serde::{Deserialize, Serialize};

use super::{codec::Stored, keys, rooms::MembershipEntry};
use crate::{Op, StorageError, Store};

/// An invite or a knock of a local user at a room that this server is not in, or how it ended: all
/// that is known is what another server has told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutOfBandEntry {
    /// The room id.
    pub room_id: String,
    /// The room version.
    pub version: String,
    /// The id of the member event.
    pub event_id: String,
    /// The member event in federation format, JSON.
    pub member: String,
    /// What was told of the room: stripped state events, JSON each.
    pub told: Vec<String>,
    /// Servers that are said to be in the room, the likeliest first.
    pub servers: Vec<String>,
}

impl Stored for OutOfBandEntry {}

impl OutOfBandEntry {
    /// The operation that stores it.
    #[must_use]
    pub fn put(&self, room: RoomNum, user: &str) -> Op {
        let key = keys::out_of_band(room, user);
        Op::PutBlob { key, value: Default::default(), blob: self.encode() }
    }
}

impl MembershipEntry {
    /// Whether the membership may be one of a room that this server is not in:
    /// [`Store::out_of_band`] has the rest then.
    #[must_use]
    pub fn is_out_of_band(&self) -> bool {
        self.event.0 == 0
    }
}

impl Store {
    /// What is known of a user's membership of a room that this server is not in. It counts only
    /// if the user's [`MembershipEntry`] says so.
    ///
    /// # Errors
    ///
    /// If the index or the log cannot be read.
    pub fn out_of_band(
        &self,
        room: RoomNum,
        user: &str,
    ) -> Result<Option<OutOfBandEntry>, StorageError> {
        let key = keys::out_of_band(room, user);
        let Some(place) = self.get(&key)?.and_then(|entry| entry.blob) else { return Ok(None) };
        OutOfBandEntry::decode(&key, &self.blob(&place)?).map(Some)
    }
}
