//! The end of every step: an event that has been judged becomes part of the room.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::AtomicBool},
};

use parlour_event::{
    EventNum, Pdu, StateKeyNum, StreamPos,
    pdu::EventReference,
    resolve::{self, ResolveLimits},
    state::{Node, NodeId, Overlay, StateRoot},
};
use parlour_storage::{
    Op,
    schema::{EventFlags, EventMeta, RoomHead, SentAs, TimelineEntry},
};
use ruma::OwnedEventId;

use super::{
    change::{
        ChangedEvent, Effect, EventChange, MemberChange, OnOthers, Outgoing, ServerChange, Stage,
    },
    commits::CommitPos,
    core::{InFlight, Pending, RoomCore, Tip},
    counts::Outcome,
    edges::Edges,
    messages::{RoomError, Transaction},
    source::CoreEvents,
};

/// A conflict that needs more work than this is refused: some tens of seconds.
const RESOLVE_LIMITS: ResolveLimits = ResolveLimits { max_events: 20_000_000 };

/// Where an event stands and what was decided about it.
#[derive(Debug, Default)]
pub(crate) struct Place {
    pub(crate) state_before: StateRoot,
    pub(crate) auth_events: Vec<EventNum>,
    pub(crate) flags: EventFlags,
    pub(crate) transaction: Option<Transaction>,
    /// Whether other servers have to hear of it from this one.
    pub(crate) outgoing: Option<Outgoing>,
    /// It is history behind what is known.
    pub(crate) is_past: bool,
    /// This server comes back with it: what it follows is no matter, nor is how the room was when
    /// the server went.
    pub(crate) is_return: bool,
    /// It has been known as an outlier.
    pub(crate) was_outlier: bool,
    /// The redaction that has been applied to it already.
    pub(crate) redacted_because: Option<EventNum>,
    /// What it changes about the ends of the known history.
    pub(crate) edges: Edges,
    /// Where others will learn its position.
    pub(crate) pos: CommitPos,
}

/// A computed commit, ready for the persister.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) seq: u64,
    pub(crate) effect: Effect,
    pub(crate) broken: Arc<AtomicBool>,
}

impl Step {
    /// What it does as an event.
    pub(crate) fn event(&mut self) -> Option<&mut EventChange> {
        match &mut self.effect {
            Effect::Event(change) => Some(change),
            Effect::Quiet(_) => None,
        }
    }
}

/// State nodes made during a step. They are pinned at once, so that the rest of the step can read
/// them, and belong to the step's commit.
#[derive(Debug, Default)]
pub(crate) struct Fresh(pub(crate) Vec<NodeId>);

impl RoomCore {
    /// A state with one entry set.
    pub(crate) fn insert(
        &mut self,
        state: StateRoot,
        key: StateKeyNum,
        num: EventNum,
        fresh: &mut Fresh,
    ) -> Result<StateRoot, RoomError> {
        let mut overlay = Overlay::new(&self.nodes);
        let after = overlay.insert(state, key, num)?;
        let nodes = overlay.into_new_nodes(&[after]);
        self.pin(nodes, fresh);
        Ok(after)
    }

    pub(crate) fn pin(&mut self, nodes: Vec<(NodeId, Arc<Node>)>, fresh: &mut Fresh) {
        for (id, node) in nodes {
            self.nodes.pin(id, node);
            fresh.0.push(id);
        }
    }

    /// Resolves several states into one. The cost follows what they disagree on.
    pub(crate) fn resolve(
        &mut self,
        states: &[StateRoot],
        fresh: &mut Fresh,
    ) -> Result<StateRoot, RoomError> {
        let Some(first) = states.first() else { return Ok(StateRoot::EMPTY) };
        if states.iter().all(|state| state == first) {
            return Ok(*first);
        }
        let clock = self.deps.env.clock.clone();
        let started = clock.monotonic();
        let mut cover = std::mem::take(&mut self.cover);
        let source = CoreEvents::new(self);
        let mut overlay = Overlay::new(&self.nodes);
        let resolved = resolve::resolve_with(
            self.version,
            &source,
            &mut overlay,
            states,
            &mut cover,
            RESOLVE_LIMITS,
        );
        let resolved = resolved.map_err(|error| RoomError::Resolution(error.to_string()))?;
        let nodes = overlay.into_new_nodes(&[resolved]);
        self.pin(nodes, fresh);
        self.cover = cover;
        self.deps.metrics.resolved(clock.monotonic() - started);
        Ok(resolved)
    }

