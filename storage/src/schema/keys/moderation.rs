//! Keys of the index for what operators do and see.

use bytes::Bytes;

use super::{KeyBuilder, NOTICE_ROOM, REGISTRATION_TOKEN, REPORT, ROOM_ORDER};

/// [`NOTICE_ROOM`]
#[must_use]
pub fn notice_room(user: &str) -> Bytes {
    KeyBuilder::new(NOTICE_ROOM).text(user).build()
}

/// [`REPORT`]
#[must_use]
pub fn report(id: u64) -> Bytes {
    KeyBuilder::new(REPORT).number(id).build()
}

/// [`REGISTRATION_TOKEN`]
#[must_use]
pub fn registration_token(token: &str) -> Bytes {
    KeyBuilder::new(REGISTRATION_TOKEN).text(token).build()
}

/// [`ROOM_ORDER`]: a block.
#[must_use]
pub fn blocked_room(room: &str) -> Bytes {
    KeyBuilder::new(ROOM_ORDER).text("block").text(room).build()
}

/// [`ROOM_ORDER`]: a deletion.
#[must_use]
pub fn deletion(id: &str) -> Bytes {
    KeyBuilder::new(ROOM_ORDER).text("delete").text(id).build()
}

/// [`ROOM_ORDER`]: the room that has taken a deleted one's place.
#[must_use]
pub fn replacement_room(deletion: &str) -> Bytes {
    KeyBuilder::new(ROOM_ORDER).text("replacement").text(deletion).build()
}

/// The common start of all deletions' keys.
#[must_use]
pub fn deletions() -> Bytes {
    KeyBuilder::new(ROOM_ORDER).text("delete").build()
}
