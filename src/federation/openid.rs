//! Who has given away an OpenID token.
//!
//! Specification: <https://spec.matrix.org/v1.19/server-server-api/#openid>

use std::sync::Arc;

use actix_web::http::StatusCode;
use ruma::api::{error::ErrorCode, federation::openid::get_openid_userinfo::v1 as get_userinfo};

use crate::{
    client::openid::OpenIdContext,
    error::ApiError,
    http::{Api, Routes, Ruma},
};

/// The endpoints of this file.
#[must_use]
pub fn routes(context: Arc<OpenIdContext>) -> Routes {
    Routes::new(Api::Federation, context).route(userinfo).finish()
}

/// `GET /_matrix/federation/v1/openid/userinfo`
async fn userinfo(
    context: Arc<OpenIdContext>,
    req: Ruma<get_userinfo::Request>,
) -> Result<get_userinfo::Response, ApiError> {
    let user = context.user_of(&req.access_token)?.ok_or_else(|| {
        let message = "The token is unknown, or has expired";
        ApiError::new(StatusCode::UNAUTHORIZED, ErrorCode::UnknownToken, message)
    })?;
    Ok(get_userinfo::Response::new(user))
}
