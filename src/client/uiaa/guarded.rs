//! Requests that need authentication: `auth` is taken out of the body, and what is left says what
//! is asked for, in every round the same.

use std::{collections::BTreeMap, ops::Deref};

use ruma::api::{
    IncomingRequest, Metadata, client::uiaa::AuthType, client::uiaa::UserIdentifier,
    error::DeserializationError,
};
use serde::Deserialize;
use serde_json::value::RawValue;

/// A request of type `R` with its `auth`. Derefs to the request.
pub struct Guarded<R> {
    /// The request, without `auth`.
    pub request: R,
    /// What the client does about its authentication.
    pub auth: Option<Auth>,
    /// What it asks for.
    pub asked: Asked,
}

/// What a client does about one stage.
///
/// ruma's `AuthData` has a type for each stage; but not the `user` that clients of r0.3 send, and
/// nobody would look at an unknown stage's data.
#[derive(Default, Deserialize)]
pub struct Auth {
    /// The stage; without one the client asks what is done by now.
    #[serde(rename = "type")]
    pub stage: Option<AuthType>,
    /// The session, from the second round on.
    pub session: Option<String>,
    /// `m.login.password`: who.
    pub identifier: Option<UserIdentifier>,
    /// `m.login.password`: who, as clients of r0.3 say it.
    pub user: Option<String>,
    /// `m.login.password`
    pub password: Option<String>,
    /// `m.login.registration_token`
    pub token: Option<String>,
}

/// One request with one set of parameters.
pub struct Asked {
    /// Method and path.
    pub endpoint: String,
    /// The body without `auth`; none if nothing is left.
    pub parameters: Option<Vec<u8>>,
}

impl<R> Deref for Guarded<R> {
    type Target = R;

    fn deref(&self) -> &R {
        &self.request
    }
}

impl<R: Metadata> Metadata for Guarded<R> {
    const METHOD: http::Method = R::METHOD;
    const RATE_LIMITED: bool = R::RATE_LIMITED;
    type Authentication = R::Authentication;
    type PathBuilder = R::PathBuilder;
    const PATH_BUILDER: R::PathBuilder = R::PATH_BUILDER;
}

impl<R: IncomingRequest> IncomingRequest for Guarded<R> {
    type EndpointError = R::EndpointError;
    type OutgoingResponse = R::OutgoingResponse;

    fn try_from_http_request_inner(
        request: http::Request<&[u8]>,
        path_args: &[&str],
    ) -> Result<Self, DeserializationError> {
        let mut fields: BTreeMap<String, Box<RawValue>> = serde_json::from_slice(request.body())?;
        let auth = fields.remove("auth");
        let auth = auth.map(|auth| serde_json::from_str::<Option<Auth>>(auth.get())).transpose()?;
        let parameters = serde_json::to_vec(&fields)?;
        let asked = Asked {
            endpoint: format!("{} {}", request.method(), request.uri().path()),
            parameters: (!fields.is_empty()).then(|| parameters.clone()),
        };
        let request = request.map(|_| &parameters[..]);
        let request = R::try_from_http_request_inner(request, path_args)?;
        Ok(Self { request, auth: auth.flatten(), asked })
    }
}
