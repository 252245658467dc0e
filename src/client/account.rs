//! What a client asks about the account that it is logged in to.
//!
//! Specification:
//! <https://spec.matrix.org/v1.19/client-server-api/#current-account-information>

use ruma::api::client::account::whoami;

use crate::{
    error::ApiError,
    http::{Api, RouteOptions, Routes, Ruma},
};

/// The endpoints of this file. They need nothing but the caller.
#[must_use]
pub fn routes() -> Routes {
    Routes::new(Api::Client, ()).route_with(RouteOptions::default().for_guests(), who_am_i).finish()
}

/// `GET /_matrix/client/v3/account/whoami`
async fn who_am_i(
    (): (),
    req: Ruma<whoami::v3::Request>,
) -> Result<whoami::v3::Response, ApiError> {
    let mut response = whoami::v3::Response::new(req.caller.user_id, req.caller.guest);
    response.device_id = Some(req.caller.device_id);
    Ok(response)
}
