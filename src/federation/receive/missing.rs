//! What one event builds on and is not known here: asked of the servers of its room, in turn.
//!
//! First the events between it and what is known (`get_missing_events`), a few pages of them. Where
//! the gap is deeper, history is cut: the state before the oldest event that was found is asked for
//! instead (`state_ids`, then single events or the whole `state`), and what is before it stays
//! unknown until somebody pages back.

mod found;

use std::{
    collections::{BTreeSet, HashSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures_util::{StreamExt as _, stream};
use parlour_actors::{RoomError, Verdict, per_key::PerKey};
use parlour_event::{Pdu, signing::SignatureError};
use parlour_storage::{StorageError, schema::keys};
use ruma::{EventId, OwnedEventId, OwnedServerName, ServerName};
use tokio::sync::Semaphore;

use self::found::Found;
use super::{
    ReceiveParts,
    pdus::{judge, receive},
    policy::Judged,
};
use crate::{
    federation::{
        checks::{CheckError, Checked, Fault},
        outbound::{
            client::AskError,
            rooms::{Gap, RawPdu, ToldState},
        },
    },
    view::RoomView,
};

/// How many servers of a room are asked besides the sender of the transaction and of the event.
const MAX_OTHERS: usize = 3;

/// From how many servers of a room these are chosen.
const LOOKED_AT: usize = 50;

/// How many missing events one page has: as many as servers give.
const PAGE: u32 = 20;

/// How many pages of missing events are asked for.
const MAX_PAGES: usize = 6;

/// For how many of the missing events the state before them is asked for, besides the event that
/// all is done for.
const MAX_STATES: usize = 3;

/// Up to how many missing events of a state are asked for one by one.
const MAX_SINGLE: usize = 150;

/// How many events of a state are asked for at the same time.
const SINGLE_AT_ONCE: usize = 6;

/// How many events a state may have, together with its auth chain.
const MAX_STATE: usize = 300_000;

/// How many ids are looked up before others get their turn.
const LOOK_UP: usize = 500;

/// How many questions to one server, and to all, are under way at the same time: a slow server holds
/// up the search for its own events alone.
const OF_ONE_SERVER: usize = 6;
const OF_ALL_SERVERS: usize = 64;

/// How many whole states are in memory at the same time.
const WHOLE_STATES: usize = 1;

/// Bounds what is asked, of each server and altogether.
#[derive(Debug)]
pub(super) struct Askers {
    of_server: PerKey<OwnedServerName, Semaphore>,
    of_all: Semaphore,
    whole_states: Semaphore,
}

impl Default for Askers {
    fn default() -> Self {
        Self {
            of_server: PerKey::default(),
            of_all: Semaphore::new(OF_ALL_SERVERS),
            whole_states: Semaphore::new(WHOLE_STATES),
        }
    }
}

/// Why a server is of no help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoHelp {
    /// There is no answer, which may be otherwise some other time.
    ForNow,
    /// It says that it has none, or nothing that makes sense.
    AtAll,
}

impl From<&AskError> for NoHelp {
    fn from(error: &AskError) -> Self {
        match error {
            AskError::Transport(_) | AskError::Refused { status: 429 | 500.., .. } => Self::ForNow,
            AskError::Refused { .. }
            | AskError::NotAllowed(_)
            | AskError::Answer(_)
            | AskError::Request(_) => Self::AtAll,
        }
    }
}

/// The search for what one event builds on.
pub(super) struct Search<'a> {
    parts: &'a ReceiveParts,
    askers: &'a Askers,
    room: &'a RoomView,
    /// Who is asked, in this order.
    servers: Vec<OwnedServerName>,
    /// Who has given no answer, and is not asked again.
    silent: Mutex<HashSet<OwnedServerName>>,
    states: AtomicUsize,
}

impl<'a> Search<'a> {
    /// A search among the servers of the room, beginning with the one that has sent the event.
    pub(super) fn new(
        parts: &'a ReceiveParts,
        askers: &'a Askers,
        room: &'a RoomView,
        origin: &ServerName,
        pdu: &Pdu,
    ) -> Self {
        Self::among(
            parts,
            askers,
            room,
            vec![origin.to_owned(), pdu.sender().server_name().to_owned()],
        )
    }

