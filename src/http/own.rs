//! Requests of ruma's of which a part is our own, for where ruma's is not quite what the
//! specification wants: the answer, who may ask, the body.

use std::{fmt, marker::PhantomData, ops::Deref};

use bytes::BufMut;
use ruma::api::{
    IncomingRequest, Metadata, OutgoingBody, OutgoingResponse,
    auth_scheme::AccessTokenOptional,
    error::{DeserializationError, IntoHttpError},
};
use serde::{
    Serialize,
    de::{
        DeserializeOwned,
        value::{Error as ValueError, SeqDeserializer},
    },
};

/// ruma's request `R`, answered with an `A`. Derefs to the request.
pub struct Answering<R, A> {
    /// The request.
    pub request: R,
    answer: PhantomData<fn() -> A>,
}

impl<R: fmt::Debug, A> fmt::Debug for Answering<R, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.request.fmt(f)
    }
}

impl<R, A> Deref for Answering<R, A> {
    type Target = R;

    fn deref(&self) -> &R {
        &self.request
    }
}

impl<R: Metadata, A> Metadata for Answering<R, A> {
    const METHOD: http::Method = R::METHOD;
    const RATE_LIMITED: bool = R::RATE_LIMITED;
    type Authentication = R::Authentication;
    type PathBuilder = R::PathBuilder;
    const PATH_BUILDER: R::PathBuilder = R::PATH_BUILDER;
}

impl<R: IncomingRequest, A: Serialize> IncomingRequest for Answering<R, A> {
    type EndpointError = R::EndpointError;
    type OutgoingResponse = Json<A>;

    fn try_from_http_request_inner(
        request: http::Request<&[u8]>,
        path_args: &[&str],
    ) -> Result<Self, DeserializationError> {
        let request = R::try_from_http_request_inner(request, path_args)?;
        Ok(Self { request, answer: PhantomData })
    }
}

/// ruma's request `R`, from somebody who may or may not have a login, where ruma does not look.
/// Derefs to the request.
#[derive(Debug)]
pub struct AnyCaller<R>(pub R);

impl<R> Deref for AnyCaller<R> {
    type Target = R;

    fn deref(&self) -> &R {
        &self.0
    }
}

impl<R: Metadata> Metadata for AnyCaller<R> {
    const METHOD: http::Method = R::METHOD;
    const RATE_LIMITED: bool = R::RATE_LIMITED;
    type Authentication = AccessTokenOptional;
    type PathBuilder = R::PathBuilder;
    const PATH_BUILDER: R::PathBuilder = R::PATH_BUILDER;
}

impl<R: IncomingRequest> IncomingRequest for AnyCaller<R> {
    type EndpointError = R::EndpointError;
    type OutgoingResponse = R::OutgoingResponse;

    fn try_from_http_request_inner(
        request: http::Request<&[u8]>,
        path_args: &[&str],
    ) -> Result<Self, DeserializationError> {
        R::try_from_http_request_inner(request, path_args).map(Self)
    }
}

/// ruma's request `R` with a body that is read as `B`, for where ruma's insists on what may be left
/// out. `P` is what its path is about.
#[derive(Debug)]
pub struct Lenient<R, P, B> {
    /// What the path is about.
    pub path: P,
    /// The body.
    pub body: B,
    request: PhantomData<fn() -> R>,
}

impl<R: Metadata, P, B> Metadata for Lenient<R, P, B> {
    const METHOD: http::Method = R::METHOD;
    const RATE_LIMITED: bool = R::RATE_LIMITED;
    type Authentication = R::Authentication;
    type PathBuilder = R::PathBuilder;
    const PATH_BUILDER: R::PathBuilder = R::PATH_BUILDER;
}

impl<R: IncomingRequest, P: DeserializeOwned, B: DeserializeOwned> IncomingRequest
    for Lenient<R, P, B>
{
    type EndpointError = R::EndpointError;
    type OutgoingResponse = R::OutgoingResponse;

    fn try_from_http_request_inner(
        request: http::Request<&[u8]>,
        path_args: &[&str],
    ) -> Result<Self, DeserializationError> {
        let path =
            P::deserialize(SeqDeserializer::<_, ValueError>::new(path_args.iter().copied()))?;
        let body = serde_json::from_slice(request.body())?;
        Ok(Self { path, body, request: PhantomData })
    }
}

/// An answer of status 200 with this body.
#[derive(Debug, Clone, Copy)]
pub struct Json<A>(pub A);

impl<A: Serialize> OutgoingResponse for Json<A> {
    type Body = Self;

    fn try_into_http_response_inner(self) -> Result<http::Response<Self>, IntoHttpError> {
        Ok(http::Response::new(self))
    }
}

impl<A: Serialize> OutgoingBody for Json<A> {
    type Error = serde_json::Error;

    fn content_type(&self) -> Option<http::HeaderValue> {
        Some(http::HeaderValue::from_static("application/json"))
    }

    fn try_into_buf<T: Default + BufMut + AsRef<[u8]>>(self) -> Result<T, serde_json::Error> {
        let mut buffer = T::default().writer();
        serde_json::to_writer(&mut buffer, &self.0)?;
        Ok(buffer.into_inner())
    }
}
