//! Server discovery: what others ask before they know anything else.
//!
//! Specification: <https://spec.matrix.org/v1.19/server-server-api/#server-discovery>

use std::sync::Arc;

use ruma::{
    OwnedServerName,
    api::federation::discovery::{
        discover_homeserver,
        get_server_version::v1::{self as get_server_version, Server},
    },
};

use crate::{
    error::ApiError,
    http::{Api, RouteOptions, Routes, Ruma},
    limits::RateClass,
};

/// What these endpoints need to know.
#[derive(Debug)]
pub struct DiscoveryContext {
    /// Who stands for this server.
    pub delegate_to: Option<OwnedServerName>,
}

/// The endpoints of this file.
#[must_use]
pub fn routes(context: Arc<DiscoveryContext>) -> Routes {
    let free = RouteOptions::rate(RateClass::Unlimited);
    // Both kinds of listener may be the one at the server name's port 443.
    let for_clients = Routes::new(Api::Client, context.clone()).route_with(free, well_known);
    Routes::new(Api::Federation, context)
        .route_with(free, version)
        .route_with(free, well_known)
        .finish()
        .and(for_clients.finish())
}

/// `GET /_matrix/federation/v1/version`
async fn version(
    _: Arc<DiscoveryContext>,
    _: Ruma<get_server_version::Request>,
) -> Result<get_server_version::Response, ApiError> {
    let mut server = Server::new();
    server.name = Some("Parlour".to_owned());
    server.version = Some(env!("CARGO_PKG_VERSION").to_owned());
    let mut response = get_server_version::Response::new();
    response.server = Some(server);
    Ok(response)
}

/// `GET /.well-known/matrix/server`
async fn well_known(
    context: Arc<DiscoveryContext>,
    _: Ruma<discover_homeserver::Request>,
) -> Result<discover_homeserver::Response, ApiError> {
    let server = context.delegate_to.clone();
    let server = server.ok_or_else(|| ApiError::not_found("Nobody stands for this server"))?;
    Ok(discover_homeserver::Response::new(server))
}
