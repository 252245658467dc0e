//! Account registration.
//!
//! Specification:
//! <https://spec.matrix.org/v1.19/client-server-api/#legacy-account-registration>

use std::sync::Arc;

use actix_web::http::StatusCode;
use parlour_actors::users::{Login, Session, Standing};
use ruma::{
    OwnedUserId, UserId,
    api::{
        client::{
            account::{
                check_registration_token_validity, get_username_availability,
                register::{self, LoginType, RegistrationKind},
            },
            uiaa::AuthType,
        },
        error::ErrorCode,
    },
};
use serde::Serialize;

use super::{
    accounts::{Accounts, NewAccount, Wish, check_password},
    registration_tokens::{RegistrationTokens, TokenUse},
    uiaa::{Guarded, Passed, Proof, Uiaa},
};
use crate::{
    config::RegistrationMode,
    error::ApiError,
    http::{Answering, Api, Json, Peer, RouteOptions, Routes, Ruma},
    limits::RateClass,
};

/// What these endpoints need to know.
#[derive(Debug)]
pub struct RegisterContext {
    /// Makes the accounts.
    pub accounts: Arc<Accounts>,
    /// Who is half-way through.
    pub uiaa: Arc<Uiaa>,
    /// Who may make an account.
    pub mode: RegistrationMode,
    /// The tokens with which one may.
    pub tokens: Arc<RegistrationTokens>,
    /// Whether there is something to be accepted first.
    pub has_terms: bool,
    /// Whether there may be guests.
    pub guests: bool,
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

/// The new account. ruma's own answer says `null` where there is no device.
#[derive(Debug, Serialize)]
struct Registered {
    user_id: OwnedUserId,
    #[serde(skip_serializing_if = "Option::is_none")]
    access_token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_in_ms: Option<u64>,
}

impl Registered {
    fn new(user_id: OwnedUserId, session: Option<Session>) -> Self {
        let (access_token, device_id, refresh_token, expires_in_ms) = match session {
            Some(session) => (
                Some(session.access_token),
                Some(session.device_id),
                session.refresh_token,
                session.expires_in_ms,
            ),
            None => (None, None, None, None),
        };
        Self { user_id, access_token, device_id, refresh_token, expires_in_ms }
    }
}

/// Who wants to become a user.
enum Candidate {
    /// Somebody new, perhaps with a name.
    Stranger(Option<OwnedUserId>),
    /// A guest, who comes with the login on this device.
    Guest(OwnedUserId, String),
}

/// `POST /_matrix/client/v3/register`
async fn register(
    context: Arc<RegisterContext>,
    req: Ruma<Guarded<Answering<register::v3::Request, Registered>>>,
) -> Result<Json<Registered>, ApiError> {
    match req.kind {
        RegistrationKind::User => context.check_permitted(&req.meta.peer)?,
        RegistrationKind::Guest => return context.register_guest(&req).await,
        _ => return Err(ApiError::invalid_param("`kind` is user or guest")),
    }
    if matches!(req.login_type, Some(LoginType::ApplicationService)) {
        let error = ApiError::missing_token("This needs an application service's token");
        // With status 401 clients look for flows: none leads on.
        return Err(error.with("flows", Vec::<String>::new()));
    }
    let accounts = &context.accounts;
    // Before the authentication, so that the user can still choose another name.
    let candidate = context.candidate(&req)?;
    req.password.as_deref().map_or(Ok(()), check_password)?;
    let wish = Wish {
        device_id: req.device_id.clone(),
        display_name: req.initial_device_display_name.clone(),
        refreshable: req.refresh_token,
    };
    let device = accounts.new_device(wish, &req.meta)?;
    let passed = context.uiaa.check(&[context.stages()], &req.request, None).await?;
    let mut new = NewAccount {
        password: req.password.clone(),
        device: (!req.inhibit_login).then_some(device),
        ..NewAccount::default()
    };
    let token_use = context.accept(&passed, &mut new).await?;
    let (user, session) = match candidate {
        Candidate::Stranger(name) => accounts.create(name, new).await?,
        Candidate::Guest(guest, device) => accounts.upgrade(guest, device, new).await?,
    };
    if let Some(token_use) = token_use {
        context.tokens.complete(token_use).await?;
    }
    context.uiaa.finish(passed);
    Ok(Json(Registered::new(user, session)))
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
    let valid = context.tokens.is_valid(&req.token)?;
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

    /// Who wants to become a user; says as well if that cannot be.
    fn candidate(&self, request: &register::v3::Request) -> Result<Candidate, ApiError> {
        let user = request.username.as_deref().map(|name| self.accounts.user_id(name));
        let user = user.transpose()?;
        if let Some(token) = &request.guest_access_token {
            return self.guest(token, user.as_deref());
        }
        user.as_deref().map_or(Ok(()), |user| self.accounts.check_free(user))?;
        Ok(Candidate::Stranger(user))
    }

    /// A guest's account. Of what the client says only the name of its device counts.
    async fn register_guest(
        &self,
        req: &Ruma<Guarded<Answering<register::v3::Request, Registered>>>,
    ) -> Result<Json<Registered>, ApiError> {
        if !self.guests {
            return Err(ApiError::guest_access_forbidden());
        }
        let display_name = req.initial_device_display_name.clone();
        let wish = Wish { display_name, ..Wish::default() };
        let device = Some(self.accounts.new_device(wish, &req.meta)?);
        let new = NewAccount { guest: true, device, ..NewAccount::default() };
        let (user, session) = self.accounts.create(None, new).await?;
        Ok(Json(Registered::new(user, session)))
    }

    /// A guest keeps its name, and has to say it.
    fn guest(&self, token: &str, named: Option<&UserId>) -> Result<Candidate, ApiError> {
        let login = self.accounts.users.authenticate(token)?;
        let is_guest = |login: &Login| login.standing == Standing::Good && login.account.guest;
        let unknown = || ApiError::forbidden("The guest_access_token is no guest's");
        let login = login.filter(is_guest).ok_or_else(unknown)?;
        match named {
            Some(named) if named.as_str() == login.user => {
                Ok(Candidate::Guest(named.to_owned(), login.device))
            }
            Some(_) => {
                let message = "A guest keeps its user name";
                Err(ApiError::new(StatusCode::BAD_REQUEST, ErrorCode::InvalidUsername, message))
            }
            None => Err(ApiError::missing_param("A guest has to say its user name")),
        }
    }

    /// What has to be passed, in this order.
    fn stages(&self) -> Vec<AuthType> {
        let mut stages = Vec::new();
        if let RegistrationMode::Token(_) = &self.mode {
            stages.push(AuthType::RegistrationToken);
        }
        if self.has_terms {
            stages.push(AuthType::Terms);
        }
        if stages.is_empty() {
            stages.push(AuthType::Dummy);
        }
        stages
    }

    /// Lets what the stages have shown take effect.
    async fn accept(
        &self,
        passed: &Passed,
        new: &mut NewAccount,
    ) -> Result<Option<TokenUse>, ApiError> {
        let mut token_use = None;
        for proof in passed.proofs() {
            match proof {
                Proof::RegistrationToken(token) => {
                    token_use = Some(self.tokens.claim(token).await?)
                }
                Proof::Terms(accepted) => new.accepted_terms.clone_from(accepted),
                Proof::Nothing | Proof::User(_) => {}
            }
        }
        Ok(token_use)
    }
}
