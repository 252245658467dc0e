//! Logging in and out.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#legacy-login>

use std::{sync::Arc, time::Duration};

use actix_web::http::StatusCode;
use ruma::{
    OwnedUserId,
    api::{
        client::session::{
            get_login_types::{
                self,
                v3::{LoginType, PasswordLoginType, TokenLoginType},
            },
            login::{
                self,
                v3::{DiscoveryInfo, HomeserverInfo, LoginInfo, Password},
            },
            logout, logout_all,
        },
        error::ErrorCode,
    },
};

use super::{
    accounts::{Accounts, Wish},
    login_tokens::LoginTokens,
};
use crate::{
    error::ApiError,
    http::{Admits, Api, RouteOptions, Routes, Ruma},
    limits::RateClass,
};

/// What these endpoints need to know.
#[derive(Debug)]
pub struct LoginContext {
    /// Who can log in.
    pub accounts: Arc<Accounts>,
    /// The login tokens that are out.
    pub tokens: Arc<LoginTokens>,
    /// What clients are told to connect to.
    pub public_url: Option<String>,
}

/// The endpoints of this file.
#[must_use]
pub fn routes(context: Arc<LoginContext>) -> Routes {
    let login = RouteOptions::rate(RateClass::Login).required_key("type");
    // The two that locked accounts can still use.
    let leaving = RouteOptions::default().admits(Admits::All);
    Routes::new(Api::Client, context)
        .route(flows)
        .route_with(login, log_in)
        .route_with(leaving, log_out)
        .route_with(leaving, log_out_everywhere)
        .finish()
}

/// `GET /_matrix/client/v3/login`
async fn flows(
    _: Arc<LoginContext>,
    _: Ruma<get_login_types::v3::Request>,
) -> Result<get_login_types::v3::Response, ApiError> {
    let password = LoginType::Password(PasswordLoginType::new());
    let mut token = TokenLoginType::new();
    token.get_login_token = true;
    Ok(get_login_types::v3::Response::new(vec![password, LoginType::Token(token)]))
}

/// `POST /_matrix/client/v3/login`
async fn log_in(
    context: Arc<LoginContext>,
    req: Ruma<login::v3::Request>,
) -> Result<login::v3::Response, ApiError> {
    let request = req.request;
    let wish = Wish {
        device_id: request.device_id,
        display_name: request.initial_device_display_name,
        refreshable: request.refresh_token,
    };
    let device = context.accounts.new_device(wish, &req.meta)?;
    let user = match request.login_info {
        LoginInfo::Password(given) => context.by_password(given).await?,
        LoginInfo::Token(given) => context.by_token(&given.token)?,
        _ => {
            let message = "This server knows m.login.password and m.login.token";
            return Err(ApiError::new(StatusCode::BAD_REQUEST, ErrorCode::Unknown, message));
        }
    };
    let session = context.accounts.users.login(user.as_str(), device).await?;
    let mut response =
        login::v3::Response::new(user, session.access_token, session.device_id.into());
    response.refresh_token = session.refresh_token;
    response.expires_in = session.expires_in_ms.map(Duration::from_millis);
    let url = context.public_url.clone();
    response.well_known = url.map(|url| DiscoveryInfo::new(HomeserverInfo::new(url)));
    Ok(response)
}

/// `POST /_matrix/client/v3/logout`
async fn log_out(
    context: Arc<LoginContext>,
    req: Ruma<logout::v3::Request>,
) -> Result<logout::v3::Response, ApiError> {
    let (user, device) = (req.caller.user_id.as_str(), req.caller.device_id.as_str());
    context.accounts.users.logout(user, device).await?;
    Ok(logout::v3::Response::new())
}

/// `POST /_matrix/client/v3/logout/all`
async fn log_out_everywhere(
    context: Arc<LoginContext>,
    req: Ruma<logout_all::v3::Request>,
) -> Result<logout_all::v3::Response, ApiError> {
    context.accounts.users.logout_all(req.caller.user_id.as_str()).await?;
    Ok(logout_all::v3::Response::new())
}

impl LoginContext {
    async fn by_password(&self, given: Password) -> Result<OwnedUserId, ApiError> {
        #[expect(deprecated, reason = "clients of r0.3 still name the user this way")]
        let old = given.user.as_deref();
        let user = self.accounts.named(given.identifier.as_ref(), old)?;
        if let Some(user) = self.accounts.check_password(user.clone(), given.password).await? {
            self.check_active(&user)?;
            return Ok(user);
        }
        if let Some(user) = user {
            self.check_there(&user)?;
        }
        Err(ApiError::forbidden("The user name or the password is wrong"))
    }

    fn by_token(&self, token: &str) -> Result<OwnedUserId, ApiError> {
        let user = self.tokens.take(token);
        let user = user.ok_or_else(|| ApiError::forbidden("The login token is not valid"))?;
        self.check_active(&user)?;
        Ok(user)
    }

    /// That an account is locked is told to who has proved to be its owner.
    fn check_active(&self, user: &OwnedUserId) -> Result<(), ApiError> {
        self.check_there(user)?;
        match self.accounts.users.account(user.as_str())? {
            Some(account) if account.locked => Err(ApiError::user_locked()),
            _ => Ok(()),
        }
    }

    /// That an account is gone for good is no secret: its name is not free.
    fn check_there(&self, user: &OwnedUserId) -> Result<(), ApiError> {
        match self.accounts.users.account(user.as_str())? {
            Some(account) if account.deactivated => {
                let message = "The account is deactivated";
                Err(ApiError::new(StatusCode::FORBIDDEN, ErrorCode::UserDeactivated, message))
            }
            _ => Ok(()),
        }
    }
}
