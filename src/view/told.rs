//! The state that is told to those who are invited to a room, or knock at it.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#stripped-state>

use parlour_event::{EventNum, state::StateRoot};
use parlour_storage::schema::StoredEvent;
use serde_json::value::RawValue;

use super::{View, ViewError, resident::wire_bytes};

/// What is told of a room to those who are not in it.
const STRIPPED: [&str; 7] = [
    "m.room.create",
    "m.room.join_rules",
    "m.room.canonical_alias",
    "m.room.name",
    "m.room.avatar",
    "m.room.topic",
    "m.room.encryption",
];

impl View {
    /// Those events of a state that tell who is not in the room what room it is, with the member
    /// event of who invites.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn told_state(
        &self,
        root: StateRoot,
        inviter: Option<&str>,
    ) -> Result<Vec<StoredEvent>, ViewError> {
        let mut nums: Vec<EventNum> = Vec::new();
        for event_type in STRIPPED {
            nums.extend(self.state_num(root, event_type, "")?);
        }
        if let Some(inviter) = inviter {
            nums.extend(self.member_num(root, inviter)?);
        }
        Ok(self.store.events(&nums)?.into_iter().flatten().collect())
    }
}

/// A stored event as other servers get it.
///
/// # Errors
///
/// If it is not an event.
pub fn wire_json(event: &StoredEvent) -> Result<Box<RawValue>, ViewError> {
    let unreadable = |what: String| {
        let event_id = event.meta.event_id.clone();
        ViewError::Event { event_id, what }
    };
    let text = String::from_utf8(wire_bytes(event)?.into());
    let text = text.map_err(|error| unreadable(error.to_string()))?;
    RawValue::from_string(text).map_err(|error| unreadable(error.to_string()))
}
