//! Requests that only server administrators may make.

use std::future::Future;

use actix_web::{
    HttpResponse,
    http::{Method, StatusCode},
};
use ruma::{OwnedRoomId, OwnedServerName, OwnedUserId, RoomId, UserId, api::error::ErrorCode};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    error::ApiError,
    http::{Api, Caller, RawRequest, RequestMeta, RouteOptions, Routes},
};

/// A list of endpoints, none of which is reached without an administrator's token.
pub(super) struct AdminRoutes<C>(Routes<C>);

/// A request, and the administrator who makes it.
pub(super) struct AdminRequest {
    pub(super) caller: Caller,
    request: RawRequest,
}

/// What endpoints answer: JSON with status 200, unless they say otherwise.
pub(super) type Answer = Result<Value, ApiError>;

impl<C: Clone + Send + Sync + 'static> AdminRoutes<C> {
    pub(super) fn new(context: C) -> Self {
        Self(Routes::new(Api::Admin, context))
    }

    /// Adds an endpoint that answers with status 200.
    pub(super) fn on<F, Fut>(self, method: Method, path: &'static str, handler: F) -> Self
    where
        F: Fn(C, AdminRequest) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Answer> + 'static,
    {
        self.on_with(method, path, move |context, request| {
            let answer = handler(context, request);
            async move { Ok((StatusCode::OK, answer.await?)) }
        })
    }

    /// Adds an endpoint that chooses its status.
    pub(super) fn on_with<F, Fut>(self, method: Method, path: &'static str, handler: F) -> Self
    where
        F: Fn(C, AdminRequest) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<(StatusCode, Value), ApiError>> + 'static,
    {
        let guarded = move |context: C, request: RawRequest| {
            let handler = handler.clone();
            async move {
                let caller = request.caller().await?;
                caller.check_admin()?;
                let (status, body) = handler(context, AdminRequest { caller, request }).await?;
                Ok(HttpResponse::build(status).json(body))
            }
        };
        Self(self.0.raw(method, path, RouteOptions::default(), guarded))
    }

    pub(super) fn finish(self) -> Routes {
        self.0.finish()
    }
}

impl AdminRequest {
    /// A variable of the path.
    pub(super) fn arg(&self, number: usize) -> &str {
        self.request.path_args.get(number).map(String::as_str).unwrap_or_default()
    }

    /// The first variable of the path, which is a user of this server.
    pub(super) fn local_user(&self, server: &OwnedServerName) -> Result<OwnedUserId, ApiError> {
        let user = UserId::parse(self.arg(0))
            .map_err(|_| ApiError::invalid_param(format!("`{}` is not a user id", self.arg(0))))?;
        match user.server_name() == server {
            true => Ok(user),
            false => Err(refused("This is for users of this server only")),
        }
    }

    /// The first variable of the path, which is a room.
    pub(super) fn room(&self) -> Result<OwnedRoomId, ApiError> {
        let wrong = |_| refused(format!("`{}` is not a legal room ID", self.arg(0)));
        RoomId::parse(self.arg(0)).map_err(wrong)
    }

    /// The query string.
    pub(super) fn query<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        let wrong = |error: serde_html_form::de::Error| ApiError::invalid_param(error.to_string());
        serde_html_form::from_str(&self.request.query).map_err(wrong)
    }

    /// The body.
    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        self.request.json()
    }

    /// The body, where tools know what is wrong in it as a wrong parameter.
    pub(super) fn parameters<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        let body: Value = self.json()?;
        serde_json::from_value(body).map_err(|error| ApiError::invalid_param(error.to_string()))
    }

    /// What is known of the connection.
    pub(super) fn meta(&self) -> &RequestMeta {
        &self.request.meta
    }

    /// The body as it came.
    pub(super) fn body(&self) -> &[u8] {
        &self.request.meta.body
    }
}

/// 400 `M_UNKNOWN`: what the tools get for most that cannot be done.
pub(super) fn refused(message: impl Into<String>) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, ErrorCode::Unknown, message)
}