    /// Takes in a judged event. The core changes only if all of it succeeds.
    pub(crate) fn take_in(
        &mut self,
        num: EventNum,
        pdu: Arc<Pdu>,
        place: Place,
        mut fresh: Fresh,
    ) -> Result<Step, RoomError> {
        let before = self.pending.remove(&num);
        match self.take_in_inner(num, &pdu, place, &mut fresh) {
            Ok(step) => {
                if let Some(commit) = self.in_flight.back_mut() {
                    commit.replaced.extend(before.map(|before| (num, before)));
                }
                Ok(step)
            }
            Err(error) => {
                self.pending.remove(&num);
                self.pending_ids.remove(pdu.event_id());
                if let Some(before) = before {
                    self.pending_ids.insert(pdu.event_id().clone(), num);
                    self.pending.insert(num, before);
                }
                if let Some(state_key) = pdu.state_key() {
                    self.deps.interner.abandoned_state_key(pdu.event_type(), state_key);
                }
                self.release(fresh);
                Err(error)
            }
        }
    }

    /// Lets go of the nodes of a step that came to nothing.
    pub(crate) fn release(&mut self, fresh: Fresh) {
        fresh.0.into_iter().for_each(|id| self.nodes.unpin(id));
    }

    fn take_in_inner(
        &mut self,
        num: EventNum,
        pdu: &Arc<Pdu>,
        mut place: Place,
        fresh: &mut Fresh,
    ) -> Result<Step, RoomError> {
        let is_visible = place.flags.is_visible();
        place.flags.withheld = is_visible && self.withholds(pdu, place.state_before)?;
        let mut state_keys = Vec::new();
        let state_key = self.state_key_num(pdu, &mut state_keys)?;
        let meta = self.meta_of(pdu, &place, state_key);
        // From here on the event can be read back by its number.
        let (seq, pos) = (self.next_seq, place.pos.clone());
        self.remember(num, Pending { pdu: pdu.clone(), meta: meta.clone(), seq, pos });
        let followed = if is_visible { self.followed_by(pdu)? } else { BTreeSet::new() };
        let outcome = match is_visible && !place.is_past {
            true => Some(self.outcome(num, pdu, &place, state_key, &followed, fresh)?),
            false => None,
        };
        let mut on_others = match is_visible {
            true => self.on_others(num, pdu, place.state_before)?,
            false => OnOthers::default(),
        };
        on_others.ops.extend(self.edge_ops(pdu, meta.depth, &place, &followed)?);
        if let Some(redaction) = place.redacted_because {
            on_others.changed.extend(self.let_go(redaction)?);
        }
        Ok(self.finish(num, pdu, meta, place, outcome, on_others, state_keys, fresh))
    }

    /// The number of a state event's place in the state, with what stores it if it is new.
    pub(crate) fn state_key_num(
        &self,
        pdu: &Pdu,
        ops: &mut Vec<Op>,
    ) -> Result<Option<StateKeyNum>, RoomError> {
        let intern = |key| self.deps.interner.intern_state_key(pdu.event_type(), key, ops);
        Ok(pdu.state_key().map(intern).transpose()?)
    }

    pub(crate) fn meta_of(
        &self,
        pdu: &Pdu,
        place: &Place,
        state_key: Option<StateKeyNum>,
    ) -> EventMeta {
        EventMeta {
            event_id: pdu.event_id().to_string(),
            room: self.num,
            pos: StreamPos(0),
            depth: self.depth_of(pdu, place),
            state_before: place.state_before,
            state_key,
            auth_events: place.auth_events.clone(),
            flags: place.flags,
            redacted_because: place.redacted_because,
            transaction: place
                .transaction
                .clone()
                .map(|Transaction { hash, device, txn_id }| SentAs { device, txn_id, hash }),
        }
    }

    /// Where an event stands in the room's history. Branches of the graph come one after another,
    /// as they arrive: history is paged through in the order in which `/sync` tells of it.
    fn depth_of(&self, pdu: &Pdu, place: &Place) -> u64 {
        match place.flags.is_visible() && !place.is_past {
            true => self.depth.max(pdu.depth()),
            false => pdu.depth(),
        }
    }

    /// Works out the new extremities and how the current state changes.
    fn outcome(
        &mut self,
        num: EventNum,
        pdu: &Arc<Pdu>,
        place: &Place,
        state_key: Option<StateKeyNum>,
        followed: &BTreeSet<OwnedEventId>,
        fresh: &mut Fresh,
    ) -> Result<Outcome, RoomError> {
        let state_after = match state_key {
            Some(key) => self.insert(place.state_before, key, num, fresh)?,
            None => place.state_before,
        };
        let is_anew = place.is_return && !place.edges.has_followers;
        let is_followed = |tip: &&Tip| is_anew || followed.contains(tip.event_id());
        let mut tips: Vec<_> = self.tips.iter().filter(|tip| !is_followed(tip)).cloned().collect();
        if !place.edges.has_followers {
            let (reference, depth) = (EventReference::to(self.version, pdu), pdu.depth());
            tips.push(Tip { num, reference, depth, state_after });
        }
        let states: Vec<_> = tips.iter().map(|tip| tip.state_after).collect();
        let state = self.resolve(&states, fresh)?;
        self.membership_outcome(tips, state)
    }

    /// What an event does to others: what it redacts, and what it relates to.
    fn on_others(
        &mut self,
        num: EventNum,
        pdu: &Pdu,
        state_before: StateRoot,
    ) -> Result<OnOthers, RoomError> {
        let mut on_others = self.relate(num, pdu)?;
        self.redact_target(num, pdu, state_before, &mut on_others)?;
        Ok(on_others)
    }