    /// A search among the servers of the room.
    pub(super) fn in_room(parts: &'a ReceiveParts, askers: &'a Askers, room: &'a RoomView) -> Self {
        Self::among(parts, askers, room, Vec::new())
    }

    fn among(
        parts: &'a ReceiveParts,
        askers: &'a Askers,
        room: &'a RoomView,
        first: Vec<OwnedServerName>,
    ) -> Self {
        let mut servers = first;
        let known = parts.view.store.servers_in_room(room.num, LOOKED_AT).unwrap_or_default();
        let mut known: Vec<_> = known
            .into_iter()
            .filter_map(|(name, users)| Some((users, name.try_into().ok()?)))
            .collect();
        // Where most users are, most is known.
        known.sort_unstable_by(|(a, _): &(u64, OwnedServerName), (b, _)| b.cmp(a));
        let mut seen = HashSet::new();
        servers.extend(known.into_iter().map(|(_, name)| name));
        servers.retain(|server| parts.client.may_ask(server) && seen.insert(server.clone()));
        servers.truncate(2 + MAX_OTHERS);
        let (silent, states) = (Mutex::default(), AtomicUsize::new(0));
        Self { parts, askers, room, servers, silent, states }
    }

    /// Who is asked, in this order.
    pub(super) fn servers(&self) -> impl Iterator<Item = &OwnedServerName> {
        self.servers.iter()
    }

    /// Takes in an event, and before it what it builds on.
    pub(super) async fn bring_in(&self, judged: &Judged) -> Result<Verdict, RoomError> {
        match receive(self.parts, &self.room.room_id, judged).await {
            Err(RoomError::Missing(_)) => {}
            decided => return decided,
        }
        for older in self.missing_events(&judged.pdu).await? {
            if self.states.load(Ordering::Relaxed) > MAX_STATES {
                break;
            }
            let older = judge(self.parts, self.room, older).await;
            if let Err(error) = self.take_in(&older).await {
                let event = older.pdu.event_id();
                tracing::debug!(%event, %error, "a missing event was not taken in");
            }
        }
        self.take_in(judged).await
    }

    /// The missing events before this one, as far as servers give them, oldest first.
    async fn missing_events(&self, pdu: &Arc<Pdu>) -> Result<Vec<Arc<Pdu>>, RoomError> {
        let mut found = Found::new(pdu.clone());
        let earliest = self.extremities()?;
        let mut pages = 0;
        for server in &self.servers {
            while pages < MAX_PAGES {
                pages += 1;
                let latest = found.whose_prev_events_are_missing(|id| self.is_in_graph(id))?;
                if latest.is_empty() {
                    return Ok(found.oldest_first());
                }
                let gap = Gap { latest, earliest: earliest.clone(), min_depth: 0, limit: PAGE };
                let (client, room) = (&self.parts.client, &self.room.room_id);
                let answer = self.ask(server, client.get_missing_events(server, room, gap)).await;
                let Ok(events) = answer else { break };
                if !found.add(self.check(events).await?, |id| self.is_in_graph(id))? {
                    break;
                }
            }
        }
        Ok(found.oldest_first())
    }

    /// Takes in an event, with what it needs besides the events before it. If those are not known,
    /// the state before it is asked for.
    async fn take_in(&self, judged: &Judged) -> Result<Verdict, RoomError> {
        let (room, pdu) = (&self.room.room_id, &judged.pdu);
        let missing = match receive(self.parts, room, judged).await {
            Err(RoomError::Missing(missing)) => missing,
            decided => return decided,
        };
        self.find_auth_events(pdu, &missing).await?;
        if !missing.iter().any(|id| pdu.prev_events().contains(id)) {
            return receive(self.parts, room, judged).await;
        }
        if !judged.is_wanted {
            // Nothing that users will see needs it.
            return Err(RoomError::Missing(missing));
        }
        self.states.fetch_add(1, Ordering::Relaxed);
        let state = self.state_before(pdu).await?;
        let told = self.parts.rooms.receive_at(room, pdu.clone(), state.clone()).await;
        let Err(RoomError::Missing(missing)) = told else { return told };
        self.find_auth_events(pdu, &missing).await?;
        self.parts.rooms.receive_at(room, pdu.clone(), state).await
    }

