//! The bridge between actix-web and ruma's typed requests.
//!
//! An endpoint is a plain async function of a context and a typed request:
//!
//! ```text
//! async fn send(
//!     ctx: Arc<SendContext>,
//!     req: Ruma<send_message_event::v3::Request>,
//! ) -> Result<send_message_event::v3::Response, ApiError>
//! ```
//!
//! and is registered with [`Routes::route`], which takes method, all paths and the kind of
//! authentication from ruma's metadata. Everything around it (CORS, body limits, authentication,
//! rate limits, errors, panics, log, metrics) happens once, in `http/dispatch.rs`.

mod aside;
mod auth;
mod body;
mod convert;
mod direct;
mod dispatch;
mod own;
mod peer;
mod router;
mod routes;

use std::{fmt, ops::Deref, sync::Arc};

use actix_web::http::header::HeaderMap;
use bytes::Bytes;
use ruma::api::Metadata;
use serde::{Deserialize, de::DeserializeOwned};

pub use self::{
    aside::Aside,
    auth::{
        Admits, Authenticator, Authenticators, BoxFuture, Caller, NoServers, NoSessions, Scheme,
        ServerAuthenticator, Standing,
    },
    direct::{Direct, DirectError},
    dispatch::HttpShared,
    own::{Answering, AnyCaller, Json, Lenient},
    peer::Peer,
    router::{RouteError, Router},
    routes::{Answer, Endpoint, RouteOptions, Routes},
};
use crate::error::ApiError;

pub(crate) use self::dispatch::{Head, respond};

/// A group of endpoints that a listener serves or does not serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Api {
    /// The client-server API.
    Client,
    /// The server-server API.
    Federation,
    /// The administrators' endpoints under `/_synapse`.
    Admin,
    /// Prometheus metrics.
    Metrics,
}

/// A typed request together with what the bridge found out about it. Derefs to the request.
#[derive(Debug)]
pub struct Ruma<R: Metadata>
where
    R::Authentication: Scheme,
{
    /// The request itself.
    pub request: R,
    /// Who asks: [`Caller`], `Option<Caller>`, a server's name or `()`, as the request's metadata
    /// has it.
    pub caller: <R::Authentication as Scheme>::Caller,
    /// What is known of the connection.
    pub meta: RequestMeta,
}

impl<R: Metadata> Deref for Ruma<R>
where
    R::Authentication: Scheme,
{
    type Target = R;

    fn deref(&self) -> &R {
        &self.request
    }
}

/// What is known of any request.
#[derive(Debug, Clone)]
pub struct RequestMeta {
    /// Where it comes from.
    pub peer: Peer,
    /// Its number in the log.
    pub request_id: u64,
    /// The `User-Agent`, at most 256 characters.
    pub user_agent: Option<String>,
    /// The query string, for what ruma's type leaves out.
    pub query: Query,
    /// The body as it came, for what ruma's type leaves out.
    pub body: Bytes,
    /// By which to let go of the connection, if the answer takes its time.
    pub aside: Aside,
}

/// A query string. It may hold a token, and must not reach a log.
#[derive(Clone, Default)]
pub struct Query(pub(crate) String);

impl fmt::Debug for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Query(..)")
    }
}

impl Query {
    /// How many bytes it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of a parameter; of several, the first.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<String> {
        let all = actix_web::web::Query::<Vec<(String, String)>>::from_query(&self.0).ok()?;
        all.into_inner().into_iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }
}

/// A request to an endpoint that ruma does not know.
pub struct RawRequest {
    /// What is known of it.
    pub meta: RequestMeta,
    /// The variables of the path, percent-decoded.
    pub path_args: Vec<String>,
    /// The query string as it came, without `?`.
    pub query: String,
    /// All headers.
    pub headers: HeaderMap,
    pub(crate) authenticators: Arc<Authenticators>,
}

impl fmt::Debug for RawRequest {
    // Headers and query string hold tokens, and must not reach a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawRequest").field("request_id", &self.meta.request_id).finish()
    }
}

impl RawRequest {
    /// The body, as JSON of this type.
    ///
    /// # Errors
    /// `M_NOT_JSON` or `M_BAD_JSON`.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        body::check_json(&self.meta.body)?;
        Ok(serde_json::from_slice(&self.meta.body)?)
    }

    /// Whose access token came with it; guests are kept out.
    ///
    /// # Errors
    /// `M_MISSING_TOKEN`, `M_UNKNOWN_TOKEN`, `M_USER_LOCKED`, `M_GUEST_ACCESS_FORBIDDEN`.
    pub async fn caller(&self) -> Result<Caller, ApiError> {
        let request = convert::head_only(&self.headers, &self.query)?;
        let caller = <ruma::api::auth_scheme::AccessToken as Scheme>::authenticate(
            &request,
            &self.meta,
            &self.authenticators,
        )
        .await?;
        caller.check(Admits::Unlocked)?;
        if caller.guest { Err(ApiError::guest_access_forbidden()) } else { Ok(caller) }
    }
}
