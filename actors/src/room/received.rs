//! An event made elsewhere (or, in tests and simulations, on another branch of history).
//!
//! Format, signatures and hashes have been checked before; what remains are the checks 4 to 6 of
//! <https://spec.matrix.org/v1.19/server-server-api/#checks-performed-on-receipt-of-a-pdu>:
//! auth by the event's auth events (else rejected), auth by the state before it (else rejected),
//! auth by the room's current state (else soft-failed).

use std::sync::Arc;

use parlour_event::{
    EventNum, Pdu, RoomVersion,
    auth::{self, AuthError},
    state::StateRoot,
};
use parlour_storage::schema::{EventFlags, EventMeta};
use ruma::{OwnedEventId, OwnedServerName};

use super::{
    change::Outgoing,
    core::RoomCore,
    local::{Local, MAX_PREV_EVENTS},
    messages::{Input, RoomError, Transaction, Verdict},
    take_in::{Fresh, Place, Step},
};

/// So many outliers are not taken in where requests are served.
const MANY_OUTLIERS: usize = 16;

/// What a received event comes to.
pub(crate) enum Received {
    /// It was there already.
    Known(EventNum),
    /// A new commit.
    Step(Box<Step>, Verdict),
}

/// An event that comes in.
pub(crate) struct Arrival {
    pub(crate) pdu: Arc<Pdu>,
    /// The state before it, as another server tells it.
    pub(crate) told: Option<StateRoot>,
    pub(crate) way: Way,
    /// With which a client here has sent it.
    pub(crate) transaction: Option<Transaction>,
}

impl Arrival {
    pub(crate) fn new(pdu: Arc<Pdu>, way: Way) -> Self {
        Self { pdu, told: None, way, transaction: None }
    }
}

/// What is made of an event that comes in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Way {
    /// It is taken in as what it is: accepted, soft-failed or rejected.
    Received,
    /// The same, but it is soft-failed if it is not rejected.
    Unwanted,
    /// It is accepted, and goes to all other servers in the room but this one, or it is refused.
    Brought(Option<OwnedServerName>),
    /// It is accepted or refused, with no regard to the current state, which nobody here has
    /// followed.
    Entrance,
    /// It is history behind what is known: the current state says nothing about it.
    Past,
}

/// Events that are known with the state at them, and the ids of others.
type KnownAndNot = (Vec<(EventNum, EventMeta)>, Vec<OwnedEventId>);

/// An auth event that is named: its number, itself, and whether it was rejected.
pub(crate) type Named = (EventNum, Arc<Pdu>, bool);

/// What is made of an event before it is taken in.
enum Arriving {
    Known(EventNum),
    New { num: EventNum, pdu: Arc<Pdu>, place: Box<Place> },
}

impl RoomCore {
    /// Whether taking something in means resolving states or much other work, which may take long.
    /// It does not for an event that continues the room's history where the core stands.
    pub(crate) fn must_resolve(&self, input: &Input) -> bool {
        match input {
            Input::Local(_)
            | Input::Member(..)
            | Input::Guest(_)
            | Input::Profile(_)
            | Input::Template(_)
            | Input::Propose(_)
            | Input::Many(_) => self.tips.len() > MAX_PREV_EVENTS,
            Input::Birth(_) => false,
            Input::Received(pdu) | Input::Unwanted(pdu) | Input::Bring(pdu, _) => {
                !self.continues(pdu)
            }
            Input::Built(built) => !self.continues(&built.pdu),
            Input::Outliers(pdus) => pdus.len() > MANY_OUTLIERS,
            Input::ReceivedAt(..) | Input::Backfill(_) | Input::Enter(_) => true,
        }
    }

    /// Whether an event follows all of the room's latest events, and nothing else.
    fn continues(&self, pdu: &Pdu) -> bool {
        let prev = pdu.prev_events();
        let all_tips = self.tips.iter().all(|tip| prev.contains(tip.event_id()));
        all_tips && prev.len() == self.tips.len()
    }

    /// Judges an event and takes it in.
    pub(crate) fn received(&mut self, pdu: Arc<Pdu>, way: Way) -> Result<Received, RoomError> {
        self.arrived(Arrival::new(pdu, way), Fresh::default())
    }

    /// Judges an event with the state before it as another server tells it, and takes it in.
    pub(crate) fn received_at(
        &mut self,
        pdu: Arc<Pdu>,
        state: &[OwnedEventId],
    ) -> Result<Received, RoomError> {
        let mut fresh = Fresh::default();
        let told = match self.told_state(state, &mut fresh) {
            Ok(told) => Some(told),
            Err(error) => {
                self.release(fresh);
                return Err(error);
            }
        };
        self.arrived(Arrival { told, ..Arrival::new(pdu, Way::Received) }, fresh)
    }

    /// Takes in an event that another server hands over, if it is accepted. It goes to all other
    /// servers in the room but `from`.
    pub(crate) fn bring(
        &mut self,
        pdu: Arc<Pdu>,
        from: Option<OwnedServerName>,
    ) -> Result<Local, RoomError> {
        if self.event_num(pdu.event_id().as_str())?.is_none()
            && let Some(unsigned) = self.unsigned(&pdu)?
        {
            return Ok(Local::Unsigned(Box::new(unsigned)));
        }
        self.bring_in(Arrival::new(pdu, Way::Brought(from)))
    }

