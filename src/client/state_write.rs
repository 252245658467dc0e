//! Setting a room's state.
//!
//! Specification:
//! <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3roomsroomidstateeventtypestatekey>

use std::sync::Arc;

use parlour_actors::LocalEvent;
use parlour_event::{
    content::Membership,
    json::{Object, Value},
};
use ruma::{
    RoomId, UserId,
    api::client::state::send_state_event::v3::{Request, Response},
    events::StateEventType,
};

use super::{
    aliases::{AliasContext, check_canonical_alias},
    delayed::DelayedContext,
    local,
    membership::{ANY, Members},
    state_checks::check_content,
};
use crate::{
    error::ApiError,
    http::{Admits, Answer, Api, RouteOptions, Routes, Ruma},
    limits::RateClass,
};

/// Whose membership another user can turn into `leave`: a kick, or the end of a ban.
const KICK_OR_UNBAN: &[Membership] =
    &[Membership::Join, Membership::Invite, Membership::Knock, Membership::Ban];

/// What this endpoint needs to know.
#[derive(Debug)]
pub struct StateWriteContext {
    /// Changes memberships, and knows rooms.
    pub members: Members,
    /// Where aliases lead.
    pub aliases: Arc<AliasContext>,
    /// Where events go that are to be sent later.
    pub delayed: DelayedContext,
}

/// The endpoints of this file.
#[must_use]
pub fn routes(context: Arc<StateWriteContext>) -> Routes {
    let options = RouteOptions::rate(RateClass::Message).for_guests();
    Routes::new(Api::Client, context).route_with(options, set_state).finish()
}

/// `PUT /_matrix/client/v3/rooms/{roomId}/state/{eventType}/{stateKey}`
async fn set_state(
    context: Arc<StateWriteContext>,
    req: Ruma<Request>,
) -> Result<Answer<Response>, ApiError> {
    let (caller, room_id) = (&req.caller, &req.room_id);
    let content = local::object(&req.meta.body)?;
    let event_type = req.event_type.to_string();
    if !is_own_leave(&req, &content) {
        caller.check(Admits::Active)?;
    }
    let event = local::state_event(&caller.user_id, &event_type, &req.state_key, content);
    check(&context, room_id, &event).await?;
    if let Some(answer) = context.delayed.schedule(caller, &req.meta, room_id, &event).await? {
        return Ok(Answer::Json(answer));
    }
    if event_type == "m.room.member" {
        return Ok(set_member(&context, &req, event.content).await?.into());
    }
    Ok(Response::new(context.members.rooms.send(room_id, event).await?.event_id).into())
}

/// What the auth rules don't say about some types of state.
async fn check(
    context: &StateWriteContext,
    room_id: &RoomId,
    event: &LocalEvent,
) -> Result<(), ApiError> {
    let state_key = event.state_key.as_deref().unwrap_or_default();
    check_content(&event.event_type, state_key, &event.content, &context.members.server_name)?;
    match event.event_type.as_str() {
        "m.room.create" => Err(ApiError::forbidden("A room is created once, and that is done")),
        "m.room.canonical_alias" if state_key.is_empty() => {
            check_canonical_alias(&context.aliases, room_id, &event.content).await
        }
        _ => Ok(()),
    }
}

/// Whether the caller leaves the room by this; suspended users may do that.
fn is_own_leave(req: &Ruma<Request>, content: &Object) -> bool {
    req.event_type == StateEventType::RoomMember
        && req.state_key == req.caller.user_id.as_str()
        && content.get("membership").and_then(Value::as_str) == Some("leave")
}

/// The same as the endpoints for memberships, only with a content of one's own.
async fn set_member(
    context: &StateWriteContext,
    req: &Ruma<Request>,
    content: Object,
) -> Result<Response, ApiError> {
    let sender = &req.caller.user_id;
    let target = <&UserId>::try_from(req.state_key.as_str())
        .map_err(|error| ApiError::invalid_param(format!("The state key is no user: {error}")))?;
    let is_leave = content.get("membership").and_then(Value::as_str) == Some("leave");
    let from = if is_leave && sender != target { KICK_OR_UNBAN } else { ANY };
    let sent = context.members.change(&req.room_id, sender, target, content, from).await?;
    Ok(Response::new(sent.event_id))
}
