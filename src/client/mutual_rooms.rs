//! Rooms that two users share.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#mutual-rooms>

use std::sync::Arc;

use parlour_event::RoomNum;
use ruma::{
    OwnedServerName, OwnedUserId, UInt,
    api::client::membership::get_mutual_rooms::{unstable, v1},
};

use crate::{
    error::ApiError,
    http::{Api, Caller, Routes, Ruma},
    view::{View, mutual::MutualRooms},
};

/// How many rooms one answer has.
const BATCH: usize = 100;

/// What these endpoints need to know.
#[derive(Debug)]
pub struct MutualRoomsContext {
    /// Who is in which room.
    pub view: View,
    /// Which users are ours.
    pub server_name: OwnedServerName,
}

/// The endpoints of this file.
#[must_use]
pub fn routes(context: Arc<MutualRoomsContext>) -> Routes {
    Routes::new(Api::Client, context).route(mutual).route(mutual_unstable).finish()
}

/// `GET /_matrix/client/v1/mutual_rooms`
async fn mutual(
    context: Arc<MutualRoomsContext>,
    req: Ruma<v1::Request>,
) -> Result<v1::Response, ApiError> {
    let found = context.find(&req.caller, &req.user_id, req.from.as_deref()).await?;
    let count = UInt::try_from(found.count).unwrap_or(UInt::MAX);
    let mut response = v1::Response::new(count, found.rooms);
    response.next_batch = found.next.map(token);
    Ok(response)
}

/// The same as MSC2666 had it before it was accepted.
async fn mutual_unstable(
    context: Arc<MutualRoomsContext>,
    req: Ruma<unstable::Request>,
) -> Result<unstable::Response, ApiError> {
    let found = context.find(&req.caller, &req.user_id, req.from.as_deref()).await?;
    let mut response = unstable::Response::new(found.rooms);
    response.next_batch = found.next.map(token);
    Ok(response)
}

impl MutualRoomsContext {
    async fn find(
        &self,
        caller: &Caller,
        other: &OwnedUserId,
        from: Option<&str>,
    ) -> Result<MutualRooms, ApiError> {
        if *other == caller.user_id {
            return Err(ApiError::invalid_param("These are all of your own rooms"));
        }
        if other.validate_historical().is_err() {
            return Err(ApiError::invalid_param("`user_id` is not a valid user id"));
        }
        let from = from.map(place).transpose()?.unwrap_or_default();
        let (user, other) = (caller.user_id.clone(), other.clone());
        let own_name = self.server_name.clone();
        self.view.run(move |view| view.mutual_rooms(&user, &other, &own_name, (from, BATCH))).await
    }
}

/// The place behind a room, as a token. It never expires.
fn token(room: RoomNum) -> String {
    format!("m1_{}", room.0)
}

fn place(token: &str) -> Result<RoomNum, ApiError> {
    let number = token.strip_prefix("m1_").and_then(|number| number.parse().ok());
    number.map(RoomNum).ok_or_else(|| ApiError::invalid_param("This is not a token of this server"))
}