    /// Asks for those of an event's auth events that are missing.
    pub(super) async fn find_auth_events(
        &self,
        pdu: &Pdu,
        missing: &[OwnedEventId],
    ) -> Result<(), RoomError> {
        let is_missing = |id: &&OwnedEventId| missing.contains(id);
        if !pdu.auth_events().iter().any(|id| is_missing(&id)) {
            return Ok(());
        }
        for server in &self.servers {
            let (client, room) = (&self.parts.client, &self.room.room_id);
            let answer = self.ask(server, client.event_auth(server, room, pdu.event_id())).await;
            let Ok(chain) = answer else { continue };
            let chain = self.check(chain).await?;
            self.parts.rooms.outliers(room, chain).await?;
            if self.unknown(pdu.auth_events().iter()).await?.is_empty() {
                return Ok(());
            }
        }
        Err(RoomError::Missing(self.unknown(pdu.auth_events().iter()).await?))
    }

    /// The state before an event, as far as servers tell it. All of it is known here then.
    pub(super) async fn state_before(&self, pdu: &Pdu) -> Result<Vec<OwnedEventId>, RoomError> {
        let mut best = Vec::new();
        for server in &self.servers {
            let (client, room) = (&self.parts.client, &self.room.room_id);
            let answer = self.ask(server, client.state_ids(server, room, pdu.event_id())).await;
            let Ok(ToldState { state, auth_chain }) = answer else { continue };
            if state.len().saturating_add(auth_chain.len()) > MAX_STATE {
                continue;
            }
            let wanted: BTreeSet<_> = state.iter().chain(&auth_chain).collect();
            let missing = self.unknown(wanted.into_iter()).await?;
            let may_come = self.find_state(server, pdu, missing).await?;
            let unknown: HashSet<_> = self.unknown(state.iter()).await?.into_iter().collect();
            let known: Vec<_> = state.into_iter().filter(|id| !unknown.contains(id)).collect();
            if unknown.is_empty() && !known.is_empty() {
                return Ok(known);
            }
            if known.len() > best.len() && !may_come {
                best = known;
            }
        }
        // What nobody has, or what is broken, is left out: one such event must not keep the room
        // apart for ever. What cannot be had now is not, or the room would be another one here for
        // good, and that for a connection that broke: what follows has us ask again.
        if best.is_empty() { Err(RoomError::Missing(pdu.prev_events().to_vec())) } else { Ok(best) }
    }

    /// Asks for events of a state, and keeps them as outliers. Says whether some that were not found
    /// may be found some other time.
    async fn find_state(
        &self,
        server: &ServerName,
        pdu: &Pdu,
        missing: Vec<OwnedEventId>,
    ) -> Result<bool, RoomError> {
        let (client, room) = (&self.parts.client, &self.room.room_id);
        if missing.is_empty() {
            return Ok(false);
        }
        if missing.len() > MAX_SINGLE {
            let Ok(_place) = self.askers.whole_states.acquire().await else { return Ok(true) };
            let answer = self.ask(server, client.state(server, room, pdu.event_id())).await;
            return match answer {
                Ok(ToldState { state, auth_chain: mut events }) => {
                    events.extend(state);
                    self.keep(events).await
                }
                Err(no_help) => Ok(no_help == NoHelp::ForNow),
            };
        }
        let ask =
            |id: OwnedEventId| async move { self.ask(server, client.event(server, &id)).await };
        let asked = stream::iter(missing.into_iter().map(ask));
        let answers: Vec<_> = asked.buffered(SINGLE_AT_ONCE).collect().await;
        let may_come = answers.iter().any(|answer| matches!(answer, Err(NoHelp::ForNow)));
        Ok(self.keep(answers.into_iter().flatten().collect()).await? || may_come)
    }

    /// Keeps the good ones of some events as outliers. Says whether others may turn out to be good.
    async fn keep(&self, events: Vec<RawPdu>) -> Result<bool, RoomError> {
        let checked = self.parts.checker.check(self.room.version, events).await?;
        let may_come = checked.iter().any(|one| one.as_ref().is_err_and(|e| self.may_be_good(e)));
        self.parts.rooms.outliers(&self.room.room_id, self.good(checked)).await?;
        Ok(may_come)
    }