    /// Takes in an event if it is accepted.
    pub(crate) fn bring_in(&mut self, arrival: Arrival) -> Result<Local, RoomError> {
        let event_id = arrival.pdu.event_id().clone();
        Ok(match self.arrived(arrival, Fresh::default())? {
            Received::Known(num) => self.there_already(num, &event_id),
            Received::Step(step, _) => Local::Step(step, event_id),
        })
    }

    /// Judges an event and takes it in, or refuses it. `fresh` has the nodes of the told state.
    pub(crate) fn arrived(
        &mut self,
        arrival: Arrival,
        mut fresh: Fresh,
    ) -> Result<Received, RoomError> {
        match self.arriving(&arrival, &mut fresh) {
            Ok(Arriving::Known(num)) => {
                self.release(fresh);
                Ok(Received::Known(num))
            }
            Ok(Arriving::New { num, pdu, place }) => {
                let verdict = match place.flags {
                    EventFlags { rejected: true, .. } => Verdict::Rejected,
                    EventFlags { soft_failed: true, .. } => Verdict::SoftFailed,
                    _ => Verdict::Accepted,
                };
                let step = self.take_in(num, pdu, *place, fresh)?;
                Ok(Received::Step(Box::new(step), verdict))
            }
            Err(error) => {
                self.release(fresh);
                Err(error)
            }
        }
    }

    fn arriving(&mut self, arrival: &Arrival, fresh: &mut Fresh) -> Result<Arriving, RoomError> {
        let Arrival { pdu, told, way, transaction } = arrival;
        if *pdu.room_id() != self.room_id {
            return Err(RoomError::OtherRoom);
        }
        let outlier = match self.known_event(pdu.event_id())? {
            Some((num, meta)) if !meta.flags.outlier => {
                let is_refused = matches!(way, Way::Brought(_) | Way::Entrance);
                return match is_refused && !meta.flags.is_visible() {
                    true => Err(RoomError::RefusedBefore),
                    false => Ok(Arriving::Known(num)),
                };
            }
            known => known,
        };
        let (prev, gaps) = self.known_prev(pdu)?;
        let auth_events = self.known_auth(pdu)?;
        let missing_prev = if told.is_some() { &[][..] } else { &gaps };
        let missing_auth = pdu.auth_events().iter().zip(&auth_events);
        let missing_auth = missing_auth.filter(|(_, known)| known.is_none()).map(|(id, _)| id);
        let missing: Vec<_> = missing_prev.iter().chain(missing_auth).cloned().collect();
        if !missing.is_empty() {
            return Err(RoomError::Missing(missing));
        }
        let auth_events: Vec<_> = auth_events.into_iter().flatten().collect();
        let state_before = self.state_before(*told, &prev, fresh)?;
        let current = self.current_for(state_before, told.is_some(), way, fresh)?;
        let (mut flags, error) = self.judge(pdu, state_before, current, &auth_events)?;
        flags.soft_failed |= *way == Way::Unwanted && !flags.rejected;
        if let (Way::Brought(_) | Way::Entrance, Some(error)) = (way, error) {
            return Err(error.into());
        }
        let mut place = Place {
            state_before,
            auth_events: auth_events.iter().map(|(num, ..)| *num).collect(),
            flags,
            is_past: *way == Way::Past,
            is_return: *way == Way::Entrance && !self.is_here(),
            transaction: transaction.clone(),
            was_outlier: outlier.is_some(),
            edges: self.edges(pdu, gaps)?,
            outgoing: match way {
                Way::Brought(from) => Some(Outgoing { except: from.clone() }),
                Way::Received | Way::Unwanted | Way::Entrance | Way::Past => None,
            },
            ..Place::default()
        };
        let before = outlier.as_ref().and_then(|(_, meta)| meta.redacted_because);
        place.redacted_because =
            before.map_or_else(|| self.redaction_of(pdu), |num| Ok(Some(num)))?;
        let pdu = match place.redacted_because {
            Some(_) => Arc::new(self.redacted(pdu)?),
            None => pdu.clone(),
        };
        let num = outlier.map_or_else(|| self.deps.interner.new_event(), |(num, _)| num);
        Ok(Arriving::New { num, pdu, place: Box::new(place) })
    }

    /// The number of an event of this room and what is known of it.
    ///
    /// Events of rooms that are gone, or that never came to be, may still have a number: they are
    /// as good as unknown.
    pub(crate) fn known_event(
        &self,
        event_id: &OwnedEventId,
    ) -> Result<Option<(EventNum, EventMeta)>, RoomError> {
        let Some(num) = self.event_num(event_id.as_str())? else { return Ok(None) };
        let meta = self.meta(num)?;
        if meta.room == self.num {
            return Ok(Some((num, meta)));
        }
        match self.deps.store.room_head(meta.room)? {
            Some(_) => Err(RoomError::OtherRoom),
            None => Ok(None),
        }
    }

