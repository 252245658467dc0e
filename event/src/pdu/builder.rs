//! Making events.

use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId, ServerName};

use super::{FormatError, Pdu, fields, limits};
use crate::{
    RoomVersion,
    hashes::{self, Hash},
    json::{self, Object, Value},
    signing::{self, SigningKey},
};

/// An event that another one names in `prev_events` or `auth_events`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventReference {
    /// The event's id.
    pub event_id: OwnedEventId,
    /// Its reference hash. Room versions 1 and 2 send it along; in later ones it is in the id.
    pub sha256: Option<Hash>,
}

impl EventReference {
    /// The reference to an event; hashes it only in room versions 1 and 2, so whoever refers to
    /// the same event often there (a forward extremity, the create event) should keep this.
    #[must_use]
    pub fn to(version: &RoomVersion, pdu: &Pdu) -> Self {
        let sha256 = version
            .rules()
            .event_format
            .require_event_id
            .then(|| hashes::reference_hash(version, pdu.json()));
        Self { event_id: pdu.event_id().clone(), sha256 }
    }

    fn to_value(&self, version: &RoomVersion, field: &'static str) -> Result<Value, FormatError> {
        let id = Value::String(self.event_id.to_string());
        if !version.rules().event_format.require_event_id {
            return Ok(id);
        }
        let hash = self.sha256.ok_or(FormatError::WrongType {
            field,
            expected: "references with hashes in this room version",
        })?;
        let hash = Value::String(hashes::encode_base64(&hash));
        Ok(Value::Array(vec![id, Value::Object(Object::from([("sha256".to_owned(), hash)]))]))
    }
}

/// The reference of room versions 3 and later.
impl From<OwnedEventId> for EventReference {
    fn from(event_id: OwnedEventId) -> Self {
        Self { event_id, sha256: None }
    }
}

/// A new event of this server, before it is hashed and signed.
#[derive(Debug, Clone, PartialEq)]
pub struct PduBuilder {
    /// The room; `None` for the create event of a version 12 room, whose hash becomes the id.
    pub room_id: Option<OwnedRoomId>,
    /// Who sends it.
    pub sender: OwnedUserId,
    /// The `type` field.
    pub event_type: String,
    /// The `state_key` field, if it is a state event.
    pub state_key: Option<String>,
    /// The `content` field.
    pub content: Object,
    /// The forward extremities on which it builds.
    pub prev_events: Vec<EventReference>,
    /// The events that allow it.
    pub auth_events: Vec<EventReference>,
    /// One more than the greatest depth of `prev_events`; reduced to the version's limit.
    pub depth: u64,
    /// Milliseconds since the Unix epoch.
    pub origin_server_ts: u64,
    /// What it redacts; put where the room version wants it.
    pub redacts: Option<OwnedEventId>,
    /// What goes before the server's name in the event id. Room versions 1 and 2 need it, and
    /// the caller sees to it that it is unique; ignored in later ones.
    pub event_localpart: Option<String>,
}

impl PduBuilder {
    /// The event without hashes and signatures, as `make_join` and its like send it.
    ///
    /// # Errors
    ///
    /// [`FormatError`] if something is missing that the room version needs.
    pub fn into_template(
        mut self,
        version: &RoomVersion,
        server_name: &ServerName,
    ) -> Result<Object, FormatError> {
        let mut event = Object::new();
        let mut put = |key: &str, value: Value| event.insert(key.to_owned(), value);
        if version.rules().event_format.require_event_id {
            let localpart =
                self.event_localpart.ok_or(FormatError::Missing { field: "event_id" })?;
            put("event_id", Value::String(format!("${localpart}:{server_name}")));
        }
        if let Some(id) = self.redacts {
            let id = Value::String(id.into());
            if version.rules().redaction.content_field_redacts {
                self.content.insert("redacts".to_owned(), id);
            } else {
                put("redacts", id);
            }
        }
        if let Some(room_id) = self.room_id {
            put("room_id", Value::String(room_id.into()));
        }
        if let Some(state_key) = self.state_key {
            put("state_key", Value::String(state_key));
        }
        put("sender", Value::String(self.sender.into()));
        put("type", Value::String(self.event_type));
        put("content", Value::Object(self.content));
        put("depth", integer("depth", self.depth.min(limits::max_depth(version)))?);
        put("origin_server_ts", integer("origin_server_ts", self.origin_server_ts)?);
        put("prev_events", to_values(version, "prev_events", &self.prev_events)?);
        put("auth_events", to_values(version, "auth_events", &self.auth_events)?);
        Ok(event)
    }

    /// Makes the event: hashed, signed and checked. Our own events must be strict canonical JSON
    /// in every room version (only `depth` may reach its limit in the old ones).
    ///
    /// # Errors
    ///
    /// [`FormatError`] if the event would not be valid.
    pub fn build_and_sign(
        self,
        version: &RoomVersion,
        server_name: &ServerName,
        key: &SigningKey,
    ) -> Result<Pdu, FormatError> {
        // Two levels: the event and its content.
        self.content.values().try_for_each(|value| json::check_strict_below(value, 2))?;
        let event = self.into_template(version, server_name)?;
        Pdu::hash_and_sign(version, event, server_name, key)
    }
}

impl Pdu {
    /// Makes the event from a template: our own, or that which another server gave us for our
    /// join, knock or leave, after the caller has checked and completed it.
    ///
    /// # Errors
    ///
    /// [`FormatError`] if the event would not be valid.
    pub fn hash_and_sign(
        version: &RoomVersion,
        mut template: Object,
        server_name: &ServerName,
        key: &SigningKey,
    ) -> Result<Self, FormatError> {
        let hash = signing::hash_and_sign_event(version, &mut template, server_name.as_str(), key);
        Self::checked(version, template, |json| match hashes::event_id(version, &hash) {
            Some(event_id) => Ok(event_id),
            None => fields::chosen_event_id(json),
        })
    }
}

fn to_values(
    version: &RoomVersion,
    field: &'static str,
    references: &[EventReference],
) -> Result<Value, FormatError> {
    let values = references.iter().map(|reference| reference.to_value(version, field));
    Ok(Value::Array(values.collect::<Result<_, _>>()?))
}

fn integer(field: &'static str, number: u64) -> Result<Value, FormatError> {
    i64::try_from(number).map(Value::Integer).map_err(|_| FormatError::OutOfRange { field })
}
