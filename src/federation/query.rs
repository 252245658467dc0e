//! Questions of other servers about our users and aliases.
//!
//! Specification: <https://spec.matrix.org/v1.19/server-server-api/#querying-for-information>

use std::sync::Arc;

use ruma::api::federation::query::{
    get_profile_information::v1 as get_profile, get_room_information::v1 as get_alias,
};

use crate::{
    client::{aliases::AliasContext, profile::ProfileContext},
    error::ApiError,
    http::{Api, Routes, Ruma},
};

/// What these endpoints need to know: what clients may ask of the same things.
#[derive(Debug)]
pub struct QueryContext {
    /// Profiles.
    pub profiles: Arc<ProfileContext>,
    /// Aliases.
    pub aliases: Arc<AliasContext>,
}

/// The endpoints of this file.
#[must_use]
pub fn routes(context: Arc<QueryContext>) -> Routes {
    Routes::new(Api::Federation, context).route(profile).route(directory).finish()
}

/// `GET /_matrix/federation/v1/query/profile`
async fn profile(
    context: Arc<QueryContext>,
    req: Ruma<get_profile::Request>,
) -> Result<get_profile::Response, ApiError> {
    let mut profile = context.profiles.local(&req.user_id)?;
    if let Some(field) = &req.field {
        profile.retain(|name, _| name == field.as_str());
        if profile.is_empty() {
            return Err(ApiError::not_found("The profile has no such field"));
        }
    }
    Ok(profile.into_iter().collect())
}

/// `GET /_matrix/federation/v1/query/directory`
async fn directory(
    context: Arc<QueryContext>,
    req: Ruma<get_alias::Request>,
) -> Result<get_alias::Response, ApiError> {
    let (room, servers) = context.aliases.local(&req.room_alias)?;
    Ok(get_alias::Response::new(room, servers))
}
