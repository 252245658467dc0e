//! Changes of a membership that depend on what it is: whoever is kicked must be in the room, and an
//! unban must not be a kick. Two moderators who act at the same time would otherwise undo each
//! other's work, since to the auth rules a kick of somebody banned is an unban.

use parlour_event::content::{MemberContent, Membership};

use super::{
    core::RoomCore,
    local::Local,
    messages::{LocalEvent, RoomError},
};

impl RoomCore {
    /// Takes in a local user's member event if the target's membership is one of `from`.
    pub(crate) fn member_change(
        &mut self,
        event: LocalEvent,
        from: &[Membership],
    ) -> Result<Local, RoomError> {
        let target = event.state_key.as_deref().unwrap_or_default();
        let checked = self.check_membership(target, from);
        // Who is not in the room does not learn from a refusal who else is.
        if checked.is_err() && event.sender.as_str() != target {
            let is_in = self.check_membership(event.sender.as_str(), &[Membership::Join]);
            is_in.map_err(|_| RoomError::UnknownRoom)?;
        }
        checked?;
        self.local(event)
    }

    /// Checks that a user's membership is one of `from`.
    pub(super) fn check_membership(
        &mut self,
        user: &str,
        from: &[Membership],
    ) -> Result<(), RoomError> {
        let member = self.state_event(self.state, "m.room.member", user)?;
        let membership =
            member.and_then(|(_, member)| MemberContent::new(member.content()).membership());
        let is = membership.unwrap_or(Membership::Leave);
        match from.contains(&is) {
            true => Ok(()),
            false => Err(RoomError::WrongMembership { user: user.to_owned(), is }),
        }
    }
}
