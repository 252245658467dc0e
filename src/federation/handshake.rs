//! What the handshakes of other servers' users have in common: joins, leaves and knocks.
//!
//! First the server asks for a template (`make_...`), then it sends the event that it has made of
//! it (`send_...`).
//!
//! Specification: <https://spec.matrix.org/v1.19/server-server-api/#joining-rooms>

use std::sync::Arc;

use actix_web::http::StatusCode;
use parlour_actors::{LocalEvent, RoomError, Rooms, Sent, Template};
use parlour_event::{
    Pdu, RoomVersion,
    content::{MemberContent, Membership},
    hashes,
    json::{self, Object, Value},
    signing::SigningKey,
};
use ruma::{
    EventId, OwnedServerName, RoomId, RoomVersionId, ServerName, UserId, api::error::ErrorCode,
};
use serde_json::value::RawValue;

use super::{acl::RoomGuard, checks::EventChecker};
use crate::{
    client::local,
    error::ApiError,
    view::{RoomView, View},
};

/// What the endpoints of all handshakes need to know.
#[derive(Debug)]
pub struct HandshakeContext {
    /// Rooms as they are.
    pub view: View,
    /// Where events go.
    pub rooms: Rooms,
    /// Who may take part in them.
    pub guard: RoomGuard,
    /// Checks what other servers have signed.
    pub checker: EventChecker,
    /// This server.
    pub server_name: OwnedServerName,
    /// With what it vouches for joins.
    pub key: Arc<SigningKey>,
}

/// An event that another server has made of a template.
pub(super) struct Submission<'a> {
    /// Which server.
    pub(super) origin: &'a ServerName,
    /// The room, by the path.
    pub(super) room: &'a RoomView,
    /// The event, by the path.
    pub(super) event_id: &'a EventId,
    /// What the event is to be.
    pub(super) membership: Membership,
}

impl HandshakeContext {
    /// A room that this server is in, and in which a user of another server wants something.
    ///
    /// # Errors
    ///
    /// 404 `M_NOT_FOUND`; 403 `M_FORBIDDEN` for servers that the room keeps out.
    pub(super) fn room(&self, room: &RoomId, origin: &ServerName) -> Result<RoomView, ApiError> {
        let room = self.guard.room(room, origin)?;
        match self.view.store.joined_from(room.num, self.server_name.as_str())? {
            0 => Err(ApiError::not_found("This server is not in the room")),
            _ => Ok(room),
        }
    }

    /// A member event on the room's newest events, for a user's server to complete.
    ///
    /// # Errors
    ///
    /// 403 `M_FORBIDDEN`
    pub(super) async fn template(
        &self,
        room: &RoomView,
        user: &UserId,
        content: Object,
    ) -> Result<Template, ApiError> {
        let event: LocalEvent = local::state_event(user, "m.room.member", user.as_str(), content);
        let mut template = self.rooms.template(&room.room_id, event).await.map_err(refused)?;
        // The other server replaces it by its own.
        template.event.insert("origin".to_owned(), self.server_name.as_str().into());
        Ok(template)
    }

    /// Checks an event that a server sends for one of its users.
    ///
    /// # Errors
    ///
    /// 400 `M_INVALID_PARAM`
    pub(super) async fn check(
        &self,
        submission: &Submission<'_>,
        event: Box<RawValue>,
    ) -> Result<Arc<Pdu>, ApiError> {
        let wrong = |what: &str| ApiError::invalid_param(format!("The event {what}"));
        let Submission { origin, room, event_id, membership } = submission;
        let pdu = checked(&self.checker, room.version, event).await?;
        let is_membership = MemberContent::new(pdu.content()).membership() == Some(*membership);
        if pdu.event_type() != "m.room.member" || !is_membership {
            return Err(wrong(&format!("is no m.room.member of `{}`", membership.as_str())));
        }
        if pdu.sender().server_name() != *origin {
            return Err(wrong("is of a user of another server"));
        }
        if pdu.state_key() != Some(pdu.sender().as_str()) {
            return Err(wrong("changes somebody else's membership"));
        }
        if *pdu.room_id() != room.room_id || pdu.event_id() != *event_id {
            return Err(wrong("is not the one that the path names"));
        }
        Ok(pdu)
    }

    /// Takes a checked event into the room.
    ///
    /// # Errors
    ///
    /// 403 `M_FORBIDDEN`; 400 `M_INVALID_PARAM` if it builds on what nobody knows.
    pub(super) async fn bring(&self, pdu: Arc<Pdu>, origin: &ServerName) -> Result<Sent, ApiError> {
        let room_id = pdu.room_id().clone();
        self.rooms.bring(&room_id, pdu, Some(origin)).await.map_err(refused)
    }
}

/// An event of another server, if it is whole: a redacted copy is not what was to be said.
///
/// # Errors
///
/// 400 `M_INVALID_PARAM`
pub(super) async fn checked(
    checker: &EventChecker,
    version: &'static RoomVersion,
    event: Box<RawValue>,
) -> Result<Arc<Pdu>, ApiError> {
    let wrong = |what: &str| ApiError::invalid_param(format!("The event is not valid: {what}"));
    let pdu = checker.check(version, vec![event]).await?.pop();
    let pdu = pdu.ok_or_else(|| wrong("it is gone"))?.map_err(|error| wrong(&error.to_string()))?;
    match hashes::verify_content_hash(pdu.json()) {
        true => Ok(pdu),
        false => Err(wrong("its hash does not match")),
    }
}

/// Checks that a user belongs to the server that asks.
///
/// # Errors
///
/// 403 `M_FORBIDDEN`
pub(super) fn check_own(user: &UserId, origin: &ServerName) -> Result<(), ApiError> {
    match user.server_name() == origin {
        true => Ok(()),
        false => Err(ApiError::forbidden(format!("{user} is not a user of {origin}"))),
    }
}

/// Checks that the other server knows a room's version.
///
/// # Errors
///
/// 400 `M_INCOMPATIBLE_ROOM_VERSION`, with the room's version.
pub(super) fn check_version(room: &RoomView, known: &[RoomVersionId]) -> Result<(), ApiError> {
    match known.contains(room.version.id()) {
        true => Ok(()),
        false => Err(incompatible(room.version.id())),
    }
}

/// 400 `M_INCOMPATIBLE_ROOM_VERSION`
pub(super) fn incompatible(version: &RoomVersionId) -> ApiError {
    let message = format!("The room has version {version}, which one of us does not support");
    ApiError::new(StatusCode::BAD_REQUEST, ErrorCode::IncompatibleRoomVersion, message)
        .with("room_version", version.as_str())
}

/// An event that the room did not take.
pub(super) fn refused(error: RoomError) -> ApiError {
    match error {
        RoomError::Missing(_) => {
            ApiError::invalid_param("The event builds on events that are not known here")
        }
        RoomError::OtherRoom => ApiError::invalid_param(error.to_string()),
        RoomError::UnknownRoom => ApiError::not_found("The room is not known here"),
        other => other.into(),
    }
}

/// The content of a member event that says no more than the membership.
pub(super) fn content(membership: Membership) -> Object {
    local::members([("membership", membership.as_str().into())])
}

/// An event as it goes out.
///
/// # Errors
///
/// None: canonical JSON is JSON.
pub(super) fn raw(event: Object) -> Result<Box<RawValue>, ApiError> {
    let text = json::to_canonical_string(&Value::Object(event));
    RawValue::from_string(text).map_err(ApiError::internal)
}
