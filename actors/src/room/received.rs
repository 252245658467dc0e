//! An event made elsewhere (or, in tests and simulations, on another branch of history).
//!
//! Format, signatures and hashes have been checked before; what remains are the checks 4 to 6 of
//! <https://spec.matrix.org/v1.19/server-server-api/#checks-performed-on-receipt-of-a-pdu>:
//! auth by the event's auth events (else rejected), auth by the state before it (else rejected),
//! auth by the room's current state (else soft-failed).

use std::sync::Arc;

use parlour_event::{EventNum, Pdu, auth, state::StateRoot};
use parlour_storage::schema::EventFlags;
use ruma::OwnedEventId;

use super::{
    core::RoomCore,
    local::MAX_PREV_EVENTS,
    messages::{Input, RoomError, Verdict},
    take_in::{Fresh, Place, Step},
};

/// What a received event comes to.
pub(crate) enum Received {
    /// It was there already.
    Known,
    /// A new commit.
    Step(Box<Step>, Verdict),
}

impl RoomCore {
    /// Whether taking something in means resolving states, which may take long. It does not for an
    /// event that continues the room's history where the core stands.
    pub(crate) fn must_resolve(&self, input: &Input) -> bool {
        match input {
            Input::Local(_) | Input::Member(..) | Input::Guest(_) | Input::Profile(_) => {
                self.tips.len() > MAX_PREV_EVENTS
            }
            Input::Birth(_) => false,
            Input::Received(pdu) => {
                let prev = pdu.prev_events();
                let all_tips = self.tips.iter().all(|tip| prev.contains(&tip.event_id));
                !all_tips || prev.len() != self.tips.len()
            }
        }
    }

    /// Judges an event and takes it in.
    pub(crate) fn received(&mut self, pdu: Arc<Pdu>) -> Result<Received, RoomError> {
        if self.event_num(pdu.event_id().as_str())?.is_some() {
            return Ok(Received::Known);
        }
        let prev = self.known(pdu.prev_events())?;
        let auth_events = self.known(pdu.auth_events())?;
        let mut fresh = Fresh::default();
        let judged = self.judge(&pdu, &prev, &auth_events, &mut fresh);
        let (state_before, flags) = match judged {
            Ok(judged) => judged,
            Err(error) => {
                self.release(fresh);
                return Err(error);
            }
        };
        let verdict = match flags {
            EventFlags { rejected: true, .. } => Verdict::Rejected,
            EventFlags { soft_failed: true, .. } => Verdict::SoftFailed,
            _ => Verdict::Accepted,
        };
        let place = Place { state_before, auth_events, flags, transaction: None, outgoing: None };
        let num = self.deps.interner.new_event();
        let step = self.take_in(num, pdu, place, fresh)?;
        Ok(Received::Step(Box::new(step), verdict))
    }

    /// The numbers of events that must be known.
    fn known(&self, ids: &[OwnedEventId]) -> Result<Vec<EventNum>, RoomError> {
        let mut nums = Vec::with_capacity(ids.len());
        let mut missing = Vec::new();
        for id in ids {
            match self.event_num(id.as_str())? {
                Some(num) => nums.push(num),
                None => missing.push(id.clone()),
            }
        }
        if missing.is_empty() { Ok(nums) } else { Err(RoomError::Missing(missing)) }
    }

    fn judge(
        &mut self,
        pdu: &Pdu,
        prev: &[EventNum],
        auth_events: &[EventNum],
        fresh: &mut Fresh,
    ) -> Result<(StateRoot, EventFlags), RoomError> {
        let mut flags = EventFlags::default();
        let state_before = self.state_before(prev, fresh)?;
        let mut named = Vec::with_capacity(auth_events.len());
        for num in auth_events {
            let (auth, meta) = self.stored(*num)?;
            named.push((auth, meta.flags.rejected));
        }
        let by_auth_events = auth::check_auth_events(self.version, pdu, &named);
        let allowed_where_it_stands = by_auth_events.is_ok()
            && self.allowed_by_auth_events(pdu, &named)?
            && self.allowed_in(pdu, state_before)?;
        if !allowed_where_it_stands {
            flags.rejected = true;
        } else if state_before != self.state && !self.allowed_in(pdu, self.state)? {
            flags.soft_failed = true;
        }
        Ok((state_before, flags))
    }

    /// The state before an event: the states after what it follows, resolved.
    fn state_before(
        &mut self,
        prev: &[EventNum],
        fresh: &mut Fresh,
    ) -> Result<StateRoot, RoomError> {
        let mut states = Vec::with_capacity(prev.len());
        for num in prev {
            let (_, meta) = self.stored(*num)?;
            states.push(match meta.state_key {
                Some(key) if !meta.flags.rejected => {
                    self.insert(meta.state_before, key, *num, fresh)?
                }
                _ => meta.state_before,
            });
        }
        self.resolve(&states, fresh)
    }

    fn allowed_by_auth_events(
        &mut self,
        pdu: &Pdu,
        named: &[(Arc<Pdu>, bool)],
    ) -> Result<bool, RoomError> {
        let create = if self.is_unborn() { None } else { Some(self.event(self.create)?) };
        let view = |event_type: &str, state_key: &str| {
            let is_it = |auth: &&Arc<Pdu>| {
                auth.event_type() == event_type && auth.state_key() == Some(state_key)
            };
            let found = named.iter().map(|(auth, _)| auth).find(is_it).cloned();
            let is_create = (event_type, state_key) == ("m.room.create", "");
            found.or_else(|| create.clone().filter(|_| is_create))
        };
        Ok(auth::check(self.version, pdu, &view).is_ok())
    }

    fn allowed_in(&mut self, pdu: &Pdu, state: StateRoot) -> Result<bool, RoomError> {
        let types = auth::auth_types(
            self.version,
            pdu.event_type(),
            pdu.sender(),
            pdu.state_key(),
            pdu.content(),
        );
        let selection = self.select_types(state, types.into_iter())?;
        Ok(auth::check(self.version, pdu, &selection).is_ok())
    }
}
