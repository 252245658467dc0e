//! Rooms that this server is not in, to which the user is invited or at which the user knocks. They
//! have no timeline here: the user's membership says by itself since when it holds.

use parlour_event::{RoomNum, StreamPos, content::Membership};
use parlour_storage::schema::{MembershipEntry, OutOfBandEntry, StoredEvent};
use ruma::{
    OwnedRoomId,
    api::client::sync::sync_events::v3::{
        InvitedRoom, KnockedRoom, LeftRoom, Rooms, State, StateEvents,
    },
    events::AnyStrippedStateEvent,
    serde::Raw,
};
use serde_json::value::RawValue;

use super::Round;
use crate::view::{Fields, SyncToken, ViewError, invites::told_member};

impl Round<'_> {
    /// Adds the section of such a room, if there is something new; `false` if the room isn't one.
    pub(super) fn outside(
        &self,
        num: RoomNum,
        entry: &MembershipEntry,
        rooms: &mut Rooms,
    ) -> Result<bool, ViewError> {
        let Some(told) = self.view().store.out_of_band(num, self.user())? else { return Ok(false) };
        let Ok(room_id) = OwnedRoomId::try_from(told.room_id.as_str()) else { return Ok(true) };
        let is_news = self.since().is_some_and(|since| entry.pos > since);
        // What came behind the position of this answer comes with the next one.
        if entry.pos > self.now.pos || !self.wants_room(&room_id) {
            return Ok(true);
        }
        let is_wanted = is_news || self.wants_all();
        let member = told_member(num, entry, &told);
        match Membership::parse(&entry.membership) {
            Some(Membership::Invite) if is_wanted => {
                if self.is_welcome(&member)? {
                    let mut room = InvitedRoom::new();
                    room.invite_state.events = self.told(&told, &member)?;
                    rooms.invite.insert(room_id, room);
                }
            }
            Some(Membership::Knock) if is_wanted => {
                let mut room = KnockedRoom::new();
                room.knock_state.events = self.told(&told, &member)?;
                rooms.knock.insert(room_id, room);
            }
            Some(Membership::Leave | Membership::Ban) => {
                let wants_left = self.wants_all() && self.ask.filter.room.include_leave;
                if is_news || wants_left && !self.view().has_forgotten(self.user(), num)? {
                    rooms.leave.insert(room_id, self.over(&member)?);
                }
            }
            Some(Membership::Invite | Membership::Knock | Membership::Join) | None => {}
        }
        Ok(true)
    }

    fn is_welcome(&self, invite: &StoredEvent) -> Result<bool, ViewError> {
        let sender = Fields::of(invite)?.sender.into_owned();
        Ok(!self.ignored.contains(&sender)
            && self.view().takes_invites_of(&self.ask.user, &sender)?)
    }

    /// What the other server told of the room, with the user's own member event.
    fn told(
        &self,
        told: &OutOfBandEntry,
        member: &StoredEvent,
    ) -> Result<Vec<Raw<AnyStrippedStateEvent>>, ViewError> {
        let events = told.told.iter().filter_map(|event| RawValue::from_string(event.clone()).ok());
        let mut events: Vec<_> = events.map(Raw::from_json).collect();
        events.push(self.view().stripped(member)?);
        Ok(events)
    }

    /// The end of an invite or a knock.
    fn over(&self, member: &StoredEvent) -> Result<LeftRoom, ViewError> {
        let mut room = LeftRoom::new();
        if self.ask.state_after {
            room.state = State::After(StateEvents::new());
        }
        if self.timeline_filter().wants(&Fields::of(member)?) {
            let before = StreamPos(member.meta.pos.0.saturating_sub(1));
            room.timeline.events.push(self.shape.lone_event(self.view(), member)?);
            room.timeline.prev_batch = Some(SyncToken::at(before).to_string());
        }
        Ok(room)
    }
}
