//! A room in short, for those who think about joining it.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1room_summaryroomidoralias>

use std::sync::Arc;

use actix_web::http::StatusCode;
use ruma::{
    OwnedRoomId, OwnedServerName, OwnedUserId, RoomAliasId, RoomId,
    api::client::room::get_summary::v1::{Request, Response},
    room::RoomSummary,
};

use super::aliases::AliasContext;
use crate::{
    error::ApiError,
    federation::outbound::hierarchy::RemoteRooms,
    http::{Api, RouteOptions, Routes, Ruma},
    view::View,
};

/// What this endpoint needs to know.
#[derive(Debug)]
pub struct RoomSummaryContext {
    /// Rooms.
    pub view: View,
    /// Where aliases lead.
    pub aliases: Arc<AliasContext>,
    /// Who tells of rooms elsewhere.
    pub remote: RemoteRooms,
}

/// The endpoints of this file.
#[must_use]
pub fn routes(context: Arc<RoomSummaryContext>) -> Routes {
    let options = RouteOptions::default().for_guests();
    Routes::new(Api::Client, context).route_with(options, summary).finish()
}

/// `GET /_matrix/client/v1/room_summary/{roomIdOrAlias}`
///
/// Other servers are asked for users of this one alone.
async fn summary(
    context: Arc<RoomSummaryContext>,
    req: Ruma<Request>,
) -> Result<Response, ApiError> {
    let user = req.caller.as_ref().map(|caller| caller.user_id.clone());
    let (room_id, mut via) = match <&RoomId>::try_from(&*req.room_id_or_alias) {
        Ok(room_id) => (room_id.to_owned(), Vec::new()),
        Err(alias) => context.look_up(alias, user.is_some()).await?,
    };
    let (asked, here) = (user.clone(), room_id.clone());
    let found = context.view.run(move |view| read(view, &here, asked)).await?;
    if let Some(response) = found {
        return Ok(response);
    }
    via.splice(..0, req.via.iter().cloned());
    let maker = room_id.server_name().map(ToOwned::to_owned);
    via.extend(maker.filter(|maker| !via.contains(maker)));
    // The same for rooms that do not exist and those that are not to be seen.
    let unknown = || ApiError::not_found("The room is not known here, or not for you to see");
    let user = user.ok_or_else(unknown)?;
    let told = context.remote.describe(&room_id, &via).await.ok_or_else(unknown)?;
    let summary = told.room.summary.clone();
    let answer = context.view.run(move |view| read_told(view, summary, user));
    answer.await?.ok_or_else(unknown)
}

impl RoomSummaryContext {
    async fn look_up(
        &self,
        alias: &RoomAliasId,
        may_ask: bool,
    ) -> Result<(OwnedRoomId, Vec<OwnedServerName>), ApiError> {
        if !may_ask {
            return self.aliases.local(alias);
        }
        let found = self.aliases.find_anywhere(alias).await;
        found.map_err(|error| match error.status() {
            StatusCode::FORBIDDEN => ApiError::not_found("Nobody can be asked for this alias"),
            _ => error,
        })
    }
}

/// A room that is known here, if this server is in it.
fn read(
    view: &View,
    room_id: &RoomId,
    user: Option<OwnedUserId>,
) -> Result<Option<Response>, ApiError> {
    let Some(room) = view.room(room_id)? else { return Ok(None) };
    let summary = view.preview(&room)?;
    if !view.may_preview(&room, &summary, user.as_deref())? {
        return Ok(None);
    }
    let mut response = Response::new(summary);
    if let Some(user) = user {
        response.membership = view.membership_of(&room, &user)?.map(|m| m.as_str().into());
    }
    Ok(Some(response))
}

/// A room that another server tells of.
fn read_told(
    view: &View,
    summary: RoomSummary,
    user: OwnedUserId,
) -> Result<Option<Response>, ApiError> {
    if !view.may_preview_told(&summary, &user)? {
        return Ok(None);
    }
    let num = view.store.room_num(summary.room_id.as_str())?;
    let entry = num.map(|num| view.store.membership(user.as_str(), num)).transpose()?.flatten();
    let mut response = Response::new(summary);
    response.membership = entry.map(|entry| entry.membership.into());
    Ok(Some(response))
}
