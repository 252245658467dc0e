//! The end of every step: an event that has been judged becomes part of the room.

use std::sync::{Arc, atomic::AtomicBool};

use parlour_event::{
    EventNum, Pdu, StateKeyNum, StreamPos,
    json::Value,
    redaction,
    resolve::{self, ResolveLimits},
    state::{Node, NodeId, Overlay, ReadState, StateRoot},
};
use parlour_storage::{
    Op,
    schema::{EventFlags, EventMeta, MembershipEntry, RoomHead, TimelineEntry},
};
use ruma::OwnedEventId;

use super::{
    change::{EventChange, MemberChange, Outgoing, Redacted, ServerChange, Stage},
    core::{InFlight, RoomCore, Tip},
    guests::lets_guests_in,
    messages::{RoomError, Transaction},
    source::CoreEvents,
};

/// A conflict that needs more work than this is refused: some tens of seconds.
const RESOLVE_LIMITS: ResolveLimits = ResolveLimits { max_events: 20_000_000 };

/// Where an event stands and what was decided about it.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) state_before: StateRoot,
    pub(crate) auth_events: Vec<EventNum>,
    pub(crate) flags: EventFlags,
    pub(crate) transaction: Option<Transaction>,
    /// Whether other servers have to hear of it from this one.
    pub(crate) outgoing: Option<Outgoing>,
}

/// A computed commit, ready for the persister.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) seq: u64,
    pub(crate) event_id: OwnedEventId,
    pub(crate) change: EventChange,
    pub(crate) broken: Arc<AtomicBool>,
}

/// State nodes made during a step. They are pinned at once, so that the rest of the step can read
/// them, and belong to the step's commit.
#[derive(Debug, Default)]
pub(crate) struct Fresh(pub(crate) Vec<NodeId>);

/// What an event does to others.
#[derive(Default)]
struct OnOthers {
    redacted: Option<Redacted>,
    relations: Vec<Op>,
}

