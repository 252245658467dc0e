//! One event by its id (CS API, "Getting events for a room").

use ruma::api::client::room::get_room_event;

use super::{past::Past, reading::seen_event};
use crate::{
    error::ApiError,
    http::{Api, Caller, RouteOptions, Routes, Ruma},
    view::{EventFormat, View},
};

/// The endpoint of this file.
#[must_use]
pub fn routes(past: Past) -> Routes {
    Routes::new(Api::Client, past).route_with(RouteOptions::default().for_guests(), event).finish()
}

/// `GET /_matrix/client/v3/rooms/{roomId}/event/{eventId}`
async fn event(
    past: Past,
    call: Ruma<get_room_event::v3::Request>,
) -> Result<get_room_event::v3::Response, ApiError> {
    let Ruma { request, caller, .. } = call;
    let (room, event, asker) = (request.room_id.clone(), request.event_id.clone(), caller.clone());
    past.read_event(&room, &event, &asker, move |view| read(view, &request, &caller)).await
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
