//! What rooms do for other servers, and with what other servers say.

use std::sync::{Arc, PoisonError};

use parlour_event::{Pdu, RoomNum, RoomVersion};
use parlour_storage::Op;
use ruma::{OwnedEventId, RoomId, ServerName};

use super::{Entry, Registry, Rooms};
use crate::room::{
    Desk, RoomCore,
    messages::{
        Admission, Backfilled, Entrance, Input, LocalEvent, Output, RoomError, Sent, Template,
        Verdict,
    },
};

impl Rooms {
    /// Takes in an event made elsewhere, whose format, signatures and hashes have been checked. An
    /// outlier does not count as a known `prev_event`; one that arrives as an event gets its place.
    ///
    /// # Errors
    ///
    /// [`RoomError::Missing`] says which `prev_events` and `auth_events` are not known; else see
    /// [`RoomError`]. The room has not changed then.
    pub async fn receive(&self, room: &RoomId, pdu: Arc<Pdu>) -> Result<Verdict, RoomError> {
        verdict(self.perform(room, || Input::Received(pdu.clone())).await?)
    }

    /// As [`Rooms::receive`], for an event that the room's policy server does not sign: it is
    /// soft-failed if nothing worse is wrong with it.
    ///
    /// # Errors
    ///
    /// As [`Rooms::receive`].
    pub async fn receive_unwanted(
        &self,
        room: &RoomId,
        pdu: Arc<Pdu>,
    ) -> Result<Verdict, RoomError> {
        verdict(self.perform(room, || Input::Unwanted(pdu.clone())).await?)
    }

    /// As [`Rooms::receive`], for an event whose `prev_events` are not all known, with the state
    /// before it as another server tells it. All of that state is known here, at least as outliers.
    ///
    /// # Errors
    ///
    /// [`RoomError::Missing`] says which events of the state and which `auth_events` are not
    /// known; else see [`RoomError`]. The room has not changed then.
    pub async fn receive_at(
        &self,
        room: &RoomId,
        pdu: Arc<Pdu>,
        state_before: Vec<OwnedEventId>,
    ) -> Result<Verdict, RoomError> {
        let input = || Input::ReceivedAt(pdu.clone(), state_before.clone());
        verdict(self.perform(room, input).await?)
    }

    /// Takes in an event that another server hands over to be brought into the room (a join, leave
    /// or knock, a countersigned invite). It goes to all other servers in the room but `from`.
    ///
    /// # Errors
    ///
    /// [`RoomError::Forbidden`] if the event would be rejected or soft-failed; else as
    /// [`Rooms::receive`]. Nothing is written then.
    pub async fn bring(
        &self,
        room: &RoomId,
        pdu: Arc<Pdu>,
        from: Option<&ServerName>,
    ) -> Result<Sent, RoomError> {
        let bring = |pdu| Input::Bring(pdu, from.map(ToOwned::to_owned));
        sent(self.settle(room, || bring(pdu.clone()), bring, false).await?)
    }

    /// Stores events without a place in the graph: an auth chain, or a state. Known ones are
    /// skipped. They are judged by their auth events, and rejected ones kept as such; left out is
    /// what no auth events are known for, what is of another room, and what goes in circles.
    ///
    /// # Errors
    ///
    /// See [`RoomError`]; the room has not changed then.
    pub async fn outliers(&self, room: &RoomId, pdus: Vec<Arc<Pdu>>) -> Result<(), RoomError> {
        self.perform(room, || Input::Outliers(pdus.clone())).await.map(drop)
    }

    /// Takes in history behind what is known, oldest first. It changes neither extremities nor the
    /// current state, and `/sync` never tells of it.
    ///
    /// # Errors
    ///
    /// As [`Rooms::receive_at`], if it is so for one of them; none is taken in then.
    pub async fn backfill(
        &self,
        room: &RoomId,
        events: Vec<Backfilled>,
    ) -> Result<Vec<Verdict>, RoomError> {
        match self.perform(room, || Input::Backfill(events.clone())).await? {
            Output::Backfilled(verdicts) => Ok(verdicts),
            _ => Err(RoomError::Gone),
        }
    }