/// What the current state becomes.
struct Outcome {
    tips: Vec<Tip>,
    state: StateRoot,
    members: Vec<MemberChange>,
    joined: u64,
    invited: u64,
    servers: Vec<ServerChange>,
    closes_to_guests: bool,
}

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

    fn pin(&mut self, nodes: Vec<(NodeId, Arc<Node>)>, fresh: &mut Fresh) {
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
        let mut state_keys = Vec::new();
        let result = self.take_in_inner(num, &pdu, place, &mut fresh, &mut state_keys);
        if result.is_err() {
            self.pending.remove(&num);
            self.pending_ids.remove(pdu.event_id());
            self.release(fresh);
        }
        result
    }

    /// Lets go of the nodes of a step that came to nothing.
    pub(crate) fn release(&mut self, fresh: Fresh) {
        fresh.0.into_iter().for_each(|id| self.nodes.unpin(id));
    }

    fn take_in_inner(
        &mut self,
        num: EventNum,
        pdu: &Arc<Pdu>,
        place: Place,
        fresh: &mut Fresh,
        state_keys: &mut Vec<Op>,
    ) -> Result<Step, RoomError> {
        let state_key = match pdu.state_key() {
            Some(key) => {
                Some(self.deps.interner.intern_state_key(pdu.event_type(), key, state_keys)?)
            }
            None => None,
        };
        let meta = self.meta(pdu, &place, state_key);
        // From here on the event can be read back by its number.
        self.pending.insert(num, (pdu.clone(), meta.clone()));
        self.pending_ids.insert(pdu.event_id().clone(), num);
        let outcome = match place.flags.is_visible() {
            true => Some(self.outcome(num, pdu, &place, state_key, fresh)?),
            false => None,
        };
        let on_others = match place.flags.is_visible() {
            true => self.on_others(num, pdu, place.state_before)?,
            false => OnOthers::default(),
        };
        let made = (place.transaction, place.outgoing);
        Ok(self.finish(num, pdu, meta, made, outcome, on_others, state_keys, fresh))
    }

    fn meta(&self, pdu: &Pdu, place: &Place, state_key: Option<StateKeyNum>) -> EventMeta {
        EventMeta {
            event_id: pdu.event_id().to_string(),
            room: self.num,
            pos: StreamPos(0),
            depth: pdu.depth(),
            state_before: place.state_before,
            state_key,
            auth_events: place.auth_events.clone(),
            flags: place.flags,
            redacted_because: None,
            transaction: (place.transaction.as_ref())
                .map(|transaction| (transaction.device.clone(), transaction.txn_id.clone())),
        }
    }

    /// Works out the new extremities and how the current state changes.
    fn outcome(
        &mut self,
        num: EventNum,
        pdu: &Arc<Pdu>,
        place: &Place,
        state_key: Option<StateKeyNum>,
        fresh: &mut Fresh,
    ) -> Result<Outcome, RoomError> {
        let state_after = match state_key {
            Some(key) => self.insert(place.state_before, key, num, fresh)?,
            None => place.state_before,
        };
        let mut tips: Vec<_> = self
            .tips
            .iter()
            .filter(|tip| !pdu.prev_events().contains(&tip.event_id))
            .cloned()
            .collect();
        let (event_id, depth) = (pdu.event_id().clone(), pdu.depth());
        tips.push(Tip { num, event_id, depth, state_after });
        let states: Vec<_> = tips.iter().map(|tip| tip.state_after).collect();
        let state = self.resolve(&states, fresh)?;
        self.membership_outcome(tips, state)
    }

    /// Counts members anew by looking at those whose membership changed alone.
    fn membership_outcome(
        &mut self,
        tips: Vec<Tip>,
        state: StateRoot,
    ) -> Result<Outcome, RoomError> {
        let mut outcome = Outcome {
            tips,
            state,
            members: Vec::new(),
            joined: self.joined,
            invited: self.invited,
            servers: Vec::new(),
            closes_to_guests: false,
        };
        if state == self.state {
            return Ok(outcome);
        }
        for (key, old, new) in self.nodes.diff(self.state, state)? {
            if !key.is_member() {
                outcome.closes_to_guests |=
                    self.is_open_to_guests(old)? && !self.is_open_to_guests(new)?;
                continue;
            }
            let old = old.map(|num| self.member(num)).transpose()?;
            let new_member = new.map(|num| self.member(num)).transpose()?;
            let was = old.as_ref().map_or("leave", |(_, membership)| membership);
            let is = new_member.as_ref().map_or("leave", |(_, membership)| membership);
            let Some((user, _)) = new_member.as_ref().or(old.as_ref()) else { continue };
            count(&mut outcome.joined, was == "join", is == "join");
            count(&mut outcome.invited, was == "invite", is == "invite");
            let server = user.split_once(':').map_or("", |(_, server)| server).to_owned();
            if (was == "join") != (is == "join") {
                self.count_server(&mut outcome.servers, &server, was == "join", is == "join");
            }
            let entry = MembershipEntry {
                membership: is.to_owned(),
                event: new.unwrap_or_default(),
                pos: StreamPos(0),
            };
            let is_local = server == self.deps.server_name.as_str();
            outcome.members.push(MemberChange { user: user.clone(), is_local, entry });
        }
        Ok(outcome)
    }

    fn is_open_to_guests(&mut self, num: Option<EventNum>) -> Result<bool, RoomError> {
        Ok(match num {
            Some(num) => lets_guests_in(&*self.event(num)?),
            None => false,
        })
    }

    fn count_server(
        &self,
        servers: &mut Vec<ServerChange>,
        server: &str,
        was_joined: bool,
        is_joined: bool,
    ) {
        let is_it = |change: &ServerChange| change.server == server;
        let position = servers.iter().position(is_it).unwrap_or_else(|| {
            let before = self.servers.get(server).copied().unwrap_or_default();
            let is_local = server == self.deps.server_name.as_str();
            let server = server.to_owned();
            servers.push(ServerChange { server, is_local, before, joined: before });
            servers.len() - 1
        });
        count(&mut servers[position].joined, was_joined, is_joined);
    }

    /// User and membership of a member event.
    fn member(&mut self, num: EventNum) -> Result<(String, String), RoomError> {
        let pdu = self.event(num)?;
        let membership = match pdu.content().get("membership") {
            Some(Value::String(membership)) => membership.clone(),
            _ => "leave".to_owned(),
        };
        Ok((pdu.state_key().unwrap_or_default().to_owned(), membership))
    }

    /// What an event does to others: what it redacts, and what it relates to.
    fn on_others(
        &mut self,
        num: EventNum,
        pdu: &Pdu,
        state_before: StateRoot,
    ) -> Result<OnOthers, RoomError> {
        let mut relations = self.relate(num, pdu)?;
        let redacted = self.redact_target(num, pdu, state_before, &mut relations)?;
        Ok(OnOthers { redacted, relations })
    }

    /// The redacted form of what a redaction redacts, if it is here and may be redacted.
    fn redact_target(
        &mut self,
        num: EventNum,
        pdu: &Pdu,
        state_before: StateRoot,
        relations: &mut Vec<Op>,
    ) -> Result<Option<Redacted>, RoomError> {
        if pdu.event_type() != "m.room.redaction" || pdu.state_key().is_some() {
            return Ok(None);
        }
        let Some(target) = pdu.redacts() else { return Ok(None) };
        let Some(target_num) = self.event_num(target.as_str())? else { return Ok(None) };
        let (target, mut meta) = self.stored(target_num)?;
        let allowed = target.room_id() == pdu.room_id()
            && meta.redacted_because.is_none()
            && self.may_redact(pdu, &target, state_before)?;
        if !allowed {
            return Ok(None);
        }
        if meta.flags.is_visible() {
            relations.append(&mut self.unrelate(target_num, &target)?);
        }
        meta.redacted_because = Some(num);
        let json = redaction::redact(self.version, target.json().clone());
        let redacted = Pdu::from_trusted(self.version, target.event_id().clone(), json)?;
        let redacted = Arc::new(redacted);
        let json = redacted.to_bytes().into();
        self.events.put(target_num, redacted.clone());
        if let Some(pending) = self.pending.get_mut(&target_num) {
            *pending = (redacted, meta.clone());
        }
        Ok(Some(Redacted { num: target_num, meta, json }))
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one value, put together here")]
    fn finish(
        &mut self,
        num: EventNum,
        pdu: &Arc<Pdu>,
        meta: EventMeta,
        (transaction, outgoing): (Option<Transaction>, Option<Outgoing>),
        outcome: Option<Outcome>,
        on_others: OnOthers,
        state_keys: &mut Vec<Op>,
        fresh: &mut Fresh,
    ) -> Step {
        let stage = match self.create {
            EventNum(0) => Stage::Birth(Vec::new()),
            _ => Stage::Grown,
        };
        if matches!(stage, Stage::Birth(_)) {
            self.create = num;
        }
        let is_in_history = outcome.is_some();
        let closes_to_guests = outcome.as_ref().is_some_and(|outcome| outcome.closes_to_guests);
        let concerns_others = is_in_history && self.has_other_servers();
        let (members, servers) = outcome.map(|outcome| self.adopt(outcome)).unwrap_or_default();
        let concerns_others = concerns_others || is_in_history && self.has_other_servers();
        self.events.put(num, pdu.clone());
        let seq = self.next_seq;
        self.next_seq += 1;
        let nodes = std::mem::take(&mut fresh.0);
        let relations = self.unsettled.note(seq, &on_others.relations);
        let change = EventChange {
            room: self.num,
            num,
            json: pdu.to_bytes().into(),
            time: pdu.origin_server_ts(),
            meta,
            head: self.head(),
            timeline: is_in_history.then_some(TimelineEntry {
                event: num,
                state_after: self.state,
                joined: self.joined,
                invited: self.invited,
            }),
            stage,
            nodes: self.nodes.get_all(&nodes),
            state_keys: std::mem::take(state_keys),
            members,
            servers,
            outgoing: outgoing.filter(|_| concerns_others),
            relations: on_others.relations,
            redacted: on_others.redacted,
            transaction: (transaction.as_ref())
                .map(|transaction| (transaction.hash, self.deps.env.clock.now_ms())),
        };
        self.in_flight.push_back(InFlight {
            seq,
            num,
            event_id: pdu.event_id().clone(),
            transaction: transaction.map(|transaction| transaction.hash),
            nodes,
            state_key: pdu.state_key().map(|key| (pdu.event_type().to_owned(), key.to_owned())),
            relations,
            closes_to_guests,
        });
        Step { seq, event_id: pdu.event_id().clone(), change, broken: self.broken.clone() }
    }

    /// Makes the outcome the room's current state.
    fn adopt(&mut self, outcome: Outcome) -> (Vec<MemberChange>, Vec<ServerChange>) {
        self.tips = outcome.tips;
        self.state = outcome.state;
        self.joined = outcome.joined;
        self.invited = outcome.invited;
        for ServerChange { server, joined, .. } in &outcome.servers {
            match joined {
                0 => self.servers.remove(server),
                joined => self.servers.insert(server.clone(), *joined),
            };
        }
        (outcome.members, outcome.servers)
    }

    /// Whether servers besides this one are in the room.
    fn has_other_servers(&self) -> bool {
        let own = self.servers.contains_key(self.deps.server_name.as_str());
        self.servers.len() > usize::from(own)
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
            pos: StreamPos(0),
            partial_state: false,
        }
    }
}

/// Moves a counter as somebody stops or starts to be counted.
fn count(counter: &mut u64, was: bool, is: bool) {
    match (was, is) {
        (false, true) => *counter += 1,
        (true, false) => *counter = counter.saturating_sub(1),
        _ => {}
    }
}
