//! What the endpoints that read rooms have in common.

use std::collections::BTreeMap;

use parlour_event::EventNum;
use parlour_storage::schema::StoredEvent;
use ruma::{EventId, RoomId, events::AnyStateEvent, serde::Raw};

use crate::{
    error::ApiError,
    http::{Caller, RequestMeta},
    view::{Access, EventFormat, Fields, Reader, RelationFilter, Seen, Shown, View, ViewError},
};

/// How many events are read from storage at once.
const BATCH: usize = 1_000;

/// A caller's eyes on a room, for a caller who may read the room.
///
/// # Errors
///
/// 403, also for rooms that don't exist: strangers are not told which do.
pub(super) fn enter(
    view: &View,
    room_id: &RoomId,
    caller: &Caller,
) -> Result<(Reader, Access), ApiError> {
    let reader = view.reader(room_id, &caller.user_id, Some(&caller.device_id))?;
    let mut reader = reader.ok_or_else(forbidden)?;
    let access = reader.access()?.ok_or_else(forbidden)?;
    Ok((reader, access))
}

/// The same for a caller who may read the room's state.
///
/// # Errors
///
/// As [`enter`].
pub(super) fn enter_state(
    view: &View,
    room_id: &RoomId,
    caller: &Caller,
) -> Result<(Reader, Access), ApiError> {
    let (reader, access) = enter(view, room_id, caller)?;
    if access.to_state() { Ok((reader, access)) } else { Err(forbidden()) }
}

/// An event of a room that the caller may see.
///
/// # Errors
///
/// 404: one answer for what is not there, what is elsewhere and what may not be seen.
pub(super) fn seen_event(
    view: &View,
    room_id: &RoomId,
    event_id: &EventId,
    caller: &Caller,
) -> Result<(Reader, StoredEvent, Seen), ApiError> {
    let missing = || ApiError::not_found("There is no such event that you could see");
    let reader = view.reader(room_id, &caller.user_id, Some(&caller.device_id))?;
    let mut reader = reader.ok_or_else(missing)?;
    let num = view.store.event_num(event_id.as_str())?;
    let event = num.map(|num| view.store.event(num)).transpose()?;
    let event = event.flatten().ok_or_else(missing)?;
    let seen = reader.judge(&event)?;
    if seen.visible { Ok((reader, event, seen)) } else { Err(missing()) }
}

/// 403 for those who are strangers to a room.
pub(super) fn forbidden() -> ApiError {
    ApiError::forbidden("You are not and never were a member of this room")
}

/// Renders state events, those that `wanted` picks, in batches.
///
/// # Errors
///
/// If storage cannot be read.
pub(super) fn state_events<T>(
    view: &View,
    reader: &mut Reader,
    nums: &[EventNum],
    wanted: impl Fn(&StoredEvent) -> Result<bool, ViewError>,
) -> Result<Vec<Raw<T>>, ViewError> {
    let mut rendered = Vec::new();
    for nums in nums.chunks(BATCH) {
        for event in view.store.events(nums)?.into_iter().flatten() {
            if wanted(&event)? {
                rendered.push(reader.state_event(&event, EventFormat::Full)?);
            }
        }
    }
    Ok(rendered)
}

/// The member events that tell who sent some events: each sender's, as it was at the sender's
/// first event. Those that are among the events themselves are left out.
///
/// # Errors
///
/// If storage cannot be read.
pub(super) fn senders_of<'a>(
    view: &View,
    reader: &mut Reader,
    events: impl Iterator<Item = &'a Shown> + Clone,
) -> Result<Vec<Raw<AnyStateEvent>>, ViewError> {
    let mut first = BTreeMap::new();
    for event in events.clone() {
        first.entry(event.sender.as_str()).or_insert(event.meta.state_before);
    }
    let mut nums = Vec::new();
    for (sender, state) in first {
        nums.extend(view.member_num(state, sender)?);
    }
    nums.retain(|num| !events.clone().any(|event| event.num == *num));
    state_events(view, reader, &nums, |_| Ok(true))
}

/// Whether an event passes a filter.
///
/// # Errors
///
/// If the stored event is not one.
pub(super) fn wants(
    filter: crate::view::EventFilter<'_>,
    event: &StoredEvent,
) -> Result<bool, ViewError> {
    Ok(filter.is_open() || filter.wants(&Fields::of(event)?))
}

/// What a request's `filter` says of relations.
///
/// # Errors
///
/// `M_INVALID_PARAM`
pub(super) fn relation_filter(meta: &RequestMeta) -> Result<RelationFilter, ApiError> {
    let Some(filter) = meta.query.get("filter") else { return Ok(RelationFilter::default()) };
    serde_json::from_str(&filter).map_err(|error| ApiError::invalid_param(error.to_string()))
}

/// A limit that came from a client, as a number of events.
pub(super) fn limit(asked: ruma::UInt, filter: Option<ruma::UInt>, most: usize) -> usize {
    let least = filter.map_or(asked, |filter| filter.min(asked));
    usize::try_from(u64::from(least)).unwrap_or(usize::MAX).min(most)
}
