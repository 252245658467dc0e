//! Server administration: locking and suspending accounts, and who was when where.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#server-administration>

use std::{collections::BTreeMap, sync::Arc};

use parlour_actors::users::Users;
use parlour_storage::{StorageError, schema::User};
use ruma::{
    OwnedServerName, OwnedUserId, UserId,
    api::client::admin::{
        get_user_info, is_user_locked, is_user_suspended, lock_user, suspend_user,
    },
};
use serde::Serialize;

use crate::{
    error::ApiError,
    http::{Answering, Api, Caller, Json, Routes, Ruma},
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
        .route(whois)
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

/// Who was when where. ruma's type says `null` where there is nothing to say.
#[derive(Debug, Serialize)]
pub(crate) struct Whois {
    user_id: OwnedUserId,
    devices: BTreeMap<String, Logins>,
}

/// What was heard of a device. There is one login on each, and of that the last connection is
/// known.
#[derive(Debug, Serialize)]
struct Logins {
    sessions: [Connections; 1],
}

#[derive(Debug, Serialize)]
struct Connections {
    connections: Vec<Connection>,
}

#[derive(Debug, Serialize)]
struct Connection {
    ip: String,
    last_seen: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<String>,
}

impl Whois {
    /// What is known at this moment.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub(crate) fn of(users: &Users, user_id: OwnedUserId) -> Result<Self, StorageError> {
        let devices = users.devices(user_id.as_str())?.into_iter().map(|(id, device)| {
            // A device that was never heard of: an application service has made it.
            let seen = Some(device.last_seen).filter(|seen| seen.ts > 0);
            let connection = seen.map(|seen| Connection {
                ip: seen.ip,
                last_seen: seen.ts,
                user_agent: seen.user_agent,
            });
            (
                id,
                Logins {
                    sessions: [Connections { connections: connection.into_iter().collect() }],
                },
            )
        });
        let devices = devices.collect();
        Ok(Self { user_id, devices })
    }
}

/// `GET /_matrix/client/v3/admin/whois/{userId}`
///
/// For administrators, and for users about themselves.
async fn whois(
    context: Arc<ServerAdminContext>,
    req: Ruma<Answering<get_user_info::v3::Request, Whois>>,
) -> Result<Json<Whois>, ApiError> {
    let user = &req.user_id;
    if req.caller.user_id != *user {
        req.caller.check_admin()?;
    }
    context.account(user)?;
    Ok(Json(Whois::of(&context.users, user.clone())?))
}

impl ServerAdminContext {
    /// The account that an administrator asks about. Who is no administrator is refused before
    /// anything is looked up, and learns nothing of who has an account.
    fn target(&self, caller: &Caller, user: &UserId) -> Result<User, ApiError> {
        caller.check_admin()?;
        let account = Some(self.account(user)?).filter(|account| !account.deactivated);
        let account = account.ok_or_else(unknown)?;
        match account.admin && caller.user_id != user {
            true => Err(ApiError::forbidden("The user is a server admin, too")),
            false => Ok(account),
        }
    }

    /// An account of this server.
    fn account(&self, user: &UserId) -> Result<User, ApiError> {
        if user.server_name() != self.server_name {
            return Err(ApiError::invalid_param("The user is not one of this server's"));
        }
        self.users.account(user.as_str())?.ok_or_else(unknown)
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
