//! Other servers' users knock at rooms of this server.
//!
//! Specification: <https://spec.matrix.org/v1.19/server-server-api/#knocking-rooms>

use std::sync::Arc;

use parlour_event::content::Membership;
use ruma::api::federation::membership::{
    RawStrippedState, create_knock_event::v1 as send_knock, prepare_knock_event::v1 as make_knock,
};

use super::handshake::{HandshakeContext, Submission, check_own, check_version, content, raw};
use crate::{
    error::ApiError,
    http::{Api, Routes, Ruma},
    view::{ViewError, wire_json},
};

/// The endpoints of this file.
#[must_use]
pub fn routes(context: Arc<HandshakeContext>) -> Routes {
    Routes::new(Api::Federation, context).route(make).route(send).finish()
}

/// `GET /_matrix/federation/v1/make_knock/{roomId}/{userId}`
async fn make(
    context: Arc<HandshakeContext>,
    req: Ruma<make_knock::Request>,
) -> Result<make_knock::Response, ApiError> {
    check_own(&req.user_id, &req.caller)?;
    let room = context.room(&req.room_id, &req.caller)?;
    check_version(&room, &req.ver)?;
    let content = content(Membership::Knock);
    let template = context.template(&room, &req.user_id, content).await?;
    Ok(make_knock::Response::new(template.version.id().clone(), raw(template.event)?))
}

/// `PUT /_matrix/federation/v1/send_knock/{roomId}/{eventId}`
async fn send(
    context: Arc<HandshakeContext>,
    req: Ruma<send_knock::Request>,
) -> Result<send_knock::Response, ApiError> {
    let (origin, room) = (&req.caller, context.room(&req.room_id, &req.caller)?);
    let (event_id, membership) = (&*req.event_id, Membership::Knock);
    let submission = Submission { origin, room: &room, event_id, membership };
    let pdu = context.check(&submission, req.request.pdu.clone()).await?;
    context.bring(pdu, origin).await?;
    let told = context.view.run(move |view| {
        let events = view.told_state(room.head.state, None)?;
        events.iter().map(wire_json).collect::<Result<Vec<_>, ViewError>>()
    });
    let told = told.await?.into_iter().map(RawStrippedState::Pdu).collect();
    Ok(send_knock::Response::new(told))
}