    /// Which of the events that this one follows are known with the state at them, and which are
    /// not.
    fn known_prev(&self, pdu: &Pdu) -> Result<KnownAndNot, RoomError> {
        let mut known = Vec::with_capacity(pdu.prev_events().len());
        let mut gaps = Vec::new();
        for id in pdu.prev_events() {
            match self.known_event(id)? {
                Some((num, meta)) if !meta.flags.outlier => known.push((num, meta)),
                _ => gaps.push(id.clone()),
            }
        }
        Ok((known, gaps))
    }

    /// The auth events that an event names, in order, if they are known, with whether they were
    /// rejected.
    fn known_auth(&self, pdu: &Pdu) -> Result<Vec<Option<Named>>, RoomError> {
        let find = |id| {
            let Some((num, meta)) = self.known_event(id)? else { return Ok(None) };
            Ok(Some((num, self.stored(num)?.0, meta.flags.rejected)))
        };
        pdu.auth_events().iter().map(find).collect()
    }

    /// The current state that an event has to be allowed in, if that is asked.
    ///
    /// Behind a gap it may be old, so what is told counts, too; but not alone, since gaps are easily
    /// made by whoever wants to get round a ban.
    fn current_for(
        &mut self,
        state_before: StateRoot,
        is_told: bool,
        way: &Way,
        fresh: &mut Fresh,
    ) -> Result<Option<StateRoot>, RoomError> {
        if matches!(way, Way::Entrance | Way::Past) || state_before == self.state {
            return Ok(None);
        }
        if !is_told {
            return Ok(Some(self.state));
        }
        let mut states: Vec<_> = self.tips.iter().map(|tip| tip.state_after).collect();
        states.push(state_before);
        Ok(Some(self.resolve(&states, fresh)?))
    }

    /// The checks 4 to 6, and what is wrong if the event is not accepted.
    fn judge(
        &mut self,
        pdu: &Pdu,
        state_before: StateRoot,
        current: Option<StateRoot>,
        auth_events: &[Named],
    ) -> Result<(EventFlags, Option<AuthError>), RoomError> {
        let create = if self.is_unborn() { None } else { Some(self.event(self.create)?) };
        let mut flags = EventFlags::default();
        let mut error = allowed_by(self.version, pdu, auth_events, create.as_ref()).err();
        if error.is_none() {
            error = self.allowed_in(pdu, state_before)?.err();
        }
        flags.rejected = error.is_some();
        if let (None, Some(current)) = (&error, current) {
            error = self.allowed_in(pdu, current)?.err();
            flags.soft_failed = error.is_some();
        }
        Ok((flags, error))
    }

    /// The state before an event: what is told of it, else the states after what it follows,
    /// resolved.
    ///
    /// What is told is all there is to say: other servers have resolved it from what this event
    /// follows. Resolving it again with a part of that would bring back what has lost already, and
    /// this server's room would be another one than theirs.
    fn state_before(
        &mut self,
        told: Option<StateRoot>,
        prev: &[(EventNum, EventMeta)],
        fresh: &mut Fresh,
    ) -> Result<StateRoot, RoomError> {
        if let Some(told) = told {
            return Ok(told);
        }
        let mut states = Vec::with_capacity(prev.len());
        for (num, meta) in prev {
            states.push(match meta.state_key {
                Some(key) if !meta.flags.rejected => {
                    self.insert(meta.state_before, key, *num, fresh)?
                }
                _ => meta.state_before,
            });
        }
        self.resolve(&states, fresh)
    }

    fn allowed_in(
        &mut self,
        pdu: &Pdu,
        state: StateRoot,
    ) -> Result<Result<(), AuthError>, RoomError> {
        let types = auth::auth_types(
            self.version,
            pdu.event_type(),
            pdu.sender(),
            pdu.state_key(),
            pdu.content(),
        );
        let selection = self.select_types(state, types.into_iter())?;
        Ok(auth::check(self.version, pdu, &selection))
    }
}

/// Whether an event's own auth events allow it. `create` is the room's create event, if there is
/// one yet: no other one can be.
pub(crate) fn allowed_by(
    version: &RoomVersion,
    pdu: &Pdu,
    auth_events: &[Named],
    create: Option<&Arc<Pdu>>,
) -> Result<(), AuthError> {
    let is_create =
        |event: &Pdu| event.event_type() == "m.room.create" && event.state_key() == Some("");
    if is_create(pdu) && create.is_some_and(|create| create.event_id() != pdu.event_id()) {
        return Err(AuthError::SecondCreate);
    }
    let named: Vec<_> =
        auth_events.iter().map(|(_, event, rejected)| (event.clone(), *rejected)).collect();
    auth::check_auth_events(version, pdu, &named)?;
    let view = |event_type: &str, state_key: &str| {
        let is_it =
            |event: &&Pdu| event.event_type() == event_type && event.state_key() == Some(state_key);
        let found = named.iter().map(|(event, _)| event).find(|event| is_it(&&***event)).cloned();
        let wants_create = (event_type, state_key) == ("m.room.create", "");
        found.or_else(|| create.filter(|_| wants_create).cloned())
    };
    auth::check(version, pdu, &view)
}
