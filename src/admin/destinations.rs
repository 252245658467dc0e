//! Other servers that something is sent to.

use std::sync::Arc;

use actix_web::http::Method;
use parlour_actors::federation_queue::FederationQueues;
use parlour_event::{RoomNum, StreamPos};
use parlour_storage::{
    StorageError, Store,
    schema::{DestinationEntry, outbox::RoomStay},
};
use ruma::{OwnedServerName, ServerName, api::Direction};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    page::{Page, Pager, Window, forwards},
    request::{AdminRequest, AdminRoutes, Answer, refused},
};
use crate::{error::ApiError, http::Routes};

const LIST: &str = "/_synapse/admin/v1/federation/destinations";
const ONE: &str = "/_synapse/admin/v1/federation/destinations/{destination}";
const ROOMS: &str = "/_synapse/admin/v1/federation/destinations/{destination}/rooms";
const RESET: &str = "/_synapse/admin/v1/federation/destinations/{destination}/reset_connection";

/// How many rooms are read at once.
const BATCH: usize = 1_000;

/// What these endpoints need to know.
#[derive(Debug)]
pub struct DestinationContext {
    /// What waits for other servers.
    pub queues: FederationQueues,
    /// Rooms.
    pub store: Store,
}

/// The endpoints of this file.
#[must_use]
pub fn routes(context: Arc<DestinationContext>) -> Routes {
    AdminRoutes::new(context)
        .on(Method::GET, LIST, list)
        .on(Method::GET, ONE, one)
        .on(Method::GET, ROOMS, rooms)
        .on(Method::POST, RESET, reset)
        .finish()
}

/// By what destinations are sorted.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Order {
    #[default]
    Destination,
    RetryLastTs,
    RetryInterval,
    FailureTs,
    LastSuccessfulStreamOrdering,
}

#[derive(Deserialize)]
struct Filter {
    #[serde(default)]
    from: usize,
    limit: Option<usize>,
    #[serde(default = "forwards")]
    dir: Direction,
    #[serde(default)]
    order_by: Order,
    #[serde(default)]
    destination: String,
}

type Named = (String, DestinationEntry);

impl Order {
    fn number(self, (_, entry): &Named) -> u64 {
        match self {
            Self::Destination => 0,
            Self::RetryLastTs => entry.last_attempt,
            Self::RetryInterval => entry.retry_at.saturating_sub(entry.last_attempt),
            Self::FailureTs => entry.failing_since,
            Self::LastSuccessfulStreamOrdering => entry.acknowledged.0,
        }
    }
}

/// `GET /_synapse/admin/v1/federation/destinations`
async fn list(context: Arc<DestinationContext>, request: AdminRequest) -> Answer {
    let Filter { from, limit, dir, order_by, destination } = request.query()?;
    let destination = destination.to_ascii_lowercase();
    let compare = |a: &Named, b: &Named| {
        let order = order_by.number(a).cmp(&order_by.number(b)).then_with(|| a.0.cmp(&b.0));
        if dir == Direction::Forward { order } else { order.reverse() }
    };
    let mut pager = Pager::new(Window::new(from, limit), compare);
    context.queues.each_destination(|server, entry| {
        if server.to_ascii_lowercase().contains(&destination) {
            pager.push((server, entry));
        }
    })?;
    let Page { items, total, next } = pager.finish();
    let shown: Vec<_> = items.iter().map(|(server, entry)| shown(server, entry)).collect();
    Ok(with_next(json!({ "destinations": shown, "total": total }), next))
}

/// `GET /_synapse/admin/v1/federation/destinations/{destination}`
async fn one(context: Arc<DestinationContext>, request: AdminRequest) -> Answer {
    let (server, entry) = context.known(&request)?;
    Ok(shown(server.as_str(), &entry))
}

#[derive(Deserialize)]
struct RoomFilter {
    #[serde(default)]
    from: usize,
    limit: Option<usize>,
    #[serde(default = "forwards")]
    dir: Direction,
}

/// `GET /_synapse/admin/v1/federation/destinations/{destination}/rooms`
async fn rooms(context: Arc<DestinationContext>, request: AdminRequest) -> Answer {
    let RoomFilter { from, limit, dir } = request.query()?;
    let (server, _) = context.known(&request)?;
    let compare = |(a, _): &(String, u64), (b, _): &(String, u64)| {
        if dir == Direction::Forward { a.cmp(b) } else { b.cmp(a) }
    };
    let mut pager = Pager::new(Window::new(from, limit), compare);
    context.each_room(&server, |room, newest| pager.push((room, newest.0)))?;
    let Page { items, total, next } = pager.finish();
    let shown =
        items.iter().map(|(room, newest)| json!({ "room_id": room, "stream_ordering": newest }));
    Ok(with_next(json!({ "rooms": shown.collect::<Vec<_>>(), "total": total }), next))
}

/// `POST /_synapse/admin/v1/federation/destinations/{destination}/reset_connection`
async fn reset(context: Arc<DestinationContext>, request: AdminRequest) -> Answer {
    let (server, _) = context.known(&request)?;
    match context.queues.reset(&server) {
        true => Ok(json!({})),
        false => Err(refused("The retry timing does not need to be reset for this destination")),
    }
}

impl DestinationContext {
    /// The server that the path names, if something was ever sent to it.
    fn known(
        &self,
        request: &AdminRequest,
    ) -> Result<(OwnedServerName, DestinationEntry), ApiError> {
        let unknown = || ApiError::not_found("Unknown destination");
        let server = ServerName::parse(request.arg(0)).map_err(|_| unknown())?;
        let entry = self.queues.destination(&server)?.ok_or_else(unknown)?;
        Ok((server, entry))
    }

    /// Shows the rooms whose events a server gets, with the newest of them.
    fn each_room(
        &self,
        server: &ServerName,
        mut see: impl FnMut(String, StreamPos),
    ) -> Result<(), StorageError> {
        let mut last: RoomStay = (RoomNum(0), None);
        loop {
            let page = self.store.rooms_of_server(server.as_str(), last, BATCH)?;
            let Some(newest) = page.last() else { return Ok(()) };
            last = *newest;
            for (room, _) in page.into_iter().filter(|(_, until)| until.is_none()) {
                if let Some(head) = self.store.room_head(room)? {
                    see(head.room_id, self.store.newest_outgoing(room)?);
                }
            }
        }
    }
}

fn shown(server: &str, entry: &DestinationEntry) -> Value {
    let is_failing = entry.failures > 0;
    json!({
        "destination": server,
        "retry_last_ts": if is_failing { entry.last_attempt } else { 0 },
        "retry_interval": entry.retry_at.saturating_sub(entry.last_attempt),
        "failure_ts": is_failing.then_some(entry.failing_since),
        "last_successful_stream_ordering":
            Some(entry.acknowledged.0).filter(|acknowledged| *acknowledged > 0),
    })
}

fn with_next(mut answer: Value, next: Option<usize>) -> Value {
    if let Some(next) = next {
        answer["next_token"] = next.to_string().into();
    }
    answer
}
