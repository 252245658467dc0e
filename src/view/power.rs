//! Who is what in a room now: membership and power.

use parlour_event::{
    Pdu, RoomNum, RoomVersion,
    content::{CreateContent, LevelError, MemberContent, Membership, PowerLevels},
    json,
};
use parlour_storage::schema::StoredEvent;
use ruma::UserId;

use super::{RoomView, View, ViewError, reader};

/// The power levels of a room as they are now. Malformed ones give nobody power.
#[derive(Debug)]
pub struct Powers {
    version: &'static RoomVersion,
    create: Option<Pdu>,
    levels: Option<Pdu>,
}

impl Powers {
    /// Whether the user has the power to invite.
    #[must_use]
    pub fn may_invite(&self, user: &UserId) -> bool {
        self.reaches(user, |levels| levels.invite())
    }

    /// Whether the user has the power to redact other users' events.
    #[must_use]
    pub fn may_redact(&self, user: &UserId) -> bool {
        self.reaches(user, |levels| levels.redact())
    }

    /// Whether the user has the power to set state of this type.
    #[must_use]
    pub fn may_set(&self, user: &UserId, event_type: &str) -> bool {
        self.reaches(user, |levels| levels.event_level(event_type, true))
    }

    /// The users whom the room's creation or its power levels name: those who may have more power
    /// than others.
    #[must_use]
    pub fn named(&self) -> Vec<&str> {
        let creators = self.create.iter().flat_map(|create| {
            let sender = std::iter::once(create.sender().as_str());
            sender.chain(CreateContent::of(create).privileged(self.version))
        });
        let users = self.levels.as_ref().and_then(|levels| levels.content().get("users"));
        let users = users.and_then(json::Value::as_object).into_iter().flatten();
        creators.chain(users.map(|(user, _)| user.as_str())).collect()
    }

    fn reaches(
        &self,
        user: &UserId,
        needed: impl FnOnce(&PowerLevels<'_>) -> Result<i64, LevelError>,
    ) -> bool {
        let levels = PowerLevels::new(self.version, self.create.as_ref(), self.levels.as_ref());
        match (levels.user_level(user), needed(&levels)) {
            (Ok(level), Ok(needed)) => level.reaches(needed),
            _ => false,
        }
    }
}

impl View {
    /// A user's membership in a room now.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn membership_of(
        &self,
        room: &RoomView,
        user: &UserId,
    ) -> Result<Option<Membership>, ViewError> {
        let member = self.current(room, "m.room.member", user.as_str())?;
        Ok(member.and_then(|member| MemberContent::new(member.content()).membership()))
    }

    /// Whether a user, of whichever server, is joined to a room now. Of our own users it is noted in
    /// which rooms they are; this looks into the room's state.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn is_joined(&self, room: RoomNum, user: &str) -> Result<bool, ViewError> {
        Ok(self.join_of(room, user)?.is_some())
    }

    /// The event by which a user is joined to a room now.
    pub(super) fn join_of(
        &self,
        room: RoomNum,
        user: &str,
    ) -> Result<Option<StoredEvent>, ViewError> {
        let Some(head) = self.store.room_head(room)? else { return Ok(None) };
        let Some(num) = self.member_num(head.state, user)? else { return Ok(None) };
        let Some(member) = self.store.event(num)? else { return Ok(None) };
        let is_joined = reader::membership_of(&member)? == Some(Membership::Join);
        Ok(Some(member).filter(|_| is_joined))
    }

    /// The power levels of a room now.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn powers(&self, room: &RoomView) -> Result<Powers, ViewError> {
        Ok(Powers {
            version: room.version,
            create: self.current(room, "m.room.create", "")?,
            levels: self.current(room, "m.room.power_levels", "")?,
        })
    }

    /// Whether users of other servers may come into a room.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn federates(&self, room: &RoomView) -> Result<bool, ViewError> {
        let create = self.current(room, "m.room.create", "")?;
        Ok(create.is_none_or(|create| CreateContent::of(&create).federates()))
    }

    /// The event of a room's current state for a type and state key.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn current(
        &self,
        room: &RoomView,
        event_type: &str,
        state_key: &str,
    ) -> Result<Option<Pdu>, ViewError> {
        let event = self.state_event(room.head.state, event_type, state_key)?;
        Ok(event.map(|event| event.pdu(room.version)).transpose()?)
    }
}