    /// An event on the room's latest events, checked against the auth rules, for another server's
    /// user: `make_join` and the like. Nothing is signed or written.
    ///
    /// # Errors
    ///
    /// See [`RoomError`].
    pub async fn template(&self, room: &RoomId, event: LocalEvent) -> Result<Template, RoomError> {
        match self.perform(room, || Input::Template(Box::new(event.clone()))).await? {
            Output::Template(template) => Ok(template),
            _ => Err(RoomError::Gone),
        }
    }

    /// A local user's event, built, checked, hashed and signed, but not taken in: an invite that
    /// another server has to sign first.
    ///
    /// # Errors
    ///
    /// See [`RoomError`].
    pub async fn propose(&self, room: &RoomId, event: LocalEvent) -> Result<Arc<Pdu>, RoomError> {
        match self.perform(room, || Input::Propose(Box::new(event.clone()))).await? {
            Output::Proposed(pdu) => Ok(pdu),
            Output::Unsigned(unsigned) => {
                let (_turn, _) = self.0.signatures.turn(room).await?;
                self.0.signatures.signed(&unsigned).await
            }
            _ => Err(RoomError::Gone),
        }
    }

    /// Enters a room, for the first time or again, through another server's answer to `send_join`.
    /// Durable and visible as one: the state and its auth chain, then the join.
    ///
    /// # Errors
    ///
    /// [`RoomError::BadEntrance`] if the answer does not fit together, [`RoomError::Forbidden`] if
    /// the state does not allow the join; else see [`RoomError`]. Nothing has changed then.
    pub async fn enter(&self, entrance: Entrance) -> Result<Sent, RoomError> {
        let (room, version) = (entrance.room_id.clone(), entrance.version);
        let mut again = true;
        loop {
            let (entry, admission) = self.0.find_or_open(&room, version)?;
            let input = Input::Enter(Box::new(entrance.clone()));
            let answer = self.0.ask(&entry, input, admission).await;
            if answer.is_err() && self.0.is_headless(&room)? {
                self.0.forget(&room, &entry.addr);
            }
            match answer {
                // Somebody else's attempt to enter has failed, and this one waited behind it.
                Err(RoomError::Gone) if again => {
                    self.0.forget(&room, &entry.addr);
                    again = false;
                }
                answer => return sent(answer?),
            }
        }
    }

    /// The number of a room, made if need be, for what is to be stored of a room that nobody here
    /// has entered (an invite); with the operations that keep it.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn number(&self, room: &RoomId) -> Result<(RoomNum, Vec<Op>), RoomError> {
        Ok(self.0.deps.interner.room(room)?)
    }
}

pub(super) fn sent(output: Output) -> Result<Sent, RoomError> {
    match output {
        Output::Sent(sent) => Ok(sent),
        _ => Err(RoomError::Gone),
    }
}

fn verdict(output: Output) -> Result<Verdict, RoomError> {
    match output {
        Output::Received(verdict) => Ok(verdict),
        _ => Err(RoomError::Gone),
    }
}

impl Registry {
    /// As `find_or_wake`; if the room is not known here it is opened without any events.
    fn find_or_open(
        self: &Arc<Self>,
        room: &RoomId,
        version: &'static RoomVersion,
    ) -> Result<(Entry, Admission), RoomError> {
        match self.find_or_wake(room) {
            Err(RoomError::UnknownRoom) => {}
            found => return found,
        }
        let mut rooms = self.rooms.write().unwrap_or_else(PoisonError::into_inner);
        self.check_not_retired(room)?;
        if let Some(entry) = rooms.get(room) {
            return Ok((entry.clone(), self.admit(room, entry)?));
        }
        let (num, _) = self.deps.interner.room(room)?;
        let core = RoomCore::unborn(self.deps.clone(), num, room.to_owned(), version);
        let host = self.host(room);
        let entry = self.start_actor(room, Desk::unborn(host, core));
        let admission = self.admit(room, &entry)?;
        rooms.insert(room.to_owned(), entry.clone());
        Ok((entry, admission))
    }

    /// Whether a room has a number at most: nobody here has been in it.
    fn is_headless(&self, room: &RoomId) -> Result<bool, RoomError> {
        let Some(num) = self.deps.store.room_num(room.as_str())? else { return Ok(true) };
        Ok(self.deps.store.room_head(num)?.is_none())
    }
}
