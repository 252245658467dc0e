//! History behind what is here, asked for when somebody wants to see it.
//!
//! Who pages back waits some seconds for it, then gets what there is; the search goes on for the
//! next time. All who page back in one room wait for the same search.

use std::{
    collections::HashSet,
    fmt,
    num::NonZeroUsize,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use lru::LruCache;
use parlour_actors::{Backfilled, RoomError, Verdict, per_key::PerKey, threads::Thread};
use parlour_event::Pdu;
use parlour_storage::Direction;
use ruma::{EventId, OwnedEventId, OwnedRoomId};
use tokio::{
    sync::{Mutex as AsyncMutex, Semaphore, oneshot},
    time::timeout,
};

use super::{
    ReceiveParts,
    missing::{Askers, Search},
};
use crate::view::RoomView;

/// How long somebody waits for a search.
const PATIENCE: Duration = Duration::from_secs(8);

/// How long a room is left alone when nobody gave anything.
const PAUSE: Duration = Duration::from_secs(30);

/// Of how many rooms this is known.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(1_000).expect("it is not 0");

/// How many events are asked for at once.
const PAGE: u32 = 100;

/// From how many events on a search goes back at once: they stand in a URL.
const MAX_GAPS: usize = 20;

/// For how many events of one page the state before them is asked for.
const MAX_STATES: usize = 3;

/// How many searches are under way at the same time.
const AT_ONCE: usize = 16;

/// How many servers are asked for the event that is nearest to a time.
const MAX_NEAREST: usize = 2;

/// Asks for history. Cheap to clone.
#[derive(Clone)]
pub struct History(Arc<Inner>);

struct Inner {
    parts: ReceiveParts,
    askers: Askers,
    /// Where searches run, whoever waits for them.
    thread: Thread,
    turns: PerKey<OwnedRoomId, AsyncMutex<()>>,
    /// When the last search in a room found nothing.
    vain: Mutex<LruCache<OwnedRoomId, Duration>>,
    places: Semaphore,
}

impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("History").finish_non_exhaustive()
    }
}

impl History {
    /// Asks with these parts, on this thread.
    #[must_use]
    pub fn new(parts: ReceiveParts, thread: Thread) -> Self {
        Self(Arc::new(Inner {
            parts,
            askers: Askers::default(),
            thread,
            turns: PerKey::default(),
            vain: Mutex::new(LruCache::new(REMEMBERED)),
            places: Semaphore::new(AT_ONCE),
        }))
    }

    /// Brings in some events that are not here, and what is before them. Says whether anything is
    /// here now that was not.
    pub async fn fill(&self, room: &RoomView, mut gaps: Vec<OwnedEventId>) -> bool {
        gaps.truncate(MAX_GAPS);
        let (inner, room) = (self.0.clone(), room.clone());
        self.search(async move { inner.fill(&room, &gaps).await }).await
    }

    /// Brings in one event. Says whether it is here now.
    pub async fn fetch(&self, room: &RoomView, event: &EventId) -> bool {
        let (inner, room, event) = (self.0.clone(), room.clone(), event.to_owned());
        self.search(async move { inner.fetch(&room, &event).await }).await
    }

    /// Of the events nearest to a time that other servers know, the one that is nearest.
    pub async fn nearest(
        &self,
        room: &RoomView,
        at: u64,
        direction: Direction,
    ) -> Option<(OwnedEventId, u64)> {
        let inner = &self.0;
        let search = inner.search(room).ok()??;
        let mut best: Option<(OwnedEventId, u64)> = None;
        for server in search.servers().take(MAX_NEAREST) {
            let asked = inner.parts.client.nearest(server, &room.room_id, at, direction);
            let answer = timeout(PATIENCE, search.ask(server, asked)).await;
            let Ok(Ok((event, time))) = answer else { continue };
            if best.as_ref().is_none_or(|(_, best)| best.abs_diff(at) > time.abs_diff(at)) {
                best = Some((event, time));
            }
        }
        best
    }

    /// Waits for a search, which goes on if it takes too long.
    async fn search<F>(&self, search: F) -> bool
    where
        F: Future<Output = Result<bool, RoomError>> + Send + 'static,
    {
        let (tell, told) = oneshot::channel();
        self.0.thread.spawn(async move {
            let found = search.await.unwrap_or_else(|error| {
                tracing::info!(%error, "history could not be brought in");
                false
            });
            // Nobody may wait any more.
            let _ = tell.send(found);
        });
        matches!(timeout(PATIENCE, told).await, Ok(Ok(true)))
    }
}

