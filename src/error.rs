//! What a failed request answers: the one place where errors become HTTP.
//!
//! Lower layers know no HTTP; a handler (or a `From` implementation below) says which Matrix error
//! theirs is.

use std::{fmt, time::Duration};

use actix_web::{
    HttpResponse,
    http::{StatusCode, header},
};
use ruma::api::{
    client::uiaa::UiaaInfo,
    error::{DeserializationError, ErrorCode, FromHttpRequestError, IntoHttpError},
};
use serde_json::{Map, Value};

/// A failed request, as its client will see it.
#[derive(Debug, Clone)]
pub struct ApiError(Box<Inner>);

#[derive(Debug, Clone)]
struct Inner {
    status: StatusCode,
    body: Body,
    retry_after: Option<Duration>,
    /// Why it failed inside; logged, never sent.
    internal: Option<String>,
}

#[derive(Debug, Clone)]
enum Body {
    Standard { errcode: ErrorCode, message: String, extra: Map<String, Value> },
    Json(Value),
}

macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident => $status:ident, $code:ident;)*) => {
        impl ApiError {$(
            $(#[$doc])*
            #[must_use]
            pub fn $name(message: impl Into<String>) -> Self {
                Self::new(StatusCode::$status, ErrorCode::$code, message)
            }
        )*}
    };
}

constructors! {
    /// 403 `M_FORBIDDEN`.
    forbidden => FORBIDDEN, Forbidden;
    /// 404 `M_NOT_FOUND`.
    not_found => NOT_FOUND, NotFound;
    /// 400 `M_BAD_JSON`: valid JSON of the wrong shape.
    bad_json => BAD_REQUEST, BadJson;
    /// 400 `M_NOT_JSON`.
    not_json => BAD_REQUEST, NotJson;
    /// 400 `M_INVALID_PARAM`.
    invalid_param => BAD_REQUEST, InvalidParam;
    /// 400 `M_MISSING_PARAM`.
    missing_param => BAD_REQUEST, MissingParam;
    /// 413 `M_TOO_LARGE`.
    too_large => PAYLOAD_TOO_LARGE, TooLarge;
    /// 401 `M_UNAUTHORIZED`: a request of another server that it has not signed.
    unauthorized => UNAUTHORIZED, Unauthorized;
    /// 401 `M_MISSING_TOKEN`.
    missing_token => UNAUTHORIZED, MissingToken;
}

impl ApiError {
    /// An error with a status, an error code and a sentence for people.
    #[must_use]
    pub fn new(status: StatusCode, errcode: ErrorCode, message: impl Into<String>) -> Self {
        let body = Body::Standard { errcode, message: message.into(), extra: Map::new() };
        Self(Box::new(Inner { status, body, retry_after: None, internal: None }))
    }

    /// An answer with an error status and a body of its own shape (user-interactive
    /// authentication, CS API section 5.4).
    #[must_use]
    pub fn json(status: StatusCode, body: Value) -> Self {
        let body = Body::Json(body);
        Self(Box::new(Inner { status, body, retry_after: None, internal: None }))
    }

