//! A room's core: its newest state, computed ahead of what is durable.
//!
//! The core does no I/O but reads from storage and never waits. Each step looks at everything
//! first and changes the core only at its end, so that a refused event leaves no trace.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use bytes::Bytes;
use lru::LruCache;
use parlour_event::{
    EventNum, Pdu, RoomNum, RoomVersion,
    pdu::EventReference,
    policy::PolicyServer,
    resolve::AuthCover,
    signing::SigningKey,
    state::{Node, NodeId, NodeStore, Overlay, ReadState, StateRoot},
};
use parlour_storage::{
    StorageError, Store,
    schema::{EventMeta, RoomHead, keys},
};
use ruma::{OwnedEventId, OwnedRoomId, OwnedServerName};

use tokio::sync::Notify;

use super::{commits::CommitPos, messages::RoomError, unsettled::Unsettled};
use crate::{
    budget::{Part, Share},
    env::Env,
    interner::Interner,
    metrics::{Metrics, Stage},
    nodes::Nodes,
};

/// How many parsed events a room keeps for auth checks: the power levels, join rules, create event
/// and the members who are speaking.
const CACHED_EVENTS: usize = 128;

/// What an awake room takes besides what it keeps: the actor, its place in the registry, and the
/// frame of its caches.
const ROOM_BYTES: u64 = 8 << 10;

/// What a server in the room takes.
const SERVER_BYTES: u64 = 96;

/// What an event of a commit takes until the room has seen that it is durable.
const PENDING_BYTES: u64 = 6 << 10;

/// What every room needs from the rest of the server.
#[derive(Debug, Clone)]
pub(crate) struct RoomDeps {
    pub(crate) store: Store,
    pub(crate) nodes: Nodes,
    pub(crate) interner: Arc<Interner>,
    pub(crate) server_name: OwnedServerName,
    pub(crate) key: Arc<SigningKey>,
    pub(crate) env: Env,
    pub(crate) metrics: Arc<dyn Metrics>,
    /// What awake rooms take.
    pub(crate) memory: Share,
    /// Told when a room does not let guests in any more.
    pub(crate) closed_to_guests: Arc<Notify>,
    /// Told when somebody may be found by everybody, or not any more.
    pub(crate) people: Arc<Notify>,
}

impl RoomDeps {
    /// The end of a stage that began at `since`, and the beginning of the next.
    pub(crate) fn lap(&self, stage: Stage, since: Duration) -> Duration {
        let now = self.env.clock.monotonic();
        self.metrics.stage(stage, now.saturating_sub(since));
        now
    }
}

/// A forward extremity: an event that nothing follows yet.
#[derive(Debug, Clone)]
pub(crate) struct Tip {
    pub(crate) num: EventNum,
    /// As events name it that follow it.
    pub(crate) reference: EventReference,
    pub(crate) depth: u64,
    /// The state after it, along its branch.
    pub(crate) state_after: StateRoot,
}

impl Tip {
    pub(crate) fn event_id(&self) -> &OwnedEventId {
        &self.reference.event_id
    }
}

/// An event of a commit that is not durable yet: storage does not have it as it is now.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) pdu: Arc<Pdu>,
    pub(crate) meta: EventMeta,
    /// The commit that makes it so.
    pub(crate) seq: u64,
    /// When it arrives, if the commit with which it does has no position yet.
    pub(crate) pos: CommitPos,
}

/// A commit that is not durable yet.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    pub(crate) seq: u64,
    /// The events that it writes: the new one before others that it changes, or many outliers.
    pub(crate) events: Vec<(EventNum, OwnedEventId)>,
    /// What was pending of them before.
    pub(crate) replaced: Vec<(EventNum, Pending)>,
    pub(crate) transaction: Option<[u8; 16]>,
    pub(crate) nodes: Vec<NodeId>,
    pub(crate) state_keys: Vec<(String, String)>,
    /// What else of it is noted in [`RoomCore::unsettled`].
    pub(crate) unsettled: Vec<Bytes>,
    pub(crate) closes_to_guests: bool,
}

