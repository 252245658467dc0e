//! Asking other servers.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, header};
use parlour_actors::per_key::PerKey;
use parlour_event::{json, signing::SigningKey};
use prometheus::IntCounterVec;
use ruma::{
    OwnedServerName, ServerName,
    api::{
        IncomingResponse as _, Metadata, OutgoingBody as _, OutgoingRequest,
        auth_scheme::NoAuthentication,
        error::{DeserializationError, ErrorCode, IntoHttpError},
        federation::authentication::ServerSignatures,
        path_builder::PathBuilder,
    },
};
use serde::{Deserialize, de::DeserializeOwned};
use tokio::{sync::Semaphore, time::timeout};

use super::transport::{Limits, Transport, TransportError};
use crate::{config::ServerFilter, federation::x_matrix};

/// How many requests to one server are under way at the same time; others wait.
const AT_ONCE: usize = 32;

/// Why another server's answer is none.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// We don't speak to it, or it is ourselves.
    #[error("{0} is not spoken to")]
    NotAllowed(OwnedServerName),
    /// There was no answer.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// It refused.
    #[error("refused with {status}: {message}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The Matrix error code, if there is one.
        errcode: Option<ErrorCode>,
        /// What it says to people.
        message: String,
        /// How long it wants to be left alone.
        retry_after: Option<Duration>,
    },
    /// Its answer makes no sense.
    #[error("an answer that makes no sense: {0}")]
    Answer(#[from] DeserializationError),
    /// The request could not be written: a mistake in Parlour.
    #[error("the request cannot be written: {0}")]
    Request(String),
}

impl From<IntoHttpError> for AskError {
    fn from(error: IntoHttpError) -> Self {
        Self::Request(error.to_string())
    }
}

/// What a client is made of.
#[derive(Debug)]
pub struct ClientOptions {
    /// This server.
    pub server_name: OwnedServerName,
    /// With which it signs.
    pub key: Arc<SigningKey>,
    /// Who is spoken to.
    pub servers: ServerFilter,
    /// Who carries requests.
    pub transport: Arc<dyn Transport>,
    /// Requests by their outcome. Not by server: there may be any number of them.
    pub outcomes: IntCounterVec,
}

/// How others ask other servers. Cheap to clone.
#[derive(Debug, Clone)]
pub struct FederationClient(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    options: ClientOptions,
    /// Servers with requests under way.
    busy: PerKey<OwnedServerName, Semaphore>,
}

impl FederationClient {
    /// A client with no requests under way.
    #[must_use]
    pub fn new(options: ClientOptions) -> Self {
        Self(Arc::new(Inner { options, busy: PerKey::default() }))
    }

    /// Whether a server may be asked at all.
    #[must_use]
    pub fn may_ask(&self, server: &ServerName) -> bool {
        let ClientOptions { server_name, servers, .. } = &self.0.options;
        server != server_name && servers.allows(server)
    }

    /// Asks a server, in the name of this one.
    ///
    /// # Errors
    ///
    /// [`AskError`]
    pub async fn ask<R>(
        &self,
        to: &ServerName,
        request: R,
        limits: Limits,
    ) -> Result<R::IncomingResponse, AskError>
    where
        R: OutgoingRequest + Metadata<Authentication = ServerSignatures>,
        for<'a> R::PathBuilder: PathBuilder<Input<'a> = ()>,
    {
        let mut request = to_http(request)?;
        self.sign(to, &mut request)?;
        self.exchange::<R>(to, request, limits).await
    }

    /// Asks a server, in the name of this one, and reads the answer as something else than ruma
    /// does.
    ///
    /// # Errors
    ///
    /// [`AskError`]
    pub async fn ask_json<R, T>(
        &self,
        to: &ServerName,
        request: R,
        limits: Limits,
    ) -> Result<T, AskError>
    where
        R: OutgoingRequest + Metadata<Authentication = ServerSignatures>,
        for<'a> R::PathBuilder: PathBuilder<Input<'a> = ()>,
        T: DeserializeOwned,
    {
        let mut request = to_http(request)?;
        self.sign(to, &mut request)?;
        let answer = self.send(to, request, limits).await?;
        Ok(serde_json::from_slice(answer.body()).map_err(DeserializationError::from)?)
    }

