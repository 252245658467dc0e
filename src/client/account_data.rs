//! Account data, global and per room.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#client-config>; for deletion
//! <https://github.com/matrix-org/matrix-spec-proposals/pull/3391>

use std::sync::Arc;

use actix_web::http::StatusCode;
use bytes::Bytes;
use parlour_actors::{
    presence::{Presence, VISIBILITY},
    users::{PUSH_RULES, Users},
};
use parlour_event::RoomNum;
use parlour_storage::Store;
use ruma::{
    RoomId, UserId,
    api::{
        IncomingRequest,
        auth_scheme::AccessToken,
        client::config::{
            get_global_account_data, get_room_account_data, set_global_account_data,
            set_room_account_data,
        },
        error::{DeserializationError, Error, ErrorCode},
        metadata,
    },
    serde::Raw,
};
use serde_json::value::RawValue;

use crate::{
    error::ApiError,
    http::{Api, Caller, RouteOptions, Routes, Ruma},
    limits::RateClass,
};

/// The largest piece of account data, in bytes.
const MAX_CONTENT: usize = 1 << 20;

/// The longest type, in bytes.
const MAX_TYPE: usize = 255;

/// Where global account data are, among the rooms.
const GLOBAL: RoomNum = RoomNum(0);

/// Types that have endpoints of their own.
const KEPT_BY_SERVER: [&str; 2] = ["m.fully_read", PUSH_RULES];

/// What these endpoints need to know.
#[derive(Debug)]
pub struct AccountDataContext {
    /// Where account data are kept.
    pub users: Users,
    /// Which rooms there are.
    pub store: Store,
    /// Who is online: a user may want not to be seen.
    pub presence: Presence,
}

/// The endpoints of this file.
#[must_use]
pub fn routes(context: Arc<AccountDataContext>) -> Routes {
    let options = RouteOptions::rate(RateClass::Other).max_body(MAX_CONTENT);
    Routes::new(Api::Client, context)
        .route_with(options, set_global)
        .route_with(options, set_for_room)
        .route(get_global)
        .route(get_for_room)
        .route(delete_global)
        .route(delete_for_room)
        .finish()
}

/// Deletion of a global piece, named as when it is read.
#[derive(Debug)]
struct DeleteGlobal(get_global_account_data::v3::Request);

/// Deletion of a room's piece, named as when it is read.
#[derive(Debug)]
struct DeleteForRoom(get_room_account_data::v3::Request);

metadata! {
    @for DeleteGlobal,
    method: DELETE,
    rate_limited: false,
    authentication: AccessToken,
    history: {
        unstable("org.matrix.msc3391") => "/_matrix/client/unstable/org.matrix.msc3391/user/{user_id}/account_data/{event_type}",
    }
}

metadata! {
    @for DeleteForRoom,
    method: DELETE,
    rate_limited: false,
    authentication: AccessToken,
    history: {
        unstable("org.matrix.msc3391") => "/_matrix/client/unstable/org.matrix.msc3391/user/{user_id}/rooms/{room_id}/account_data/{event_type}",
    }
}

impl IncomingRequest for DeleteGlobal {
    type EndpointError = Error;
    type OutgoingResponse = set_global_account_data::v3::Response;

    fn try_from_http_request_inner(
        request: http::Request<&[u8]>,
        path_args: &[&str],
    ) -> Result<Self, DeserializationError> {
        get_global_account_data::v3::Request::try_from_http_request_inner(request, path_args)
            .map(Self)
    }
}

impl IncomingRequest for DeleteForRoom {
    type EndpointError = Error;
    type OutgoingResponse = set_room_account_data::v3::Response;

    fn try_from_http_request_inner(
        request: http::Request<&[u8]>,
        path_args: &[&str],
    ) -> Result<Self, DeserializationError> {
        get_room_account_data::v3::Request::try_from_http_request_inner(request, path_args)
            .map(Self)
    }
}

/// `PUT /_matrix/client/v3/user/{userId}/account_data/{type}`
async fn set_global(
    context: Arc<AccountDataContext>,
    req: Ruma<set_global_account_data::v3::Request>,
) -> Result<set_global_account_data::v3::Response, ApiError> {
    own(&req.caller, &req.user_id)?;
    let data_type = req.event_type.to_string();
    context.set(&req.user_id, GLOBAL, &data_type, &req.meta.body).await?;
    context.changed(&req.user_id, &data_type);
    Ok(set_global_account_data::v3::Response::new())
}

/// `PUT /_matrix/client/v3/user/{userId}/rooms/{roomId}/account_data/{type}`
async fn set_for_room(
    context: Arc<AccountDataContext>,
    req: Ruma<set_room_account_data::v3::Request>,
) -> Result<set_room_account_data::v3::Response, ApiError> {
    own(&req.caller, &req.user_id)?;
    let room = room_of(&context.store, &req.user_id, &req.room_id)?;
    context.set(&req.user_id, room, &req.event_type.to_string(), &req.meta.body).await?;
    Ok(set_room_account_data::v3::Response::new())
}

