//! Account registration.
//!
//! Specification:
//! <https://spec.matrix.org/v1.19/client-server-api/#legacy-account-registration>

use std::sync::Arc;

use actix_web::http::StatusCode;
use parlour_actors::stored_tokens::{StoredTokens, TokenClaim};
use ruma::api::{
    IncomingRequest, Metadata, OutgoingBodyJson, OutgoingResponse,
    client::{
        account::{
            check_registration_token_validity, get_username_availability,
            register::{self, LoginType, RegistrationKind},
        },
        uiaa::{AuthData, AuthType, UiaaResponse},
    },
    error::{DeserializationError, ErrorCode, IntoHttpError},
    path_builder::VersionHistory,
};
use ruma::{OwnedDeviceId, OwnedUserId};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{
    accounts::{Accounts, NewAccount, check_password, new_device},
    uiaa::{Fingerprint, Refusal, Uiaa},
};
use crate::{
    config::RegistrationMode,
    error::ApiError,
    http::{Api, Peer, RouteOptions, Routes, Ruma},
    limits::RateClass,
};

/// What these endpoints need to know.
#[derive(Debug)]
pub struct RegisterContext {
    /// Makes the accounts.
    pub accounts: Arc<Accounts>,
    /// Who is half-way through.
    pub uiaa: Uiaa,
    /// Who may make an account.
    pub mode: RegistrationMode,
    /// Tokens that administrators have handed out, besides those of the mode.
    pub stored: StoredTokens,
}

/// The endpoints of this file.
#[must_use]
pub fn routes(context: Arc<RegisterContext>) -> Routes {
    let options = RouteOptions::rate(RateClass::Registration);
    Routes::new(Api::Client, context)
        .route_with(options, register)
        .route_with(options, token_validity)
        .route(available)
        .finish()
}

/// [`register::v3::Request`] with an answer of our own: ruma's writes `null` where there is no
/// device, and that is no device id.
#[derive(Debug)]
struct Register(register::v3::Request);

impl Metadata for Register {
    const METHOD: http::Method = register::v3::Request::METHOD;
    const RATE_LIMITED: bool = register::v3::Request::RATE_LIMITED;
    type Authentication = <register::v3::Request as Metadata>::Authentication;
    type PathBuilder = VersionHistory;
    const PATH_BUILDER: VersionHistory = register::v3::Request::PATH_BUILDER;
}

impl IncomingRequest for Register {
    type EndpointError = UiaaResponse;
    type OutgoingResponse = Registered;

    fn try_from_http_request_inner(
        request: http::Request<&[u8]>,
        path_args: &[&str],
    ) -> Result<Self, DeserializationError> {
        register::v3::Request::try_from_http_request_inner(request, path_args).map(Self)
    }
}

/// The new account.
#[derive(Serialize, OutgoingBodyJson)]
struct Registered {
    user_id: OwnedUserId,
    #[serde(skip_serializing_if = "Option::is_none")]
    access_token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device_id: Option<OwnedDeviceId>,
}

impl OutgoingResponse for Registered {
    type Body = Self;

    fn try_into_http_response_inner(self) -> Result<http::Response<Self>, IntoHttpError> {
        Ok(http::Response::new(self))
    }
}

/// `POST /_matrix/client/v3/register`
async fn register(
    context: Arc<RegisterContext>,
    req: Ruma<Register>,
) -> Result<Registered, ApiError> {
    context.check_permitted(&req.meta.peer)?;
    let Register(request) = req.request;
    if request.kind != RegistrationKind::User {
        let message = "This server has no guests";
        let status = StatusCode::FORBIDDEN;
        return Err(ApiError::new(status, ErrorCode::GuestAccessForbidden, message));
    }
    if matches!(request.login_type, Some(LoginType::ApplicationService)) {
        let error = ApiError::missing_token("This needs an application service's token");
        // With status 401 clients look for flows: none leads on.
        return Err(error.with("flows", Vec::<String>::new()));
    }
    let accounts = &context.accounts;
    // Before the authentication, so that the user can still choose another name.
    let user = request.username.as_deref().map(|name| accounts.user_id(name)).transpose()?;
    user.as_deref().map_or(Ok(()), |user| accounts.check_free(user))?;
    request.password.as_deref().map_or(Ok(()), check_password)?;
    let fingerprint = context.fingerprint(&request);
    let device_id = request.device_id.map(String::from);
    let device = new_device(device_id, request.initial_device_display_name)?;
    let mut claim = None;
    let passed = context
        .uiaa
        .check(&context.flows(), fingerprint, request.auth.as_ref(), async |auth| {
            context.verify(auth, &mut claim)
        })
        .await?;
    let device = (!request.inhibit_login).then_some(device);
    let new = NewAccount { password: request.password, device, ..NewAccount::default() };
    let (user, session) = accounts.create(user, new).await?;
    if let Some(claim) = claim {
        context.stored.complete(claim).await?;
    }
    context.uiaa.finish(passed);
    let (access_token, device_id) =
        session.map(|session| (session.access_token, session.device_id.into())).unzip();
    Ok(Registered { user_id: user, access_token, device_id })
}

