//! The events of a transaction: into their rooms, or aside.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream};
use parlour_actors::{RoomError, Verdict, budget::Part, per_key::PerKey};
use parlour_event::{
    Pdu, RoomVersion,
    content::{MemberContent, Membership},
};
use ruma::{OwnedEventId, OwnedRoomId, OwnedServerName, RoomId, ServerName};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::{sync::Mutex as AsyncMutex, time::sleep};

use super::{
    ReceiveParts,
    fetcher::Fetcher,
    policy::{self, Judged},
    results::{Listener, Reply},
};
use crate::{
    federation::checks,
    view::{RoomView, ViewError},
};

/// How many events of one transaction wait for one room at the same time. Others have requests of
/// their own there.
const AT_ONCE: usize = 16;

/// How often and after what time a room is asked again that too many others ask.
const ATTEMPTS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(250);

/// What is told of events when something is wrong here and not with them.
const INTERNAL: &str = "Something went wrong inside the server";

/// Takes in the events of transactions.
#[derive(Debug)]
pub(super) struct PduReceiver {
    parts: ReceiveParts,
    fetcher: Fetcher,
    /// Held while events that one server has sent for one room are taken in: they stay in order.
    lanes: PerKey<(OwnedRoomId, OwnedServerName), AsyncMutex<()>>,
}

/// The events of a transaction that are for one room.
struct Group {
    room: OwnedRoomId,
    events: Vec<Box<RawValue>>,
}

impl PduReceiver {
    pub(super) fn new(parts: ReceiveParts) -> Self {
        let fetcher = Fetcher::new(parts.clone());
        Self { parts, fetcher, lanes: PerKey::default() }
    }

    /// Begins to take in the events of a transaction: those of one room in order, all rooms at the
    /// same time. Their memory is held until all of them are in or put aside.
    pub(super) fn begin(
        self: &Arc<Self>,
        origin: &ServerName,
        events: Vec<Box<RawValue>>,
        memory: Vec<Part>,
    ) -> Listener {
        let (reply, listener) = Reply::new();
        let memory = Arc::new(memory);
        for group in self.by_room(events, &reply) {
            let (receiver, origin) = (self.clone(), origin.to_owned());
            let (reply, memory) = (reply.clone(), memory.clone());
            tokio::spawn(async move {
                receiver.receive(&origin, group, &reply).await;
                drop(memory);
            });
        }
        listener
    }

    /// Sorts events by room; those that name none are refused.
    fn by_room(&self, events: Vec<Box<RawValue>>, reply: &Reply) -> Vec<Group> {
        #[derive(Deserialize)]
        struct Place {
            room_id: OwnedRoomId,
        }
        let mut places = HashMap::<OwnedRoomId, usize>::new();
        let mut groups = Vec::<Group>::new();
        for event in events {
            let Ok(Place { room_id: room }) = serde_json::from_str(event.get()) else {
                self.refuse_unseen(&event, "The event names no room", "malformed", reply);
                continue;
            };
            let place = *places.entry(room.clone()).or_insert_with(|| {
                groups.push(Group { room, events: Vec::new() });
                groups.len() - 1
            });
            groups[place].events.push(event);
        }
        groups
    }

    async fn receive(&self, origin: &ServerName, group: Group, reply: &Reply) {
        let lane = self.lanes.get(&(group.room.clone(), origin.to_owned()), AsyncMutex::default);
        let _turn = lane.lock().await;
        let room = match self.admit(origin, &group.room) {
            Ok(Ok(room)) => room,
            Ok(Err(why)) => return self.not_inside(&group, why, reply).await,
            Err(error) => {
                tracing::error!(%error, room = %group.room, "events cannot be taken in");
                return self.refuse_all(&group.events, INTERNAL, "failed", reply);
            }
        };
        let checked = match self.parts.checker.check(room.version, group.events).await {
            Ok(checked) => checked,
            Err(error) => {
                tracing::error!(%error, "keys cannot be read");
                return self.parts.counters.pdu("failed");
            }
        };
        let mut good = Vec::with_capacity(checked.len());
        for checked in checked {
            match checked {
                Ok(pdu) => good.push(pdu),
                Err(error) => {
                    self.parts.counters.pdu("dropped");
                    tracing::debug!(%origin, room = %room.room_id, %error, "an event was dropped");
                    let why = error.to_string();
                    error.event_id.into_iter().for_each(|event| reply.refuse(event, why.clone()));
                }
            }
        }
        good.iter().for_each(|pdu| reply.accept(pdu.event_id()));
        let judged = stream::iter(good).map(|pdu| judge(&self.parts, &room, pdu)).buffered(AT_ONCE);
        let taken = judged.map(|judged| self.take(origin, &room, judged, reply));
        taken.buffered(AT_ONCE).for_each(|()| std::future::ready(())).await;
    }

