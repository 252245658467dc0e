//! Ending one's account.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#account-deactivation>

use std::sync::Arc;

use ruma::api::client::account::{
    ThirdPartyIdRemovalStatus,
    deactivate::v3::{Request, Response},
};

use super::{
    accounts::Accounts,
    uiaa::{Guarded, Uiaa},
};
use crate::{
    error::ApiError,
    http::{Api, RouteOptions, Routes, Ruma},
    limits::RateClass,
};

/// What this endpoint needs to know.
#[derive(Debug)]
pub struct DeactivateContext {
    /// Whose accounts they are.
    pub accounts: Arc<Accounts>,
    /// Who is half-way through.
    pub uiaa: Arc<Uiaa>,
}

/// The endpoint of this file.
#[must_use]
pub fn routes(context: Arc<DeactivateContext>) -> Routes {
    let options = RouteOptions::rate(RateClass::Login);
    Routes::new(Api::Client, context).route_with(options, deactivate).finish()
}

/// `POST /_matrix/client/v3/account/deactivate`
///
/// Without an access token the password says whose account it is. There are no third-party
/// identifiers, so `id_server` has nothing to unbind, and that always succeeds.
async fn deactivate(
    context: Arc<DeactivateContext>,
    req: Ruma<Guarded<Request>>,
) -> Result<Response, ApiError> {
    let owner = req.caller.as_ref().map(|caller| &*caller.user_id);
    let passed = context.uiaa.check_password(&req.request, owner).await?;
    let user = passed.user().ok_or_else(|| ApiError::internal("a password without a user"))?;
    context.accounts.users.deactivate(user.as_str(), req.erase).await?;
    context.uiaa.finish(passed);
    Ok(Response::new(ThirdPartyIdRemovalStatus::Success))
}
