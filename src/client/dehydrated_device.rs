//! Dehydrated devices: they get keys for their user while no other device is there.
//!
//! Specification: <https://github.com/matrix-org/matrix-spec-proposals/pull/3814>

use std::sync::Arc;

use parlour_actors::{
    changes::Changes,
    users::{NewDehydrated, Users},
};
use parlour_event::StreamPos;
use ruma::{
    OwnedDeviceId, UserId,
    api::client::dehydrated_device::{
        delete_dehydrated_device, get_dehydrated_device, get_events, put_dehydrated_device,
    },
    serde::Raw,
};

use super::{
    accounts::check_device_name,
    keys::{new_keys, text},
};
use crate::{
    error::ApiError,
    http::{Api, RouteOptions, Routes, Ruma},
    limits::RateClass,
};

/// The largest device, in bytes.
const MAX_BODY: usize = 1 << 20;

/// The longest id of a device, in bytes.
const MAX_ID: usize = 255;

/// How many messages a page has.
const PAGE: usize = 100;

/// What these endpoints need to know.
#[derive(Debug)]
pub struct DehydratedContext {
    /// Whose devices they are.
    pub users: Users,
    /// Until when messages can be read.
    pub changes: Arc<Changes>,
}

/// The endpoints of this file.
#[must_use]
pub fn routes(context: Arc<DehydratedContext>) -> Routes {
    let options = RouteOptions::rate(RateClass::Other).max_body(MAX_BODY);
    Routes::new(Api::Client, context)
        .route_with(options, put)
        .route(get)
        .route(delete)
        .route(events)
        .finish()
}

/// `PUT /_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device`
async fn put(
    context: Arc<DehydratedContext>,
    req: Ruma<put_dehydrated_device::unstable::Request>,
) -> Result<put_dehydrated_device::unstable::Response, ApiError> {
    let (user, id) = (&req.caller.user_id, &req.device_id);
    if id.as_str().is_empty() || id.as_str().len() > MAX_ID {
        return Err(ApiError::invalid_param(format!("A device's id has 1 to {MAX_ID} bytes")));
    }
    if let Some(name) = &req.initial_device_display_name {
        check_device_name(name)?;
    }
    req.device_data.deserialize()?;
    let keys = new_keys(user, id, Some(&req.device_keys), &req.one_time_keys, &req.fallback_keys)?;
    let new = NewDehydrated {
        device: id.to_string(),
        display_name: req.initial_device_display_name.clone(),
        data: text(&req.device_data),
        keys,
    };
    context.users.dehydrate(user.as_str(), new).await?;
    Ok(put_dehydrated_device::unstable::Response::new(id.clone()))
}

/// `GET /_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device`
async fn get(
    context: Arc<DehydratedContext>,
    req: Ruma<get_dehydrated_device::unstable::Request>,
) -> Result<get_dehydrated_device::unstable::Response, ApiError> {
    let found = context.users.dehydrated_device(req.caller.user_id.as_str())?;
    let (id, data) = found.ok_or_else(none)?;
    let data = serde_json::from_slice(&data).map_err(ApiError::internal)?;
    Ok(get_dehydrated_device::unstable::Response::new(id.into(), Raw::from_json(data)))
}

/// `DELETE /_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device`
async fn delete(
    context: Arc<DehydratedContext>,
    req: Ruma<delete_dehydrated_device::unstable::Request>,
) -> Result<delete_dehydrated_device::unstable::Response, ApiError> {
    let id = context.id(&req.caller.user_id)?;
    context.users.delete_devices(req.caller.user_id.as_str(), vec![id.to_string()]).await?;
    Ok(delete_dehydrated_device::unstable::Response::new(id))
}

/// `POST /_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device/{device_id}/events`
///
/// The messages stay until the device is deleted: whoever takes it over may have to begin again.
async fn events(
    context: Arc<DehydratedContext>,
    req: Ruma<get_events::unstable::Request>,
) -> Result<get_events::unstable::Response, ApiError> {
    let user = &req.caller.user_id;
    if context.id(user)? != req.device_id {
        return Err(ApiError::forbidden("This is not your dehydrated device"));
    }
    let after = match req.next_batch.as_deref() {
        None => 0,
        Some(text) => text.parse().map_err(|_| ApiError::invalid_param("Not a token of ours"))?,
    };
    let now = context.changes.current();
    let range = (StreamPos(after), now);
    let waiting = context.users.inbox(user.as_str(), req.device_id.as_str(), range, PAGE)?;
    let last = waiting.last().map_or(after, |last| last.pos.0);
    let event = |json: &[u8]| serde_json::from_slice(json).ok().map(Raw::from_json);
    let events = waiting.iter().filter_map(|message| event(&message.message)).collect();
    let mut response = get_events::unstable::Response::new(events);
    response.next_batch = Some(last.to_string());
    Ok(response)
}

impl DehydratedContext {
    fn id(&self, user: &UserId) -> Result<OwnedDeviceId, ApiError> {
        let found = self.users.dehydrated_device(user.as_str())?;
        found.map(|(id, _)| id.into()).ok_or_else(none)
    }
}

fn none() -> ApiError {
    ApiError::not_found("You have no dehydrated device")
}
