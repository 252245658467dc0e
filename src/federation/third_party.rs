//! Invites by e-mail address or phone number, once it is known whose that is.
//!
//! Specification: <https://spec.matrix.org/v1.19/server-server-api/#third-party-invites>

use std::sync::Arc;

use parlour_event::json::{Object, Value};
use ruma::api::federation::thirdparty::{
    bind_callback::v1 as bind, exchange_invite::v1 as exchange,
};

use super::acl::RoomGuard;
use crate::{
    client::{local, membership::Members},
    error::ApiError,
    http::{Api, Routes, Ruma},
};

/// How many invites one address may have had.
const MAX_INVITES: usize = 20;

/// What these endpoints need to know.
#[derive(Debug)]
pub struct ThirdPartyContext {
    /// Invites.
    pub members: Members,
    /// Which servers may take part in rooms.
    pub guard: RoomGuard,
}

/// The endpoints of this file.
#[must_use]
pub fn routes(context: Arc<ThirdPartyContext>) -> Routes {
    Routes::new(Api::Federation, context).route(exchange_invite).route(bound).finish()
}

/// `PUT /_matrix/federation/v1/exchange_third_party_invite/{roomId}`
///
/// The server of who was invited asks that of who has invited to make an invite of it.
async fn exchange_invite(
    context: Arc<ThirdPartyContext>,
    req: Ruma<exchange::Request>,
) -> Result<exchange::Response, ApiError> {
    let (members, user) = (&context.members, &req.state_key);
    if req.sender.server_name() != members.server_name {
        return Err(ApiError::forbidden("The user who has invited is not of this server"));
    }
    if user.server_name() != req.caller || req.kind != ruma::events::StateEventType::RoomMember {
        return Err(ApiError::forbidden("The invite is for a user of another server"));
    }
    let room = context.guard.room(&req.room_id, &req.caller)?;
    let signed = signed_invite(req.content.json().get().as_bytes())?;
    if signed.get("sender").and_then(Value::as_str).is_some_and(|by| by != req.sender) {
        return Err(ApiError::forbidden("Somebody else has invited the user"));
    }
    members.redeem_third_party_invite(&room, &req.sender, user, signed).await?;
    Ok(exchange::Response::new())
}

fn signed_invite(content: &[u8]) -> Result<Object, ApiError> {
    let missing = || ApiError::bad_json("`third_party_invite` has no `signed`");
    let mut content = local::object(content)?;
    let Some(Value::Object(mut invite)) = content.remove("third_party_invite") else {
        return Err(missing());
    };
    match invite.remove("signed") {
        Some(Value::Object(signed)) => Ok(signed),
        _ => Err(missing()),
    }
}

/// `PUT /_matrix/federation/v1/3pid/onbind`
///
/// An identity server says that an address is a user's. What it has signed is checked by the keys
/// that each room has for it, so anybody may say so.
async fn bound(
    context: Arc<ThirdPartyContext>,
    req: Ruma<bind::Request>,
) -> Result<bind::Response, ApiError> {
    let members = &context.members;
    if req.invites.len() > MAX_INVITES {
        return Err(ApiError::invalid_param(format!("More than {MAX_INVITES} invites")));
    }
    for invite in req.request.invites.iter().filter(|invite| invite.mxid == req.mxid) {
        let signed = local::object(invite.signed.json().get().as_bytes())?;
        let accepted = members.accept_third_party_invite(
            &invite.room_id,
            &invite.sender,
            &invite.mxid,
            signed,
        );
        // One room that takes it not is no reason for the others not to.
        if let Err(error) = accepted.await {
            tracing::info!(room = %invite.room_id, %error, "a third-party invite came to nothing");
        }
    }
    Ok(bind::Response::new())
}
