//! Which event is nearest to a time (CS API, "Getting events for a room").

use parlour_storage::Direction;
use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedEventId, UInt,
    api::{
        self,
        client::room::get_event_by_timestamp::v1::{Request, Response},
    },
};

use super::reading::enter;
use crate::{
    error::ApiError,
    http::{Api, Caller, Routes, Ruma},
    view::View,
};

/// The endpoint of this file.
#[must_use]
pub fn routes(view: View) -> Routes {
    Routes::new(Api::Client, view).route(nearest).finish()
}

/// `GET /_matrix/client/v1/rooms/{roomId}/timestamp_to_event`
async fn nearest(view: View, call: Ruma<Request>) -> Result<Response, ApiError> {
    view.run(move |view| read(view, &call.request, &call.caller)).await
}

fn read(view: &View, request: &Request, caller: &Caller) -> Result<Response, ApiError> {
    let (mut reader, _) = enter(view, &request.room_id, caller)?;
    let direction = match request.dir {
        api::Direction::Forward => Direction::Forward,
        api::Direction::Backward => Direction::Backward,
    };
    let found = reader.nearest(request.ts.get().into(), direction)?;
    let (event, time) = found.ok_or_else(|| {
        ApiError::not_found("There is no event that you could see in this direction")
    })?;
    let event_id = OwnedEventId::try_from(event.meta.event_id).map_err(ApiError::internal)?;
    let time = UInt::try_from(time).map_err(ApiError::internal)?;
    Ok(Response::new(event_id, MilliSecondsSinceUnixEpoch(time)))
}
