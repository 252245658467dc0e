//! Creating rooms.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#creation>

mod plan;
mod power;

use std::sync::Arc;

use actix_web::http::StatusCode;
use parlour_actors::{
    RoomError,
    directory::{AliasError, Directory},
};
use ruma::{
    RoomVersionId,
    api::{
        client::room::create_room::v3::{Request, Response},
        error::ErrorCode,
    },
};

use self::plan::Plan;
use super::membership::Members;
use crate::{
    error::ApiError,
    http::{Api, RouteOptions, Routes, Ruma},
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
    let options = RouteOptions::rate(RateClass::Join);
    Routes::new(Api::Client, context).route_with(options, create).finish()
}

/// `POST /_matrix/client/v3/createRoom`
async fn create(context: Arc<CreateRoomContext>, req: Ruma<Request>) -> Result<Response, ApiError> {
    let Plan { room, alias, published } = Plan::of(&context, &req)?;
    let creator = room.creator.clone();
    // Nobody else may get the alias between the room's birth and its entry in the directory.
    let claim = alias.map(|alias| context.directory.claim(alias.as_str())).transpose();
    let claim = claim.map_err(alias_refused)?;
    let (room_id, _) = context.members.rooms.create(room).await.map_err(refused)?;
    let num = context.members.view.store.room_num(room_id.as_str())?;
    let num = num.ok_or_else(|| ApiError::internal("a room that was just made is not there"))?;
    if let Some(claim) = claim {
        let added = context.directory.add(claim, num, creator.as_str()).await;
        added.map_err(alias_refused)?;
    }
    if published {
        context.directory.publish(num, true).await?;
    }
    Ok(Response::new(room_id))
}

fn alias_refused(error: AliasError) -> ApiError {
    match error {
        AliasError::Taken => {
            ApiError::new(StatusCode::BAD_REQUEST, ErrorCode::RoomInUse, error.to_string())
        }
        other => other.into(),
    }
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