/// Nodes of commits that are not durable yet, in front of the stored ones.
#[derive(Debug)]
pub(crate) struct PinnedNodes {
    stored: Nodes,
    pinned: HashMap<NodeId, (Arc<Node>, u32)>,
}

impl NodeStore for PinnedNodes {
    type Error = StorageError;

    fn node(&self, id: NodeId) -> Result<Arc<Node>, StorageError> {
        match self.pinned.get(&id) {
            Some((node, _)) => Ok(node.clone()),
            None => self.stored.node(id),
        }
    }
}

impl PinnedNodes {
    pub(crate) fn pin(&mut self, id: NodeId, node: Arc<Node>) {
        self.stored.remember(id, node.clone());
        self.pinned.entry(id).or_insert((node, 0)).1 += 1;
    }

    /// The pinned nodes among these, each once.
    pub(crate) fn get_all(&self, ids: &[NodeId]) -> Vec<(NodeId, Arc<Node>)> {
        let nodes = ids.iter().filter_map(|id| Some((*id, self.pinned.get(id)?.0.clone())));
        nodes.collect()
    }

    pub(crate) fn unpin(&mut self, id: NodeId) {
        if let Some((_, count)) = self.pinned.get_mut(&id) {
            *count -= 1;
            if *count == 0 {
                self.pinned.remove(&id);
            }
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct RoomCore {
    pub(crate) deps: RoomDeps,
    pub(crate) num: RoomNum,
    pub(crate) room_id: OwnedRoomId,
    pub(crate) version: &'static RoomVersion,
    /// Is 0 until the create event has been taken in.
    pub(crate) create: EventNum,
    pub(crate) tips: Vec<Tip>,
    pub(crate) state: StateRoot,
    pub(crate) joined: u64,
    pub(crate) invited: u64,
    /// Where the timeline's newest event stands in the room's history.
    pub(crate) depth: u64,
    /// Whether anybody may enter or read the room.
    pub(crate) is_open: bool,
    /// Joined members by server.
    pub(crate) servers: HashMap<String, u64>,
    pub(crate) nodes: PinnedNodes,
    pub(crate) in_flight: VecDeque<InFlight>,
    /// Events of commits in flight.
    pub(crate) pending: HashMap<EventNum, Pending>,
    pub(crate) pending_ids: HashMap<OwnedEventId, EventNum>,
    /// What commits in flight change besides events.
    pub(crate) unsettled: Unsettled,
    pub(crate) events: LruCache<EventNum, Arc<Pdu>>,
    /// What all of it takes, as of when it was last weighed.
    memory: Part,
    /// What `events` takes.
    parsed_bytes: u64,
    /// The policy server that a state names, as of when it was last looked.
    pub(crate) policy: Option<(StateRoot, Option<PolicyServer>)>,
    /// What makes the next state resolution cheap.
    pub(crate) cover: AuthCover,
    /// Set by the persister when a commit of this core failed: later ones build on it and must
    /// not be written.
    pub(crate) broken: Arc<AtomicBool>,
    pub(crate) next_seq: u64,
}

impl RoomCore {
    /// The core of a room that has no events yet.
    pub(crate) fn unborn(
        deps: RoomDeps,
        num: RoomNum,
        room_id: OwnedRoomId,
        version: &'static RoomVersion,
    ) -> Self {
        Self {
            nodes: PinnedNodes { stored: deps.nodes.clone(), pinned: HashMap::new() },
            memory: deps.memory.count(ROOM_BYTES),
            deps,
            num,
            room_id,
            version,
            create: EventNum(0),
            tips: Vec::new(),
            state: StateRoot::EMPTY,
            joined: 0,
            invited: 0,
            depth: 0,
            is_open: false,
            servers: HashMap::new(),
            in_flight: VecDeque::new(),
            pending: HashMap::new(),
            pending_ids: HashMap::new(),
            unsettled: Unsettled::default(),
            events: LruCache::unbounded(),
            parsed_bytes: 0,
            policy: None,
            cover: AuthCover::new(),
            broken: Arc::default(),
            next_seq: 0,
        }
    }

    /// Whether no create event has been taken in yet.
    pub(crate) fn is_unborn(&self) -> bool {
        self.create == EventNum(0)
    }

    /// Takes a birth back that was refused half-way; nothing of it has been handed on.
    pub(crate) fn abandon_birth(&mut self) {
        self.create = EventNum(0);
        self.abandon_since(0);
    }

    /// Takes the commits from this one on back: nothing of them has been handed on, and none of
    /// them has changed the extremities or the current state.
    pub(crate) fn abandon_since(&mut self, seq: u64) {
        while self.in_flight.back().is_some_and(|commit| commit.seq >= seq) {
            let Some(commit) = self.in_flight.pop_back() else { break };
            for (num, event_id) in &commit.events {
                self.pending.remove(num);
                self.pending_ids.remove(event_id);
                self.uncache(*num);
            }
            for (num, before) in commit.replaced {
                self.remember(num, before);
            }
            self.unsettled.settled(commit.seq, &commit.unsettled);
            commit.nodes.into_iter().for_each(|id| self.nodes.unpin(id));
            for (event_type, state_key) in commit.state_keys {
                self.deps.interner.abandoned_state_key(&event_type, &state_key);
            }
        }
        self.next_seq = self.next_seq.min(seq);
    }

    /// Sets a room up again from storage.
    pub(crate) fn load(deps: RoomDeps, num: RoomNum) -> Result<Self, RoomError> {
        let head = deps.store.room_head(num)?.ok_or(RoomError::UnknownRoom)?;
        let unreadable = |what: &str| StorageError::Value {
            key: keys::readable(&keys::room(num)),
            what: what.to_owned(),
        };
        let room_id = OwnedRoomId::try_from(head.room_id.as_str())
            .map_err(|_| unreadable("not a room id"))?;
        let version =
            RoomVersion::parse(&head.version).ok_or_else(|| unreadable("not a room version"))?;
        let mut core = Self::unborn(deps, num, room_id, version);
        core.load_tips(&head)?;
        core.load_servers()?;
        core.create = head.create;
        core.state = head.state;
        core.joined = head.joined;
        core.invited = head.invited;
        core.depth = head.depth;
        core.is_open = core.deps.store.open_room_among(&[num])?.is_some();
        Ok(core)
    }

    fn load_tips(&mut self, head: &RoomHead) -> Result<(), RoomError> {
        for num in &head.extremities {
            let (pdu, meta) = self.stored(*num)?;
            let state_after = self.state_after(&pdu, &meta, *num)?;
            let (reference, depth) = (EventReference::to(self.version, &pdu), pdu.depth());
            self.tips.push(Tip { num: *num, reference, depth, state_after });
        }
        Ok(())
    }

    fn load_servers(&mut self) -> Result<(), StorageError> {
        // The room keeps them all in memory: events go to each of them.
        self.servers.extend(self.deps.store.servers_in_room(self.num, usize::MAX)?);
        Ok(())
    }

    /// The state after an event, along its branch.
    pub(crate) fn state_after(
        &self,
        pdu: &Pdu,
        meta: &EventMeta,
        num: EventNum,
    ) -> Result<StateRoot, RoomError> {
        match meta.state_key {
            Some(key) if !meta.flags.rejected => {
                let mut overlay = Overlay::new(&self.nodes);
                let after = overlay.insert(meta.state_before, key, num)?;
                debug_assert!(pdu.state_key().is_some(), "only state events have a state key");
                Ok(after)
            }
            _ => Ok(meta.state_before),
        }
    }

    /// Notes an event as a commit is about to write it; says what was noted of it before.
    pub(crate) fn remember(&mut self, num: EventNum, pending: Pending) -> Option<Pending> {
        self.pending_ids.insert(pending.pdu.event_id().clone(), num);
        self.pending.insert(num, pending)
    }

    /// An event with what is known of it, durable or not.
    pub(crate) fn stored(&self, num: EventNum) -> Result<(Arc<Pdu>, EventMeta), RoomError> {
        if let Some(Pending { pdu, meta, .. }) = self.pending.get(&num) {
            return Ok((pdu.clone(), meta.clone()));
        }
        let stored = self.deps.store.event(num)?.ok_or_else(|| missing(num))?;
        Ok((Arc::new(stored.pdu(self.version)?), stored.meta))
    }

    /// What is known of an event, durable or not.
    pub(crate) fn meta(&self, num: EventNum) -> Result<EventMeta, RoomError> {
        match self.pending.get(&num) {
            Some(pending) => Ok(pending.meta.clone()),
            None => Ok(self.deps.store.event_meta(num)?.ok_or_else(|| missing(num))?),
        }
    }

    /// An event, from the cache if possible.
    pub(crate) fn event(&mut self, num: EventNum) -> Result<Arc<Pdu>, RoomError> {
        if let Some(pdu) = self.events.get(&num) {
            return Ok(pdu.clone());
        }
        let (pdu, _) = self.stored(num)?;
        self.cache(num, &pdu);
        Ok(pdu)
    }

    /// Keeps a state event at hand. Others are hardly asked for again, and would only drive those
    /// out that allow everybody's next event.
    pub(crate) fn cache(&mut self, num: EventNum, pdu: &Arc<Pdu>) {
        if pdu.state_key().is_none() {
            return;
        }
        self.uncache(num);
        self.parsed_bytes += pdu.memory_bytes() as u64;
        self.events.put(num, pdu.clone());
        if self.events.len() > CACHED_EVENTS
            && let Some((_, gone)) = self.events.pop_lru()
        {
            self.parsed_bytes = self.parsed_bytes.saturating_sub(gone.memory_bytes() as u64);
        }
    }

    /// Keeps it no longer.
    pub(crate) fn uncache(&mut self, num: EventNum) {
        if let Some(gone) = self.events.pop(&num) {
            self.parsed_bytes = self.parsed_bytes.saturating_sub(gone.memory_bytes() as u64);
        }
    }

    /// Notes what the room takes, roughly.
    pub(crate) fn weigh(&mut self) {
        let servers = self.servers.len() as u64 * SERVER_BYTES;
        let pending = self.pending.len() as u64 * PENDING_BYTES;
        self.memory.set(ROOM_BYTES + self.parsed_bytes + servers + pending);
    }

    /// The number of an event id, durable or not.
    pub(crate) fn event_num(&self, event_id: &str) -> Result<Option<EventNum>, RoomError> {
        let pending =
            <&ruma::EventId>::try_from(event_id).ok().and_then(|id| self.pending_ids.get(id));
        match pending {
            Some(num) => Ok(Some(*num)),
            None => Ok(self.deps.store.event_num(event_id)?),
        }
    }

    /// The event that a state has for a type and state key.
    pub(crate) fn state_event(
        &mut self,
        root: StateRoot,
        event_type: &str,
        state_key: &str,
    ) -> Result<Option<(EventNum, Arc<Pdu>)>, RoomError> {
        let Some(key) = self.deps.interner.state_key(event_type, state_key)? else {
            return Ok(None);
        };
        match self.nodes.get(root, key)? {
            Some(num) => Ok(Some((num, self.event(num)?))),
            None => Ok(None),
        }
    }

    /// A commit has become durable: storage has it from now on.
    pub(crate) fn settled(&mut self, seq: u64) {
        while self.in_flight.front().is_some_and(|commit| commit.seq <= seq) {
            let Some(commit) = self.in_flight.pop_front() else { break };
            for (num, event_id) in &commit.events {
                // A later commit may have changed the event again.
                if self.pending.get(num).is_some_and(|pending| pending.seq <= commit.seq) {
                    self.pending.remove(num);
                    self.pending_ids.remove(event_id);
                }
            }
            self.unsettled.settled(commit.seq, &commit.unsettled);
            commit.nodes.into_iter().for_each(|id| self.nodes.unpin(id));
            for (event_type, state_key) in commit.state_keys {
                self.deps.interner.stored_state_key(&event_type, &state_key);
            }
            if commit.closes_to_guests {
                self.deps.closed_to_guests.notify_one();
            }
        }
    }
}

fn missing(num: EventNum) -> StorageError {
    StorageError::Value {
        key: keys::readable(&keys::event(num)),
        what: "the event is referred to but missing".to_owned(),
    }
}
