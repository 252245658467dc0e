//! Typing notifications.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#typing-notifications>

use std::{sync::Arc, time::Duration};

use parlour_actors::{presence::Presence, typing::Typing};
use ruma::{
    OwnedRoomId, OwnedUserId,
    api::client::typing::create_typing_event::v3::{Request, Response},
};
use serde::Deserialize;

use super::local;
use crate::{
    error::ApiError,
    http::{Api, Lenient, Routes, Ruma},
    view::View,
};

/// How long somebody types whose client does not say it.
const USUAL_TIMEOUT: Duration = Duration::from_secs(30);

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

/// The body. ruma's own must have a `timeout`.
#[derive(Debug, Deserialize)]
struct State {
    typing: bool,
    /// In milliseconds.
    #[serde(default)]
    timeout: Option<u64>,
}

/// `PUT /_matrix/client/v3/rooms/{roomId}/typing/{userId}`
async fn set_typing(
    context: Arc<TypingContext>,
    req: Ruma<Lenient<Request, (OwnedRoomId, OwnedUserId), State>>,
) -> Result<Response, ApiError> {
    let ((room_id, user_id), State { typing, timeout }) = (&req.path, &req.body);
    let user = &req.caller.user_id;
    if user_id != user {
        return Err(ApiError::forbidden("You cannot type for somebody else"));
    }
    let room = local::joined_room(&context.view, room_id, user)?;
    let timeout = timeout.map_or(USUAL_TIMEOUT, Duration::from_millis);
    let timeout = typing.then_some(timeout);
    context.presence.acted(user.as_str());
    context.typing.set(room.num, user.as_str(), timeout);
    Ok(Response::new())
}
