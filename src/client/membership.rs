//! Joining, inviting, leaving and being made to leave.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#room-membership>

mod change;
mod elsewhere;

use std::sync::Arc;

use actix_web::http::StatusCode;
use bytes::Bytes;
use parlour_event::{
    content::Membership,
    json::{Object, Value},
};
use ruma::{
    OwnedRoomId, OwnedServerName, OwnedUserId, RoomId, UserId,
    api::{
        client::{
            knock::knock_room,
            membership::{
                ban_user, forget_room,
                invite_user::{self, v3::InvitationRecipient},
                join_room_by_id, join_room_by_id_or_alias, joined_rooms, kick_user, leave_room,
                unban_user,
            },
        },
        error::ErrorCode,
    },
};

pub(crate) use self::change::ANY;
use self::change::{BANNED, Change};
pub use self::{change::Members, elsewhere::Elsewhere};
use super::{aliases::AliasContext, local, standing};
use crate::{
    error::ApiError,
    http::{Admits, Api, Caller, RouteOptions, Routes, Ruma},
    limits::RateClass,
    view::ViewError,
};

/// Who is in the room in any way, and can be made to leave.
const PRESENT: &[Membership] = &[Membership::Join, Membership::Invite, Membership::Knock];

/// What these endpoints need to know.
#[derive(Debug)]
pub struct MembershipContext {
    /// Changes memberships.
    pub members: Members,
    /// Where aliases lead.
    pub aliases: Arc<AliasContext>,
}

/// The endpoints of this file.
#[must_use]
pub fn routes(context: Arc<MembershipContext>) -> Routes {
    let joining = RouteOptions::rate(RateClass::Join);
    let active = RouteOptions::default().admits(Admits::Active);
    Routes::new(Api::Client, context)
        .route_with(joining.for_guests(), join)
        .route_with(joining, join_by_alias)
        .route_with(joining.admits(Admits::Active), knock)
        .route_with(joining.admits(Admits::Active), invite)
        .route_with(RouteOptions::default().for_guests(), leave)
        .route_with(active, kick)
        .route_with(active, ban)
        .route_with(active, unban)
        .route(forget)
        .route(list_joined)
        .finish()
}

/// `POST /_matrix/client/v3/rooms/{roomId}/join`
async fn join(
    context: Arc<MembershipContext>,
    req: Ruma<join_room_by_id::v3::Request>,
) -> Result<join_room_by_id::v3::Response, ApiError> {
    let entry = Entry {
        members: context.members.clone(),
        caller: req.caller,
        room_id: req.request.room_id,
        reason: req.request.reason,
        via: Vec::new(),
    };
    Ok(join_room_by_id::v3::Response::new(entry.enter(req.meta.body).await?))
}

/// `POST /_matrix/client/v3/join/{roomIdOrAlias}`
async fn join_by_alias(
    context: Arc<MembershipContext>,
    req: Ruma<join_room_by_id_or_alias::v3::Request>,
) -> Result<join_room_by_id_or_alias::v3::Response, ApiError> {
    let (room_id, servers) = context.aliases.find_room(&req.room_id_or_alias).await?;
    let entry = Entry {
        members: context.members.clone(),
        caller: req.caller,
        room_id,
        reason: req.request.reason,
        via: req.request.via.into_iter().chain(servers).collect(),
    };
    Ok(join_room_by_id_or_alias::v3::Response::new(entry.enter(req.meta.body).await?))
}

/// `POST /_matrix/client/v3/knock/{roomIdOrAlias}`
///
/// `via` names servers to knock through at rooms that are not known here.
async fn knock(
    context: Arc<MembershipContext>,
    req: Ruma<knock_room::v3::Request>,
) -> Result<knock_room::v3::Response, ApiError> {
    let (room_id, servers) = context.aliases.find_room(&req.room_id_or_alias).await?;
    let via = req.request.via.into_iter().chain(servers).collect();
    let (members, user) = (context.members.clone(), req.caller.user_id);
    let content = content(Membership::Knock, &req.request.reason);
    to_the_end(async move {
        let (sender, target, from) = (&*user, &*user, ANY);
        let change = Change { room_id: &room_id, sender, target, content, from, via };
        members.change_via(change).await?;
        Ok(knock_room::v3::Response::new(room_id))
    })
    .await
}

