//! Server administration: locking and suspending accounts.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#server-administration>

use std::sync::Arc;

use parlour_actors::users::Users;
use parlour_storage::schema::User;
use ruma::{
    OwnedServerName, UserId,
    api::client::admin::{is_user_locked, is_user_suspended, lock_user, suspend_user},
};

use crate::{
    error::ApiError,
    http::{Api, Caller, Routes, Ruma},
};

/// What these endpoints need to know.
#[derive(Debug)]
pub struct ServerAdminContext {
    /// Whose accounts they are about.
    pub users: Users,
    /// Which users are ours.
    pub server_name: OwnedServerName,
}

/// The endpoints of this file.
#[must_use]
pub fn routes(context: Arc<ServerAdminContext>) -> Routes {
    Routes::new(Api::Client, context)
        .route(is_locked)
        .route(lock)
        .route(is_suspended)
        .route(suspend)
        .finish()
}

/// `GET /_matrix/client/v1/admin/lock/{userId}`
async fn is_locked(
    context: Arc<ServerAdminContext>,
    req: Ruma<is_user_locked::v1::Request>,
) -> Result<is_user_locked::v1::Response, ApiError> {
    let account = context.target(&req.caller, &req.user_id)?;
    Ok(is_user_locked::v1::Response::new(account.locked))
}

/// `PUT /_matrix/client/v1/admin/lock/{userId}`
async fn lock(
    context: Arc<ServerAdminContext>,
    req: Ruma<lock_user::v1::Request>,
) -> Result<lock_user::v1::Response, ApiError> {
    let locked = req.locked;
    context.set(&req.caller, &req.user_id, move |account| account.locked = locked).await?;
    Ok(lock_user::v1::Response::new(locked))
}

/// `GET /_matrix/client/v1/admin/suspend/{userId}`
async fn is_suspended(
    context: Arc<ServerAdminContext>,
    req: Ruma<is_user_suspended::v1::Request>,
) -> Result<is_user_suspended::v1::Response, ApiError> {
    let account = context.target(&req.caller, &req.user_id)?;
    Ok(is_user_suspended::v1::Response::new(account.suspended))
}

/// `PUT /_matrix/client/v1/admin/suspend/{userId}`
async fn suspend(
    context: Arc<ServerAdminContext>,
    req: Ruma<suspend_user::v1::Request>,
) -> Result<suspend_user::v1::Response, ApiError> {
    let suspended = req.suspended;
    context.set(&req.caller, &req.user_id, move |account| account.suspended = suspended).await?;
    Ok(suspend_user::v1::Response::new(suspended))
}

impl ServerAdminContext {
    /// The account that an administrator asks about. Who is no administrator is refused before
    /// anything is looked up, and learns nothing of who has an account.
    fn target(&self, caller: &Caller, user: &UserId) -> Result<User, ApiError> {
        caller.check_admin()?;
        if user.server_name() != self.server_name {
            return Err(ApiError::invalid_param("The user is not one of this server's"));
        }
        let account = self.users.account(user.as_str())?.filter(|account| !account.deactivated);
        let account = account.ok_or_else(unknown)?;
        match account.admin && caller.user_id != user {
            true => Err(ApiError::forbidden("The user is a server admin, too")),
            false => Ok(account),
        }
    }

    async fn set(
        &self,
        caller: &Caller,
        user: &UserId,
        change: impl FnOnce(&mut User) + Send + 'static,
    ) -> Result<(), ApiError> {
        self.target(caller, user)?;
        if caller.user_id == user {
            return Err(ApiError::forbidden("This is your own account"));
        }
        let changed = self.users.update_account(user.as_str(), change).await?;
        changed.map(drop).ok_or_else(unknown)
    }
}

fn unknown() -> ApiError {
    ApiError::not_found("There is no such user")
}
