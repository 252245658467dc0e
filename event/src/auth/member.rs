use ruma::UserId;

use super::{AuthError, Check, StateView, require};
use crate::content::{CreateContent, JoinRule, MemberContent, Membership};

impl<S: StateView + ?Sized> Check<'_, S> {
    /// "If type is `m.room.member`"
    pub(super) fn member(&self) -> Result<(), AuthError> {
        let rules = &self.version.rules().authorization;
        let content = MemberContent::new(self.event.content());
        // If there is no state_key property, or no membership property in content, reject.
        let target = self.event.state_key().ok_or(AuthError::MemberStateKey)?;
        let target = <&UserId>::try_from(target).map_err(|_| AuthError::MemberStateKey)?;
        let membership = content.membership_text().ok_or(AuthError::NoMembership)?;
        // From version 8. If content has a join_authorised_via_users_server key: If the event is
        // not validly signed by the homeserver of the user ID denoted by the key, reject.
        // The signature is checked with the event's others; here, that there is a user ID.
        if rules.restricted_join_rule
            && content.has_authorising_user()
            && content.authorising_user().is_none()
        {
            return Err(AuthError::AuthorisingUserId);
        }
        match Membership::parse(membership) {
            Some(Membership::Join) => self.join(target, content.authorising_user()),
            Some(Membership::Invite) if content.has_third_party_invite() => {
                self.third_party_invite(target, content)
            }
            Some(Membership::Invite) => self.invite(target),
            Some(Membership::Leave) if self.event.sender() == target => self.leave(),
            Some(Membership::Leave) => self.kick(target),
            Some(Membership::Ban) => self.ban(target),
            // From version 7.
            Some(Membership::Knock) if rules.knocking => self.knock(target),
            // Otherwise, the membership is unknown. Reject.
            _ => Err(AuthError::UnknownMembership { membership: membership.to_owned() }),
        }
    }

    /// "If `membership` is `join`"
    fn join(&self, target: &UserId, authorising: Option<&UserId>) -> Result<(), AuthError> {
        let rules = &self.version.rules().authorization;
        // If the only previous event is an m.room.create and the state_key is the creator (from
        // version 11: the sender of the m.room.create), allow.
        if matches!(self.event.prev_events(), [only] if only == self.create.event_id())
            && CreateContent::of(self.create).is_creator(self.version, target.as_str())
        {
            return Ok(());
        }
        // If the sender does not match state_key, reject.
        if self.event.sender() != target {
            return Err(AuthError::SenderIsNotTarget { membership: "join" });
        }
        // If the sender is banned, reject.
        let membership = self.membership(target)?;
        if membership == Membership::Ban {
            return Err(AuthError::SenderBanned);
        }
        let invited = matches!(membership, Membership::Invite | Membership::Join);
        let join_rule = self.join_rule();
        let not_invited = AuthError::NotInvited { join_rule: join_rule.as_str() };
        match join_rule {
            // If the join_rule is public, allow.
            JoinRule::Public => Ok(()),
            // If the join_rule is invite (from version 7: or knock) then allow if membership state
            // is invite or join.
            JoinRule::Invite if invited => Ok(()),
            JoinRule::Invite => Err(not_invited),
            JoinRule::Knock if rules.knocking && invited => Ok(()),
            JoinRule::Knock if rules.knocking => Err(not_invited),
            // From version 8. If the join_rule is restricted (from version 10: or
            // knock_restricted): If membership state is join or invite, allow.
            JoinRule::Restricted if rules.restricted_join_rule => {
                if invited {
                    Ok(())
                } else {
                    self.authorised_join(authorising)
                }
            }
            JoinRule::KnockRestricted if rules.knock_restricted_join_rule => {
                if invited {
                    Ok(())
                } else {
                    self.authorised_join(authorising)
                }
            }
            // Otherwise, reject.
            _ => Err(AuthError::JoinForbidden),
        }
    }

    /// "If the `join_authorised_via_users_server` key in `content` is not a user with sufficient
    /// permission to invite other users or is not a joined member of the room, reject."
    fn authorised_join(&self, authorising: Option<&UserId>) -> Result<(), AuthError> {
        let user = authorising.ok_or(AuthError::AuthorisingUserNotJoined)?;
        if self.membership(user)? != Membership::Join {
            return Err(AuthError::AuthorisingUserNotJoined);
        }
        let have = self.levels.user_level(user)?;
        let needed = self.levels.invite()?;
        // Otherwise, allow.
        if have.reaches(needed) {
            return Ok(());
        }
        Err(AuthError::AuthorisingUserPower { user: user.to_string(), needed, have })
    }

    /// "If `membership` is `invite`", without `third_party_invite`
    fn invite(&self, target: &UserId) -> Result<(), AuthError> {
        // If the sender's current membership state is not join, reject.
        self.sender_must_be_joined()?;
        // If target user's current membership state is join or ban, reject.
        match self.membership(target)? {
            Membership::Join => {
                return Err(AuthError::TargetJoined { user: target.to_string() });
            }
            Membership::Ban => return Err(AuthError::TargetBanned { user: target.to_string() }),
            _ => {}
        }
        // If the sender's power level is greater than or equal to the invite level, allow.
        // Otherwise, reject.
        require(self.sender_power()?, self.levels.invite()?, || "to invite users".to_owned())
    }

    /// "If `membership` is `leave`", and the sender the target
    fn leave(&self) -> Result<(), AuthError> {
        // If the sender matches state_key, allow if and only if that user's current membership
        // state is invite or join (from version 7: or knock).
        match self.membership(self.event.sender())? {
            Membership::Invite | Membership::Join => Ok(()),
            Membership::Knock if self.version.rules().authorization.knocking => Ok(()),
            _ => Err(AuthError::NothingToLeave),
        }
    }

    /// "If `membership` is `leave`", and the target someone else: a kick or the end of a ban
    fn kick(&self, target: &UserId) -> Result<(), AuthError> {
        // If the sender's current membership state is not join, reject.
        self.sender_must_be_joined()?;
        let power = self.sender_power()?;
        // If the target user's current membership state is ban, and the sender's power level is
        // less than the ban level, reject.
        let unban = self.membership(target)? == Membership::Ban;
        if unban {
            require(power, self.levels.ban()?, || "to unban users".to_owned())?;
        }
        // If the sender's power level is greater than or equal to the kick level, and the target
        // user's power level is less than the sender's power level, allow. Otherwise, reject.
        let action = if unban { "unban" } else { "kick" };
        require(power, self.levels.kick()?, || format!("to {action} users"))?;
        self.require_above(target, action)
    }

    /// "If `membership` is `ban`"
    fn ban(&self, target: &UserId) -> Result<(), AuthError> {
        // If the sender's current membership state is not join, reject.
        self.sender_must_be_joined()?;
        // If the sender's power level is greater than or equal to the ban level, and the target
        // user's power level is less than the sender's power level, allow. Otherwise, reject.
        require(self.sender_power()?, self.levels.ban()?, || "to ban users".to_owned())?;
        self.require_above(target, "ban")
    }

    /// "If `membership` is `knock`"
    fn knock(&self, target: &UserId) -> Result<(), AuthError> {
        // If the join_rule is anything other than knock (from version 10: or knock_restricted),
        // reject.
        let join_rule = self.join_rule();
        let allowed = match join_rule {
            JoinRule::Knock => true,
            JoinRule::KnockRestricted => {
                self.version.rules().authorization.knock_restricted_join_rule
            }
            _ => false,
        };
        if !allowed {
            return Err(AuthError::KnockForbidden { join_rule: join_rule.as_str() });
        }
        // If sender does not match state_key, reject.
        if self.event.sender() != target {
            return Err(AuthError::SenderIsNotTarget { membership: "knock" });
        }
        // If the sender's current membership is not ban, invite, or join, allow. Otherwise, reject.
        match self.membership(target)? {
            Membership::Leave | Membership::Knock => Ok(()),
            other => Err(AuthError::KnockMembership { membership: other.as_str() }),
        }
    }

    fn require_above(&self, target: &UserId, action: &'static str) -> Result<(), AuthError> {
        let theirs = self.levels.user_level(target)?;
        let yours = self.sender_power()?;
        if theirs < yours {
            return Ok(());
        }
        Err(AuthError::TargetPower { action, user: target.to_string(), theirs, yours })
    }
}
