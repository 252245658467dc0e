//! Rooms that the user is invited to, or knocks at.

use ruma::{
    UserId,
    api::client::sync::sync_events::v3::{InvitedRoom, KnockedRoom},
    events::AnyStrippedStateEvent,
    serde::Raw,
};

use super::{Round, rooms::Relation};
use crate::view::{Fields, InviteAction, ViewError};

impl Round<'_> {
    /// The section of a room with an invite; `None` if the client has it, or is not to have it.
    pub(super) fn invited(&self, relation: &Relation) -> Result<Option<InvitedRoom>, ViewError> {
        if !relation.is_news() && !self.wants_all() {
            return Ok(None);
        }
        let sender = Fields::of(&relation.member)?.sender.into_owned();
        if self.ignored.contains(&sender) || !self.takes_invites_of(&sender)? {
            return Ok(None);
        }
        let mut room = InvitedRoom::new();
        room.invite_state.events = self.stripped_state(relation, Some(&sender))?;
        Ok(Some(room))
    }

    pub(super) fn takes_invites_of(&self, sender: &str) -> Result<bool, ViewError> {
        let Ok(sender) = <&UserId>::try_from(sender) else { return Ok(false) };
        let permission = self.view().invite_permission(&self.ask.user)?;
        Ok(permission.action(sender) == InviteAction::Allow)
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
