//! One event by its id (CS API, "Getting events for a room").

use ruma::api::client::room::get_room_event;

use crate::{
    error::ApiError,
    http::{Api, Caller, Routes, Ruma},
    view::{EventFormat, View},
};

/// The endpoint of this file.
#[must_use]
pub fn routes(view: View) -> Routes {
    Routes::new(Api::Client, view).route(event).finish()
}

/// `GET /_matrix/client/v3/rooms/{roomId}/event/{eventId}`
async fn event(
    view: View,
    call: Ruma<get_room_event::v3::Request>,
) -> Result<get_room_event::v3::Response, ApiError> {
    view.run(move |view| read(view, &call.request, &call.caller)).await
}

fn read(
    view: &View,
    request: &get_room_event::v3::Request,
    caller: &Caller,
) -> Result<get_room_event::v3::Response, ApiError> {
    // One answer for what is not there, what is elsewhere and what may not be seen.
    let missing = || ApiError::not_found("There is no such event that you could see");
    let reader = view.reader(&request.room_id, &caller.user_id, Some(&caller.device_id))?;
    let mut reader = reader.ok_or_else(missing)?;
    let num = view.store.event_num(request.event_id.as_str())?;
    let event = num.map(|num| view.store.event(num)).transpose()?;
    let event = event.flatten().ok_or_else(missing)?;
    let seen = reader.judge(&event)?;
    if !seen.visible {
        return Err(missing());
    }
    let event = reader.client_event(&event, seen, EventFormat::Full)?;
    Ok(get_room_event::v3::Response::new(event))
}
