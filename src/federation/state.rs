//! The state of rooms, and what allows it.
//!
//! Specification: <https://spec.matrix.org/v1.19/server-server-api/#retrieving-events>,
//! <https://spec.matrix.org/v1.19/server-server-api/#retrieving-event-authorisation-information>

use std::sync::Arc;

use parlour_event::EventNum;
use parlour_storage::schema::StoredEvent;
use ruma::{
    EventId,
    api::federation::{
        authorization::get_event_authorization,
        event::{get_room_state, get_room_state_ids},
    },
};

use super::{
    events::HistoryContext,
    pdu_stream::{self, Part},
};
use crate::{
    error::ApiError,
    http::{Answer, Api, Routes, Ruma},
    view::Resident,
};

/// The endpoints of this file.
#[must_use]
pub fn routes(context: Arc<HistoryContext>) -> Routes {
    Routes::new(Api::Federation, context).route(state).route(state_ids).route(auth_chain).finish()
}

/// `GET /_matrix/federation/v1/state/{roomId}`
async fn state(
    context: Arc<HistoryContext>,
    req: Ruma<get_room_state::v1::Request>,
) -> Result<Answer<get_room_state::v1::Response>, ApiError> {
    let event_id = req.event_id.clone();
    let read = move |room: &mut Resident| state_before(room, &event_id);
    let (state, auth_chain) = context.read(&req.room_id, &req.caller, read).await?;
    let parts = vec![
        Part::from(r#"{"auth_chain":["#),
        Part::Events(auth_chain),
        Part::from(r#"],"pdus":["#),
        Part::Events(state),
        Part::from("]}"),
    ];
    Ok(Answer::Whole(pdu_stream::answer(context.view.clone(), parts)))
}

/// `GET /_matrix/federation/v1/state_ids/{roomId}`
async fn state_ids(
    context: Arc<HistoryContext>,
    req: Ruma<get_room_state_ids::v1::Request>,
) -> Result<Answer<get_room_state_ids::v1::Response>, ApiError> {
    let event_id = req.event_id.clone();
    let read = move |room: &mut Resident| state_before(room, &event_id);
    let (state, auth_chain) = context.read(&req.room_id, &req.caller, read).await?;
    let parts = vec![
        Part::from(r#"{"auth_chain_ids":["#),
        Part::Ids(auth_chain),
        Part::from(r#"],"pdu_ids":["#),
        Part::Ids(state),
        Part::from("]}"),
    ];
    Ok(Answer::Whole(pdu_stream::answer(context.view.clone(), parts)))
}

/// `GET /_matrix/federation/v1/event_auth/{roomId}/{eventId}`
async fn auth_chain(
    context: Arc<HistoryContext>,
    req: Ruma<get_event_authorization::v1::Request>,
) -> Result<Answer<get_event_authorization::v1::Response>, ApiError> {
    let event_id = req.event_id.clone();
    let read = move |room: &mut Resident| {
        let event = find(room, &event_id)?;
        Ok(room.view().auth_chain(room.room(), &[event.num])?)
    };
    let chain = context.read(&req.room_id, &req.caller, read).await?;
    let parts = vec![Part::from(r#"{"auth_chain":["#), Part::Events(chain), Part::from("]}")];
    Ok(Answer::Whole(pdu_stream::answer(context.view.clone(), parts)))
}

/// The state before an event, and what allows it.
fn state_before(
    room: &mut Resident,
    event_id: &EventId,
) -> Result<(Vec<EventNum>, Vec<EventNum>), ApiError> {
    let event = find(room, event_id)?;
    if event.meta.flags.outlier {
        return Err(ApiError::not_found("The state at this event is not known here"));
    }
    let state = room.view().state_nums(event.meta.state_before)?;
    let auth_chain = room.view().auth_chain(room.room(), &state)?;
    Ok((state, auth_chain))
}

fn find(room: &Resident, event_id: &EventId) -> Result<StoredEvent, ApiError> {
    let unknown = || ApiError::not_found(format!("Could not find event {event_id}"));
    let store = &room.view().store;
    let num = store.event_num(event_id.as_str())?.ok_or_else(unknown)?;
    let event = store.event(num)?.ok_or_else(unknown)?;
    if room.may_have(&event.meta) { Ok(event) } else { Err(unknown()) }
}
