//! Other servers' users invite users of this server.
//!
//! Specification: <https://spec.matrix.org/v1.19/server-server-api/#inviting-to-a-room>

use std::sync::Arc;

use parlour_actors::out_of_band::OutOfBand;
use parlour_event::{
    Pdu, RoomVersion,
    content::{MemberContent, Membership},
    json::Object,
    signing::{self, SigningKey},
};
use parlour_storage::schema::OutOfBandEntry;
use ruma::{
    EventId, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, RoomVersionId, ServerName, UserId,
    api::federation::membership::{
        RawStrippedState,
        create_invite::{v1, v2},
    },
};
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use super::{
    acl::RoomGuard,
    checks::EventChecker,
    handshake::{checked, incompatible, raw},
    told::Told,
};
use crate::{
    client::membership::Members,
    error::ApiError,
    http::{Api, Lenient, Routes, Ruma},
};

/// What these endpoints need to know.
#[derive(Debug)]
pub struct InviteContext {
    /// Who can be invited, and to what.
    pub members: Members,
    /// Which servers may take part in rooms.
    pub guard: RoomGuard,
    /// Where invites to rooms are kept that this server is not in.
    pub out_of_band: OutOfBand,
    /// Checks what other servers have signed.
    pub checker: EventChecker,
    /// With what the invite is signed for the user.
    pub key: Arc<SigningKey>,
}

/// An invite as it came.
struct Invite<'a> {
    origin: &'a ServerName,
    room_id: &'a RoomId,
    event_id: &'a EventId,
    version: &'a RoomVersionId,
    event: Box<RawValue>,
    told: Vec<RawStrippedState>,
}

/// The body of [`v2::Request`]. ruma's own insists on what may be left out.
#[derive(Debug, Deserialize)]
struct Body {
    room_version: RoomVersionId,
    event: Box<RawValue>,
    #[serde(default)]
    invite_room_state: Vec<RawStrippedState>,
}

/// The endpoints of this file.
#[must_use]
pub fn routes(context: Arc<InviteContext>) -> Routes {
    Routes::new(Api::Federation, context).route(invite_v1).route(invite_v2).finish()
}

/// `PUT /_matrix/federation/v2/invite/{roomId}/{eventId}`
async fn invite_v2(
    context: Arc<InviteContext>,
    req: Ruma<Lenient<v2::Request, (OwnedRoomId, OwnedEventId), Body>>,
) -> Result<v2::Response, ApiError> {
    let Lenient { path: (room_id, event_id), body, .. } = req.request;
    let invite = Invite {
        origin: &req.caller,
        room_id: &room_id,
        event_id: &event_id,
        version: &body.room_version,
        event: body.event,
        told: body.invite_room_state,
    };
    Ok(v2::Response::new(context.take(invite).await?))
}

/// `PUT /_matrix/federation/v1/invite/{roomId}/{eventId}`
///
/// The body is the event, with what is told of the room in its `unsigned`. The room's version can
/// only be 1 or 2, whose events have the same form.
async fn invite_v1(
    context: Arc<InviteContext>,
    req: Ruma<v1::Request>,
) -> Result<v1::Response, ApiError> {
    #[derive(Serialize)]
    struct Signed {
        event: Box<RawValue>,
    }
    #[derive(Default, Deserialize)]
    struct Carrier {
        #[serde(default)]
        unsigned: Unsigned,
    }
    #[derive(Default, Deserialize)]
    struct Unsigned {
        #[serde(default)]
        invite_room_state: Vec<RawStrippedState>,
    }
    let invite = Invite {
        origin: &req.caller,
        room_id: &req.room_id,
        event_id: &req.event_id,
        version: &RoomVersionId::V2,
        event: serde_json::from_slice(&req.meta.body)?,
        told: serde_json::from_slice::<Carrier>(&req.meta.body)?.unsigned.invite_room_state,
    };
    // What ruma calls the event is what has the event in it.
    let signed = Signed { event: context.take(invite).await? };
    Ok(v1::Response::new(to_raw_value(&signed).map_err(ApiError::internal)?))
}

