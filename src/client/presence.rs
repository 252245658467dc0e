//! Presence: who is online.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#presence>

use std::{sync::Arc, time::Duration};

use parlour_actors::presence::{Presence, State};
use ruma::{
    api::client::presence::{get_presence, set_presence},
    presence::PresenceState,
};

use crate::{
    error::ApiError,
    http::{Api, Routes, Ruma},
    view::{View, ViewError},
};

/// The longest status message, in bytes: it goes to everybody who shares a room with the user.
const MAX_STATUS: usize = 1_024;

/// What these endpoints need to know.
#[derive(Debug)]
pub struct PresenceContext {
    /// Who is online.
    pub presence: Presence,
    /// Who shares a room with whom.
    pub view: View,
}

/// The endpoints of this file.
#[must_use]
pub fn routes(context: Arc<PresenceContext>) -> Routes {
    Routes::new(Api::Client, context).route(get).route(set).finish()
}

/// `GET /_matrix/client/v3/presence/{userId}/status`
async fn get(
    context: Arc<PresenceContext>,
    req: Ruma<get_presence::v3::Request>,
) -> Result<get_presence::v3::Response, ApiError> {
    let (caller, user) = (req.caller.user_id.clone(), req.user_id.clone());
    let ask = move |view: &View| view.audience(&caller)?.shares_room(user.as_str());
    if !context.view.run::<_, ViewError, _>(ask).await? {
        let message = "You do not share a room with this user";
        return Err(ApiError::forbidden(message));
    }
    if !context.presence.is_on() {
        return Err(ApiError::not_found("This server tells nobody's presence"));
    }
    let status = context.presence.status(req.user_id.as_str())?;
    let ago = context.view.last_active_ago(&status).map(Duration::from_millis);
    let mut response = get_presence::v3::Response::new(match status.state {
        State::Online => PresenceState::Online,
        State::Unavailable => PresenceState::Unavailable,
        State::Offline => PresenceState::Offline,
    });
    response.last_active_ago = ago;
    response.currently_active = (status.state == State::Online).then_some(status.currently_active);
    response.status_msg = status.status_msg;
    Ok(response)
}

/// `PUT /_matrix/client/v3/presence/{userId}/status`
async fn set(
    context: Arc<PresenceContext>,
    req: Ruma<set_presence::v3::Request>,
) -> Result<set_presence::v3::Response, ApiError> {
    let caller = &req.caller;
    if caller.user_id != req.user_id {
        return Err(ApiError::forbidden("You cannot say for others whether they are there"));
    }
    let state = state(&req.presence)?;
    if req.status_msg.as_ref().is_some_and(|text| text.len() > MAX_STATUS) {
        let message = format!("A status message has at most {MAX_STATUS} bytes");
        return Err(ApiError::invalid_param(message));
    }
    if !context.presence.is_on() {
        return Err(ApiError::forbidden("This server tells nobody's presence"));
    }
    let status_msg = req.status_msg.clone().filter(|text| !text.is_empty());
    let (user, device) = (caller.user_id.as_str(), caller.device_id.as_str());
    context.presence.set(user, device, state, status_msg);
    Ok(set_presence::v3::Response::new())
}

/// What a client says it is.
///
/// # Errors
///
/// `M_INVALID_PARAM`
pub(super) fn state(presence: &PresenceState) -> Result<State, ApiError> {
    match presence {
        PresenceState::Online => Ok(State::Online),
        PresenceState::Unavailable => Ok(State::Unavailable),
        PresenceState::Offline => Ok(State::Offline),
        _ => Err(ApiError::invalid_param("presence is online, unavailable or offline")),
    }
}
