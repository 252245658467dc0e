//! Stored filters.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#filtering>

use std::sync::Arc;

use parlour_actors::users::Users;
use ruma::{
    UserId,
    api::client::filter::{EventFormat, FilterDefinition, create_filter, get_filter},
};

use crate::{
    error::ApiError,
    http::{Api, Caller, RouteOptions, Routes, Ruma},
    limits::RateClass,
};

/// The largest filter, in bytes.
const MAX_FILTER: usize = 65_536;

/// What these endpoints need to know.
#[derive(Debug)]
pub struct FilterContext {
    /// Where filters are kept.
    pub users: Users,
}

/// The endpoints of this file.
#[must_use]
pub fn routes(context: Arc<FilterContext>) -> Routes {
    let options = RouteOptions::rate(RateClass::Other).max_body(MAX_FILTER);
    Routes::new(Api::Client, context).route_with(options, create).route(get).finish()
}

/// `POST /_matrix/client/v3/user/{userId}/filter`
async fn create(
    context: Arc<FilterContext>,
    req: Ruma<create_filter::v3::Request>,
) -> Result<create_filter::v3::Response, ApiError> {
    own(&req.caller, &req.user_id)?;
    check(&req.filter)?;
    // What is stored is what was understood: so the same filter has the same id, however it was
    // written.
    let filter = serde_json::to_vec(&req.filter).map_err(ApiError::internal)?;
    let id = context.users.add_filter(req.user_id.as_str(), filter.into()).await?;
    Ok(create_filter::v3::Response::new(id))
}

/// `GET /_matrix/client/v3/user/{userId}/filter/{filterId}`
async fn get(
    context: Arc<FilterContext>,
    req: Ruma<get_filter::v3::Request>,
) -> Result<get_filter::v3::Response, ApiError> {
    own(&req.caller, &req.user_id)?;
    let stored = context.users.filter(req.user_id.as_str(), &req.filter_id)?;
    let stored = stored.ok_or_else(|| ApiError::not_found("There is no such filter"))?;
    let filter = serde_json::from_slice(&stored).map_err(ApiError::internal)?;
    Ok(get_filter::v3::Response::new(filter))
}

/// Checks what ruma takes as it comes.
///
/// # Errors
///
/// `M_BAD_JSON`
pub(super) fn check(filter: &FilterDefinition) -> Result<(), ApiError> {
    match filter.event_format {
        EventFormat::Client | EventFormat::Federation => Ok(()),
        _ => Err(ApiError::bad_json("event_format is neither client nor federation")),
    }
}

fn own(caller: &Caller, user: &UserId) -> Result<(), ApiError> {
    if caller.user_id == *user {
        return Ok(());
    }
    Err(ApiError::forbidden("Filters of other users are not yours"))
}
