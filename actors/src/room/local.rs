//! A local user's event: built on the room's latest events, checked, hashed and signed.

use std::{collections::HashSet, sync::Arc};

use parlour_event::{
    EventNum, Pdu, auth,
    pdu::{EventReference, PduBuilder},
    state::StateRoot,
};
use parlour_storage::schema::{TransactionEntry, keys};
use ruma::{OwnedEventId, event_id};

use super::{
    change::Outgoing,
    core::{RoomCore, Tip},
    messages::{LocalEvent, Output, RoomError, Sent, Template, Transaction},
    policy::Unsigned,
    take_in::{Fresh, Place, Step},
};
use crate::metrics::Stage;

/// The most extremities that one event can follow.
pub(crate) const MAX_PREV_EVENTS: usize = 20;

/// How many letters and digits the opaque part of an event id has in room versions 1 and 2.
const OPAQUE_ID_LEN: usize = 18;

/// What a local event comes to.
pub(crate) enum Local {
    /// A new commit.
    Step(Box<Step>, OwnedEventId),
    /// It is there already and durable.
    Known(Sent),
    /// It is there already; the commit with this sequence number makes it durable.
    InFlight { seq: u64, event_id: OwnedEventId },
    /// Nothing yet: the room's policy server has to sign it first.
    Unsigned(Box<Unsigned>),
}

/// An event that is to be.
struct Draft {
    /// The state before it.
    state: StateRoot,
    selection: Selection,
    builder: PduBuilder,
}

/// The auth events of an event, found in a state.
pub(crate) struct Selection(Vec<(EventNum, Arc<Pdu>)>);

impl auth::StateView for Selection {
    fn event(&self, event_type: &str, state_key: &str) -> Option<Arc<Pdu>> {
        let is_it =
            |pdu: &Pdu| pdu.state_key() == Some(state_key) && pdu.event_type() == event_type;
        self.0.iter().find(|(_, pdu)| is_it(pdu)).map(|(_, pdu)| pdu.clone())
    }
}

impl RoomCore {
    /// Builds a local user's event and takes it in, if the room's policy server need not sign it.
    pub(crate) fn local(&mut self, event: LocalEvent) -> Result<Local, RoomError> {
        self.build_in(event, true)
    }

    /// Builds one of a room's first events and takes it in.
    pub(crate) fn founding(&mut self, event: LocalEvent) -> Result<Local, RoomError> {
        self.build_in(event, false)
    }

    fn build_in(&mut self, event: LocalEvent, must_sign: bool) -> Result<Local, RoomError> {
        if let Some(known) = self.known_transaction(event.transaction.as_ref())? {
            return Ok(known);
        }
        if let Some(known) = self.unchanged_state(&event)? {
            return Ok(known);
        }
        self.check_relation(&event)?;
        let mut fresh = Fresh::default();
        match self.prepare(event, &mut fresh) {
            Ok((pdu, place)) => {
                if must_sign && let Some(unsigned) = self.unsigned(&pdu)? {
                    self.release(fresh);
                    return Ok(Local::Unsigned(Box::new(unsigned)));
                }
                let (num, event_id) = (self.deps.interner.new_event(), pdu.event_id().clone());
                let since = self.deps.env.clock.monotonic();
                let step = self.take_in(num, pdu, place, fresh)?;
                self.deps.lap(Stage::State, since);
                Ok(Local::Step(Box::new(step), event_id))
            }
            Err(error) => {
                self.release(fresh);
                Err(error)
            }
        }
    }

    /// Builds a new event and checks it.
    fn prepare(
        &mut self,
        event: LocalEvent,
        fresh: &mut Fresh,
    ) -> Result<(Arc<Pdu>, Place), RoomError> {
        let transaction = event.transaction.clone();
        let since = self.deps.env.clock.monotonic();
        let Draft { state, selection, builder } = self.draft(event, fresh)?;
        let deps = &self.deps;
        let since = deps.lap(Stage::Draft, since);
        let pdu = Arc::new(builder.build_and_sign(self.version, &deps.server_name, &deps.key)?);
        let since = deps.lap(Stage::Sign, since);
        auth::check(self.version, &pdu, &selection)?;
        deps.lap(Stage::Auth, since);
        let auth_events = self.auth_nums(&selection, &pdu);
        let outgoing = Some(Outgoing::default());
        let place =
            Place { state_before: state, auth_events, transaction, outgoing, ..Place::default() };
        Ok((pdu, place))
    }

    /// Sets an event up on the room's latest events.
    fn draft(&mut self, event: LocalEvent, fresh: &mut Fresh) -> Result<Draft, RoomError> {
        let tips = self.newest_tips();
        let state = self.state_at(&tips, fresh)?;
        let selection = self.select(state, &event)?;
        let builder = self.build(event, &tips, &selection);
        Ok(Draft { state, selection, builder })
    }

    /// An event for another server's user, which that server completes, hashes and signs.
    pub(crate) fn template(&mut self, event: LocalEvent) -> Result<Template, RoomError> {
        let mut fresh = Fresh::default();
        let drafted = self.draft(event, &mut fresh);
        self.release(fresh);
        let Draft { selection, builder, .. } = drafted?;
        let mut event = builder.into_template(self.version, &self.deps.server_name)?;
        // Room versions 1 and 2 have one, which is for the server to choose that signs the event.
        event.remove("event_id");
        // To the auth rules an event's own id does not matter.
        let unnamed = event_id!("$unnamed").to_owned();
        let unnamed = Pdu::from_trusted(self.version, unnamed, event.clone())?;
        auth::check(self.version, &unnamed, &selection)?;
        Ok(Template { version: self.version, event })
    }

