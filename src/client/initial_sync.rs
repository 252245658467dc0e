//! A room as a whole, for those who look into it without joining.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidinitialsync>

use std::sync::Arc;

use parlour_actors::{directory::Directory, users::Users};
use parlour_storage::Direction;
use ruma::{
    api::client::{
        filter::RoomEventFilter,
        peeking::get_current_state::v3::{PaginationChunk, Request, Response},
    },
    events::AnyRoomAccountDataEvent,
    serde::Raw,
};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::{
    directory::visibility_of,
    reading::{enter_state, state_events},
};
use crate::{
    error::ApiError,
    http::{Api, Caller, Routes, Ruma},
    view::{EventFilter, PageRequest, Reader, SyncToken, View},
};

/// How many of the newest events the answer has.
const LIMIT: usize = 20;

/// What this endpoint needs to know.
#[derive(Debug)]
pub struct InitialSyncContext {
    /// Rooms.
    pub view: View,
    /// Which rooms are published.
    pub directory: Directory,
    /// Account data.
    pub users: Users,
}

/// The endpoints of this file.
#[must_use]
pub fn routes(context: Arc<InitialSyncContext>) -> Routes {
    Routes::new(Api::Client, context).route(room).finish()
}

/// `GET /_matrix/client/v3/rooms/{roomId}/initialSync`
async fn room(context: Arc<InitialSyncContext>, req: Ruma<Request>) -> Result<Response, ApiError> {
    let InitialSyncContext { directory, users, .. } = &*context;
    let (directory, users) = (directory.clone(), users.clone());
    context.view.run(move |view| read(view, &directory, &users, &req.request, &req.caller)).await
}

fn read(
    view: &View,
    directory: &Directory,
    users: &Users,
    request: &Request,
    caller: &Caller,
) -> Result<Response, ApiError> {
    let (mut reader, access) = enter_state(view, &request.room_id, caller)?;
    let room = reader.room().clone();
    let mut response = Response::new(request.room_id.clone());
    let newest = view.graph_point(room.num, SyncToken::at(room.head.pos).into())?;
    let end = access.until().map_or(newest, |until| until.min(newest));
    let filter = RoomEventFilter::default();
    let page = reader.page(&PageRequest {
        from: end,
        to: None,
        direction: Direction::Backward,
        limit: LIMIT,
        filter: EventFilter::new(&filter),
        ignored: &view.ignored_by(&caller.user_id)?,
    })?;
    let events = page.events.into_iter().rev().map(|event| event.json);
    let mut messages = PaginationChunk::new(events.collect(), end.to_string());
    messages.start = page.more.then(|| page.next.to_string());
    response.messages = Some(messages);
    response.state =
        state_events(view, &mut reader, &view.state_nums(access.state)?, |_| Ok(true))?;
    let membership = view.membership_of(&room, &caller.user_id)?;
    response.membership = membership.map(|membership| membership.as_str().into());
    response.visibility = Some(visibility_of(directory, &room)?);
    response.account_data = account_data(users, &reader)?;
    Ok(response)
}

#[derive(Serialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    event_type: &'a str,
    content: &'a RawValue,
}

fn account_data(
    users: &Users,
    reader: &Reader,
) -> Result<Vec<Raw<AnyRoomAccountDataEvent>>, ApiError> {
    let now = reader.view().store.applied();
    let data = users.account_data_of_room(reader.user(), reader.room().num, now)?;
    let event = |(event_type, content): &(String, bytes::Bytes)| {
        let content = serde_json::from_slice(content).map_err(ApiError::internal)?;
        let event = to_raw_value(&Event { event_type, content }).map_err(ApiError::internal)?;
        Ok(Raw::from_json(event))
    };
    data.iter().map(event).collect()
}
