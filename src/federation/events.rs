//! Single events.
//!
//! Specification: <https://spec.matrix.org/v1.19/server-server-api/#retrieving-events>

use std::sync::Arc;

use parlour_actors::env::Clock;
use parlour_storage::Direction;
use ruma::{
    EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedServerName, RoomId, ServerName, UInt,
    api::{
        self,
        federation::event::{get_event, get_event_by_timestamp},
    },
};
use serde_json::value::RawValue;

use super::acl::RoomGuard;
use crate::{
    error::ApiError,
    http::{Api, Routes, Ruma},
    view::{Resident, View},
};

/// What the endpoints that read rooms' histories need to know.
#[derive(Debug)]
pub struct HistoryContext {
    /// The rooms.
    pub view: View,
    /// Who is kept out of them.
    pub guard: RoomGuard,
    /// Who answers.
    pub server_name: OwnedServerName,
    /// When.
    pub clock: Arc<dyn Clock>,
}

impl HistoryContext {
    /// Reads a room for a server, where it may take its time.
    ///
    /// # Errors
    ///
    /// 403 `M_FORBIDDEN` for servers that are not in the room; what the reading says.
    pub async fn read<T, W>(
        &self,
        room_id: &RoomId,
        server: &ServerName,
        work: W,
    ) -> Result<T, ApiError>
    where
        T: Send + 'static,
        W: FnOnce(&mut Resident) -> Result<T, ApiError> + Send + 'static,
    {
        let (guard, room_id, server) = (self.guard.clone(), room_id.to_owned(), server.to_owned());
        let read = move |view: &View| {
            let room = guard.enter(&room_id, &server)?;
            work(&mut view.resident(room, &server)?)
        };
        self.view.run::<T, ApiError, _>(read).await
    }

    /// The time, for answers that look like transactions.
    #[must_use]
    pub fn now(&self) -> MilliSecondsSinceUnixEpoch {
        MilliSecondsSinceUnixEpoch(UInt::new_saturating(self.clock.now_ms()))
    }
}

/// The endpoints of this file.
#[must_use]
pub fn routes(context: Arc<HistoryContext>) -> Routes {
    Routes::new(Api::Federation, context).route(event).route(nearest).finish()
}

/// `GET /_matrix/federation/v1/event/{eventId}`
async fn event(
    context: Arc<HistoryContext>,
    req: Ruma<get_event::v1::Request>,
) -> Result<get_event::v1::Response, ApiError> {
    let (guard, event_id, server) =
        (context.guard.clone(), req.event_id.clone(), req.caller.clone());
    let read = move |view: &View| find(view, &guard, &event_id, &server);
    let pdu = context.view.run(read).await?;
    Ok(get_event::v1::Response::new(context.server_name.clone(), context.now(), pdu))
}

fn find(
    view: &View,
    guard: &RoomGuard,
    event_id: &EventId,
    server: &ServerName,
) -> Result<Box<RawValue>, ApiError> {
    let unknown = || ApiError::not_found(format!("Could not find event {event_id}"));
    let num = view.store.event_num(event_id.as_str())?.ok_or_else(unknown)?;
    let event = view.store.event(num)?.ok_or_else(unknown)?;
    let room = view.room_by_num(event.meta.room)?.ok_or_else(unknown)?;
    let room = guard.enter(&room.room_id, server)?;
    let mut resident = view.resident(room, server)?;
    if !resident.may_have(&event.meta) {
        return Err(unknown());
    }
    Ok(resident.pdu(&event)?)
}

/// `GET /_matrix/federation/v1/timestamp_to_event/{roomId}`
async fn nearest(
    context: Arc<HistoryContext>,
    req: Ruma<get_event_by_timestamp::v1::Request>,
) -> Result<get_event_by_timestamp::v1::Response, ApiError> {
    let at = u64::from(req.ts.get());
    let direction = match req.dir {
        api::Direction::Forward => Direction::Forward,
        api::Direction::Backward => Direction::Backward,
    };
    let read = move |room: &mut Resident| Ok(room.nearest(at, direction)?);
    let found = context.read(&req.room_id, &req.caller, read).await?;
    let (event, time) =
        found.ok_or_else(|| ApiError::not_found("There is no event in this direction"))?;
    let event_id = OwnedEventId::try_from(event.meta.event_id).map_err(ApiError::internal)?;
    let time = MilliSecondsSinceUnixEpoch(UInt::new_saturating(time));
    Ok(get_event_by_timestamp::v1::Response::new(event_id, time))
}
