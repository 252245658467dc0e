//! Devices of this server's users, and their keys.
//!
//! No device has published keys yet, so what is told is that there are none.
//!
//! Specification: <https://spec.matrix.org/v1.19/server-server-api/#device-management>,
//! <https://spec.matrix.org/v1.19/server-server-api/#end-to-end-encryption>

use std::{collections::BTreeMap, sync::Arc};

use parlour_actors::users::Users;
use ruma::{
    OwnedServerName, UserId,
    api::federation::{
        device::get_devices::v1 as devices,
        keys::{claim_keys::v1 as claim, get_keys::v1 as query},
    },
    uint,
};

use crate::{
    error::ApiError,
    http::{Api, Routes, Ruma},
};

/// For how many users one request may ask.
const MAX_USERS: usize = 10_000;

/// What these endpoints need to know.
#[derive(Debug)]
pub struct UserKeysContext {
    /// The users.
    pub users: Users,
    /// Whose they are.
    pub server_name: OwnedServerName,
}

/// The endpoints of this file.
#[must_use]
pub fn routes(context: Arc<UserKeysContext>) -> Routes {
    Routes::new(Api::Federation, context)
        .route(get_devices)
        .route(get_keys)
        .route(claim_keys)
        .finish()
}

/// `GET /_matrix/federation/v1/user/devices/{userId}`
///
/// Devices without keys are none that others could send anything to.
async fn get_devices(
    context: Arc<UserKeysContext>,
    req: Ruma<devices::Request>,
) -> Result<devices::Response, ApiError> {
    context.check_own(&req.user_id)?;
    if !context.exists(&req.user_id)? {
        return Err(ApiError::not_found("There is no such user"));
    }
    Ok(devices::Response::new(req.request.user_id, uint!(0)))
}

/// `POST /_matrix/federation/v1/user/keys/query`
async fn get_keys(
    context: Arc<UserKeysContext>,
    req: Ruma<query::Request>,
) -> Result<query::Response, ApiError> {
    let users = req.request.device_keys.into_keys();
    let users = context.existing(users)?;
    Ok(query::Response::new(users.into_iter().map(|user| (user, BTreeMap::new())).collect()))
}

/// `POST /_matrix/federation/v1/user/keys/claim`
async fn claim_keys(
    context: Arc<UserKeysContext>,
    req: Ruma<claim::Request>,
) -> Result<claim::Response, ApiError> {
    context.existing(req.request.one_time_keys.into_keys())?;
    Ok(claim::Response::new(BTreeMap::new()))
}

impl UserKeysContext {
    /// Those of some users who are there; all of them must be of this server.
    fn existing<U>(&self, users: impl ExactSizeIterator<Item = U>) -> Result<Vec<U>, ApiError>
    where
        U: AsRef<UserId>,
    {
        if users.len() > MAX_USERS {
            return Err(ApiError::invalid_param(format!("At most {MAX_USERS} users at once")));
        }
        let mut existing = Vec::new();
        for user in users {
            self.check_own(user.as_ref())?;
            if self.exists(user.as_ref())? {
                existing.push(user);
            }
        }
        Ok(existing)
    }

    fn check_own(&self, user: &UserId) -> Result<(), ApiError> {
        match user.server_name() == self.server_name {
            true => Ok(()),
            false => Err(ApiError::invalid_param("This server answers for its own users alone")),
        }
    }

    fn exists(&self, user: &UserId) -> Result<bool, ApiError> {
        Ok(self.users.account(user.as_str())?.is_some_and(|account| !account.deactivated))
    }
}
