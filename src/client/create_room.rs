//! Creating rooms.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#creation>

mod plan;
pub(crate) mod power;

use std::sync::Arc;

use actix_web::http::StatusCode;
use parlour_actors::{RoomError, directory::Directory};
use ruma::{
    RoomVersionId,
    api::{
        client::room::create_room::v3::{Request, Response},
        error::ErrorCode,
    },
};

use super::membership::Members;
use crate::{
    error::ApiError,
    http::{Admits, Api, RouteOptions, Routes, Ruma},
    limits::RateClass,
};

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
    let room = plan::plan(&context, &req)?;
    let (room_id, _) = context.members.rooms.create(room).await.map_err(refused)?;
    Ok(Response::new(room_id))
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
