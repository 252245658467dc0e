//! Server discovery and supported versions (CS API, "Server Discovery" and "Versions").

use std::sync::Arc;

use ruma::{
    api::client::discovery::{
        discover_homeserver::{self, HomeserverInfo},
        discover_policy_server, discover_support, get_supported_versions,
    },
    serde::Base64,
};

use crate::{
    config::SupportConfig,
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

/// Proposals that clients ask for by name: some that no version of the specification has, and
/// stable ones that some look for still.
const UNSTABLE_FEATURES: [&str; 17] = [
    "im.nheko.summary",
    "org.matrix.msc3030",
    "org.matrix.msc3391",
    "org.matrix.msc3440.stable",
    "org.matrix.msc3771",
    "org.matrix.msc3814",
    "org.matrix.msc3856",
    "org.matrix.msc3874",
    "org.matrix.msc3890",
    "org.matrix.msc3981",
    "org.matrix.msc4155",
    "org.matrix.msc4306",
    "org.matrix.msc4308",
    "uk.half-shot.msc2666.query_mutual_rooms",
    "uk.half-shot.msc2666.query_mutual_rooms.stable",
    "uk.tcpip.msc4133",
    "uk.tcpip.msc4133.stable",
];

/// What these endpoints need to know.
#[derive(Debug)]
pub struct DiscoveryContext {
    /// What clients are told to connect to.
    pub public_url: Option<String>,
    /// Whether events can be delayed.
    pub delays_events: bool,
    /// Where users find help.
    pub support: SupportConfig,
    /// The public key of this host's policy server.
    pub policy_server_key: Option<Base64>,
}

/// The endpoints of this file.
#[must_use]
pub fn routes(context: Arc<DiscoveryContext>) -> Routes {
    // Both are asked before anything else, often by monitoring, and cost nothing.
    let free = RouteOptions::rate(RateClass::Unlimited);
    Routes::new(Api::Client, context)
        .route_with(free.for_guests(), versions)
        .route_with(free, well_known)
        .route_with(free, support)
        .route_with(free, policy_server)
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

/// `GET /.well-known/matrix/support`
async fn support(
    context: Arc<DiscoveryContext>,
    _: Ruma<discover_support::Request>,
) -> Result<discover_support::Response, ApiError> {
    let SupportConfig { page, contacts } = context.support.clone();
    if page.is_none() && contacts.is_empty() {
        return Err(ApiError::not_found("Nothing is said about support"));
    }
    let mut response = discover_support::Response::with_contacts(contacts);
    response.support_page = page;
    Ok(response)
}

/// `GET /.well-known/matrix/policy_server`
async fn policy_server(
    context: Arc<DiscoveryContext>,
    _: Ruma<discover_policy_server::Request>,
) -> Result<discover_policy_server::Response, ApiError> {
    let key = context.policy_server_key.clone();
    let key = key.ok_or_else(|| ApiError::not_found("This is not a policy server"))?;
    Ok(discover_policy_server::Response::new(key))
}
