//! Taking the fields out of an event's JSON.

use ruma::{
    EventId, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, UserId,
    room_version_rules::{EventsReferenceFormatVersion, RoomIdFormatVersion},
};

use super::{FormatError, Pdu};
use crate::{
    RoomVersion,
    json::{Object, Value},
};

/// Makes the PDU from JSON whose limits either are checked already or need no check.
pub(super) fn extract(
    version: &RoomVersion,
    event_id: OwnedEventId,
    json: Object,
) -> Result<Pdu, FormatError> {
    if !matches!(required(&json, "content")?, Value::Object(_)) {
        return Err(FormatError::WrongType { field: "content", expected: "an object" });
    }
    let event_type = string(&json, "type")?;
    let state_key = optional_string(&json, "state_key")?;
    Ok(Pdu {
        room_id: room_id(version, &event_id, event_type, state_key, &json)?,
        sender: user_id(string(&json, "sender")?)?,
        event_type: event_type.into(),
        state_key: state_key.map(Into::into),
        origin_server_ts: unsigned(&json, "origin_server_ts")?,
        depth: unsigned(&json, "depth")?,
        prev_events: references(version, &json, "prev_events")?,
        auth_events: references(version, &json, "auth_events")?,
        redacts: redacts(version, event_type, &json),
        event_id,
        json,
    })
}

/// Whether this is the event that has no room id, since the room's id is made from its hash.
pub(super) fn is_create_without_room_id(
    version: &RoomVersion,
    event_type: &str,
    state_key: Option<&str>,
) -> bool {
    version.rules().room_id_format == RoomIdFormatVersion::V2
        && event_type == "m.room.create"
        && state_key == Some("")
}

fn room_id(
    version: &RoomVersion,
    event_id: &EventId,
    event_type: &str,
    state_key: Option<&str>,
    json: &Object,
) -> Result<OwnedRoomId, FormatError> {
    if json.contains_key("room_id") || !is_create_without_room_id(version, event_type, state_key) {
        return parse_room_id(string(json, "room_id")?);
    }
    parse_room_id(&format!("!{}", event_id.as_str().trim_start_matches('$')))
}

fn parse_room_id(id: &str) -> Result<OwnedRoomId, FormatError> {
    RoomId::parse(id).map_err(|error| bad_identifier("room_id", error))
}

/// The grammar of user ids, historical ones included.
fn user_id(id: &str) -> Result<OwnedUserId, FormatError> {
    UserId::parse(id).map_err(|error| bad_identifier("sender", error))
}

/// The id that the sending server chose, in room versions 1 and 2. Its domain says who must have
/// signed, so it must have one.
pub(super) fn chosen_event_id(json: &Object) -> Result<OwnedEventId, FormatError> {
    let id = event_id("event_id", string(json, "event_id")?)?;
    if id.server_name().is_none() {
        return Err(bad_identifier("event_id", "it has no domain"));
    }
    Ok(id)
}

fn event_id(field: &'static str, id: &str) -> Result<OwnedEventId, FormatError> {
    EventId::parse(id).map_err(|error| bad_identifier(field, error))
}

pub(super) fn bad_identifier(field: &'static str, error: impl std::fmt::Display) -> FormatError {
    FormatError::BadIdentifier { field, reason: error.to_string() }
}

pub(super) fn required<'a>(
    json: &'a Object,
    field: &'static str,
) -> Result<&'a Value, FormatError> {
    json.get(field).ok_or(FormatError::Missing { field })
}

pub(super) fn string<'a>(json: &'a Object, field: &'static str) -> Result<&'a str, FormatError> {
    required(json, field)?.as_str().ok_or(FormatError::WrongType { field, expected: "a string" })
}

pub(super) fn optional_string<'a>(
    json: &'a Object,
    field: &'static str,
) -> Result<Option<&'a str>, FormatError> {
    json.contains_key(field).then(|| string(json, field)).transpose()
}

fn unsigned(json: &Object, field: &'static str) -> Result<u64, FormatError> {
    match required(json, field)? {
        Value::Integer(number) => {
            u64::try_from(*number).map_err(|_| FormatError::OutOfRange { field })
        }
        Value::BigInteger(_) => Err(FormatError::OutOfRange { field }),
        _ => Err(FormatError::WrongType { field, expected: "an integer" }),
    }
}

fn references(
    version: &RoomVersion,
    json: &Object,
    field: &'static str,
) -> Result<Box<[OwnedEventId]>, FormatError> {
    let wrong = FormatError::WrongType { field, expected: "an array of event references" };
    let elements = required(json, field)?.as_array().ok_or_else(|| wrong.clone())?;
    let with_hashes = version.rules().events_reference_format == EventsReferenceFormatVersion::V1;
    elements
        .iter()
        .map(|element| {
            let id = if with_hashes {
                match element.as_array() {
                    Some([Value::String(id), Value::Object(_)]) => Some(id.as_str()),
                    _ => None,
                }
            } else {
                element.as_str()
            };
            event_id(field, id.ok_or_else(|| wrong.clone())?)
        })
        .collect()
}

/// What a redaction redacts. Anything that is no event id redacts nothing; it is no format error,
/// since the field is not part of what every event must have.
fn redacts(version: &RoomVersion, event_type: &str, json: &Object) -> Option<OwnedEventId> {
    if event_type != "m.room.redaction" {
        return None;
    }
    let holder = if version.rules().redaction.content_field_redacts {
        json.get("content").and_then(Value::as_object)?
    } else {
        json
    };
    EventId::parse(holder.get("redacts")?.as_str()?).ok()
}
