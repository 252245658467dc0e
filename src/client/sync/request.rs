//! The request.

use std::time::Duration;

use ruma::{
    api::{IncomingRequest, Metadata, client::sync::sync_events::v3, error::DeserializationError},
    presence::PresenceState,
};
use serde::Deserialize;

/// `GET /sync` with its filter unread: most clients send the same one again and again, so it is
/// known already, and reading it costs more than all else of the request.
#[derive(Debug, Deserialize)]
pub(super) struct Request {
    /// A filter, or the id of one.
    #[serde(default)]
    pub(super) filter: Option<String>,
    /// What the client has seen.
    #[serde(default)]
    pub(super) since: Option<String>,
    /// Whether all state is wanted.
    #[serde(default)]
    pub(super) full_state: bool,
    /// What the user is, while it syncs.
    #[serde(default)]
    pub(super) set_presence: PresenceState,
    /// How long the client waits for something new.
    #[serde(default, with = "ruma::serde::duration::opt_ms")]
    pub(super) timeout: Option<Duration>,
    /// Whether the state at the end of timelines is wanted.
    #[serde(default)]
    pub(super) use_state_after: bool,
}

impl Metadata for Request {
    const METHOD: http::Method = v3::Request::METHOD;
    const RATE_LIMITED: bool = v3::Request::RATE_LIMITED;
    type Authentication = <v3::Request as Metadata>::Authentication;
    type PathBuilder = <v3::Request as Metadata>::PathBuilder;
    const PATH_BUILDER: Self::PathBuilder = v3::Request::PATH_BUILDER;
}

impl IncomingRequest for Request {
    type EndpointError = <v3::Request as IncomingRequest>::EndpointError;
    type OutgoingResponse = v3::Response;

    fn try_from_http_request_inner(
        request: http::Request<&[u8]>,
        _: &[&str],
    ) -> Result<Self, DeserializationError> {
        Ok(serde_html_form::from_str(request.uri().query().unwrap_or_default())?)
    }
}
