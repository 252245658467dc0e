//! Redactions that wait for what they redact, in the index.

use bytes::Bytes;
use parlour_event::RoomNum;

use super::keys::{KeyBuilder, WAITING_REDACTION};

/// [`WAITING_REDACTION`]: a redaction of an event that is not here, if it is of a user of this
/// server (empty: of anybody). The value is the redaction's number.
#[must_use]
pub fn waiting(room: RoomNum, target: &str, of_server: &str) -> Bytes {
    KeyBuilder::new(WAITING_REDACTION).number(room.0).text(target).text(of_server).build()
}