    /// Whether nothing is known against an event but that its server has not told its keys lately.
    fn may_be_good(&self, error: &CheckError) -> bool {
        match &error.fault {
            Fault::Signature(SignatureError::Unsigned(entity)) => {
                let server = <&ServerName>::try_from(&**entity);
                server.is_ok_and(|server| self.parts.checker.awaits_keys_of(server))
            }
            Fault::Unchecked => true,
            Fault::Signature(_) | Fault::Format(_) => false,
        }
    }

    /// Asks a server, when it is its turn.
    pub(super) async fn ask<T>(
        &self,
        server: &ServerName,
        question: impl Future<Output = Result<T, AskError>>,
    ) -> Result<T, NoHelp> {
        let silent = || self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        if silent().contains(server) {
            return Err(NoHelp::ForNow);
        }
        let of_server = self.askers.of_server.get(server, || Semaphore::new(OF_ONE_SERVER));
        let _turn = of_server.acquire().await.map_err(|_| NoHelp::ForNow)?;
        let _place = self.askers.of_all.acquire().await.map_err(|_| NoHelp::ForNow)?;
        question.await.map_err(|error| {
            tracing::debug!(%server, room = %self.room.room_id, %error, "no help");
            if matches!(error, AskError::Transport(_)) {
                silent().insert(server.to_owned());
            }
            NoHelp::from(&error)
        })
    }

    /// The events of an answer that are good, and of the room.
    pub(super) async fn check(&self, events: Vec<RawPdu>) -> Result<Vec<Arc<Pdu>>, RoomError> {
        Ok(self.good(self.parts.checker.check(self.room.version, events).await?))
    }

    /// The same of an answer to `/backfill`.
    pub(super) async fn check_history(
        &self,
        events: Vec<RawPdu>,
    ) -> Result<Vec<Arc<Pdu>>, RoomError> {
        Ok(self.good(self.parts.checker.check_history(self.room.version, events).await?))
    }

    fn good(&self, checked: Vec<Checked>) -> Vec<Arc<Pdu>> {
        let good = checked.into_iter().filter_map(|checked| match checked {
            Ok(pdu) => Some(pdu),
            Err(error) => {
                tracing::debug!(%error, event = ?error.event_id, "an event was dropped");
                None
            }
        });
        good.filter(|pdu| *pdu.room_id() == self.room.room_id).collect()
    }

    /// The events that nothing follows here.
    fn extremities(&self) -> Result<Vec<OwnedEventId>, RoomError> {
        let store = &self.parts.view.store;
        let head = store.room_head(self.room.num)?.ok_or(RoomError::UnknownRoom)?;
        let mut ids = Vec::new();
        for num in head.extremities {
            let meta = store.event_meta(num)?;
            ids.extend(meta.and_then(|meta| OwnedEventId::try_from(meta.event_id).ok()));
        }
        Ok(ids)
    }

    /// Whether an event has its place in the room here.
    pub(super) fn is_in_graph(&self, id: &EventId) -> Result<bool, StorageError> {
        let store = &self.parts.view.store;
        let Some(num) = store.event_num(id.as_str())? else { return Ok(false) };
        Ok(store.event_meta(num)?.is_some_and(|meta| !meta.flags.outlier))
    }

    /// Those of some events that are not known here at all.
    pub(super) async fn unknown<'i>(
        &self,
        ids: impl Iterator<Item = &'i OwnedEventId>,
    ) -> Result<Vec<OwnedEventId>, StorageError> {
        let ids: Vec<_> = ids.collect();
        let mut unknown = Vec::new();
        for some in ids.chunks(LOOK_UP) {
            let keys: Vec<_> = some.iter().map(|id| keys::event_id(id.as_str())).collect();
            let entries = self.parts.view.store.multi_get(&keys)?;
            let missing = some.iter().zip(entries).filter(|(_, entry)| entry.is_none());
            unknown.extend(missing.map(|(id, _)| (*id).clone()));
            tokio::task::yield_now().await;
        }
        Ok(unknown)
    }
}

#[cfg(test)]
#[path = "missing/tests.rs"]
mod tests;
