//! Logging in and out.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#legacy-login>

use std::sync::Arc;

use actix_web::http::StatusCode;
use ruma::{
    OwnedUserId, UserId,
    api::{
        client::{
            session::{
                get_login_types::{self, v3::LoginType},
                login::{
                    self,
                    v3::{DiscoveryInfo, HomeserverInfo, LoginInfo, Password},
                },
                logout, logout_all,
            },
            uiaa::UserIdentifier,
        },
        error::ErrorCode,
    },
};

use super::{
    accounts::{Accounts, new_device},
    passwords::MAX_PASSWORD,
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
    let password = LoginType::Password(get_login_types::v3::PasswordLoginType::new());
    Ok(get_login_types::v3::Response::new(vec![password]))
}

/// `POST /_matrix/client/v3/login`
async fn log_in(
    context: Arc<LoginContext>,
    req: Ruma<login::v3::Request>,
) -> Result<login::v3::Response, ApiError> {
    let request = req.request;
    let LoginInfo::Password(given) = request.login_info else {
        let message = "This server knows m.login.password only";
        return Err(ApiError::new(StatusCode::BAD_REQUEST, ErrorCode::Unknown, message));
    };
    let device_id = request.device_id.map(String::from);
    let device = new_device(device_id, request.initial_device_display_name)?;
    let user = context.check_password(given).await?;
    let session = context.accounts.users.login(user.as_str(), device).await?;
    let mut response =
        login::v3::Response::new(user, session.access_token, session.device_id.into());
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
    /// Whose password it is. An unknown user, a wrong server, an account without a password and a
    /// wrong password are one and the same to the client, in text and in time.
    async fn check_password(&self, given: Password) -> Result<OwnedUserId, ApiError> {
        let user = self.user(&given)?;
        let Password { mut password, .. } = given;
        let account = match &user {
            Some(user) => self.accounts.users.account(user.as_str())?,
            None => None,
        };
        let locked = account.as_ref().is_some_and(|account| account.locked);
        let mut stored = account
            .filter(|account| !account.deactivated)
            .and_then(|account| account.password_hash);
        if password.len() > MAX_PASSWORD {
            stored = None;
            password.clear();
        }
        let is_right = self.accounts.passwords.verify(password, stored).await?;
        let wrong = || ApiError::forbidden("The user name or the password is wrong");
        match user.filter(|_| is_right).ok_or_else(wrong)? {
            _ if locked => Err(ApiError::user_locked()),
            user => Ok(user),
        }
    }

    /// Who wants to log in; `None` if that cannot be a user of this server.
    fn user(&self, given: &Password) -> Result<Option<OwnedUserId>, ApiError> {
        #[expect(deprecated, reason = "clients of r0.3 still name the user this way")]
        let old = given.user.as_deref();
        let name = match (&given.identifier, old) {
            (Some(UserIdentifier::Matrix(identifier)), _) => identifier.user.as_str(),
            // There are no addresses or numbers by which somebody could be known.
            (Some(_), _) => return Ok(None),
            (None, Some(name)) => name,
            (None, None) => return Err(ApiError::missing_param("Who wants to log in?")),
        };
        if !name.starts_with('@') {
            return Ok(self.accounts.user_id(name).ok());
        }
        let user = UserId::parse(name).ok();
        let user = user.filter(|user| user.server_name() == self.accounts.server_name);
        Ok(user.and_then(|user| self.accounts.user_id(user.localpart()).ok()))
    }
}
