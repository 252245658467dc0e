//! Reading a room's state (CS API, "Getting events for a room").

use ruma::{
    api::client::state::{
        get_state_event_for_key::{self, v3::StateEventFormat},
        get_state_events,
    },
    events::AnyStateEvent,
    serde::Raw,
};

use super::reading::{enter_state, state_events};
use crate::{
    error::ApiError,
    http::{Api, Caller, RouteOptions, Routes, Ruma},
    view::{EventFormat, Fields, View},
};

/// The endpoints of this file.
#[must_use]
pub fn routes(view: View) -> Routes {
    Routes::new(Api::Client, view)
        .route_with(RouteOptions::default().for_guests(), all)
        .route_with(RouteOptions::default().for_guests(), one)
        .finish()
}

/// `GET /_matrix/client/v3/rooms/{roomId}/state`
async fn all(
    view: View,
    call: Ruma<get_state_events::v3::Request>,
) -> Result<get_state_events::v3::Response, ApiError> {
    view.run(move |view| {
        let (mut reader, access) = enter_state(view, &call.room_id, &call.caller)?;
        let nums = view.state_nums(access.state)?;
        let events = state_events(view, &mut reader, &nums, |_| Ok(true))?;
        Ok::<_, ApiError>(get_state_events::v3::Response::new(events))
    })
    .await
}

/// `GET /_matrix/client/v3/rooms/{roomId}/state/{eventType}/{stateKey}`
async fn one(
    view: View,
    call: Ruma<get_state_event_for_key::v3::Request>,
) -> Result<get_state_event_for_key::v3::Response, ApiError> {
    view.run(move |view| read_one(view, &call.request, &call.caller)).await
}

fn read_one(
    view: &View,
    request: &get_state_event_for_key::v3::Request,
    caller: &Caller,
) -> Result<get_state_event_for_key::v3::Response, ApiError> {
    let (mut reader, access) = enter_state(view, &request.room_id, caller)?;
    let kind = request.event_type.to_string();
    let event = view.state_event(access.state, &kind, &request.state_key)?;
    let event =
        event.ok_or_else(|| ApiError::not_found("The room has no state of this type and key"))?;
    let body = match &request.format {
        StateEventFormat::Content => {
            reader.state_content(&event, &Fields::of(&event)?)?.into_owned()
        }
        StateEventFormat::Event => {
            let event: Raw<AnyStateEvent> = reader.state_event(&event, EventFormat::Full)?;
            event.into_json()
        }
        _ => return Err(ApiError::invalid_param("The format must be `content` or `event`")),
    };
    Ok(get_state_event_for_key::v3::Response::new(body))
}