/// `GET /_matrix/client/v3/user/{userId}/account_data/{type}`
async fn get_global(
    context: Arc<AccountDataContext>,
    req: Ruma<get_global_account_data::v3::Request>,
) -> Result<get_global_account_data::v3::Response, ApiError> {
    own(&req.caller, &req.user_id)?;
    let content = context.get(&req.user_id, GLOBAL, &req.event_type.to_string())?;
    Ok(get_global_account_data::v3::Response::new(Raw::from_json(content)))
}

/// `GET /_matrix/client/v3/user/{userId}/rooms/{roomId}/account_data/{type}`
async fn get_for_room(
    context: Arc<AccountDataContext>,
    req: Ruma<get_room_account_data::v3::Request>,
) -> Result<get_room_account_data::v3::Response, ApiError> {
    own(&req.caller, &req.user_id)?;
    let room = room_of(&context.store, &req.user_id, &req.room_id)?;
    let content = context.get(&req.user_id, room, &req.event_type.to_string())?;
    Ok(get_room_account_data::v3::Response::new(Raw::from_json(content)))
}

/// `DELETE /_matrix/client/unstable/org.matrix.msc3391/user/{userId}/account_data/{type}`
async fn delete_global(
    context: Arc<AccountDataContext>,
    req: Ruma<DeleteGlobal>,
) -> Result<set_global_account_data::v3::Response, ApiError> {
    let DeleteGlobal(piece) = &req.request;
    own(&req.caller, &piece.user_id)?;
    let data_type = piece.event_type.to_string();
    context.delete(&piece.user_id, GLOBAL, &data_type).await?;
    context.changed(&piece.user_id, &data_type);
    Ok(set_global_account_data::v3::Response::new())
}

/// `DELETE /_matrix/client/unstable/org.matrix.msc3391/user/{userId}/rooms/{roomId}/account_data/{type}`
async fn delete_for_room(
    context: Arc<AccountDataContext>,
    req: Ruma<DeleteForRoom>,
) -> Result<set_room_account_data::v3::Response, ApiError> {
    let DeleteForRoom(piece) = &req.request;
    own(&req.caller, &piece.user_id)?;
    let room = room_of(&context.store, &piece.user_id, &piece.room_id)?;
    context.delete(&piece.user_id, room, &piece.event_type.to_string()).await?;
    Ok(set_room_account_data::v3::Response::new())
}

impl AccountDataContext {
    /// Tells whom a change of global data concerns at once.
    fn changed(&self, user: &UserId, data_type: &str) {
        if data_type == VISIBILITY {
            self.presence.background_changed(user.as_str());
        }
    }

    async fn set(
        &self,
        user: &UserId,
        room: RoomNum,
        data_type: &str,
        body: &Bytes,
    ) -> Result<(), ApiError> {
        check_settable(data_type)?;
        if data_type.is_empty() || data_type.len() > MAX_TYPE {
            let message = format!("A type has 1 to {MAX_TYPE} bytes");
            return Err(ApiError::invalid_param(message));
        }
        // The bridge has checked that a body is an object, if there is one.
        if body.is_empty() {
            return Err(ApiError::not_json("The content is missing"));
        }
        Ok(self.users.set_account_data(user.as_str(), room, data_type, body.clone()).await?)
    }

    async fn delete(&self, user: &UserId, room: RoomNum, data_type: &str) -> Result<(), ApiError> {
        check_settable(data_type)?;
        Ok(self.users.delete_account_data(user.as_str(), room, data_type).await?)
    }

    fn get(
        &self,
        user: &UserId,
        room: RoomNum,
        data_type: &str,
    ) -> Result<Box<RawValue>, ApiError> {
        let content = if room == GLOBAL && data_type == PUSH_RULES {
            Some(self.users.push_rules_content(user)?)
        } else {
            self.users.account_data(user.as_str(), room, data_type)?
        };
        let content = content.ok_or_else(|| ApiError::not_found("There is no such data"))?;
        serde_json::from_slice(&content).map_err(ApiError::internal)
    }
}

/// A room that the user has, or had, to do with. Of others it isn't told whether they exist.
///
/// # Errors
///
/// `M_NOT_FOUND`
pub(super) fn room_of(store: &Store, user: &UserId, room: &RoomId) -> Result<RoomNum, ApiError> {
    let num = store.room_num(room.as_str())?;
    if let Some(num) = num
        && store.membership(user.as_str(), num)?.is_some()
    {
        return Ok(num);
    }
    Err(ApiError::not_found("You have never been in this room"))
}

/// Checks that the data are the caller's own.
///
/// # Errors
///
/// `M_FORBIDDEN`
pub(super) fn own(caller: &Caller, user: &UserId) -> Result<(), ApiError> {
    if caller.user_id == *user {
        return Ok(());
    }
    Err(ApiError::forbidden("Account data of other users are not yours"))
}

fn check_settable(data_type: &str) -> Result<(), ApiError> {
    if !KEPT_BY_SERVER.contains(&data_type) {
        return Ok(());
    }
    let message = format!("{data_type} cannot be set this way");
    Err(ApiError::new(StatusCode::METHOD_NOT_ALLOWED, ErrorCode::BadJson, message))
}
