//! A room in short, for those who think about joining it.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1room_summaryroomidoralias>

use std::sync::Arc;

use parlour_actors::directory::Directory;
use ruma::{
    OwnedRoomId, OwnedServerName, OwnedUserId,
    api::client::room::get_summary::v1::{Request, Response},
};

use super::aliases;
use crate::{
    error::ApiError,
    http::{Api, Routes, Ruma},
    view::View,
};

/// What this endpoint needs to know.
#[derive(Debug)]
pub struct RoomSummaryContext {
    /// Rooms.
    pub view: View,
    /// Where aliases lead.
    pub directory: Directory,
    /// Which aliases are ours.
    pub server_name: OwnedServerName,
}

/// The endpoints of this file.
#[must_use]
pub fn routes(context: Arc<RoomSummaryContext>) -> Routes {
    Routes::new(Api::Client, context).route(summary).finish()
}

/// `GET /_matrix/client/v1/room_summary/{roomIdOrAlias}`
///
/// `via` names servers to ask for rooms that are not known here.
async fn summary(
    context: Arc<RoomSummaryContext>,
    req: Ruma<Request>,
) -> Result<Response, ApiError> {
    let RoomSummaryContext { view, directory, server_name } = &*context;
    let room_id = aliases::resolve(directory, view, server_name, &req.room_id_or_alias)?;
    let user = req.caller.as_ref().map(|caller| caller.user_id.clone());
    view.run(move |view| read(view, room_id, user)).await
}

fn read(
    view: &View,
    room_id: OwnedRoomId,
    user: Option<OwnedUserId>,
) -> Result<Response, ApiError> {
    // The same for rooms that do not exist and those that are not to be seen.
    let unknown = || ApiError::not_found("The room is not known here, or not for you to see");
    let room = view.room(&room_id)?.ok_or_else(unknown)?;
    let summary = view.preview(&room)?;
    if !view.may_preview(&room, &summary, user.as_deref())? {
        return Err(unknown());
    }
    let mut response = Response::new(summary);
    if let Some(user) = user {
        response.membership = view.membership_of(&room, &user)?.map(|m| m.as_str().into());
    }
    Ok(response)
}
