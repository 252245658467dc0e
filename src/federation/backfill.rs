//! What is before events.
//!
//! Specification:
//! <https://spec.matrix.org/v1.19/server-server-api/#backfilling-and-retrieving-missing-events>

use std::sync::Arc;

use ruma::{
    UInt,
    api::federation::{backfill::get_backfill, event::get_missing_events},
};

use super::events::HistoryContext;
use crate::{
    error::ApiError,
    http::{Api, Routes, Ruma},
    view::{Gap, Resident},
};

/// The most events in an answer to `/backfill`.
const MAX_BACKFILL: usize = 100;

/// The most events in an answer to `/get_missing_events`.
const MAX_MISSING: usize = 20;

/// How many events one request may begin at, or name as known.
const MAX_ENDS: usize = 100;

/// The endpoints of this file.
#[must_use]
pub fn routes(context: Arc<HistoryContext>) -> Routes {
    Routes::new(Api::Federation, context).route(backfill).route(missing).finish()
}

/// `GET /_matrix/federation/v1/backfill/{roomId}`
async fn backfill(
    context: Arc<HistoryContext>,
    req: Ruma<get_backfill::v1::Request>,
) -> Result<get_backfill::v1::Response, ApiError> {
    if req.v.is_empty() {
        return Err(ApiError::missing_param("`v` says from which events to go back"));
    }
    check_ends(req.v.len())?;
    let (from, limit) = (req.v.clone(), bounded(req.limit, MAX_BACKFILL));
    let read = move |room: &mut Resident| Ok(room.backwards(&from, limit)?);
    let pdus = context.read(&req.room_id, &req.caller, read).await?;
    Ok(get_backfill::v1::Response::new(context.server_name.clone(), context.now(), pdus))
}

/// `POST /_matrix/federation/v1/get_missing_events/{roomId}`
async fn missing(
    context: Arc<HistoryContext>,
    req: Ruma<get_missing_events::v1::Request>,
) -> Result<get_missing_events::v1::Response, ApiError> {
    let get_missing_events::v1::Request { room_id, earliest_events, latest_events, .. } =
        &req.request;
    check_ends(earliest_events.len().max(latest_events.len()))?;
    let (earliest, latest) = (earliest_events.clone(), latest_events.clone());
    let (min_depth, limit) = (req.min_depth.into(), bounded(req.limit, MAX_MISSING));
    let read = move |room: &mut Resident| {
        let gap = Gap { earliest: &earliest, latest: &latest, min_depth, limit };
        Ok(room.missing(&gap)?)
    };
    let events = context.read(room_id, &req.caller, read).await?;
    Ok(get_missing_events::v1::Response::new(events))
}

fn bounded(limit: UInt, most: usize) -> usize {
    usize::try_from(u64::from(limit)).unwrap_or(most).min(most)
}

fn check_ends(count: usize) -> Result<(), ApiError> {
    match count > MAX_ENDS {
        true => Err(ApiError::invalid_param(format!("At most {MAX_ENDS} events at once"))),
        false => Ok(()),
    }
}
