//! One event by its id (CS API, "Getting events for a room").

use ruma::api::client::room::get_room_event;

use super::reading::seen_event;
use crate::{
    error::ApiError,
    http::{Api, Caller, RouteOptions, Routes, Ruma},
    view::{EventFormat, View},
};

/// The endpoint of this file.
#[must_use]
pub fn routes(view: View) -> Routes {
    Routes::new(Api::Client, view).route_with(RouteOptions::default().for_guests(), event).finish()
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
    let (mut reader, event, seen) = seen_event(view, &request.room_id, &request.event_id, caller)?;
    reader.note_parents([&event])?;
    let event = reader.client_event(&event, seen, EventFormat::Full)?;
    Ok(get_room_event::v3::Response::new(event))
}
