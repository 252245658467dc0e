//! Guests come in only while the room lets them, and the room is the one that knows.

use parlour_event::{Pdu, json::Value};

use super::{
    core::RoomCore,
    local::Local,
    messages::{LocalEvent, RoomError},
};

impl RoomCore {
    /// Takes in a guest's join, if the room lets guests in at this very moment.
    pub(crate) fn guest_join(&mut self, event: LocalEvent) -> Result<Local, RoomError> {
        self.check_lets_guests_in()?;
        self.local(event)
    }

    pub(super) fn check_lets_guests_in(&mut self) -> Result<(), RoomError> {
        let access = self.state_event(self.state, "m.room.guest_access", "")?;
        match access.is_some_and(|(_, access)| lets_guests_in(&access)) {
            true => Ok(()),
            false => Err(RoomError::NoGuests),
        }
    }
}

/// Whether an event is an `m.room.guest_access` that lets guests in.
pub(crate) fn lets_guests_in(event: &Pdu) -> bool {
    let access = event.content().get("guest_access").and_then(Value::as_str);
    event.event_type() == "m.room.guest_access" && access == Some("can_join")
}
