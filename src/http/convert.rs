//! actix-web speaks `http` 0.2, ruma speaks `http` 1: the few lines between them.

use actix_web::{
    HttpResponse, HttpResponseBuilder,
    http::{Method, StatusCode, header::HeaderMap},
};
use bytes::{Bytes, BytesMut};
use percent_encoding::percent_decode_str;
use ruma::api::{OutgoingResponse, OutgoingResponseExt as _};

use crate::error::ApiError;

/// A request as ruma wants it.
pub(super) fn request<'a>(
    method: &Method,
    path_and_query: &str,
    headers: &HeaderMap,
    body: &'a [u8],
) -> Result<http::Request<&'a [u8]>, ApiError> {
    let mut request = http::Request::builder().method(method.as_str()).uri(path_and_query);
    for (name, value) in headers {
        request = request.header(name.as_str(), value.as_bytes());
    }
    request.body(body).map_err(|error| ApiError::invalid_param(error.to_string()))
}

/// Headers and query string alone, for looking for a token.
pub(super) fn head_only(
    headers: &HeaderMap,
    query: &str,
) -> Result<http::Request<&'static [u8]>, ApiError> {
    request(&Method::GET, &format!("/?{query}"), headers, b"")
}

/// A response as actix wants it; the body is not copied.
pub(super) fn response<R: OutgoingResponse>(response: R) -> Result<HttpResponse, ApiError> {
    let (parts, body) = response.try_into_http_response::<BytesMut>()?.into_parts();
    let status = StatusCode::from_u16(parts.status.as_u16()).map_err(ApiError::internal)?;
    let mut builder = HttpResponseBuilder::new(status);
    for (name, value) in &parts.headers {
        builder.append_header((name.as_str(), value.as_bytes()));
    }
    let body: Bytes = body.freeze();
    Ok(builder.body(body))
}

/// Decodes a path variable, once.
pub(super) fn decode(segment: &str) -> Result<String, ApiError> {
    match percent_decode_str(segment).decode_utf8() {
        Ok(decoded) => Ok(decoded.into_owned()),
        Err(_) => Err(ApiError::invalid_param("A part of the path is not percent-encoded UTF-8")),
    }
}

/// A method of ruma's metadata, as actix has it.
pub(super) fn method(method: &http::Method) -> Method {
    Method::from_bytes(method.as_str().as_bytes())
        .expect("a method name is as good in one version of the crate as in the other")
}
