//! Requests that come without a socket. They go the same way as all others: routes, limits, authentication,
//! errors, metrics.

use std::{net::IpAddr, sync::Arc};

use actix_web::{
    HttpResponse,
    body::{self, BodySize, MessageBody as _},
    dev::Payload,
    http::{
        Method, Uri,
        header::{HeaderMap, HeaderName, HeaderValue},
    },
};
use bytes::Bytes;

use super::{
    Aside, HttpShared, Router,
    dispatch::{Head, respond},
};

/// Why a request has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DirectError {
    /// It cannot be written as HTTP/1.1.
    #[error("the request is not HTTP")]
    Request,
    /// Nobody may read this much.
    #[error("the answer is too long")]
    TooLarge,
    /// The answer broke off.
    #[error("the answer broke off")]
    Broken,
}

/// Endpoints that can be asked directly. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Direct {
    router: Arc<Router>,
    shared: Arc<HttpShared>,
}

impl Direct {
    /// Asks these endpoints.
    #[must_use]
    pub fn new(router: Arc<Router>, shared: Arc<HttpShared>) -> Self {
        Self { router, shared }
    }

    /// Answers a request that comes from this address. Must run on a thread with an actix system.
    ///
    /// # Errors
    ///
    /// [`DirectError`]; what is wrong with a request that is HTTP is an answer.
    pub async fn answer(
        &self,
        request: http::Request<Bytes>,
        from: IpAddr,
        max_answer: usize,
    ) -> Result<http::Response<Bytes>, DirectError> {
        let (parts, content) = request.into_parts();
        let method = Method::from_bytes(parts.method.as_str().as_bytes());
        let method = method.map_err(|_| DirectError::Request)?;
        let max_answer = (method != Method::HEAD).then_some(max_answer);
        let uri = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let uri: Uri = uri.parse().map_err(|_| DirectError::Request)?;
        let headers = headers(&parts.headers)?;
        let head = Head { method, uri, headers, from: Some(from), aside: Aside::default() };
        let payload = Payload::from(content);
        let response = respond(head, payload, self.shared.clone(), &self.router).await;
        collect(response, max_answer).await
    }
}

fn headers(from: &http::HeaderMap) -> Result<HeaderMap, DirectError> {
    let mut headers = HeaderMap::with_capacity(from.len());
    for (name, value) in from {
        let name = HeaderName::from_bytes(name.as_str().as_bytes());
        let value = HeaderValue::from_bytes(value.as_bytes());
        headers.append(
            name.map_err(|_| DirectError::Request)?,
            value.map_err(|_| DirectError::Request)?,
        );
    }
    Ok(headers)
}

/// The whole answer, or its head alone if nobody wants more.
async fn collect(
    response: HttpResponse,
    max: Option<usize>,
) -> Result<http::Response<Bytes>, DirectError> {
    let mut answer = http::Response::builder().status(response.status().as_u16());
    for (name, value) in response.headers() {
        answer = answer.header(name.as_str(), value.as_bytes());
    }
    let content = response.into_body();
    let is_long = |max| matches!(content.size(), BodySize::Sized(size) if size > max as u64);
    let content = match max {
        None => Bytes::new(),
        Some(max) if is_long(max) => return Err(DirectError::TooLarge),
        Some(max) => match body::to_bytes_limited(content, max).await {
            Ok(content) => content.map_err(|_| DirectError::Broken)?,
            Err(_) => return Err(DirectError::TooLarge),
        },
    };
    answer.body(content).map_err(|_| DirectError::Broken)
}