/// Does something to its end, even if the client goes away: other servers may have done their part
/// of it.
async fn to_the_end<T: 'static>(
    work: impl Future<Output = Result<T, ApiError>> + 'static,
) -> Result<T, ApiError> {
    actix_web::rt::spawn(work).await.map_err(ApiError::internal)?
}

/// Somebody enters a room.
struct Entry {
    members: Members,
    caller: Caller,
    room_id: OwnedRoomId,
    reason: Option<String>,
    /// Servers that may know the room.
    via: Vec<OwnedServerName>,
}

impl Entry {
    async fn enter(self, body: Bytes) -> Result<OwnedRoomId, ApiError> {
        let Self { members, caller, room_id, .. } = &self;
        let user = &caller.user_id;
        standing::check_active_in(&members.view.store, caller, room_id)?;
        members.check_open(room_id)?;
        let room = members.view.room(room_id)?;
        let membership = room.map(|room| members.view.membership_of(&room, user)).transpose()?;
        let outside = members.elsewhere.outside(user, room_id)?.map(|(membership, _)| membership);
        let membership = outside.or(membership.flatten());
        if membership == Some(Membership::Join) {
            return Ok(self.room_id);
        }
        if membership != Some(Membership::Invite)
            && let Some(signed) = third_party_signed(&body)?
        {
            let sender = signed.get("sender").and_then(Value::as_str).unwrap_or_default();
            let sender = OwnedUserId::try_from(sender).map_err(|error| {
                ApiError::bad_json(format!("third_party_signed.sender: {error}"))
            })?;
            members.accept_third_party_invite(room_id, &sender, user, signed).await?;
        }
        to_the_end(async move {
            let Self { members, caller, room_id, reason, via } = self;
            let (content, from) = (content(Membership::Join, &reason), ANY);
            let (sender, target) = (&*caller.user_id, &*caller.user_id);
            let change = Change { room_id: &room_id, sender, target, content, from, via };
            members.change_via(change).await?;
            Ok(room_id)
        })
        .await
    }
}

/// What an identity server has signed, with everything that its signature covers: ruma's type
/// leaves out what it does not know.
fn third_party_signed(body: &[u8]) -> Result<Option<Object>, ApiError> {
    if body.is_empty() {
        return Ok(None);
    }
    match local::object(body)?.remove("third_party_signed") {
        Some(Value::Object(signed)) => Ok(Some(signed)),
        _ => Ok(None),
    }
}

fn content(membership: Membership, reason: &Option<String>) -> Object {
    let mut content = local::members([("membership", membership.as_str().into())]);
    if let Some(reason) = reason {
        content.insert("reason".to_owned(), reason.as_str().into());
    }
    content
}

/// `POST /_matrix/client/v3/rooms/{roomId}/invite`
async fn invite(
    context: Arc<MembershipContext>,
    req: Ruma<invite_user::v3::Request>,
) -> Result<invite_user::v3::Response, ApiError> {
    let InvitationRecipient::UserId(recipient) = &req.recipient else {
        return Err(no_identity_server());
    };
    let content = content(Membership::Invite, &recipient.reason);
    let (sender, target) = (&req.caller.user_id, &recipient.user_id);
    context.members.change(&req.room_id, sender, target, content, ANY).await?;
    Ok(invite_user::v3::Response::new())
}

/// An invitation by e-mail address or the like: 403 `M_SERVER_NOT_TRUSTED`, since there is no
/// identity server that this server would ask.
pub(crate) fn no_identity_server() -> ApiError {
    let message = "This server trusts no identity server, so it invites nobody by e-mail or phone";
    ApiError::new(StatusCode::FORBIDDEN, ErrorCode::ServerNotTrusted, message)
}

