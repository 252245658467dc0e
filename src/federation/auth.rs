//! Who asks, if it is another server.

use std::{borrow::Cow, collections::BTreeMap};

use parlour_actors::{
    federation_queue::FederationQueues,
    keyring::{KeyRing, Purpose, Wanted},
};
use parlour_event::{json, signing};
use ruma::{OwnedServerName, ServerName};

use super::{
    receive::resync::Resync,
    x_matrix::{self, XMatrix},
};
use crate::{
    config::ServerFilter,
    error::ApiError,
    http::{BoxFuture, ServerAuthenticator},
};

/// How many signatures a request may have.
const MAX_SIGNATURES: usize = 8;

/// Believes what the key ring can check.
#[derive(Debug)]
pub struct FederationAuth {
    /// The keys of other servers.
    pub ring: KeyRing,
    /// What waits for other servers.
    pub queues: FederationQueues,
    /// Who is asked anew about users' keys.
    pub resync: Resync,
    /// This server: requests to others are not for us.
    pub server_name: OwnedServerName,
    /// Who is spoken to.
    pub servers: ServerFilter,
}

impl ServerAuthenticator for FederationAuth {
    fn authenticate<'a>(
        &'a self,
        request: &'a http::Request<&'a [u8]>,
    ) -> BoxFuture<'a, Result<OwnedServerName, ApiError>> {
        Box::pin(self.check(request))
    }
}

impl FederationAuth {
    async fn check(&self, request: &http::Request<&[u8]>) -> Result<OwnedServerName, ApiError> {
        let headers = signatures(request)?;
        let origin = self.origin(&headers)?;
        let content = canonical(request.body())?;
        let keys = self.keys(&origin, &headers).await?;
        let uri = request.uri().path_and_query().map_or("/", |uri| uri.as_str());
        let method = request.method().as_str();
        let mut signed = x_matrix::signed_object(method, uri, &origin, &self.server_name, None);
        let bytes = x_matrix::signed_bytes(&signed, content.as_deref());
        x_matrix::add_signatures(&mut signed, &headers);
        let key = |key_id: &str| keys.get(key_id).copied();
        signing::verify_bytes(&signed, origin.as_str(), &bytes, key)
            .map_err(|error| ApiError::unauthorized(format!("This is not signed: {error}")))?;
        self.ring.is_back(&origin);
        self.queues.is_back(&origin);
        self.resync.is_back(&origin);
        Ok(origin)
    }

    /// The one server that all headers name, if it may ask this one.
    fn origin(&self, headers: &[XMatrix]) -> Result<OwnedServerName, ApiError> {
        let Some(XMatrix { origin, .. }) = headers.first() else {
            return Err(ApiError::unauthorized("This endpoint needs an X-Matrix signature"));
        };
        for header in headers {
            if header.origin != *origin {
                return Err(ApiError::unauthorized("The signatures are of different servers"));
            }
            if header.destination.as_ref().is_some_and(|name| *name != self.server_name) {
                return Err(ApiError::unauthorized("The request is for another server"));
            }
        }
        if *origin == self.server_name || !self.servers.allows(origin) {
            return Err(ApiError::forbidden("This server does not speak to yours"));
        }
        Ok(origin.clone())
    }

    async fn keys(
        &self,
        origin: &ServerName,
        headers: &[XMatrix],
    ) -> Result<BTreeMap<String, signing::PublicKey>, ApiError> {
        let known = || {
            let keys = headers.iter().map(|header| {
                let key = self.ring.known(origin, &header.key, Purpose::Request)?;
                Ok(key.map(|key| (header.key.clone(), key)))
            });
            keys.filter_map(Result::transpose).collect::<Result<BTreeMap<_, _>, ApiError>>()
        };
        let keys = known()?;
        if !keys.is_empty() {
            return Ok(keys);
        }
        let wanted = headers.iter().map(|header| Wanted {
            server: origin.to_owned(),
            key_id: header.key.clone(),
            purpose: Purpose::Request,
        });
        self.ring.find(wanted.collect()).await?;
        known()
    }
}

fn signatures(request: &http::Request<&[u8]>) -> Result<Vec<XMatrix>, ApiError> {
    let headers = request.headers().get_all(http::header::AUTHORIZATION);
    let headers = headers.iter().filter_map(|value| XMatrix::parse(value.to_str().ok()?));
    let headers: Vec<_> = headers.take(MAX_SIGNATURES + 1).collect();
    if headers.len() > MAX_SIGNATURES {
        return Err(ApiError::unauthorized("These are too many signatures"));
    }
    Ok(headers)
}

/// A body as it was signed, if there is one. What cannot be read as canonical JSON (it is nested too
/// deeply, say) may still be canonical: one such event must not make a whole transaction worthless.
fn canonical(body: &[u8]) -> Result<Option<Cow<'_, [u8]>>, ApiError> {
    match json::parse_lax(body) {
        _ if body.is_empty() => Ok(None),
        Ok(content) => Ok(Some(json::to_canonical(&content).into())),
        Err(json::JsonError::NotAllowed { .. }) => Ok(Some(body.into())),
        Err(error) => Err(ApiError::not_json(error.to_string())),
    }
}
