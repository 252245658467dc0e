//! What other servers tell of rooms that this one is not in: their summaries and, of spaces, what is
//! in them.
//!
//! Specification: <https://spec.matrix.org/v1.19/server-server-api/#spaces>

use std::{
    mem,
    num::NonZeroUsize,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use lru::LruCache;
use parlour_actors::{env::Clock, per_key::PerKey};
use ruma::{
    OwnedRoomId, OwnedServerName, RoomId,
    api::federation::space::{
        SpaceHierarchyParentSummary,
        get_hierarchy::v1::{Request, Response},
    },
    room::RoomSummary,
};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{client::FederationClient, transport::Limits};
use crate::view::understood;

/// For the children of one space.
const LIMITS: Limits = Limits { time: Duration::from_secs(8), body: 4 << 20 };

/// How many servers are asked for one room.
const MAX_SERVERS: usize = 3;

/// How long an answer is good, and how long it is believed that nobody has one.
const LIFETIMES: [Duration; 2] = [Duration::from_secs(300), Duration::from_secs(30)];

/// How many answers are remembered: the largest of them together are some hundred megabytes, the
/// usual ones some.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(128).expect("it is not 0");

/// An answer as it comes. One child that is none says nothing of the others.
#[derive(Deserialize)]
struct Answer {
    room: SpaceHierarchyParentSummary,
    children: Vec<Box<RawValue>>,
    inaccessible_children: Vec<OwnedRoomId>,
}

impl From<Answer> for Response {
    fn from(answer: Answer) -> Self {
        let mut response = Self::new(answer.room);
        let children = answer.children.iter();
        response.children =
            children.filter_map(|child| serde_json::from_str(child.get()).ok()).collect();
        response.inaccessible_children = answer.inaccessible_children;
        response.children.iter_mut().for_each(understand);
        understand(&mut response.room.summary);
        response
    }
}

/// Rules that nobody here knows are none that clients could be told.
fn understand(room: &mut RoomSummary) {
    room.join_rule = understood(mem::take(&mut room.join_rule));
}

/// What is known of a room since when, if anything.
type Told = (Duration, Option<Arc<Response>>);

/// Asks about rooms elsewhere. What it is told holds for this server, not for each of its users.
/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct RemoteRooms(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    client: FederationClient,
    clock: Arc<dyn Clock>,
    told: Mutex<LruCache<OwnedRoomId, Told>>,
    /// Rooms that somebody is asking about.
    asking: PerKey<OwnedRoomId, tokio::sync::Mutex<()>>,
}

impl RemoteRooms {
    /// Asks with this client.
    #[must_use]
    pub fn new(client: FederationClient, clock: Arc<dyn Clock>) -> Self {
        let told = Mutex::new(LruCache::new(REMEMBERED));
        Self(Arc::new(Inner { client, clock, told, asking: PerKey::default() }))
    }

    /// What the first of some servers tells that knows the room; `None` if none of them does.
    pub async fn describe(&self, room: &RoomId, via: &[OwnedServerName]) -> Option<Arc<Response>> {
        let mut via: Vec<_> = via.iter().filter(|name| self.0.client.may_ask(name)).collect();
        via.truncate(MAX_SERVERS);
        if via.is_empty() {
            return None;
        }
        let turn = self.0.asking.get(room, || tokio::sync::Mutex::new(()));
        let _turn = turn.lock().await;
        if let Some(known) = self.known(room) {
            return known;
        }
        let mut found = None;
        for server in via {
            let request = Request::new(room.to_owned());
            let answer = self.0.client.ask_json::<_, Answer>(server, request, LIMITS).await;
            found = answer.ok().filter(|answer| answer.room.summary.room_id == *room);
            if found.is_some() {
                break;
            }
        }
        let found = found.map(|answer| Arc::new(Response::from(answer)));
        let now = self.0.clock.monotonic();
        let mut told = self.0.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.put(room.to_owned(), (now, found.clone()));
        found
    }

    fn known(&self, room: &RoomId) -> Option<Option<Arc<Response>>> {
        let now = self.0.clock.monotonic();
        let mut told = self.0.told.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, answer) = told.get(room)?;
        let lifetime = LIFETIMES[usize::from(answer.is_none())];
        (now.saturating_sub(*since) < lifetime).then(|| answer.clone())
    }
}