/// `POST /_matrix/client/v3/rooms/{roomId}/leave`
async fn leave(
    context: Arc<MembershipContext>,
    req: Ruma<leave_room::v3::Request>,
) -> Result<leave_room::v3::Response, ApiError> {
    let (members, user) = (context.members.clone(), req.caller.user_id.clone());
    let outside = members.elsewhere.outside(&user, &req.room_id)?.map(|(membership, _)| membership);
    let left = match (outside, members.view.room(&req.room_id)?) {
        (Some(membership), _) => membership == Membership::Leave,
        (None, Some(room)) => members.view.membership_of(&room, &user)? == Some(Membership::Leave),
        (None, None) => false,
    };
    // A client that has lost the first answer asks again, and is told the same.
    if !left {
        let (caller, request) = (req.caller, req.request);
        to_the_end(async move {
            let room_id = &request.room_id;
            remove(&members, &caller, room_id, &user, &request.reason, PRESENT).await
        })
        .await?;
    }
    Ok(leave_room::v3::Response::new())
}

/// `POST /_matrix/client/v3/rooms/{roomId}/kick`
async fn kick(
    context: Arc<MembershipContext>,
    req: Ruma<kick_user::v3::Request>,
) -> Result<kick_user::v3::Response, ApiError> {
    let (members, target) = (&context.members, &req.user_id);
    remove(members, &req.caller, &req.room_id, target, &req.reason, PRESENT).await?;
    Ok(kick_user::v3::Response::new())
}

/// `POST /_matrix/client/v3/rooms/{roomId}/unban`
async fn unban(
    context: Arc<MembershipContext>,
    req: Ruma<unban_user::v3::Request>,
) -> Result<unban_user::v3::Response, ApiError> {
    let (members, target) = (&context.members, &req.user_id);
    remove(members, &req.caller, &req.room_id, target, &req.reason, BANNED).await?;
    Ok(unban_user::v3::Response::new())
}

async fn remove(
    members: &Members,
    caller: &Caller,
    room_id: &RoomId,
    target: &UserId,
    reason: &Option<String>,
    from: &'static [Membership],
) -> Result<(), ApiError> {
    let content = content(Membership::Leave, reason);
    members.change(room_id, &caller.user_id, target, content, from).await.map(drop)
}

/// `POST /_matrix/client/v3/rooms/{roomId}/ban`
async fn ban(
    context: Arc<MembershipContext>,
    req: Ruma<ban_user::v3::Request>,
) -> Result<ban_user::v3::Response, ApiError> {
    let content = content(Membership::Ban, &req.reason);
    let (sender, target) = (&req.caller.user_id, &req.user_id);
    context.members.change(&req.room_id, sender, target, content, ANY).await?;
    Ok(ban_user::v3::Response::new())
}

/// `POST /_matrix/client/v3/rooms/{roomId}/forget`
async fn forget(
    context: Arc<MembershipContext>,
    req: Ruma<forget_room::v3::Request>,
) -> Result<forget_room::v3::Response, ApiError> {
    let (members, user) = (&context.members, req.caller.user_id.as_str());
    let store = &members.view.store;
    let room = store.room_num(req.room_id.as_str())?;
    let entry = room.map(|room| store.membership(user, room)).transpose()?.flatten();
    let (Some(room), Some(entry)) = (room, entry) else {
        return Err(ApiError::not_found("You were never in this room"));
    };
    if !matches!(entry.membership.as_str(), "leave" | "ban") {
        let message = "You have to leave this room before you can forget it";
        return Err(ApiError::new(StatusCode::BAD_REQUEST, ErrorCode::Unknown, message));
    }
    members.users.forget_room(user, room, entry.pos).await?;
    Ok(forget_room::v3::Response::new())
}

/// `GET /_matrix/client/v3/joined_rooms`
async fn list_joined(
    context: Arc<MembershipContext>,
    req: Ruma<joined_rooms::v3::Request>,
) -> Result<joined_rooms::v3::Response, ApiError> {
    let user = req.caller.user_id.clone();
    let rooms = context.members.view.run(move |view| {
        let memberships = view.store.memberships(user.as_str())?;
        let joined = memberships.into_iter().filter(|(_, entry)| entry.membership == "join");
        let rooms = joined.map(|(num, _)| view.room_by_num(num));
        let rooms = rooms.filter_map(|room| Some(room.transpose()?.map(|room| room.room_id)));
        rooms.collect::<Result<Vec<_>, ViewError>>()
    });
    Ok(joined_rooms::v3::Response::new(rooms.await?))
}
