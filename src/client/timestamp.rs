//! Which event is nearest to a time (CS API, "Getting events for a room").

use parlour_storage::Direction;
use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedEventId, UInt,
    api::{
        self,
        client::room::get_event_by_timestamp::v1::{Request, Response},
    },
};

use super::{past::Past, reading::enter};
use crate::{
    error::ApiError,
    http::{Api, Caller, Routes, Ruma},
    view::{RoomView, Standing, View},
};

/// The endpoint of this file.
#[must_use]
pub fn routes(past: Past) -> Routes {
    Routes::new(Api::Client, past).route(nearest).finish()
}

/// What was found here.
struct Found {
    /// The event and its time.
    nearest: Option<(OwnedEventId, u64)>,
    /// The room, if other servers may know of an event that is nearer.
    room: Option<RoomView>,
}

/// `GET /_matrix/client/v1/rooms/{roomId}/timestamp_to_event`
async fn nearest(past: Past, call: Ruma<Request>) -> Result<Response, ApiError> {
    let Ruma { request, caller, .. } = call;
    let direction = match request.dir {
        api::Direction::Forward => Direction::Forward,
        api::Direction::Backward => Direction::Backward,
    };
    let at = u64::from(request.ts.get());
    let read = || {
        let (request, caller) = (request.clone(), caller.clone());
        past.view.run(move |view| read(view, &request, &caller, at, direction))
    };
    let mut found = read().await?;
    if let (Some(history), Some(room)) = (&past.history, &found.room)
        && let Some((event, time)) = history.nearest(room, at, direction).await
        && found.nearest.as_ref().is_none_or(|(_, here)| time.abs_diff(at) < here.abs_diff(at))
        && history.fetch(room, &event).await
    {
        found = read().await?;
    }
    let (event, time) = found.nearest.ok_or_else(|| {
        ApiError::not_found("There is no event that you could see in this direction")
    })?;
    let time = UInt::try_from(time).map_err(ApiError::internal)?;
    Ok(Response::new(event, MilliSecondsSinceUnixEpoch(time)))
}

fn read(
    view: &View,
    request: &Request,
    caller: &Caller,
    at: u64,
    direction: Direction,
) -> Result<Found, ApiError> {
    let (mut reader, access) = enter(view, &request.room_id, caller)?;
    let nearest = match reader.nearest(at, direction)? {
        Some((event, time)) => {
            let id = OwnedEventId::try_from(event.meta.event_id).map_err(ApiError::internal)?;
            Some((id, time))
        }
        None => None,
    };
    let is_in = access.standing == Standing::Joined;
    let has_gaps = is_in && !view.gaps(reader.room().num)?.is_empty();
    Ok(Found { nearest, room: has_gaps.then(|| reader.room().clone()) })
}
