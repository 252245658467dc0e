//! Where users are logged in: their devices, and logins in their name.

use std::sync::Arc;

use actix_web::http::Method;
use parlour_actors::users::{NewDevice, TokenKind};
use parlour_storage::schema::Device;
use ruma::UserId;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    request::{AdminRequest, AdminRoutes, Answer, refused},
    users::{UserContext, check_not_self},
};
use crate::{
    client::{accounts::check_device_name, server_admin::Whois},
    error::ApiError,
    http::Routes,
};

/// How a device is called that an administrator has made: its user can see it.
const DEVICE_NAME: &str = "Server administration";

/// How many devices can be deleted at once: no user has more.
const MAX_DEVICES: usize = parlour_actors::users::MAX_DEVICES;

/// The endpoints of this file.
#[must_use]
pub fn routes(context: Arc<UserContext>) -> Routes {
    let (get, put, post) = (Method::GET, Method::PUT, Method::POST);
    let (all, one) = (
        "/_synapse/admin/v2/users/{user_id}/devices",
        "/_synapse/admin/v2/users/{user_id}/devices/{device_id}",
    );
    AdminRoutes::new(context)
        .on(get.clone(), all, list)
        .on(get.clone(), one, show)
        .on(put, one, rename)
        .on(Method::DELETE, one, delete_one)
        .on(post.clone(), "/_synapse/admin/v2/users/{user_id}/delete_devices", delete_several)
        .on(post, "/_synapse/admin/v1/users/{user_id}/login", log_in_as)
        .on(get, "/_synapse/admin/v1/whois/{user_id}", whois)
        .finish()
}

/// `GET /_synapse/admin/v2/users/{userId}/devices`
async fn list(context: Arc<UserContext>, request: AdminRequest) -> Answer {
    let (user, _) = context.target(&request)?;
    let devices = context.accounts.users.devices(user.as_str())?;
    let devices: Vec<_> =
        devices.into_iter().map(|(id, device)| shown(&user, &id, device)).collect();
    Ok(json!({ "devices": devices, "total": devices.len() }))
}

/// `GET /_synapse/admin/v2/users/{userId}/devices/{deviceId}`
async fn show(context: Arc<UserContext>, request: AdminRequest) -> Answer {
    let (user, _) = context.target(&request)?;
    let device = context.accounts.users.device_now(user.as_str(), request.arg(1))?;
    device.map(|device| shown(&user, request.arg(1), device)).ok_or_else(unknown)
}

#[derive(Deserialize)]
struct Rename {
    display_name: Option<String>,
}

/// `PUT /_synapse/admin/v2/users/{userId}/devices/{deviceId}`
async fn rename(context: Arc<UserContext>, request: AdminRequest) -> Answer {
    let user = context.person(&request)?;
    let (users, device) = (&context.accounts.users, request.arg(1));
    let Rename { display_name } = request.json()?;
    let is_there = match display_name {
        Some(name) => {
            check_device_name(&name)?;
            users.name_device(user.as_str(), device, name).await?
        }
        None => users.device(user.as_str(), device)?.is_some(),
    };
    is_there.then(|| json!({})).ok_or_else(unknown)
}

/// `DELETE /_synapse/admin/v2/users/{userId}/devices/{deviceId}`
async fn delete_one(context: Arc<UserContext>, request: AdminRequest) -> Answer {
    let user = context.person(&request)?;
    let device = request.arg(1).to_owned();
    context.accounts.users.delete_devices(user.as_str(), vec![device]).await?;
    Ok(json!({}))
}

#[derive(Deserialize)]
struct DeleteSeveral {
    devices: Vec<String>,
}

/// `POST /_synapse/admin/v2/users/{userId}/delete_devices`
async fn delete_several(context: Arc<UserContext>, request: AdminRequest) -> Answer {
    let user = context.person(&request)?;
    let DeleteSeveral { devices } = request.json()?;
    if devices.len() > MAX_DEVICES {
        return Err(refused(format!("These are more than {MAX_DEVICES} devices")));
    }
    context.accounts.users.delete_devices(user.as_str(), devices).await?;
    Ok(json!({}))
}

#[derive(Default, Deserialize)]
struct LogInAs {
    valid_until_ms: Option<u64>,
}

/// `POST /_synapse/admin/v1/users/{userId}/login`
///
/// A token belongs to a device here, which the user can see and end like any other.
async fn log_in_as(context: Arc<UserContext>, request: AdminRequest) -> Answer {
    let user = context.person(&request)?;
    check_not_self(&request, &user, true, "Cannot use admin API to login as self")?;
    if context.account(&user)?.deactivated {
        return Err(refused("This account is deactivated"));
    }
    let LogInAs { valid_until_ms } = match request.body() {
        [] => LogInAs::default(),
        _ => request.json()?,
    };
    let now = context.accounts.env.clock.now_ms();
    let expires_in_ms = valid_until_ms.map(|until| until.saturating_sub(now));
    if expires_in_ms == Some(0) {
        return Err(ApiError::invalid_param("valid_until_ms is in the past"));
    }
    let meta = request.meta();
    let device = NewDevice {
        device_id: None,
        display_name: Some(DEVICE_NAME.to_owned()),
        ip: meta.peer.ip,
        user_agent: meta.user_agent.clone(),
        kind: TokenKind { refreshable: false, expires_in_ms },
    };
    let session = context.accounts.users.login(user.as_str(), device).await?;
    tracing::info!(%user, by = %request.caller.user_id, "an administrator logs in as a user");
    Ok(json!({ "access_token": session.access_token }))
}

/// `GET /_synapse/admin/v1/whois/{userId}`
async fn whois(context: Arc<UserContext>, request: AdminRequest) -> Answer {
    let (user, _) = context.target(&request)?;
    let whois = Whois::of(&context.accounts.users, user)?;
    serde_json::to_value(whois).map_err(ApiError::internal)
}

fn unknown() -> ApiError {
    ApiError::not_found("The user has no such device")
}

/// A device as it stands in lists.
fn shown(user: &UserId, id: &str, device: Device) -> Value {
    let seen = Some(device.last_seen).filter(|seen| seen.ts > 0);
    json!({
        "device_id": id,
        "display_name": device.display_name,
        "last_seen_ip": seen.as_ref().map(|seen| &seen.ip),
        "last_seen_user_agent": seen.as_ref().and_then(|seen| seen.user_agent.as_ref()),
        "last_seen_ts": seen.as_ref().map(|seen| seen.ts),
        "user_id": user,
    })
}