    /// 401 `M_UNKNOWN_TOKEN`; with `soft_logout` the client keeps its data and logs in again.
    #[must_use]
    pub fn unknown_token(soft_logout: bool) -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            ErrorCode::UnknownToken,
            "This access token is not known here",
        )
        .with("soft_logout", soft_logout)
    }

    /// 403 `M_GUEST_ACCESS_FORBIDDEN`.
    #[must_use]
    pub fn guest_access_forbidden() -> Self {
        let message = "Guests cannot do this here";
        Self::new(StatusCode::FORBIDDEN, ErrorCode::GuestAccessForbidden, message)
    }

    /// 401 `M_USER_LOCKED`: the client keeps its data and tries again later.
    #[must_use]
    pub fn user_locked() -> Self {
        let message = "This account has been locked";
        Self::new(StatusCode::UNAUTHORIZED, ErrorCode::UserLocked, message)
            .with("soft_logout", true)
    }

    /// 403 `M_USER_SUSPENDED`.
    #[must_use]
    pub fn user_suspended() -> Self {
        let message = "You cannot do this while your account is suspended";
        Self::new(StatusCode::FORBIDDEN, ErrorCode::UserSuspended, message)
    }

    /// 429 `M_LIMIT_EXCEEDED`, with `Retry-After` and `retry_after_ms`.
    #[must_use]
    pub fn limit_exceeded(retry_after: Duration) -> Self {
        let mut error = Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            ErrorCode::LimitExceeded,
            "Too many requests, try again later",
        )
        .with("retry_after_ms", u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX));
        error.0.retry_after = Some(retry_after);
        error
    }

    /// 404 `M_UNRECOGNIZED`: there is no such endpoint.
    #[must_use]
    pub fn unrecognized() -> Self {
        Self::new(StatusCode::NOT_FOUND, ErrorCode::Unrecognized, "There is no such endpoint")
    }

    /// 405 `M_UNRECOGNIZED`: the endpoint exists, but not with this method.
    #[must_use]
    pub fn method_not_allowed() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            ErrorCode::Unrecognized,
            "This endpoint does not know this method",
        )
    }

    /// 500 `M_UNKNOWN`. `why` goes to the log with the request's id; the client learns the id only.
    #[must_use]
    pub fn internal(why: impl fmt::Display) -> Self {
        let mut error = Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            ErrorCode::Unknown,
            "Something went wrong inside the server",
        );
        error.0.internal = Some(why.to_string());
        error
    }

    /// 503 `M_UNKNOWN`: not now (shutting down, storage cannot be written). `why` is logged.
    #[must_use]
    pub fn unavailable(why: impl fmt::Display) -> Self {
        let mut error = Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            ErrorCode::Unknown,
            "The server cannot do this now",
        );
        error.0.internal = Some(why.to_string());
        error
    }

    /// Adds a field to the body.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        match &mut self.0.body {
            Body::Standard { extra, .. } | Body::Json(Value::Object(extra)) => {
                extra.insert(key.to_owned(), value.into());
            }
            Body::Json(_) => {}
        }
        self
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// The Matrix error code, where the body has one of the standard shape.
    #[must_use]
    pub fn errcode(&self) -> Option<&ErrorCode> {
        match &self.0.body {
            Body::Standard { errcode, .. } => Some(errcode),
            Body::Json(_) => None,
        }
    }

    /// What happened inside, for the log.
    #[must_use]
    pub fn internal_reason(&self) -> Option<&str> {
        self.0.internal.as_deref()
    }

    /// The response: the ONE place where an error becomes HTTP.
    pub(crate) fn into_response(self, request_id: u64) -> HttpResponse {
        let Inner { status, body, retry_after, internal } = *self.0;
        let body = match body {
            Body::Json(body) => body,
            Body::Standard { errcode, mut message, mut extra } => {
                if internal.is_some() {
                    message = format!("{message} (request {request_id:016x})");
                }
                extra.insert("errcode".to_owned(), errcode.as_str().into());
                extra.insert("error".to_owned(), message.into());
                Value::Object(extra)
            }
        };
        let mut response = HttpResponse::build(status);
        if let Some(delay) = retry_after {
            // Whole seconds, rounded up: a client that obeys must not come too early.
            let seconds = delay.as_secs() + u64::from(delay.subsec_nanos() > 0);
            response.insert_header((header::RETRY_AFTER, seconds.to_string()));
        }
        response.json(body)
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.status)?;
        match &self.0.body {
            Body::Standard { errcode, message, .. } => write!(f, " {errcode}: {message}")?,
            Body::Json(_) => {}
        }
        self.0.internal.as_ref().map_or(Ok(()), |why| write!(f, " [{why}]"))
    }
}

impl std::error::Error for ApiError {}

impl From<UiaaInfo> for ApiError {
    fn from(info: UiaaInfo) -> Self {
        match serde_json::to_value(&info) {
            Ok(body) => Self::json(StatusCode::UNAUTHORIZED, body),
            Err(error) => Self::internal(error),
        }
    }
}

impl From<IntoHttpError> for ApiError {
    /// A response of ours that cannot be written is our fault.
    fn from(error: IntoHttpError) -> Self {
        Self::internal(error)
    }
}

impl From<FromHttpRequestError> for ApiError {
    fn from(error: FromHttpRequestError) -> Self {
        match error {
            FromHttpRequestError::Deserialization(error) => error.into(),
            FromHttpRequestError::MethodMismatch { .. } => Self::method_not_allowed(),
            other => Self::bad_json(other.to_string()),
        }
    }
}

impl From<DeserializationError> for ApiError {
    fn from(error: DeserializationError) -> Self {
        match error {
            DeserializationError::Json(error) => error.into(),
            // Path arguments come this way, too: both are parsed by serde's value deserializer,
            // which says "missing field" and nothing more typed.
            DeserializationError::Query(error) => {
                let message = error.to_string();
                if message.starts_with("missing field") {
                    Self::missing_param(message)
                } else {
                    Self::invalid_param(message)
                }
            }
            other => Self::invalid_param(other.to_string()),
        }
    }
}

impl From<serde_json::Error> for ApiError {
    /// A request's body that could not be read.
    fn from(error: serde_json::Error) -> Self {
        match error.classify() {
            serde_json::error::Category::Data => Self::bad_json(error.to_string()),
            _ => Self::not_json(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_rounded_up() {
        for (millis, header) in [(1, "1"), (1000, "1"), (1001, "2"), (2500, "3")] {
            let response = ApiError::limit_exceeded(Duration::from_millis(millis)).into_response(0);
            let seen = response.headers().get(header::RETRY_AFTER).expect("header");
            assert_eq!(seen, header, "{millis} ms");
        }
    }

    #[test]
    fn inner_reasons_stay_inside() {
        let error = ApiError::internal("the secret path");
        assert_eq!(error.internal_reason(), Some("the secret path"));
        let body = futures_util::FutureExt::now_or_never(actix_web::body::to_bytes(
            error.into_response(0xabcd).into_body(),
        ))
        .expect("the body is there at once")
        .expect("body");
        let body = String::from_utf8_lossy(&body).into_owned();
        assert!(!body.contains("secret"), "{body}");
        assert!(body.contains("000000000000abcd"), "{body}");
    }
}
