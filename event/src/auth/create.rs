use super::AuthError;
use crate::content::CreateContent;
use crate::pdu::Pdu;
use crate::version::RoomVersion;

/// Rule 1: "If type is `m.room.create`".
pub(super) fn check(version: &RoomVersion, event: &Pdu) -> Result<(), AuthError> {
    let rules = &version.rules().authorization;
    let content = CreateContent::of(event);
    // If it has any prev_events, reject.
    if !event.prev_events().is_empty() {
        return Err(AuthError::CreateHasPrevEvents);
    }
    if rules.room_create_event_id_as_room_id {
        // Version 12. If the event has a room_id, reject.
        if event.json().contains_key("room_id") {
            return Err(AuthError::CreateHasRoomId);
        }
    } else if event.room_id().server_name() != Some(event.sender().server_name()) {
        // Versions 1 to 11. If the domain of the room_id does not match the domain of the sender,
        // reject.
        return Err(AuthError::CreateRoomIdDomain);
    }
    // If content.room_version is present and is not a recognised version, reject.
    if content.room_version().is_none() {
        return Err(AuthError::UnknownRoomVersion);
    }
    // Versions 1 to 10. If content has no creator property, reject.
    if !rules.use_room_create_sender && !content.has_creator() {
        return Err(AuthError::CreateWithoutCreator);
    }
    // Version 12. If additional_creators is present in content and is not an array of strings
    // where each string passes the same user ID validation applied to sender, reject.
    if rules.additional_room_creators && !content.additional_creators_valid() {
        return Err(AuthError::BadAdditionalCreators);
    }
    // Otherwise, allow.
    Ok(())
}
