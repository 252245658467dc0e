//! Messages for devices, past all rooms.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#send-to-device-messaging>

use std::sync::Arc;

use actix_web::http::StatusCode;
use bytes::Bytes;
use parlour_actors::users::{InboxError, Messages, Users};
use prometheus::IntCounter;
use ruma::{
    OwnedServerName, ServerName, UserId,
    api::{
        client::to_device::send_event_to_device::v3::{Messages as Addressed, Request, Response},
        error::ErrorCode,
    },
    to_device::DeviceIdOrAllDevices,
};
use serde::Serialize;
use serde_json::value::RawValue;

use super::txn;
use crate::{
    error::ApiError,
    http::{Api, RouteOptions, Routes, Ruma},
    limits::RateClass,
};

/// The largest request, in bytes.
const MAX_BODY: usize = 4 << 20;

/// The longest type, in bytes.
const MAX_TYPE: usize = 255;

/// What this endpoint needs to know.
#[derive(Debug)]
pub struct ToDeviceContext {
    /// Whose devices they are.
    pub users: Users,
    /// This server.
    pub server_name: OwnedServerName,
    /// How many users of other servers have missed messages, which do not go out yet.
    pub missed: IntCounter,
}

/// The endpoint of this file.
#[must_use]
pub fn routes(context: Arc<ToDeviceContext>) -> Routes {
    let options = RouteOptions::rate(RateClass::Other).max_body(MAX_BODY).for_guests();
    Routes::new(Api::Client, context).route_with(options, send).finish()
}

#[derive(Serialize)]
struct Event<'a> {
    content: &'a RawValue,
    sender: &'a UserId,
    #[serde(rename = "type")]
    event_type: &'a str,
}

/// `PUT /_matrix/client/v3/sendToDevice/{eventType}/{txnId}`
async fn send(context: Arc<ToDeviceContext>, req: Ruma<Request>) -> Result<Response, ApiError> {
    let (sender, event_type) = (&req.caller.user_id, req.event_type.to_string());
    if event_type.len() > MAX_TYPE {
        return Err(ApiError::invalid_param(format!("A type has at most {MAX_TYPE} bytes")));
    }
    let path = [event_type.as_str()];
    let transaction = txn::transaction(&req.caller, "sendToDevice", &path, req.txn_id.as_str())?;
    let all = messages_for(sender, &event_type, &req.messages, &context.server_name)?;
    let elsewhere = req.messages.len().saturating_sub(all.len());
    if elsewhere > 0 {
        context.missed.inc_by(elsewhere as u64);
        tracing::warn!(users = elsewhere, "messages for devices do not go to other servers yet");
        // Where some are of this server, those get theirs.
        if all.is_empty() {
            return Err(not_sent());
        }
    }
    context.users.send_to_devices(sender.as_str(), transaction.hash, all).await?;
    Ok(Response::new())
}

fn not_sent() -> ApiError {
    let message = "This server does not send messages for devices to other servers yet";
    ApiError::new(StatusCode::NOT_FOUND, ErrorCode::Unrecognized, message)
}

/// Messages of one sender, for the users of this server.
///
/// # Errors
///
/// `M_BAD_JSON`, for whomever they are.
pub(crate) fn messages_for(
    sender: &UserId,
    event_type: &str,
    messages: &Addressed,
    server_name: &ServerName,
) -> Result<Vec<Messages>, ApiError> {
    let event = |content: &RawValue| -> Result<Bytes, ApiError> {
        if !content.get().starts_with('{') {
            return Err(ApiError::bad_json("The content of a message is an object"));
        }
        let event = Event { content, sender, event_type };
        serde_json::to_vec(&event).map(Bytes::from).map_err(ApiError::internal)
    };
    let mut all = Vec::new();
    for (user, devices) in messages {
        let mut messages =
            Messages { user: user.to_string(), for_all: None, by_device: Vec::new() };
        for (device, content) in devices {
            let event = event(content.json())?;
            match device {
                DeviceIdOrAllDevices::AllDevices => messages.for_all = Some(event),
                DeviceIdOrAllDevices::DeviceId(id) => {
                    messages.by_device.push((id.to_string(), event));
                }
            }
        }
        if user.server_name() == server_name {
            all.push(messages);
        }
    }
    Ok(all)
}

impl From<InboxError> for ApiError {
    fn from(error: InboxError) -> Self {
        match error {
            InboxError::TooMany => Self::too_large(error.to_string()),
            InboxError::User(error) => error.into(),
        }
    }
}
