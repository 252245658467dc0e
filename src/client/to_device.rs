//! Messages for devices, past all rooms.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#send-to-device-messaging>

use std::sync::Arc;

use bytes::Bytes;
use parlour_actors::{
    env::Env,
    metrics::Metrics,
    users::{InboxError, Messages, OutgoingEdu, Users},
};
use ruma::{
    OwnedServerName, ServerName, UserId,
    api::client::to_device::send_event_to_device::v3::{Messages as Addressed, Request, Response},
    to_device::DeviceIdOrAllDevices,
};
use serde::Serialize;
use serde_json::value::RawValue;

use super::txn;
use crate::{
    error::ApiError,
    federation::outbound::{
        client::FederationClient,
        to_device::{Packer, TooLong},
    },
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
    /// Which other servers are spoken to.
    pub remote: FederationClient,
    /// Randomness.
    pub env: Env,
    /// Counts what was dropped, by why: messages for servers that are not spoken to (`denied`), and
    /// EDUs where too many wait for a server (`full`).
    pub metrics: Arc<dyn Metrics>,
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
    let edus = context.for_others(&req)?;
    let dropped =
        context.users.post_to_devices(sender.as_str(), transaction.hash, all, edus).await?;
    context.count_dropped("full", dropped);
    Ok(Response::new())
}

impl ToDeviceContext {
    /// The EDUs for users of other servers. Those for servers that this one does not speak to are
    /// counted and not refused: clients put the devices of many servers into one request.
    fn for_others(&self, req: &Ruma<Request>) -> Result<Vec<OutgoingEdu>, ApiError> {
        let mut packer = Packer::new(&req.caller.user_id, req.event_type.clone(), &self.env);
        let mut denied = 0;
        for (user, devices) in &req.messages {
            match user.server_name() {
                server if server == self.server_name => {}
                server if !self.remote.may_ask(server) => denied += devices.len(),
                _ => devices
                    .iter()
                    .try_for_each(|(device, content)| packer.add(user, device, content))?,
            }
        }
        self.count_dropped("denied", denied);
        packer.finish().map_err(ApiError::internal)
    }

    fn count_dropped(&self, reason: &'static str, count: usize) {
        if count > 0 {
            self.metrics.posted_dropped(reason, count);
            tracing::warn!(count, reason, "messages for devices on other servers are dropped");
        }
    }
}

impl From<TooLong> for ApiError {
    fn from(error: TooLong) -> Self {
        Self::too_large(error.to_string())
    }
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
