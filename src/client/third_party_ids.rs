//! Third-party identifiers: this server sends no mails and no text messages and trusts no identity
//! server, so nobody has one, and nobody gets one.
//!
//! Specification:
//! <https://spec.matrix.org/v1.19/client-server-api/#adding-account-administrative-contact-information>

use actix_web::{
    HttpResponse,
    http::{Method, StatusCode},
};
use ruma::api::{
    IncomingRequest,
    client::account::{
        ThirdPartyIdRemovalStatus, add_3pid, bind_3pid, delete_3pid, get_3pids,
        request_3pid_management_token_via_email, request_3pid_management_token_via_msisdn,
        request_password_change_token_via_email, request_password_change_token_via_msisdn,
        request_registration_token_via_email, request_registration_token_via_msisdn, unbind_3pid,
    },
    error::ErrorCode,
};
use serde::{Deserialize, Serialize};

use super::membership::no_identity_server;
use crate::{
    error::ApiError,
    http::{Answering, Api, Json, RawRequest, RouteOptions, Routes, Ruma, Scheme},
};

/// The endpoints of this file. They need to know nothing.
#[must_use]
pub fn routes() -> Routes {
    let options = RouteOptions::default();
    Routes::new(Api::Client, ())
        .route(list)
        .route(add)
        .route(bind)
        .route(delete)
        .route(unbind)
        .raw(Method::POST, "/_matrix/client/v3/account/3pid", options, add_the_old_way)
        .raw(Method::POST, "/_matrix/client/r0/account/3pid", options, add_the_old_way)
        .route(validate::<request_3pid_management_token_via_email::v3::Request>)
        .route(validate::<request_3pid_management_token_via_msisdn::v3::Request>)
        .route(validate_known::<request_password_change_token_via_email::v3::Request>)
        .route(validate_known::<request_password_change_token_via_msisdn::v3::Request>)
        .route(validate_known::<request_registration_token_via_email::v3::Request>)
        .route(validate_known::<request_registration_token_via_msisdn::v3::Request>)
        .finish()
}

/// `GET /_matrix/client/v3/account/3pid`
async fn list(
    (): (),
    _: Ruma<Answering<get_3pids::v3::Request, List>>,
) -> Result<Json<List>, ApiError> {
    Ok(Json(List { threepids: [] }))
}

/// The identifiers of a user. ruma's type leaves an empty list out.
#[derive(Serialize)]
struct List {
    threepids: [(); 0],
}

/// `POST /_matrix/client/v3/account/3pid/add`
async fn add((): (), _: Ruma<add_3pid::v3::Request>) -> Result<add_3pid::v3::Response, ApiError> {
    Err(not_validated())
}

/// The body of `POST /_matrix/client/v3/account/3pid`.
#[derive(Deserialize)]
#[expect(dead_code, reason = "read to see whether it is complete")]
struct Old {
    three_pid_creds: OldCredentials,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "read to see whether it is complete")]
struct OldCredentials {
    client_secret: String,
    id_server: String,
    #[serde(default)]
    id_access_token: Option<String>,
    sid: String,
}

/// `POST /_matrix/client/v3/account/3pid`
async fn add_the_old_way((): (), request: RawRequest) -> Result<HttpResponse, ApiError> {
    request.caller().await?;
    request.json::<Old>()?;
    Err(not_validated())
}

/// No session with an identity server, or with this one, has ever validated anything.
fn not_validated() -> ApiError {
    let message = "This server cannot validate third-party identifiers";
    ApiError::new(StatusCode::FORBIDDEN, ErrorCode::ThreepidAuthFailed, message)
}

/// `POST /_matrix/client/v3/account/3pid/bind`
async fn bind(
    (): (),
    _: Ruma<bind_3pid::v3::Request>,
) -> Result<bind_3pid::v3::Response, ApiError> {
    Err(no_identity_server())
}

/// `POST /_matrix/client/v3/account/3pid/delete`
///
/// The identifier is none of the user's, which is what is wanted.
async fn delete(
    (): (),
    _: Ruma<delete_3pid::v3::Request>,
) -> Result<delete_3pid::v3::Response, ApiError> {
    Ok(delete_3pid::v3::Response::new(ThirdPartyIdRemovalStatus::NoSupport))
}

/// `POST /_matrix/client/v3/account/3pid/unbind`
async fn unbind(
    (): (),
    _: Ruma<unbind_3pid::v3::Request>,
) -> Result<unbind_3pid::v3::Response, ApiError> {
    Ok(unbind_3pid::v3::Response::new(ThirdPartyIdRemovalStatus::NoSupport))
}

/// `POST /_matrix/client/v3/account/3pid/{email,msisdn}/requestToken`
async fn validate<R>((): (), req: Ruma<R>) -> Result<R::OutgoingResponse, ApiError>
where
    R: IncomingRequest,
    R::Authentication: Scheme,
{
    check_identity_server(&req.meta.body)?;
    let message = "This server sends no mails and no text messages";
    Err(ApiError::new(StatusCode::BAD_REQUEST, ErrorCode::ThreepidMediumNotSupported, message))
}

/// The same before a registration or a change of password.
async fn validate_known<R>((): (), req: Ruma<R>) -> Result<R::OutgoingResponse, ApiError>
where
    R: IncomingRequest,
    R::Authentication: Scheme,
{
    check_identity_server(&req.meta.body)?;
    let message = "This server knows nobody by mail address or phone number";
    Err(ApiError::new(StatusCode::FORBIDDEN, ErrorCode::ThreepidDenied, message))
}

/// Clients of r0.5 name an identity server.
#[derive(Deserialize)]
struct Named {
    #[serde(default)]
    id_server: Option<String>,
}

fn check_identity_server(body: &[u8]) -> Result<(), ApiError> {
    match serde_json::from_slice::<Named>(body)?.id_server {
        Some(_) => {
            let message = "This server trusts no identity server";
            Err(ApiError::new(StatusCode::BAD_REQUEST, ErrorCode::ServerNotTrusted, message))
        }
        None => Ok(()),
    }
}