impl Inner {
    /// A search among the servers of a room; `None` if this server is not in it, so that others
    /// tell it nothing.
    fn search<'a>(&'a self, room: &'a RoomView) -> Result<Option<Search<'a>>, RoomError> {
        let ReceiveParts { view, server_name, .. } = &self.parts;
        if view.store.joined_from(room.num, server_name.as_str())? == 0 {
            return Ok(None);
        }
        Ok(Some(Search::in_room(&self.parts, &self.askers, room)))
    }

    async fn fill(&self, room: &RoomView, gaps: &[OwnedEventId]) -> Result<bool, RoomError> {
        let turn = self.turns.get(&room.room_id, AsyncMutex::default);
        let _turn = turn.lock().await;
        let Some(search) = self.search(room)? else { return Ok(false) };
        for gap in gaps {
            // Somebody else's search has found it meanwhile.
            if search.is_in_graph(gap)? {
                return Ok(true);
            }
        }
        if self.is_vain(&room.room_id) {
            return Ok(false);
        }
        let Ok(_place) = self.places.acquire().await else { return Ok(false) };
        for server in search.servers() {
            let (client, room_id) = (&self.parts.client, &room.room_id);
            let asked = client.backfill(server, room_id, gaps.to_vec(), PAGE);
            let Ok(events) = search.ask(server, asked).await else { continue };
            let pdus = search.check_history(events).await?;
            match self.take_in(&search, room, pdus).await {
                Ok(true) => return Ok(true),
                Ok(false) => {}
                Err(error) => tracing::debug!(%server, room = %room_id, %error, "no help"),
            }
        }
        let now = self.parts.clock.monotonic();
        let mut vain = self.vain.lock().unwrap_or_else(PoisonError::into_inner);
        vain.put(room.room_id.clone(), now);
        Ok(false)
    }

    fn is_vain(&self, room: &OwnedRoomId) -> bool {
        let now = self.parts.clock.monotonic();
        let mut vain = self.vain.lock().unwrap_or_else(PoisonError::into_inner);
        vain.get(room).is_some_and(|since| now.saturating_sub(*since) < PAUSE)
    }

    async fn fetch(&self, room: &RoomView, event: &EventId) -> Result<bool, RoomError> {
        let turn = self.turns.get(&room.room_id, AsyncMutex::default);
        let _turn = turn.lock().await;
        let Some(search) = self.search(room)? else { return Ok(false) };
        if search.is_in_graph(event)? {
            return Ok(true);
        }
        let Ok(_place) = self.places.acquire().await else { return Ok(false) };
        for server in search.servers() {
            let asked = self.parts.client.event(server, event);
            let Ok(found) = search.ask(server, asked).await else { continue };
            let pdus = search.check(vec![found]).await?;
            if self.take_in(&search, room, pdus).await? && search.is_in_graph(event)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Takes in older events, with the states before those that follow what is not here. Says
    /// whether any of them was new.
    async fn take_in(
        &self,
        search: &Search<'_>,
        room: &RoomView,
        mut pdus: Vec<Arc<Pdu>>,
    ) -> Result<bool, RoomError> {
        pdus.sort_by_key(|pdu| pdu.depth());
        let (mut placed, mut past, mut states) = (HashSet::new(), Vec::new(), 0);
        for pdu in pdus {
            let id = pdu.event_id().clone();
            if placed.contains(&id) || search.is_in_graph(&id)? {
                continue;
            }
            let mut follows_gap = false;
            for prev in pdu.prev_events() {
                follows_gap |= !placed.contains(prev) && !search.is_in_graph(prev)?;
            }
            if follows_gap && states == MAX_STATES {
                continue;
            }
            states += usize::from(follows_gap);
            match prepare(search, pdu, &placed, follows_gap).await {
                Ok(event) => {
                    placed.insert(id);
                    past.push(event);
                }
                Err(error) => tracing::debug!(event = %id, %error, "an older event is left out"),
            }
        }
        let verdicts = self.parts.rooms.backfill(&room.room_id, past).await?;
        Ok(verdicts.iter().any(|verdict| *verdict != Verdict::Known))
    }
}

/// An older event with everything that it needs to be judged.
async fn prepare(
    search: &Search<'_>,
    pdu: Arc<Pdu>,
    placed: &HashSet<OwnedEventId>,
    follows_gap: bool,
) -> Result<Backfilled, RoomError> {
    let mut missing = search.unknown(pdu.auth_events().iter()).await?;
    missing.retain(|auth| !placed.contains(auth));
    search.find_auth_events(&pdu, &missing).await?;
    let state_before = match follows_gap {
        true => Some(search.state_before(&pdu).await?),
        false => None,
    };
    Ok(Backfilled { pdu, state_before })
}
