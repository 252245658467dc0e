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

/// Whether a user may join a restricted room in the name of this server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Vouching {
    /// The room is not restricted, or the user is in it or invited.
    NotNeeded,
    /// The user fulfils a condition, and this joined user of ours may let the user in.
    By(OwnedUserId),
    /// The user fulfils a condition, but nobody here has the power to invite.
    Nobody,
    /// Not all of the rooms that count are known here, and the user is in none of those that are.
    Unknown,
    /// The user fulfils no condition.
    Refused,
}

impl View {
    /// Whether `user` may join a room in the name of this server, `server`. Reads as many members
    /// as it takes to find somebody who vouches.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn vouching(
        &self,
        room: &RoomView,
        user: &UserId,
        server: &ServerName,
    ) -> Result<Vouching, ViewError> {
        let rules = self.current(room, "m.room.join_rules", "")?;
        let Some(rules) = rules.filter(|rules| is_restricted(room, rules.content())) else {
            return Ok(Vouching::NotNeeded);
        };
        let membership = self.membership_of(room, user)?;
        if matches!(membership, Some(Membership::Join | Membership::Invite)) {
            return Ok(Vouching::NotNeeded);
        }
        let mut otherwise = Vouching::Refused;
        for condition in conditions(rules.content()) {
            let room = <&RoomId>::try_from(condition).ok().map(|id| self.room(id)).transpose()?;
            match room.flatten() {
                Some(room) if self.is_current(&room, server)? => {
                    if self.membership_of(&room, user)? == Some(Membership::Join) {
                        otherwise = Vouching::Nobody;
                        break;
                    }
                }
                // Of our own users we know where they are.
                _ if user.server_name() == server => {}
                _ => otherwise = Vouching::Unknown,
            }
        }
        match otherwise {
            Vouching::Nobody => {
                Ok(self.find_inviter(room, server)?.map_or(Vouching::Nobody, Vouching::By))
            }
            otherwise => Ok(otherwise),
        }
    }

    /// Whether what this server, `server`, knows of a room is up to date: it is in it, or nobody
    /// else is.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn is_current(&self, room: &RoomView, server: &ServerName) -> Result<bool, StorageError> {
        Ok(self.store.joined_from(room.num, server.as_str())? > 0
            || self.store.servers_in_room(room.num, 1)?.is_empty())
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

/// The rooms whose members may join.
fn conditions(rules: &Object) -> impl Iterator<Item = &str> {
    let allow = rules.get("allow").and_then(Value::as_array).unwrap_or_default();
    allow.iter().filter_map(|condition| {
        let text = |key: &str| condition.get(key).and_then(Value::as_str);
        text("room_id").filter(|_| text("type") == Some("m.room_membership"))
    })
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
