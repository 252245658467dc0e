//! Sending message events.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#sending-events-to-a-room>

use std::sync::Arc;

use parlour_actors::{Rooms, presence::Presence};
use parlour_event::json::{Object, Value};
use ruma::{
    OwnedEventId,
    api::client::message::send_message_event::v3::{Request, Response},
};

use super::{delayed::DelayedContext, local, redact, standing, txn};
use crate::{
    error::ApiError,
    http::{Answer, Api, RouteOptions, Routes, Ruma},
    limits::RateClass,
    view::View,
};

/// What this endpoint needs to know.
#[derive(Debug)]
pub struct SendContext {
    /// Where events go.
    pub rooms: Rooms,
    /// What a redaction redacts.
    pub view: View,
    /// Where events go that are to be sent later.
    pub delayed: DelayedContext,
    /// Who is online: who sends is active.
    pub presence: Presence,
}

/// The endpoints of this file.
#[must_use]
pub fn routes(context: Arc<SendContext>) -> Routes {
    let options = RouteOptions::rate(RateClass::Message).for_guests();
    Routes::new(Api::Client, context).route_with(options, send).finish()
}

/// `PUT /_matrix/client/v3/rooms/{roomId}/send/{eventType}/{txnId}`
///
/// `ts` is for application services, so it does not count here.
async fn send(context: Arc<SendContext>, req: Ruma<Request>) -> Result<Answer<Response>, ApiError> {
    context.presence.acted(req.caller.user_id.as_str());
    let content = local::object(&req.meta.body)?;
    let (room_id, event_type) = (&req.room_id, req.event_type.to_string());
    let path = [room_id.as_str(), &event_type];
    let transaction = txn::transaction(&req.caller, "send", &path, req.txn_id.as_str())?;
    if event_type != "m.room.redaction" {
        standing::check_active_in(&context.view.store, &req.caller, room_id)?;
    }
    let mut event = local::message_event(&req.caller.user_id, &event_type, content);
    event.transaction = Some(transaction.clone());
    let delayed = context.delayed.schedule(&req.caller, &req.meta, room_id, &event).await?;
    if let Some(answer) = delayed {
        return Ok(Answer::Json(answer));
    }
    if event_type == "m.room.redaction" {
        if let Some(event_id) = txn::known(&context.view.store, &transaction)? {
            return Ok(Response::new(event_id).into());
        }
        let target = take_redacts(&mut event.content)?;
        redact::check(&context.view, &req.caller, room_id, &target)?;
        event.redacts = Some(target);
    }
    Ok(Response::new(context.rooms.send(room_id, event).await?.event_id).into())
}

/// What a redaction redacts. The room's version decides where that goes in the event.
fn take_redacts(content: &mut Object) -> Result<OwnedEventId, ApiError> {
    match content.remove("redacts") {
        Some(Value::String(id)) => OwnedEventId::try_from(id)
            .map_err(|error| ApiError::bad_json(format!("`redacts`: {error}"))),
        _ => Err(ApiError::bad_json("A redaction needs `redacts`, the id of an event")),
    }
}
