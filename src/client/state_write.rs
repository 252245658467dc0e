//! Setting a room's state.
//!
//! Specification:
//! <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3roomsroomidstateeventtypestatekey>

use std::sync::Arc;

use parlour_actors::directory::Directory;
use parlour_event::{content::Membership, json::Object};
use ruma::{
    UserId,
    api::client::state::send_state_event::v3::{Request, Response},
};

use super::{
    aliases::check_canonical_alias,
    local,
    membership::{ANY, Members},
};
use crate::{
    error::ApiError,
    http::{Api, RouteOptions, Routes, Ruma},
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
    pub directory: Directory,
}

/// The endpoints of this file.
#[must_use]
pub fn routes(context: Arc<StateWriteContext>) -> Routes {
    let options = RouteOptions::rate(RateClass::Message);
    Routes::new(Api::Client, context).route_with(options, set_state).finish()
}

/// `PUT /_matrix/client/v3/rooms/{roomId}/state/{eventType}/{stateKey}`
async fn set_state(
    context: Arc<StateWriteContext>,
    req: Ruma<Request>,
) -> Result<Response, ApiError> {
    let content = local::object(&req.meta.body)?;
    let event_type = req.event_type.to_string();
    match event_type.as_str() {
        "m.room.member" => return set_member(&context, &req, content).await,
        "m.room.create" => {
            return Err(ApiError::forbidden("A room is created once, and that is done"));
        }
        "m.room.power_levels" => local::check_power_levels(&content)?,
        "m.room.canonical_alias" if req.state_key.is_empty() => {
            check_canonical_alias(
                &context.directory,
                &context.members.view,
                &req.room_id,
                &content,
            )?;
        }
        _ => {}
    }
    let sender = &req.caller.user_id;
    let event = local::state_event(sender, &event_type, &req.state_key, content);
    Ok(Response::new(context.members.rooms.send(&req.room_id, event).await?.event_id))
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
    let is_leave = content.get("membership").and_then(|value| value.as_str()) == Some("leave");
    let from = if is_leave && sender != target { KICK_OR_UNBAN } else { ANY };
    let sent = context.members.change(&req.room_id, sender, target, content, from).await?;
    Ok(Response::new(sent.event_id))
}
