//! The checks on an event that is not trusted yet: the first step on receipt of a PDU.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#size-limits> and the event
//! formats of the room versions.

use ruma::room_version_rules::{EventIdFormatVersion, RoomIdFormatVersion};

use super::{
    FormatError, Pdu,
    fields::{self, bad_identifier},
};
use crate::{
    RoomVersion,
    json::{self, Object, Value},
};

/// The largest event: bytes of the canonical federation format, signatures included.
const MAX_EVENT_BYTES: usize = 65_536;
/// The longest `type`, `state_key` or identifier, in bytes.
const MAX_FIELD_BYTES: usize = 255;
const MAX_PREV_EVENTS: usize = 20;
const MAX_AUTH_EVENTS: usize = 10;
/// The length of an id that is a sigil and the unpadded base64 of a SHA-256 hash.
const HASH_ID_BYTES: usize = 44;

/// Checks what can be checked before the event's fields are taken out.
pub(super) fn check_json(version: &RoomVersion, json: &Object) -> Result<(), FormatError> {
    if version.rules().authorization.strict_canonical_json {
        json.values().try_for_each(|value| json::check_strict_below(value, 1))?;
    }
    check_lengths(json)?;
    check_hashes_and_signatures(json)?;
    match json.get("unsigned") {
        None | Some(Value::Object(_)) => Ok(()),
        Some(_) => Err(FormatError::WrongType { field: "unsigned", expected: "an object" }),
    }
}

/// Checks what is easier to check on the event's fields.
pub(super) fn check_fields(version: &RoomVersion, pdu: &Pdu) -> Result<(), FormatError> {
    check_length("event_id", pdu.event_id.as_str())?;
    for id in &pdu.prev_events {
        check_reference(version, "prev_events", id.as_str())?;
    }
    for id in &pdu.auth_events {
        check_reference(version, "auth_events", id.as_str())?;
    }
    check_room_id(version, pdu.room_id.as_str())?;
    if pdu.depth > max_depth(version) {
        return Err(FormatError::OutOfRange { field: "depth" });
    }
    Ok(())
}

/// Checks how many events an event builds on.
pub(super) fn check_counts(pdu: &Pdu) -> Result<(), FormatError> {
    check_count("prev_events", pdu.prev_events.len(), MAX_PREV_EVENTS)?;
    check_count("auth_events", pdu.auth_events.len(), MAX_AUTH_EVENTS)
}

/// The limit of `depth`, at which it stays when a room reaches it.
pub(super) fn max_depth(version: &RoomVersion) -> u64 {
    let max = if version.rules().authorization.strict_canonical_json {
        json::MAX_INTEGER
    } else {
        i64::MAX
    };
    max.unsigned_abs()
}

/// Checks the size of the event with its hashes and signatures.
pub(super) fn check_size(bytes: usize) -> Result<(), FormatError> {
    if bytes > MAX_EVENT_BYTES { Err(FormatError::TooLarge { bytes }) } else { Ok(()) }
}

fn check_lengths(json: &Object) -> Result<(), FormatError> {
    for field in ["type", "state_key", "sender", "room_id", "event_id"] {
        if let Some(text) = fields::optional_string(json, field)? {
            check_length(field, text)?;
        }
    }
    Ok(())
}

fn check_length(field: &'static str, text: &str) -> Result<(), FormatError> {
    let bytes = text.len();
    if bytes > MAX_FIELD_BYTES { Err(FormatError::FieldTooLong { field, bytes }) } else { Ok(()) }
}

fn check_count(field: &'static str, count: usize, limit: usize) -> Result<(), FormatError> {
    if count > limit { Err(FormatError::TooMany { field, count, limit }) } else { Ok(()) }
}

fn check_hashes_and_signatures(json: &Object) -> Result<(), FormatError> {
    let hash = fields::required(json, "hashes")?.get("sha256");
    if hash.and_then(Value::as_str).is_none() {
        let expected = "an object with the string `sha256`";
        return Err(FormatError::WrongType { field: "hashes", expected });
    }
    let is_entry = |entry: &Value| {
        entry.as_object().is_some_and(|keys| keys.values().all(|key| key.as_str().is_some()))
    };
    match fields::required(json, "signatures")? {
        Value::Object(signatures) if signatures.values().all(is_entry) => Ok(()),
        _ => {
            let expected = "an object of objects of strings";
            Err(FormatError::WrongType { field: "signatures", expected })
        }
    }
}

fn check_reference(
    version: &RoomVersion,
    field: &'static str,
    id: &str,
) -> Result<(), FormatError> {
    check_length(field, id)?;
    let with_domain = version.rules().event_id_format == EventIdFormatVersion::V1;
    if with_domain && !id.contains(':') {
        return Err(bad_identifier(field, "an event id of this room version has a domain"));
    }
    Ok(())
}

fn check_room_id(version: &RoomVersion, id: &str) -> Result<(), FormatError> {
    if version.rules().room_id_format == RoomIdFormatVersion::V1 {
        if id.contains(':') {
            return Ok(());
        }
        return Err(bad_identifier("room_id", "a room id of this room version has a domain"));
    }
    let is_base64_url = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if id.len() == HASH_ID_BYTES && id.bytes().skip(1).all(is_base64_url) {
        return Ok(());
    }
    Err(bad_identifier("room_id", "a room id of this room version is the hash of an event"))
}