    /// A local user's event, which is not taken in, or what is missing for it.
    pub(crate) fn propose(&mut self, event: LocalEvent) -> Result<Output, RoomError> {
        let mut fresh = Fresh::default();
        let prepared = self.prepare(event, &mut fresh);
        self.release(fresh);
        let (pdu, _) = prepared?;
        Ok(match self.unsigned(&pdu)? {
            Some(unsigned) => Output::Unsigned(Box::new(unsigned)),
            None => Output::Proposed(pdu),
        })
    }

    /// The extremities that a new event follows, deepest first.
    fn newest_tips(&self) -> Vec<Tip> {
        let mut tips = self.tips.clone();
        tips.sort_unstable_by_key(|tip| std::cmp::Reverse((tip.depth, tip.num)));
        tips.truncate(MAX_PREV_EVENTS);
        tips
    }

    /// The state before an event that follows these. Usually they are all there are.
    fn state_at(&mut self, tips: &[Tip], fresh: &mut Fresh) -> Result<StateRoot, RoomError> {
        if tips.len() == self.tips.len() {
            return Ok(self.state);
        }
        let states: Vec<_> = tips.iter().map(|tip| tip.state_after).collect();
        self.resolve(&states, fresh)
    }

    /// What has come of a client's transaction before.
    pub(crate) fn known_transaction(
        &self,
        transaction: Option<&Transaction>,
    ) -> Result<Option<Local>, RoomError> {
        let Some(transaction) = transaction else { return Ok(None) };
        let in_flight =
            self.in_flight.iter().find(|commit| commit.transaction == Some(transaction.hash));
        if let Some(commit) = in_flight
            && let Some((_, event_id)) = commit.events.first()
        {
            return Ok(Some(Local::InFlight { seq: commit.seq, event_id: event_id.clone() }));
        }
        let entry =
            self.deps.store.typed::<TransactionEntry>(&keys::transaction(&transaction.hash))?;
        let event_id = entry.and_then(|entry| OwnedEventId::try_from(entry.result).ok());
        Ok(event_id.map(|event_id| Local::Known(Sent { event_id, pos: self.deps.store.applied() })))
    }

    /// State that is set to what it is already, by the same user, makes no new event.
    fn unchanged_state(&mut self, event: &LocalEvent) -> Result<Option<Local>, RoomError> {
        let Some(state_key) = &event.state_key else { return Ok(None) };
        if event.timestamp.is_some() {
            return Ok(None);
        }
        let Some((num, current)) = self.state_event(self.state, &event.event_type, state_key)?
        else {
            return Ok(None);
        };
        if *current.sender() != event.sender || *current.content() != event.content {
            return Ok(None);
        }
        Ok(Some(self.there_already(num, current.event_id())))
    }

    /// The answer for an event that is there already.
    pub(crate) fn there_already(&self, num: EventNum, event_id: &OwnedEventId) -> Local {
        let event_id = event_id.clone();
        match self.pending.get(&num) {
            Some(pending) => Local::InFlight { seq: pending.seq, event_id },
            None => Local::Known(Sent { event_id, pos: self.deps.store.applied() }),
        }
    }

    /// Looks up the state that an event needs.
    fn select(&mut self, state: StateRoot, event: &LocalEvent) -> Result<Selection, RoomError> {
        let state_key = event.state_key.as_deref();
        let types = auth::auth_types(
            self.version,
            &event.event_type,
            &event.sender,
            state_key,
            &event.content,
        );
        self.select_types(state, types.into_iter())
    }

    /// Looks up these parts of a state, and the create event in any case.
    pub(crate) fn select_types<'a>(
        &mut self,
        state: StateRoot,
        types: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Result<Selection, RoomError> {
        let mut selection = Vec::new();
        let create = std::iter::once(("m.room.create", ""));
        let others = types.filter(|pair| *pair != ("m.room.create", ""));
        for (event_type, state_key) in create.chain(others) {
            selection.extend(self.state_event(state, event_type, state_key)?);
        }
        Ok(Selection(selection))
    }

    /// The numbers of the auth events that the event names.
    fn auth_nums(&self, selection: &Selection, pdu: &Pdu) -> Vec<EventNum> {
        let named = |auth: &Arc<Pdu>| pdu.auth_events().contains(auth.event_id());
        selection.0.iter().filter(|(_, auth)| named(auth)).map(|(num, _)| *num).collect()
    }

    fn build(&self, event: LocalEvent, tips: &[Tip], selection: &Selection) -> PduBuilder {
        let depth = tips.first().map_or(0, |tip| tip.depth).saturating_add(1);
        let prev_events = tips.iter().map(|tip| tip.reference.clone()).collect();
        let rules = self.version.rules();
        let names_create = !rules.authorization.room_create_event_id_as_room_id;
        let has_opaque_ids = rules.event_format.require_event_id;
        let mut seen = HashSet::new();
        let auth_events = selection
            .0
            .iter()
            .filter(|(_, pdu)| names_create || pdu.event_type() != "m.room.create")
            .filter(|(num, _)| seen.insert(*num))
            .map(|(_, pdu)| EventReference::to(self.version, pdu))
            .collect();
        PduBuilder {
            room_id: Some(self.room_id.clone()),
            sender: event.sender,
            event_type: event.event_type,
            state_key: event.state_key,
            content: event.content,
            prev_events,
            auth_events,
            depth,
            origin_server_ts: event.timestamp.unwrap_or_else(|| self.deps.env.clock.now_ms()),
            redacts: event.redacts,
            event_localpart: has_opaque_ids.then(|| self.deps.env.random_string(OPAQUE_ID_LEN)),
        }
    }
}
