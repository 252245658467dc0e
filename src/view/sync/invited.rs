//! Rooms that the user is invited to, or knocks at.

use ruma::{
    api::client::sync::sync_events::v3::{InvitedRoom, KnockedRoom},
    events::AnyStrippedStateEvent,
    serde::Raw,
};

use super::{Round, rooms::Relation};
use crate::view::{Fields, ViewError};

impl Round<'_> {
    /// The section of a room with an invite; `None` if the client has it, or is not to have it.
    pub(super) fn invited(&self, relation: &Relation) -> Result<Option<InvitedRoom>, ViewError> {
        if !relation.is_news() && !self.wants_all() {
            return Ok(None);
        }
        let sender = Fields::of(&relation.member)?.sender.into_owned();
        if self.ignored.contains(&sender)
            || !self.view().takes_invites_of(&self.ask.user, &sender)?
        {
            return Ok(None);
        }
        let mut room = InvitedRoom::new();
        room.invite_state.events = self.stripped_state(relation, Some(&sender))?;
        Ok(Some(room))
    }

    /// The section of a room at which the user knocks; `None` if the client has it.
    pub(super) fn knocked(&self, relation: &Relation) -> Result<Option<KnockedRoom>, ViewError> {
        if !relation.is_news() && !self.wants_all() {
            return Ok(None);
        }
        let mut room = KnockedRoom::new();
        room.knock_state.events = self.stripped_state(relation, None)?;
        Ok(Some(room))
    }

    fn stripped_state(
        &self,
        relation: &Relation,
        inviter: Option<&str>,
    ) -> Result<Vec<Raw<AnyStrippedStateEvent>>, ViewError> {
        let inviter = inviter.filter(|inviter| *inviter != self.user());
        let told = self.view().told_state(relation.at.state_after, inviter)?;
        told.iter().chain([&relation.member]).map(|event| self.view().stripped(event)).collect()
    }
}
