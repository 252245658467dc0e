//! Typing notifications.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#typing-notifications>

use std::sync::Arc;

use parlour_actors::{presence::Presence, typing::Typing};
use ruma::api::client::typing::create_typing_event::v3::{Request, Response, Typing as State};

use super::local;
use crate::{
    error::ApiError,
    http::{Api, Routes, Ruma},
    view::View,
};

/// What this endpoint needs to know.
#[derive(Debug)]
pub struct TypingContext {
    /// Who types.
    pub typing: Typing,
    /// Who is in which room.
    pub view: View,
    /// Who is online: who types is active.
    pub presence: Presence,
}

/// The endpoints of this file.
#[must_use]
pub fn routes(context: Arc<TypingContext>) -> Routes {
    Routes::new(Api::Client, context).route(set_typing).finish()
}

/// `PUT /_matrix/client/v3/rooms/{roomId}/typing/{userId}`
async fn set_typing(context: Arc<TypingContext>, req: Ruma<Request>) -> Result<Response, ApiError> {
    let user = &req.caller.user_id;
    if req.user_id != *user {
        return Err(ApiError::forbidden("You cannot type for somebody else"));
    }
    let room = local::joined_room(&context.view, &req.room_id, user)?;
    let timeout = match req.state {
        State::Yes(info) => Some(info.timeout),
        State::No => None,
    };
    context.presence.acted(user.as_str());
    context.typing.set(room.num, user.as_str(), timeout);
    Ok(Response::new())
}