    /// Notes another event as a commit is about to change it.
    fn note_change(&mut self, event: &ChangedEvent, commit: &mut InFlight) {
        let ChangedEvent { num, pdu, meta, pos, .. } = event;
        self.uncache(*num);
        self.cache(*num, pdu);
        let (meta, pos) = (meta.clone(), pos.clone());
        let before = self.remember(*num, Pending { pdu: pdu.clone(), meta, seq: commit.seq, pos });
        // Of an event that redacts itself there was nothing before.
        let before = before.filter(|before| before.seq < commit.seq);
        commit.replaced.extend(before.map(|before| (*num, before)));
        commit.events.push((*num, pdu.event_id().clone()));
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one value, put together here")]
    fn finish(
        &mut self,
        num: EventNum,
        pdu: &Arc<Pdu>,
        meta: EventMeta,
        place: Place,
        outcome: Option<Outcome>,
        on_others: OnOthers,
        state_keys: Vec<Op>,
        fresh: &mut Fresh,
    ) -> Step {
        let Place { transaction, was_outlier, outgoing, edges, pos, .. } = place;
        let after_gap = !edges.gaps.is_empty();
        let stage = match self.create {
            EventNum(0) => Stage::Birth(Vec::new()),
            _ => Stage::Grown,
        };
        if matches!(stage, Stage::Birth(_)) {
            self.create = num;
        }
        let is_in_history = outcome.is_some();
        let closes_to_guests = outcome.as_ref().is_some_and(|outcome| outcome.closes_to_guests);
        let was_open = self.is_open;
        let concerns_others = is_in_history && self.has_other_servers();
        if is_in_history {
            self.depth = meta.depth;
        }
        let (members, servers) = outcome.map(|outcome| self.adopt(outcome)).unwrap_or_default();
        let concerns_others = concerns_others
            || is_in_history && self.has_other_servers()
            || servers.iter().any(ServerChange::is_let_go);
        self.cache(num, pdu);
        let seq = self.next_seq;
        self.next_seq += 1;
        let nodes = std::mem::take(&mut fresh.0);
        let state_key = pdu.state_key().map(|key| (pdu.event_type().to_owned(), key.to_owned()));
        let mut commit = InFlight {
            seq,
            events: vec![(num, pdu.event_id().clone())],
            replaced: Vec::new(),
            transaction: transaction.as_ref().map(|transaction| transaction.hash),
            nodes,
            state_keys: state_key.into_iter().collect(),
            unsettled: self.unsettled.note(seq, &on_others.ops),
            closes_to_guests,
        };
        on_others.changed.iter().for_each(|event| self.note_change(event, &mut commit));
        let change = EventChange {
            room: self.num,
            num,
            pos,
            json: pdu.to_bytes().into(),
            time: pdu.origin_server_ts(),
            was_outlier,
            meta,
            head: self.head(),
            timeline: is_in_history.then_some(TimelineEntry {
                event: num,
                state_after: self.state,
                joined: self.joined,
                invited: self.invited,
                after_gap,
            }),
            stage,
            nodes: self.nodes.get_all(&commit.nodes),
            state_keys,
            members,
            servers,
            was_open,
            is_open: self.is_open,
            concerns_others,
            outgoing: outgoing.filter(|_| concerns_others),
            on_others,
            transaction: commit.transaction.map(|hash| (hash, self.deps.env.clock.now_ms())),
        };
        self.in_flight.push_back(commit);
        Step { seq, effect: Effect::Event(Box::new(change)), broken: self.broken.clone() }
    }

    /// Makes the outcome the room's current state.
    fn adopt(&mut self, outcome: Outcome) -> (Vec<MemberChange>, Vec<ServerChange>) {
        self.tips = outcome.tips;
        self.state = outcome.state;
        self.joined = outcome.joined;
        self.invited = outcome.invited;
        self.is_open = outcome.is_open;
        for ServerChange { server, joined, .. } in outcome.servers.values() {
            match joined {
                0 => self.servers.remove(server),
                joined => self.servers.insert(server.clone(), *joined),
            };
        }
        (outcome.members, outcome.servers.into_values().collect())
    }

    /// Whether this server is in the room.
    pub(super) fn is_here(&self) -> bool {
        self.servers.contains_key(self.deps.server_name.as_str())
    }

    /// Whether servers besides this one are in the room.
    fn has_other_servers(&self) -> bool {
        self.servers.len() > usize::from(self.is_here())
    }

    fn head(&self) -> RoomHead {
        RoomHead {
            room_id: self.room_id.to_string(),
            version: self.version.id().to_string(),
            create: self.create,
            extremities: self.tips.iter().map(|tip| tip.num).collect(),
            state: self.state,
            joined: self.joined,
            invited: self.invited,
            depth: self.depth,
            pos: StreamPos(0),
            partial_state: false,
        }
    }
}