    /// Asks a server what everybody may ask.
    ///
    /// # Errors
    ///
    /// [`AskError`]
    pub async fn ask_unsigned<R>(
        &self,
        to: &ServerName,
        request: R,
        limits: Limits,
    ) -> Result<R::IncomingResponse, AskError>
    where
        R: OutgoingRequest + Metadata<Authentication = NoAuthentication>,
        for<'a> R::PathBuilder: PathBuilder<Input<'a> = ()>,
    {
        self.exchange::<R>(to, to_http(request)?, limits).await
    }

    async fn exchange<R: OutgoingRequest>(
        &self,
        to: &ServerName,
        request: http::Request<Bytes>,
        limits: Limits,
    ) -> Result<R::IncomingResponse, AskError> {
        let (head, body) = self.send(to, request, limits).await?.into_parts();
        let response = http::Response::from_parts(head, &body[..]);
        Ok(R::IncomingResponse::try_from_http_response_inner(response)?)
    }

    async fn send(
        &self,
        to: &ServerName,
        request: http::Request<Bytes>,
        limits: Limits,
    ) -> Result<http::Response<Bytes>, AskError> {
        let ClientOptions { transport, outcomes, .. } = &self.0.options;
        if !self.may_ask(to) {
            return Err(AskError::NotAllowed(to.to_owned()));
        }
        let turn = self.0.busy.get(to, || Semaphore::new(AT_ONCE));
        let sent = match timeout(limits.time, turn.acquire()).await {
            Ok(_permit) => transport.send(to, request, limits).await,
            Err(_) => Err(TransportError::Timeout),
        };
        let outcome = match &sent {
            Ok(response) if response.status().is_success() => "ok",
            Ok(_) => "refused",
            Err(TransportError::Timeout) => "timeout",
            Err(_) => "failed",
        };
        outcomes.with_label_values(&[outcome]).inc();
        let response =
            sent.inspect_err(|error| tracing::debug!(server = %to, %error, "no answer"))?;
        match response.status().is_success() {
            true => Ok(response),
            false => Err(refusal(&response)),
        }
    }

    fn sign(&self, to: &ServerName, request: &mut http::Request<Bytes>) -> Result<(), AskError> {
        let unwritable = |error: &dyn std::error::Error| AskError::Request(error.to_string());
        let content = match &request.body()[..] {
            [] => None,
            body => Some(json::parse_lax(body).map_err(|error| unwritable(&error))?),
        };
        let ClientOptions { server_name: origin, key, .. } = &self.0.options;
        let uri = request.uri().path_and_query().map_or("/", |uri| uri.as_str());
        let method = request.method().as_str();
        let object = x_matrix::signed_object(method, uri, origin, to, content);
        let header = x_matrix::sign(key, origin, to, &object).to_header();
        let header = HeaderValue::from_str(&header).map_err(|error| unwritable(&error))?;
        request.headers_mut().insert(header::AUTHORIZATION, header);
        Ok(())
    }
}

/// A request with path and query alone as its URI.
fn to_http<R>(request: R) -> Result<http::Request<Bytes>, AskError>
where
    R: OutgoingRequest,
    for<'a> R::PathBuilder: PathBuilder<Input<'a> = ()>,
{
    let (mut parts, body) = request.try_into_http_request_inner("", ())?.into_parts();
    if let Some(content_type) = body.content_type() {
        parts.headers.entry(header::CONTENT_TYPE).or_insert(content_type);
    }
    let body: BytesMut = body.try_into_buf().map_err(Into::<IntoHttpError>::into)?;
    Ok(http::Request::from_parts(parts, body.freeze()))
}

fn refusal(response: &http::Response<Bytes>) -> AskError {
    #[derive(Default, Deserialize)]
    struct Body {
        errcode: Option<String>,
        #[serde(default)]
        error: String,
        retry_after_ms: Option<u64>,
    }
    let seconds = response.headers().get(header::RETRY_AFTER).and_then(|value| {
        // A date is possible, too; nobody sends one.
        Some(Duration::from_secs(value.to_str().ok()?.parse().ok()?))
    });
    let body: Body = serde_json::from_slice(response.body()).unwrap_or_default();
    AskError::Refused {
        status: response.status().as_u16(),
        errcode: body.errcode.map(ErrorCode::from),
        message: body.error.chars().take(200).collect(),
        retry_after: seconds.or(body.retry_after_ms.map(Duration::from_millis)),
    }
}
