//! Redacting events.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#redactions>

use std::sync::Arc;

use ruma::{
    EventId, RoomId,
    api::client::redact::redact_event::v3::{Request, Response},
};

use super::{local, send::SendContext, txn};
use crate::{
    error::ApiError,
    http::{Admits, Api, Caller, RouteOptions, Routes, Ruma},
    limits::RateClass,
    view::{Fields, View},
};

/// The endpoints of this file.
#[must_use]
pub fn routes(context: Arc<SendContext>) -> Routes {
    let options = RouteOptions::rate(RateClass::Message);
    Routes::new(Api::Client, context).route_with(options, redact).finish()
}

/// `PUT /_matrix/client/v3/rooms/{roomId}/redact/{eventId}/{txnId}`
async fn redact(context: Arc<SendContext>, req: Ruma<Request>) -> Result<Response, ApiError> {
    let (room_id, target) = (&req.room_id, &req.event_id);
    let path = [room_id.as_str(), target.as_str()];
    let transaction = txn::transaction(&req.caller, "redact", &path, req.txn_id.as_str())?;
    if let Some(event_id) = txn::known(&context.view.store, &transaction)? {
        return Ok(Response::new(event_id));
    }
    check(&context.view, &req.caller, room_id, target)?;
    let content = match &req.reason {
        Some(reason) => local::members([("reason", reason.as_str().into())]),
        None => local::members([]),
    };
    let mut event = local::message_event(&req.caller.user_id, "m.room.redaction", content);
    event.redacts = Some(target.clone());
    event.transaction = Some(transaction);
    Ok(Response::new(context.rooms.send(room_id, event).await?.event_id))
}

/// Whether the caller may redact the event. The auth rules let any redaction pass that somebody
/// of the same server sends, so whose events may be redacted is for this server to decide.
///
/// # Errors
///
/// 403 for who is not in the room or lacks the power, and for what a room cannot do without; 404 if
/// the room has no such event.
pub(crate) fn check(
    view: &View,
    caller: &Caller,
    room_id: &RoomId,
    target: &EventId,
) -> Result<(), ApiError> {
    let room = local::joined_room(view, room_id, &caller.user_id)?;
    let event = local::event_in(view, &room, target)?;
    let fields = Fields::of(&event)?;
    check_dispensable(&fields)?;
    let sender = fields.sender;
    let is_ours = sender.split_once(':').map(|(_, server)| server)
        == Some(caller.user_id.server_name().as_str());
    if sender != caller.user_id.as_str() {
        caller.check(Admits::Active)?;
    }
    let may = sender == caller.user_id.as_str()
        || (caller.admin && is_ours)
        || view.powers(&room)?.may_redact(&caller.user_id);
    match may {
        true => Ok(()),
        false => Err(ApiError::forbidden("You need more power to redact other users' events")),
    }
}

/// Without its content a create event does not say the room's version any more (before version 11),
/// and nobody else could enter; and without its server ACL a room is open to all it kept out.
fn check_dispensable(event: &Fields<'_>) -> Result<(), ApiError> {
    match &*event.event_type {
        "m.room.create" | "m.room.server_acl" if event.state_key.as_deref() == Some("") => {
            Err(ApiError::forbidden("The room cannot do without this event"))
        }
        _ => Ok(()),
    }
}
