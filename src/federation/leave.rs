//! Other servers' users leave rooms of this server, or reject invites to them.
//!
//! Specification: <https://spec.matrix.org/v1.19/server-server-api/#leaving-rooms-rejecting-invites>

use std::sync::Arc;

use parlour_event::content::Membership;
use ruma::{
    ServerName,
    api::federation::membership::{
        create_leave_event::v2 as send_leave, prepare_leave_event::v1 as make_leave,
    },
};

use super::{
    handshake::{HandshakeContext, Submission, check_own, content, raw},
    version_1::Version1,
};
use crate::{
    error::ApiError,
    http::{Api, Routes, Ruma},
};

/// The endpoints of this file.
#[must_use]
pub fn routes(context: Arc<HandshakeContext>) -> Routes {
    Routes::new(Api::Federation, context).route(make).route(send).route(send_v1).finish()
}

/// `GET /_matrix/federation/v1/make_leave/{roomId}/{userId}`
async fn make(
    context: Arc<HandshakeContext>,
    req: Ruma<make_leave::Request>,
) -> Result<make_leave::Response, ApiError> {
    check_own(&req.user_id, &req.caller)?;
    let room = context.room(&req.room_id, &req.caller)?;
    let content = content(Membership::Leave);
    let template = context.template(&room, &req.user_id, content).await?;
    Ok(make_leave::Response::new(Some(template.version.id().clone()), raw(template.event)?))
}

/// `PUT /_matrix/federation/v2/send_leave/{roomId}/{eventId}`
async fn send(
    context: Arc<HandshakeContext>,
    req: Ruma<send_leave::Request>,
) -> Result<send_leave::Response, ApiError> {
    context.let_go(req.request, &req.caller).await
}

/// `PUT /_matrix/federation/v1/send_leave/{roomId}/{eventId}`
async fn send_v1(
    context: Arc<HandshakeContext>,
    req: Ruma<Version1<send_leave::Request>>,
) -> Result<Version1<send_leave::Response>, ApiError> {
    context.let_go(req.request.0, &req.caller).await.map(Version1)
}

impl HandshakeContext {
    async fn let_go(
        &self,
        req: send_leave::Request,
        origin: &ServerName,
    ) -> Result<send_leave::Response, ApiError> {
        let room = self.room(&req.room_id, origin)?;
        let (event_id, membership) = (&*req.event_id, Membership::Leave);
        let submission = Submission { origin, room: &room, event_id, membership };
        let pdu = self.check(&submission, req.pdu).await?;
        self.bring(pdu, origin).await?;
        Ok(send_leave::Response::new())
    }
}
