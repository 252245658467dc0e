//! Changing one's password.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#password-management>

use std::sync::Arc;

use parlour_actors::users::Logout;
use ruma::api::client::account::change_password::v3::{Request, Response};

use super::{
    accounts::{Accounts, check_password},
    uiaa::{Guarded, Uiaa},
};
use crate::{
    error::ApiError,
    http::{Api, RouteOptions, Routes, Ruma},
    limits::RateClass,
};

/// What this endpoint needs to know.
#[derive(Debug)]
pub struct PasswordContext {
    /// Whose passwords they are.
    pub accounts: Arc<Accounts>,
    /// Who is half-way through.
    pub uiaa: Arc<Uiaa>,
}

/// The endpoint of this file.
#[must_use]
pub fn routes(context: Arc<PasswordContext>) -> Routes {
    let options = RouteOptions::rate(RateClass::Login);
    Routes::new(Api::Client, context).route_with(options, change_password).finish()
}

/// `POST /_matrix/client/v3/account/password`
///
/// Without an access token the old password says whose it is.
async fn change_password(
    context: Arc<PasswordContext>,
    req: Ruma<Guarded<Request>>,
) -> Result<Response, ApiError> {
    check_password(&req.new_password)?;
    let owner = req.caller.as_ref().map(|caller| &*caller.user_id);
    let passed = context.uiaa.check_password(&req.request, owner).await?;
    let user = passed.user().ok_or_else(|| ApiError::internal("a password without a user"))?;
    let logout = match &req.caller {
        _ if !req.logout_devices => Logout::Nobody,
        Some(caller) => Logout::AllBut(caller.device_id.to_string()),
        None => Logout::All,
    };
    let accounts = &context.accounts;
    let hash = accounts.passwords.hash(req.new_password.clone()).await?;
    if !accounts.users.set_password(user.as_str(), hash, logout).await? {
        return Err(ApiError::forbidden("The account is gone"));
    }
    context.uiaa.finish(passed);
    Ok(Response::new())
}
