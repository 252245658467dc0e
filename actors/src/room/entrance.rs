//! Entering a room through another server, for the first time or again.
//!
//! The state and its auth chain are outliers; the join is the first event with a place, and what
//! makes the room one that can be found stands in its record alone, which is the last one. If the
//! power goes before that, what has been written belongs to a room number that nothing refers to.

use std::sync::Arc;

use parlour_event::{
    EventNum, Pdu, auth,
    content::{CreateContent, MemberContent, Membership},
};

use super::{
    Computed,
    change::Stage,
    commits::Answer,
    core::RoomCore,
    messages::{Entrance, RoomError},
    received::{Arrival, Received, Way},
    take_in::Fresh,
};

/// Takes in all of another server's answer to a join, or nothing.
pub(super) fn through(core: &mut RoomCore, entrance: Entrance) -> Result<Computed, RoomError> {
    let mark = core.next_seq;
    let was_unborn = core.is_unborn();
    core.enter(entrance).inspect_err(|_| {
        core.abandon_since(mark);
        if was_unborn {
            core.create = EventNum(0);
        }
    })
}

impl RoomCore {
    fn enter(&mut self, entrance: Entrance) -> Result<Computed, RoomError> {
        let Entrance { room_id, version, join, state, auth_chain } = entrance;
        if room_id != self.room_id || version.id() != self.version.id() {
            return Err(RoomError::BadEntrance("the room has another version"));
        }
        let content = MemberContent::new(join.content());
        if join.event_type() != "m.room.member" || content.membership() != Some(Membership::Join) {
            return Err(RoomError::BadEntrance("the event is no join"));
        }
        let is_first = self.is_unborn();
        let create = if is_first { Some(self.find_create(&state)?) } else { None };
        let ids: Vec<_> = state.iter().map(|pdu| pdu.event_id().clone()).collect();
        let events = auth_chain.into_iter().chain(state).collect();
        let mut steps = self.outliers(events, create.clone())?;
        if let Some(create) = create {
            let num = self.event_num(create.event_id().as_str())?;
            self.create = num.ok_or(RoomError::BadEntrance("its create event is not allowed"))?;
        }
        let mut fresh = Fresh::default();
        let told = self.entered_state(&ids, &mut fresh);
        let told = match told {
            Ok(told) => told,
            Err(error) => {
                self.release(fresh);
                return Err(error);
            }
        };
        let event_id = join.event_id().clone();
        let arrival = Arrival { told: Some(told), ..Arrival::new(join, Way::Entrance) };
        match self.arrived(arrival, fresh)? {
            Received::Known(num) if steps.is_empty() => {
                Ok(self.there_already(num, &event_id).into())
            }
            // What has come along is of use all the same.
            Received::Known(_) => Ok(Computed::Steps { steps, answer: Answer::Sent(event_id) }),
            Received::Step(mut step, _) => {
                if let Some(change) = step.event().filter(|_| is_first) {
                    change.stage = Stage::Birth(Vec::new());
                }
                steps.push(*step);
                Ok(Computed::Steps { steps, answer: Answer::Sent(event_id) })
            }
        }
    }

    /// The create event of a room that nothing is known of yet.
    fn find_create(&self, state: &[Arc<Pdu>]) -> Result<Arc<Pdu>, RoomError> {
        let is_create = |pdu: &&Arc<Pdu>| {
            pdu.event_type() == "m.room.create"
                && pdu.state_key() == Some("")
                && *pdu.room_id() == self.room_id
        };
        let create = state.iter().find(is_create);
        let create = create.ok_or(RoomError::BadEntrance("its state has no create event"))?;
        auth::check(self.version, create, &|_: &str, _: &str| None)
            .map_err(|_| RoomError::BadEntrance("its create event is not allowed"))?;
        let version = CreateContent::of(create).room_version();
        if version.is_none_or(|version| version.id() != self.version.id()) {
            return Err(RoomError::BadEntrance("the room has another version"));
        }
        Ok(create.clone())
    }
}
