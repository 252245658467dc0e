//! Third-party networks. There are no application services, so there are none.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#third-party-networks>

use std::collections::BTreeMap;

use ruma::api::client::thirdparty::{
    get_location_for_protocol, get_location_for_room_alias, get_protocol, get_protocols,
    get_user_for_protocol, get_user_for_user_id,
};

use crate::{
    error::ApiError,
    http::{Api, Routes, Ruma},
};

/// The endpoints of this file.
#[must_use]
pub fn routes() -> Routes {
    Routes::new(Api::Client, ())
        .route(protocols)
        .route(protocol)
        .route(locations)
        .route(locations_of_alias)
        .route(users)
        .route(users_of_id)
        .finish()
}

/// `GET /_matrix/client/v3/thirdparty/protocols`
async fn protocols(
    (): (),
    _: Ruma<get_protocols::v3::Request>,
) -> Result<get_protocols::v3::Response, ApiError> {
    Ok(get_protocols::v3::Response::new(BTreeMap::new()))
}

/// `GET /_matrix/client/v3/thirdparty/protocol/{protocol}`
async fn protocol(
    (): (),
    _: Ruma<get_protocol::v3::Request>,
) -> Result<get_protocol::v3::Response, ApiError> {
    Err(ApiError::not_found("There is no such protocol"))
}

/// `GET /_matrix/client/v3/thirdparty/location/{protocol}`
async fn locations(
    (): (),
    _: Ruma<get_location_for_protocol::v3::Request>,
) -> Result<get_location_for_protocol::v3::Response, ApiError> {
    Err(ApiError::not_found("There is no such protocol"))
}

/// `GET /_matrix/client/v3/thirdparty/location`
async fn locations_of_alias(
    (): (),
    _: Ruma<get_location_for_room_alias::v3::Request>,
) -> Result<get_location_for_room_alias::v3::Response, ApiError> {
    Err(ApiError::not_found("The alias leads to no place outside"))
}

/// `GET /_matrix/client/v3/thirdparty/user/{protocol}`
async fn users(
    (): (),
    _: Ruma<get_user_for_protocol::v3::Request>,
) -> Result<get_user_for_protocol::v3::Response, ApiError> {
    Err(ApiError::not_found("There is no such protocol"))
}

/// `GET /_matrix/client/v3/thirdparty/user`
async fn users_of_id(
    (): (),
    _: Ruma<get_user_for_user_id::v3::Request>,
) -> Result<get_user_for_user_id::v3::Response, ApiError> {
    Err(ApiError::not_found("The user stands for nobody outside"))
}
