//! New access tokens for refresh tokens.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#refreshing-access-tokens>

use std::{sync::Arc, time::Duration};

use parlour_actors::users::RefreshError;
use ruma::api::client::session::refresh_token::v3::{Request, Response};

use super::accounts::Accounts;
use crate::{
    error::ApiError,
    http::{Api, RouteOptions, Routes, Ruma},
    limits::RateClass,
};

/// The endpoint of this file.
#[must_use]
pub fn routes(accounts: Arc<Accounts>) -> Routes {
    let options = RouteOptions::rate(RateClass::Login);
    Routes::new(Api::Client, accounts).route_with(options, refresh).finish()
}

/// `POST /_matrix/client/v3/refresh`
async fn refresh(accounts: Arc<Accounts>, req: Ruma<Request>) -> Result<Response, ApiError> {
    let lifetime = accounts.lifetimes.refreshable;
    let lifetime_ms = u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX);
    let session = accounts.users.refresh(&req.refresh_token, Some(lifetime_ms)).await?;
    let mut response = Response::new(session.access_token);
    response.refresh_token = session.refresh_token;
    response.expires_in_ms = session.expires_in_ms.map(Duration::from_millis);
    Ok(response)
}

impl From<RefreshError> for ApiError {
    fn from(error: RefreshError) -> Self {
        match error {
            RefreshError::Unknown => Self::unknown_token(false),
            // The device is there still, so its user may log in on it again.
            RefreshError::Used => Self::unknown_token(true),
            RefreshError::User(error) => error.into(),
        }
    }
}