    /// The room, if this server is in it and it is open to the other; else why not.
    fn admit(
        &self,
        origin: &ServerName,
        room: &RoomId,
    ) -> Result<Result<RoomView, &'static str>, ViewError> {
        let ReceiveParts { view, server_name, guard, .. } = &self.parts;
        let Some(room) = view.room(room)? else {
            return Ok(Err("The room is not known here"));
        };
        if view.store.joined_from(room.num, server_name.as_str())? == 0 {
            return Ok(Err("Nobody here is in the room"));
        }
        match guard.admits(&room, origin)? {
            true => Ok(Ok(room)),
            false => Ok(Err("M_FORBIDDEN: Your server is banned from the room")),
        }
    }

    /// Refuses the events of a room that is not open, but for those with which an invite to it ends.
    async fn not_inside(&self, group: &Group, why: &'static str, reply: &Reply) {
        for event in &group.events {
            match self.parts.outside.take(&group.room, event).await {
                Ok(Some(id)) => {
                    self.parts.counters.pdu("outside");
                    reply.accept(&id);
                }
                Ok(None) => self.refuse_unseen(event, why, "no_room", reply),
                Err(error) => {
                    tracing::error!(%error, room = %group.room, "an event cannot be taken in");
                    self.refuse_unseen(event, INTERNAL, "failed", reply);
                }
            }
        }
    }

    /// Brings one event to its room.
    async fn take(&self, origin: &ServerName, room: &RoomView, judged: Judged, reply: &Reply) {
        let pdu = &judged.pdu;
        if *pdu.room_id() != room.room_id {
            self.parts.counters.pdu("dropped");
            return reply.refuse(pdu.event_id().clone(), "The event is of another room");
        }
        let received = receive(&self.parts, &room.room_id, &judged).await;
        if matches!(received, Err(RoomError::Missing(_) | RoomError::Busy)) {
            return self.fetcher.park(origin, room, judged, reply.clone());
        }
        settle(&self.parts, pdu, received, reply);
    }

    fn refuse_all(
        &self,
        events: &[Box<RawValue>],
        why: &'static str,
        outcome: &'static str,
        reply: &Reply,
    ) {
        events.iter().for_each(|event| self.refuse_unseen(event, why, outcome, reply));
    }

    /// Refuses an event whose room version is not known. Its id depends on that: what it has in
    /// most rooms is told.
    fn refuse_unseen(
        &self,
        event: &RawValue,
        why: &'static str,
        outcome: &'static str,
        reply: &Reply,
    ) {
        self.parts.counters.pdu(outcome);
        let version =
            |id: &str| RoomVersion::parse(id).and_then(|version| checks::id_of(version, event));
        let id: Option<OwnedEventId> = version("1").or_else(|| version("11"));
        id.into_iter().for_each(|id| reply.refuse(id, why));
    }
}

/// Asks a room's policy server about an event, if the room has one.
pub(super) async fn judge(parts: &ReceiveParts, room: &RoomView, pdu: Arc<Pdu>) -> Judged {
    match policy::server_of(&parts.view, room) {
        Ok(None) => Judged { pdu, is_wanted: true },
        Ok(Some(server)) => policy::judge(&server, &parts.client, room.version, pdu).await,
        Err(error) => {
            tracing::error!(%error, room = %room.room_id, "the room's policy server is not known");
            Judged { pdu, is_wanted: false }
        }
    }
}

/// Hands an event to its room, and waits a while if many others do the same.
pub(super) async fn receive(
    parts: &ReceiveParts,
    room: &RoomId,
    Judged { pdu, is_wanted }: &Judged,
) -> Result<Verdict, RoomError> {
    for _ in 0..ATTEMPTS {
        let decided = match is_wanted {
            true => parts.rooms.receive(room, pdu.clone()).await,
            false => parts.rooms.receive_unwanted(room, pdu.clone()).await,
        };
        match decided {
            Err(RoomError::Busy) => sleep(PAUSE).await,
            decided => return decided,
        }
    }
    Err(RoomError::Busy)
}

/// Counts and tells what has become of an event.
pub(super) fn settle(
    parts: &ReceiveParts,
    pdu: &Pdu,
    result: Result<Verdict, RoomError>,
    reply: &Reply,
) {
    let outcome = match &result {
        Ok(Verdict::Accepted) => "accepted",
        Ok(Verdict::Known) => "known",
        // Whoever evades a ban need not know how it went.
        Ok(Verdict::SoftFailed) => "soft_failed",
        Ok(Verdict::Rejected) => "rejected",
        Err(_) => "failed",
    };
    parts.counters.pdu(outcome);
    if matches!(result, Ok(Verdict::Accepted)) {
        stop_typing(parts, pdu);
    }
    let event = pdu.event_id().clone();
    match result {
        Ok(Verdict::Rejected) => reply.refuse(event, "The room's rules do not allow the event"),
        Ok(_) => {}
        Err(error) => {
            tracing::debug!(%event, room = %pdu.room_id(), %error, "an event was not taken in");
            reply.refuse(event, explain(&error));
        }
    }
}

/// Who leaves, or is made to, types no more, also where that server does not say so.
fn stop_typing(parts: &ReceiveParts, pdu: &Pdu) {
    if pdu.event_type() == "m.room.member"
        && MemberContent::new(pdu.content()).membership() != Some(Membership::Join)
        && let Some(user) = pdu.state_key()
        // Of an index that cannot be read others tell loudly enough.
        && let Ok(Some(room)) = parts.view.room(pdu.room_id())
    {
        parts.typing.set(room.num, user, None);
    }
}

/// What another server is told of an error: nothing about the inside of this one.
fn explain(error: &RoomError) -> String {
    match error {
        RoomError::Persist(_) | RoomError::Storage(_) | RoomError::Panicked | RoomError::Gone => {
            INTERNAL.to_owned()
        }
        error => error.to_string(),
    }
}
