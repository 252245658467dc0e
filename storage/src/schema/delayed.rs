//! Events that are to be sent later, in the index: by id, by user and by the time when they are due.

use bytes::Bytes;
use parlour_event::StreamPos;
use serde::{Deserialize, Serialize};

use super::{
    codec::Stored,
    keys::{DELAYED, KeyBuilder, KeyReader},
};

/// An event that is to be sent later; its content is the entry's body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DelayedEntry {
    /// Who sends it.
    pub user: String,
    /// From which device.
    pub device: String,
    /// The room.
    pub room_id: String,
    /// The `type`.
    pub event_type: String,
    /// The `state_key`, for a state event.
    pub state_key: Option<String>,
    /// How long it is to wait, in milliseconds.
    pub delay: u64,
    /// Since when it has been waiting, milliseconds since the epoch.
    pub running_since: u64,
    /// When it was scheduled: state that others have set since is not overwritten.
    pub pos: StreamPos,
    /// Whether it is on its way into the room, so that nobody can stop it any more.
    pub sending: bool,
}

impl Stored for DelayedEntry {}

impl DelayedEntry {
    /// When it is to be sent, milliseconds since the epoch.
    #[must_use]
    pub fn due(&self) -> u64 {
        self.running_since.saturating_add(self.delay)
    }
}

/// [`DELAYED`], by id.
#[must_use]
pub fn delayed(id: &str) -> Bytes {
    KeyBuilder::new(DELAYED).kind(b'i').text(id).build()
}

/// The common start of the keys by id.
#[must_use]
pub fn all_delayed() -> Bytes {
    KeyBuilder::new(DELAYED).kind(b'i').build()
}

/// The id in a key by id.
#[must_use]
pub fn read_delayed(key: &[u8]) -> Option<String> {
    // The kind stands where a keyspace does for the reader.
    KeyReader::new(key.get(1..)?).text()
}

/// The common start of the keys of a user's delayed events.
#[must_use]
pub fn delayed_of(user: &str) -> Bytes {
    KeyBuilder::new(DELAYED).kind(b'u').text(user).build()
}

/// [`DELAYED`], by user.
#[must_use]
pub fn delayed_of_user(user: &str, id: &str) -> Bytes {
    KeyBuilder::new(DELAYED).kind(b'u').text(user).raw(id.as_bytes()).build()
}

/// [`DELAYED`], by time.
#[must_use]
pub fn due(time: u64, id: &str) -> Bytes {
    KeyBuilder::new(DELAYED).kind(b'w').number(time).raw(id.as_bytes()).build()
}

/// The time and the id in a key by time.
#[must_use]
pub fn read_due(key: &[u8]) -> Option<(u64, String)> {
    let (time, id) = key.get(2..)?.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*time), String::from_utf8(id.to_vec()).ok()?))
}

/// The id in a key by user, of which the start is this long.
#[must_use]
pub fn read_id(key: &[u8], prefix: usize) -> Option<String> {
    String::from_utf8(key.get(prefix..)?.to_vec()).ok()
}
