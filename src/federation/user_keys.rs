//! Devices of this server's users, and their keys.
//!
//! Specification: <https://spec.matrix.org/v1.19/server-server-api/#device-management>,
//! <https://spec.matrix.org/v1.19/server-server-api/#end-to-end-encryption>

use std::{collections::BTreeMap, sync::Arc};

use parlour_actors::users::Users;
use ruma::{
    OwnedServerName, UInt, UserId,
    api::federation::{
        device::get_devices::v1 as devices,
        keys::{claim_keys::v1 as claim, get_keys::v1 as query},
    },
};

use crate::{
    error::ApiError,
    http::{Api, Routes, Ruma},
    view::{
        View,
        keys::{UserKeys, by_device},
    },
};

/// For how many users one request may ask.
const MAX_USERS: usize = 10_000;

/// What these endpoints need to know.
#[derive(Debug)]
pub struct UserKeysContext {
    /// The users.
    pub users: Users,
    /// Where long reads run.
    pub view: View,
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
/// Devices without keys are none that others could send anything to. Who is not here, or not any
/// more, has none: that is an answer, so that other servers forget what they knew.
async fn get_devices(
    context: Arc<UserKeysContext>,
    req: Ruma<devices::Request>,
) -> Result<devices::Response, ApiError> {
    context.check_own(&req.user_id)?;
    if !context.exists(&req.user_id)? {
        return Ok(devices::Response::new(req.request.user_id, UInt::MIN));
    }
    // Before the devices: what changes meanwhile is told to have changed.
    let list = context.users.device_list(req.user_id.as_str())?;
    let (users, user) = (context.users.clone(), req.user_id.clone());
    let keys = context.view.run(move |_| UserKeys::read(&users, None, &user, &[])).await?;
    let stream_id = UInt::new_saturating(list.newest);
    let mut response = devices::Response::new(req.request.user_id, stream_id);
    for (id, keys) in keys.devices {
        let device = context.users.device(response.user_id.as_str(), id.as_str())?;
        let mut shown = devices::UserDevice::new(id, keys);
        shown.device_display_name = device.and_then(|device| device.display_name);
        response.devices.push(shown);
    }
    (response.master_key, response.self_signing_key) = (keys.master, keys.self_signing);
    Ok(response)
}

/// `POST /_matrix/federation/v1/user/keys/query`
async fn get_keys(
    context: Arc<UserKeysContext>,
    req: Ruma<query::Request>,
) -> Result<query::Response, ApiError> {
    let wanted = req.request.device_keys;
    let existing = context.existing(wanted.keys())?;
    let existing: Vec<_> = existing.into_iter().map(|user| user.to_owned()).collect();
    let users = context.users.clone();
    let read = move |_: &View| -> Result<_, ApiError> {
        let mut response = query::Response::new(BTreeMap::new());
        for user in existing {
            let devices = wanted.get(&user).map_or(&[][..], Vec::as_slice);
            let keys = UserKeys::read(&users, None, &user, devices)?;
            response.master_keys.extend(keys.master.map(|key| (user.clone(), key)));
            response.self_signing_keys.extend(keys.self_signing.map(|key| (user.clone(), key)));
            response.device_keys.insert(user, keys.devices);
        }
        Ok(response)
    };
    context.view.run(read).await
}

/// `POST /_matrix/federation/v1/user/keys/claim`
async fn claim_keys(
    context: Arc<UserKeysContext>,
    req: Ruma<claim::Request>,
) -> Result<claim::Response, ApiError> {
    let wanted = req.request.one_time_keys;
    context.existing(wanted.keys())?;
    let mut found = BTreeMap::new();
    for (user, devices) in wanted {
        let devices = devices.into_iter().map(|(device, kind)| (device.into(), kind.to_string()));
        let claimed = context.users.claim_keys(user.as_str(), devices.collect()).await?;
        let keys = by_device(claimed);
        if !keys.is_empty() {
            found.insert(user, keys);
        }
    }
    Ok(claim::Response::new(found))
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