/// `GET /_matrix/client/v3/register/available`
async fn available(
    context: Arc<RegisterContext>,
    req: Ruma<get_username_availability::v3::Request>,
) -> Result<get_username_availability::v3::Response, ApiError> {
    let user = context.accounts.user_id(&req.username)?;
    context.accounts.check_free(&user)?;
    Ok(get_username_availability::v3::Response::new(true))
}

/// `GET /_matrix/client/v1/register/m.login.registration_token/validity`
async fn token_validity(
    context: Arc<RegisterContext>,
    req: Ruma<check_registration_token_validity::v1::Request>,
) -> Result<check_registration_token_validity::v1::Response, ApiError> {
    context.check_permitted(&req.meta.peer)?;
    let valid = context.is_configured(&req.token) || context.is_stored(&req.token)?;
    Ok(check_registration_token_validity::v1::Response::new(valid))
}

impl RegisterContext {
    /// Whether anybody from there may make an account at all.
    fn check_permitted(&self, peer: &Peer) -> Result<(), ApiError> {
        match &self.mode {
            RegistrationMode::Open | RegistrationMode::Token(_) => Ok(()),
            RegistrationMode::Local if peer.is_local() => Ok(()),
            RegistrationMode::Local => {
                Err(ApiError::forbidden("Accounts are made on the server's own machine only"))
            }
            RegistrationMode::Closed => Err(ApiError::forbidden("Registration is disabled")),
        }
    }

    fn flows(&self) -> [Vec<AuthType>; 1] {
        match &self.mode {
            RegistrationMode::Token(_) => [vec![AuthType::RegistrationToken]],
            _ => [vec![AuthType::Dummy]],
        }
    }

    /// Checks the one stage that there is. A stored token is claimed until the account is made.
    fn verify(
        &self,
        auth: &AuthData,
        claim: &mut Option<TokenClaim>,
    ) -> Result<Result<(), Refusal>, ApiError> {
        if let AuthData::RegistrationToken(data) = auth
            && matches!(self.mode, RegistrationMode::Token(_))
            && !self.is_configured(&data.token)
        {
            *claim = self.stored.claim(&data.token)?;
        }
        Ok(match auth {
            AuthData::Dummy(_) => Ok(()),
            AuthData::RegistrationToken(data) if self.is_configured(&data.token) => Ok(()),
            AuthData::RegistrationToken(_) if claim.is_some() => Ok(()),
            _ => Err(Refusal::forbidden("The registration token is not valid")),
        })
    }

    fn is_stored(&self, token: &str) -> Result<bool, ApiError> {
        Ok(matches!(self.mode, RegistrationMode::Token(_)) && self.stored.is_valid(token)?)
    }

    /// Compares hashes, so that the time does not tell how much of a token was right.
    fn is_configured(&self, token: &str) -> bool {
        let RegistrationMode::Token(tokens) = &self.mode else { return false };
        let hash = |token: &str| Sha256::digest(token.as_bytes());
        let wanted = hash(token);
        tokens.iter().any(|token| hash(token) == wanted)
    }

    fn fingerprint(&self, request: &register::v3::Request) -> Fingerprint {
        let parameters = [
            request.username.as_deref(),
            request.password.as_deref(),
            request.device_id.as_ref().map(|id| id.as_str()),
            request.initial_device_display_name.as_deref(),
            request.inhibit_login.then_some("inhibit_login"),
        ];
        self.uiaa.fingerprint("register", &parameters)
    }
}
