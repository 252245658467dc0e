//! Typing notifications.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#typing-notifications>

use std::{sync::Arc, time::Duration};

use parlour_actors::{presence::Presence, typing::Typing};
use ruma::{
    OwnedRoomId, OwnedUserId,
    api::{
        IncomingRequest, Metadata,
        client::typing::create_typing_event::v3::{Request, Response},
        error::DeserializationError,
    },
};
use serde::{
    Deserialize,
    de::value::{Error as ValueError, SeqDeserializer},
};

use super::local;
use crate::{
    error::ApiError,
    http::{Api, Routes, Ruma},
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

/// [`Request`], whose own body must have a `timeout`.
#[derive(Debug)]
struct SetTyping {
    room_id: OwnedRoomId,
    user_id: OwnedUserId,
    state: State,
}

#[derive(Debug, Deserialize)]
struct State {
    typing: bool,
    /// In milliseconds.
    #[serde(default)]
    timeout: Option<u64>,
}

impl Metadata for SetTyping {
    type Authentication = <Request as Metadata>::Authentication;
    type PathBuilder = <Request as Metadata>::PathBuilder;

    const METHOD: http::Method = Request::METHOD;
    const RATE_LIMITED: bool = Request::RATE_LIMITED;
    const PATH_BUILDER: Self::PathBuilder = Request::PATH_BUILDER;
}

impl IncomingRequest for SetTyping {
    type EndpointError = <Request as IncomingRequest>::EndpointError;
    type OutgoingResponse = Response;

    fn try_from_http_request_inner(
        request: http::Request<&[u8]>,
        path_args: &[&str],
    ) -> Result<Self, DeserializationError> {
        let args = SeqDeserializer::<_, ValueError>::new(path_args.iter().copied());
        let (room_id, user_id) = Deserialize::deserialize(args)?;
        Ok(Self { room_id, user_id, state: serde_json::from_slice(request.body())? })
    }
}

/// `PUT /_matrix/client/v3/rooms/{roomId}/typing/{userId}`
async fn set_typing(
    context: Arc<TypingContext>,
    req: Ruma<SetTyping>,
) -> Result<Response, ApiError> {
    let user = &req.caller.user_id;
    if req.user_id != *user {
        return Err(ApiError::forbidden("You cannot type for somebody else"));
    }
    let room = local::joined_room(&context.view, &req.room_id, user)?;
    let timeout = req.state.timeout.map_or(USUAL_TIMEOUT, Duration::from_millis);
    let timeout = req.state.typing.then_some(timeout);
    context.presence.acted(user.as_str());
    context.typing.set(room.num, user.as_str(), timeout);
    Ok(Response::new())
}
