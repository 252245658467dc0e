//! A user's devices: which there are, what they are called, and their end.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#device-management>

use std::sync::Arc;

use parlour_storage::schema::Device;
use ruma::{
    OwnedUserId,
    api::client::device::{delete_device, delete_devices, get_device, get_devices, update_device},
};
use serde::Serialize;

use super::{
    accounts::{Accounts, check_device_name},
    uiaa::{Guarded, Uiaa},
};
use crate::{
    error::ApiError,
    http::{Answering, Api, Json, RouteOptions, Routes, Ruma},
    limits::RateClass,
};

/// What these endpoints need to know.
#[derive(Debug)]
pub struct DeviceContext {
    /// Whose devices they are.
    pub accounts: Arc<Accounts>,
    /// Who is half-way through.
    pub uiaa: Arc<Uiaa>,
}

/// The endpoints of this file.
#[must_use]
pub fn routes(context: Arc<DeviceContext>) -> Routes {
    // With a password in hand: it must not be guessed here.
    let guarded = RouteOptions::rate(RateClass::Login);
    Routes::new(Api::Client, context)
        .route_with(RouteOptions::default().for_guests(), list)
        .route_with(RouteOptions::default().for_guests(), get)
        .route_with(RouteOptions::default().for_guests(), rename)
        .route_with(guarded, delete_one)
        .route_with(guarded, delete_several)
        .finish()
}

/// A device as its user sees it. ruma's type says `null` where there is nothing to say.
#[derive(Debug, Serialize)]
struct Shown {
    device_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    display_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_seen_ip: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_seen_ts: Option<u64>,
}

#[derive(Debug, Serialize)]
struct List {
    devices: Vec<Shown>,
}

impl Shown {
    fn new(device_id: String, device: Device) -> Self {
        // A device that was never heard of: an application service has made it.
        let seen = Some(device.last_seen).filter(|seen| seen.ts > 0);
        let (last_seen_ts, last_seen_ip) = seen.map(|seen| (seen.ts, seen.ip)).unzip();
        Self { device_id, display_name: device.display_name, last_seen_ip, last_seen_ts }
    }
}

/// `GET /_matrix/client/v3/devices`
async fn list(
    context: Arc<DeviceContext>,
    req: Ruma<Answering<get_devices::v3::Request, List>>,
) -> Result<Json<List>, ApiError> {
    let devices = context.accounts.users.devices(req.caller.user_id.as_str())?;
    let devices = devices.into_iter().map(|(id, device)| Shown::new(id, device)).collect();
    Ok(Json(List { devices }))
}

/// `GET /_matrix/client/v3/devices/{deviceId}`
async fn get(
    context: Arc<DeviceContext>,
    req: Ruma<Answering<get_device::v3::Request, Shown>>,
) -> Result<Json<Shown>, ApiError> {
    let (user, id) = (req.caller.user_id.as_str(), req.device_id.as_str());
    let device = context.accounts.users.device_now(user, id)?.ok_or_else(unknown)?;
    Ok(Json(Shown::new(id.to_owned(), device)))
}

/// `PUT /_matrix/client/v3/devices/{deviceId}`
async fn rename(
    context: Arc<DeviceContext>,
    req: Ruma<update_device::v3::Request>,
) -> Result<update_device::v3::Response, ApiError> {
    let (users, user) = (&context.accounts.users, req.caller.user_id.as_str());
    let id = req.device_id.as_str();
    let is_there = match &req.display_name {
        Some(name) => {
            check_device_name(name)?;
            users.name_device(user, id, name.clone()).await?
        }
        None => users.device(user, id)?.is_some(),
    };
    is_there.then(update_device::v3::Response::new).ok_or_else(unknown)
}

fn unknown() -> ApiError {
    ApiError::not_found("You have no such device")
}

/// `DELETE /_matrix/client/v3/devices/{deviceId}`
async fn delete_one(
    context: Arc<DeviceContext>,
    req: Ruma<Guarded<delete_device::v3::Request>>,
) -> Result<delete_device::v3::Response, ApiError> {
    let devices = vec![req.device_id.to_string()];
    context.delete(&req.caller.user_id, &req.request, devices).await?;
    Ok(delete_device::v3::Response::new())
}

/// `POST /_matrix/client/v3/delete_devices`
async fn delete_several(
    context: Arc<DeviceContext>,
    req: Ruma<Guarded<delete_devices::v3::Request>>,
) -> Result<delete_devices::v3::Response, ApiError> {
    let devices = req.devices.iter().map(ToString::to_string).collect();
    context.delete(&req.caller.user_id, &req.request, devices).await?;
    Ok(delete_devices::v3::Response::new())
}

impl DeviceContext {
    async fn delete<R>(
        &self,
        user: &OwnedUserId,
        request: &Guarded<R>,
        devices: Vec<String>,
    ) -> Result<(), ApiError> {
        let passed = self.uiaa.check_password(request, Some(user)).await?;
        self.accounts.users.delete_devices(user.as_str(), devices).await?;
        self.uiaa.finish(passed);
        Ok(())
    }
}
