//! Restricted joins: whether the user fulfils a condition, and who of us can vouch for it.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#restricted-rooms>

use parlour_event::{
    content::{JoinRule, JoinRulesContent, MemberContent, Membership},
    json::{Object, Value},
};
use parlour_storage::StorageError;
use ruma::{OwnedUserId, RoomId, ServerName, UserId};

use super::{Powers, RoomView, View, ViewError};

/// How many members are looked at with one read.
const CHUNK: usize = 128;

impl View {
    /// The joined local user in whose name this server lets `user` into a restricted room. `None`
    /// if the room is not restricted, the user needs nobody's consent, fulfils no condition, or
    /// nobody here has the power to invite. Reads as many members as it takes to find somebody.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn authorising_user(
        &self,
        room_id: &RoomId,
        user: &UserId,
        server: &ServerName,
    ) -> Result<Option<OwnedUserId>, ViewError> {
        let Some(room) = self.room(room_id)? else { return Ok(None) };
        let Some(rules) = self.current(&room, "m.room.join_rules", "")? else { return Ok(None) };
        let membership = self.membership_of(&room, user)?;
        let needs_nobody = matches!(membership, Some(Membership::Join | Membership::Invite));
        if needs_nobody
            || !is_restricted(&room, rules.content())
            || !self.fulfils_a_condition(rules.content(), user)?
        {
            return Ok(None);
        }
        self.find_inviter(&room, server)
    }

    fn fulfils_a_condition(&self, rules: &Object, user: &UserId) -> Result<bool, StorageError> {
        let allow = rules.get("allow").and_then(Value::as_array).unwrap_or_default();
        let rooms = allow.iter().filter_map(|condition| {
            let text = |key: &str| condition.get(key).and_then(Value::as_str);
            text("room_id").filter(|_| text("type") == Some("m.room_membership"))
        });
        self.is_in_one_of(user, rooms)
    }

    /// Whether a local user is joined to one of these rooms.
    pub(super) fn is_in_one_of<'a>(
        &self,
        user: &UserId,
        rooms: impl Iterator<Item = &'a str>,
    ) -> Result<bool, StorageError> {
        for room in rooms {
            let Some(room) = self.store.room_num(room)? else { continue };
            let entry = self.store.membership(user.as_str(), room)?;
            if entry.is_some_and(|entry| entry.membership == "join") {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// A joined user of this server who may invite. Those with power of their own come first, so
    /// that in most rooms nobody else is looked at.
    fn find_inviter(
        &self,
        room: &RoomView,
        server: &ServerName,
    ) -> Result<Option<OwnedUserId>, ViewError> {
        let powers = self.powers(room)?;
        for name in powers.named() {
            let Some(user) = inviter(&powers, name, server) else { continue };
            if self.membership_of(room, &user)? == Some(Membership::Join) {
                return Ok(Some(user));
            }
        }
        for nums in self.member_nums(room.head.state)?.chunks(CHUNK) {
            for event in self.store.events(nums)?.into_iter().flatten() {
                let member = event.pdu(room.version)?;
                let joined = MemberContent::new(member.content()).membership();
                let user = member.state_key().and_then(|name| inviter(&powers, name, server));
                if let (Some(Membership::Join), Some(user)) = (joined, user) {
                    return Ok(Some(user));
                }
            }
        }
        Ok(None)
    }
}

fn is_restricted(room: &RoomView, rules: &Object) -> bool {
    let versions = &room.version.rules().authorization;
    match JoinRulesContent::new(Some(rules)).join_rule() {
        JoinRule::Restricted => versions.restricted_join_rule,
        JoinRule::KnockRestricted => versions.knock_restricted_join_rule,
        _ => false,
    }
}

fn inviter(powers: &Powers, name: &str, server: &ServerName) -> Option<OwnedUserId> {
    let user = OwnedUserId::try_from(name).ok()?;
    (user.server_name() == server && powers.may_invite(&user)).then_some(user)
}