impl InviteContext {
    /// Signs an invite, and tells the user of it if nobody else will.
    async fn take(&self, invite: Invite<'_>) -> Result<Box<RawValue>, ApiError> {
        let Invite { origin, room_id, event_id, version, event, told } = invite;
        let version = RoomVersion::get(version).ok_or_else(|| incompatible(version))?;
        let pdu = checked(&self.checker, version, event).await?;
        let user = self.invitee(&pdu, origin)?;
        if pdu.room_id() != room_id || pdu.event_id() != event_id {
            return Err(ApiError::invalid_param("The event is not the one that the path names"));
        }
        self.members.check_open(room_id)?;
        self.members.check_invitee(pdu.sender(), &user).map_err(unwanted)?;
        let signed = self.sign(version, &pdu);
        // Joins of this room wait as long: afterwards the server would be told in another way.
        let _turn = self.members.elsewhere.turn(room_id).await;
        match self.members.view.room(room_id)? {
            Some(room) if !self.guard.admits(&room, origin)? => {
                return Err(ApiError::forbidden("The room keeps your server out"));
            }
            // It comes with the room's other events.
            Some(room) if self.members.is_inside(&room)? => {}
            _ => self.note(version, &pdu, &user, told).await?,
        }
        raw(signed)
    }

    /// The user of this server who is invited.
    fn invitee(&self, pdu: &Pdu, origin: &ServerName) -> Result<OwnedUserId, ApiError> {
        let wrong = |what: &str| ApiError::invalid_param(format!("The event {what}"));
        let membership = MemberContent::new(pdu.content()).membership();
        if pdu.event_type() != "m.room.member" || membership != Some(Membership::Invite) {
            return Err(wrong("is no invite"));
        }
        if pdu.sender().server_name() != origin {
            return Err(wrong("is of a user of another server"));
        }
        let user = pdu.state_key().and_then(|user| <&UserId>::try_from(user).ok());
        let user = user.filter(|user| user.server_name() == self.members.server_name);
        user.map(ToOwned::to_owned).ok_or_else(|| wrong("invites nobody of this server"))
    }

    fn sign(&self, version: &RoomVersion, pdu: &Pdu) -> Object {
        let mut event = pdu.json().clone();
        let server = self.members.server_name.as_str();
        signing::sign_event(version, &mut event, server, &self.key);
        event
    }

    async fn note(
        &self,
        version: &'static RoomVersion,
        pdu: &Pdu,
        user: &UserId,
        told: Vec<RawStrippedState>,
    ) -> Result<(), ApiError> {
        let room_id = pdu.room_id();
        let told = Told::read(&self.checker, version, room_id, told).await?;
        // Older rooms are of a time in which stripped state was all that was sent.
        let is_strict = version.rules().authorization.room_create_event_id_as_room_id;
        if is_strict && (told.faults > 0 || !told.has_create) {
            let message = "`invite_room_state` must have the room's create event, and no events \
                that are not validly signed ones of this room";
            return Err(ApiError::invalid_param(message));
        }
        let entry = OutOfBandEntry {
            room_id: room_id.to_string(),
            version: version.id().to_string(),
            event_id: pdu.event_id().to_string(),
            member: String::from_utf8(pdu.to_bytes()).map_err(ApiError::internal)?,
            told: told.events,
            servers: vec![pdu.sender().server_name().to_string()],
        };
        Ok(self.out_of_band.note(user, room_id, Membership::Invite, entry).await?)
    }
}

/// Who cannot be invited because there is no such user is refused like others.
fn unwanted(error: ApiError) -> ApiError {
    match error.status() == actix_web::http::StatusCode::NOT_FOUND {
        true => ApiError::forbidden("There is no such user here"),
        false => error,
    }
}
