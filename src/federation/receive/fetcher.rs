//! Events that build on others which are not known here: they wait aside, while those are asked
//! for. Neither their room nor anything else waits for that.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use parlour_actors::RoomError;
use ruma::ServerName;
use tokio::time::timeout;

use super::{
    ReceiveParts,
    missing::{Askers, Search},
    parked::{Parked, Parking, Place, Table},
    pdus::settle,
    policy::Judged,
    results::Reply,
};
use crate::view::RoomView;

/// How long it is tried to bring one event in.
const PATIENCE: Duration = Duration::from_secs(300);

/// How long an event waits for those of the same server that came before it. When it is given up,
/// the next event of the room will have the server asked for it again.
const LONGEST: Duration = Duration::from_secs(900);

/// Asks for what is missing.
#[derive(Debug, Clone)]
pub(super) struct Fetcher(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    parts: ReceiveParts,
    askers: Askers,
    table: Mutex<Table>,
}

impl Fetcher {
    pub(super) fn new(parts: ReceiveParts) -> Self {
        Self(Arc::new(Inner { parts, askers: Askers::default(), table: Mutex::default() }))
    }

    /// Puts an event aside and asks for what it builds on, the server first that has sent it.
    pub(super) fn park(&self, origin: &ServerName, room: &RoomView, judged: Judged, reply: Reply) {
        let Inner { parts, .. } = &*self.0;
        let place: Place = (room.room_id.clone(), origin.to_owned());
        let (bytes, since) = (judged.pdu.memory_bytes() as u64, parts.clock.monotonic());
        let event = judged.pdu.event_id().clone();
        let parking = match parts.memory.parked.take(bytes) {
            Some(memory) => {
                let parked = Parked { judged, memory, reply: reply.clone(), since };
                self.table().park(&place, parked)
            }
            None => Parking::Full,
        };
        match parking {
            Parking::First => {
                let (fetcher, room) = (self.clone(), room.clone());
                tokio::spawn(async move { fetcher.work(&place, &room).await });
            }
            Parking::Behind => {}
            Parking::Full => {
                parts.counters.pdu("crowded_out");
                reply.refuse(event, "Too many events wait for others that are missing");
            }
        }
    }

    /// Brings in what waits in a queue, one event after the other.
    async fn work(&self, place: &Place, room: &RoomView) {
        loop {
            let next = {
                let mut table = self.table();
                let next = table.next(place);
                let waiting = i64::try_from(table.events()).unwrap_or(i64::MAX);
                self.0.parts.counters.parked.set(waiting);
                next
            };
            let Some(parked) = next else { return };
            self.bring_in(place, room, parked).await;
        }
    }

    async fn bring_in(&self, (_, origin): &Place, room: &RoomView, parked: Parked) {
        let Inner { parts, askers, .. } = &*self.0;
        let Parked { judged, reply, since, .. } = parked;
        let pdu = &judged.pdu;
        let waited = parts.clock.monotonic().saturating_sub(since);
        let search = Search::new(parts, askers, room, origin, pdu);
        let result = match waited < LONGEST {
            true => timeout(PATIENCE, search.bring_in(&judged))
                .await
                .unwrap_or_else(|_| Err(RoomError::Missing(Vec::new()))),
            false => Err(RoomError::Missing(Vec::new())),
        };
        if let Err(error) = &result {
            let (event, room) = (pdu.event_id(), &room.room_id);
            tracing::info!(%event, %room, %origin, %error, "what an event builds on was not found");
        }
        settle(parts, pdu, result, &reply);
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
