//! Server discovery and supported versions (CS API, "Server Discovery" and "Versions").

use std::sync::Arc;

use ruma::api::client::discovery::{
    discover_homeserver::{self, HomeserverInfo},
    get_supported_versions,
};

use crate::{
    error::ApiError,
    http::{Api, RouteOptions, Routes, Ruma},
    limits::RateClass,
};

/// The versions of the client-server API that this server speaks, oldest first.
pub const VERSIONS: [&str; 22] = [
    "r0.5.0", "r0.6.0", "r0.6.1", "v1.1", "v1.2", "v1.3", "v1.4", "v1.5", "v1.6", "v1.7", "v1.8",
    "v1.9", "v1.10", "v1.11", "v1.12", "v1.13", "v1.14", "v1.15", "v1.16", "v1.17", "v1.18",
    "v1.19",
];

/// Proposals that clients ask for by name: stable ones that some look for still, filters by
/// relation, deletion of account data, thread subscriptions.
const UNSTABLE_FEATURES: [&str; 10] = [
    "org.matrix.msc3030",
    "org.matrix.msc3391",
    "org.matrix.msc3440.stable",
    "org.matrix.msc3771",
    "org.matrix.msc3856",
    "org.matrix.msc3874",
    "org.matrix.msc3890",
    "org.matrix.msc3981",
    "org.matrix.msc4306",
    "org.matrix.msc4308",
];

/// What these endpoints need to know.
#[derive(Debug)]
pub struct DiscoveryContext {
    /// What clients are told to connect to.
    pub public_url: Option<String>,
    /// Whether events can be delayed.
    pub delays_events: bool,
}

/// The endpoints of this file.
#[must_use]
pub fn routes(context: Arc<DiscoveryContext>) -> Routes {
    // Both are asked before anything else, often by monitoring, and cost nothing.
    let free = RouteOptions::rate(RateClass::Unlimited);
    Routes::new(Api::Client, context)
        .route_with(free.for_guests(), versions)
        .route_with(free, well_known)
        .finish()
}

/// `GET /_matrix/client/versions`
async fn versions(
    context: Arc<DiscoveryContext>,
    _: Ruma<get_supported_versions::Request>,
) -> Result<get_supported_versions::Response, ApiError> {
    let versions = VERSIONS.map(str::to_owned).to_vec();
    let mut response = get_supported_versions::Response::new(versions);
    let features = UNSTABLE_FEATURES.map(|name| (name.to_owned(), true));
    response.unstable_features.extend(features);
    response.unstable_features.insert("org.matrix.msc4140".to_owned(), context.delays_events);
    Ok(response)
}

/// `GET /.well-known/matrix/client`
async fn well_known(
    context: Arc<DiscoveryContext>,
    _: Ruma<discover_homeserver::Request>,
) -> Result<discover_homeserver::Response, ApiError> {
    let url = context.public_url.clone();
    let url = url.ok_or_else(|| ApiError::not_found("This server is not found this way"))?;
    Ok(discover_homeserver::Response::new(HomeserverInfo::new(url)))
}
