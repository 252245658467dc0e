//! The PDU: a room event as servers exchange it.

use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId};

mod builder;
mod error;
mod fields;
mod limits;

pub use self::{
    builder::{EventReference, PduBuilder},
    error::FormatError,
};
use crate::{
    RoomVersion, hashes,
    json::{self, Object},
    redaction,
};

/// A PDU whose format has been checked, with the fields that the algorithms read taken out.
///
/// Specification: <https://spec.matrix.org/v1.19/server-server-api/#pdus>
#[derive(Debug, Clone)]
pub struct Pdu {
    pub(crate) event_id: OwnedEventId,
    pub(crate) room_id: OwnedRoomId,
    pub(crate) sender: OwnedUserId,
    pub(crate) event_type: Box<str>,
    pub(crate) state_key: Option<Box<str>>,
    pub(crate) origin_server_ts: u64,
    pub(crate) depth: u64,
    pub(crate) prev_events: Box<[OwnedEventId]>,
    pub(crate) auth_events: Box<[OwnedEventId]>,
    pub(crate) redacts: Option<OwnedEventId>,
    pub(crate) json: Object,
}

impl Pdu {
    /// Takes an event that was checked before, out of our own store, with the id under which it
    /// is stored. Only takes the fields out: no limits, no hashing.
    ///
    /// # Errors
    ///
    /// [`FormatError`] if a field that every event has is missing or of the wrong type.
    pub fn from_trusted(
        version: &RoomVersion,
        event_id: OwnedEventId,
        json: Object,
    ) -> Result<Self, FormatError> {
        fields::extract(version, event_id, json)
    }

    /// Takes an event that came from another server, parsed under the rules of its room version,
    /// and checks its format: fields, types and sizes. Hashes and signatures are checked apart
    /// ([`signing::verify_event`](crate::signing::verify_event)), on the same JSON.
    ///
    /// # Errors
    ///
    /// [`FormatError`]: the event must be dropped.
    pub fn from_wire(version: &RoomVersion, json: Object) -> Result<Self, FormatError> {
        Self::checked(version, json, |json| Self::id_of(version, json))
    }

    /// The same for history that another server tells when it is asked for it: there have been
    /// events that build on more others than they may today.
    ///
    /// # Errors
    ///
    /// [`FormatError`]: the event must be dropped.
    pub fn from_history(version: &RoomVersion, json: Object) -> Result<Self, FormatError> {
        Self::well_formed(version, json, |json| Self::id_of(version, json))
    }

    /// The id of an event that came from another server, however wrong the rest of it may be: what
    /// it says in room versions 1 and 2, made of the event in all others.
    ///
    /// # Errors
    ///
    /// [`FormatError`] if it has none.
    pub fn id_of(version: &RoomVersion, json: &Object) -> Result<OwnedEventId, FormatError> {
        if version.rules().event_format.require_event_id {
            return fields::chosen_event_id(json);
        }
        let hash = hashes::reference_hash(version, json);
        hashes::event_id(version, &hash).ok_or(FormatError::Missing { field: "event_id" })
    }

    /// Checks the format of JSON, finds its id, and makes the event.
    fn checked(
        version: &RoomVersion,
        json: Object,
        event_id: impl FnOnce(&Object) -> Result<OwnedEventId, FormatError>,
    ) -> Result<Self, FormatError> {
        let pdu = Self::well_formed(version, json, event_id)?;
        limits::check_counts(&pdu)?;
        Ok(pdu)
    }

    /// The same, however many events it builds on.
    fn well_formed(
        version: &RoomVersion,
        json: Object,
        event_id: impl FnOnce(&Object) -> Result<OwnedEventId, FormatError>,
    ) -> Result<Self, FormatError> {
        limits::check_json(version, &json)?;
        let event_id = event_id(&json)?;
        let pdu = fields::extract(version, event_id, json)?;
        limits::check_fields(version, &pdu)?;
        limits::check_size(pdu.to_bytes().len())?;
        Ok(pdu)
    }

    /// The event as it is after a redaction; its id stays, since that is made from this form.
    #[must_use]
    pub fn redacted(mut self, version: &RoomVersion) -> Self {
        redaction::redact_in_place(version, &mut self.json);
        if !version.rules().redaction.keep_room_redaction_redacts {
            self.redacts = None;
        }
        self
    }

    /// How many bytes of memory it takes, roughly.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let ids =
            (self.prev_events.iter().chain(&self.auth_events)).map(|id| 16 + id.as_str().len());
        size_of::<Self>() + ids.sum::<usize>() + 256 + json::memory_bytes(&self.json)
    }

    /// The event id: computed from the reference hash from room version 3 on.
    #[must_use]
    pub fn event_id(&self) -> &OwnedEventId {
        &self.event_id
    }

    /// The room id; for the create event of a version 12 room it is made from the event id.
    #[must_use]
    pub fn room_id(&self) -> &OwnedRoomId {
        &self.room_id
    }

    /// The user who sent the event.
    #[must_use]
    pub fn sender(&self) -> &OwnedUserId {
        &self.sender
    }

    /// The `type` field.
    #[must_use]
    pub fn event_type(&self) -> &str {
        &self.event_type
    }

    /// The `state_key` field; `None` for a message event.
    #[must_use]
    pub fn state_key(&self) -> Option<&str> {
        self.state_key.as_deref()
    }

    /// Milliseconds since the Unix epoch, as the origin server claims.
    #[must_use]
    pub fn origin_server_ts(&self) -> u64 {
        self.origin_server_ts
    }

    /// The claimed depth in the room's graph.
    #[must_use]
    pub fn depth(&self) -> u64 {
        self.depth
    }

    /// The events that this one follows.
    #[must_use]
    pub fn prev_events(&self) -> &[OwnedEventId] {
        &self.prev_events
    }

    /// The events that allow this one.
    #[must_use]
    pub fn auth_events(&self) -> &[OwnedEventId] {
        &self.auth_events
    }

    /// The event that a redaction redacts, wherever the room version keeps that field.
    #[must_use]
    pub fn redacts(&self) -> Option<&OwnedEventId> {
        self.redacts.as_ref()
    }

    /// The whole event in federation format, as canonical JSON.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(1_024);
        json::write_canonical(&self.json, &mut out);
        out
    }

    /// The whole event in federation format, for changing it (the caller must know what is left
    /// of its hashes and signatures then).
    #[must_use]
    pub fn into_json(self) -> Object {
        self.json
    }

    /// The whole event in federation format.
    #[must_use]
    pub fn json(&self) -> &Object {
        &self.json
    }

    /// The `content` field. The format checks made sure that it is there and an object.
    #[must_use]
    pub fn content(&self) -> &Object {
        match self.json.get("content") {
            Some(crate::json::Value::Object(content)) => content,
            _ => unreachable!("the format checks require an object"),
        }
    }
}
