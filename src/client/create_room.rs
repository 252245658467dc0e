//! Creating rooms.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#creation>

mod plan;
pub(crate) mod power;
pub(crate) mod public;

use std::{sync::Arc, time::Duration};

use actix_web::http::StatusCode;
use futures_util::{StreamExt as _, stream};
use parlour_actors::{RoomError, directory::Directory};
use parlour_event::json::Object;
use ruma::{
    OwnedRoomId, OwnedUserId, RoomVersionId,
    api::{
        client::room::create_room::v3::{Request, Response},
        error::ErrorCode,
    },
};

use tokio::time::timeout;

use super::membership::{ANY, Members};
use crate::{
    error::ApiError,
    http::{Admits, Api, RouteOptions, Routes, Ruma},
    limits::RateClass,
};

/// How long the answer waits for invites of users of other servers.
const PATIENCE: Duration = Duration::from_secs(20);

/// How many of them are made at the same time.
const AT_ONCE: usize = 16;

/// What this endpoint needs to know.
#[derive(Debug)]
pub struct CreateRoomContext {
    /// Where rooms are made, and who can be invited.
    pub members: Members,
    /// Aliases and published rooms.
    pub directory: Directory,
    /// The version of rooms for which the client names none.
    pub default_version: RoomVersionId,
}

/// The endpoints of this file.
#[must_use]
pub fn routes(context: Arc<CreateRoomContext>) -> Routes {
    let options = RouteOptions::rate(RateClass::Join).admits(Admits::Active);
    Routes::new(Api::Client, context).route_with(options, create).finish()
}

/// `POST /_matrix/client/v3/createRoom`
async fn create(context: Arc<CreateRoomContext>, req: Ruma<Request>) -> Result<Response, ApiError> {
    let plan::Plan { room, remote } = plan::plan(&context, &req)?;
    let (room_id, _) = context.members.rooms.create(room).await.map_err(refused)?;
    if !remote.is_empty() {
        let invites = invite_all(context, room_id.clone(), req.caller.user_id, remote);
        // They go on even if nobody waits for them any more.
        let _ = timeout(PATIENCE, actix_web::rt::spawn(invites)).await;
    }
    Ok(Response::new(room_id))
}

/// Invites users of other servers, which takes asking these. The room is there by now, so one who
/// cannot be invited is no reason to refuse it: the client sees who is.
async fn invite_all(
    context: Arc<CreateRoomContext>,
    room_id: OwnedRoomId,
    creator: OwnedUserId,
    invited: Vec<(OwnedUserId, Object)>,
) {
    let (members, room_id, creator) = (&context.members, &room_id, &creator);
    let invites = stream::iter(invited).map(|(user, content)| async move {
        if let Err(error) = members.change(room_id, creator, &user, content, ANY).await {
            tracing::info!(room = %room_id, %error, "an invite into a new room failed");
        }
    });
    invites.buffer_unordered(AT_ONCE).collect::<()>().await;
}

/// An event that the room's own rules forbid means that the parameters contradict each other.
fn refused(error: RoomError) -> ApiError {
    match error {
        RoomError::Forbidden(_) | RoomError::CreateRefused => invalid_state(error.to_string()),
        other => other.into(),
    }
}

/// 400 `M_INVALID_ROOM_STATE`
fn invalid_state(message: String) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, ErrorCode::InvalidRoomState, message)
}
