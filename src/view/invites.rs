//! Invites, and from whom a user takes them.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#invite-permission>, and the
//! finer form of MSC4155 that clients use already. Both hold together: the stricter one decides.

use parlour_event::{EventNum, RoomNum, state::StateRoot};
use parlour_storage::schema::{
    EventFlags, EventMeta, MembershipEntry, OutOfBandEntry, StoredEvent,
};
use ruma::{
    OwnedRoomId, UserId,
    events::invite_permission_config::{
        InvitePermissionAction, InvitePermissionConfigEventContent,
    },
};
use serde::{Deserialize, de::DeserializeOwned};
use wildmatch::WildMatch;

use super::{View, ViewError};

/// What becomes of an invite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum InviteAction {
    /// The user gets it.
    Allow,
    /// It is made, but the user is not told.
    Ignore,
    /// It is refused.
    Block,
}

/// What a user has set down about invites.
#[derive(Debug, Default)]
pub struct InvitePermission {
    stable: InvitePermissionConfigEventContent,
    filter: InviteFilter,
}

/// `org.matrix.msc4155.invite_permission_config`
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct InviteFilter {
    enabled: Option<bool>,
    allowed_users: Vec<String>,
    ignored_users: Vec<String>,
    blocked_users: Vec<String>,
    allowed_servers: Vec<String>,
    ignored_servers: Vec<String>,
    blocked_servers: Vec<String>,
}

impl InvitePermission {
    /// What becomes of this user's invites.
    #[must_use]
    pub fn action(&self, inviter: &UserId) -> InviteAction {
        let stable = match &self.stable.default_action {
            Some(InvitePermissionAction::Block) => InviteAction::Block,
            _ => InviteAction::Allow,
        };
        stable.max(self.filter.action(inviter))
    }
}

impl InviteFilter {
    /// The first list with the user, then the first with the server, decides.
    fn action(&self, inviter: &UserId) -> InviteAction {
        use InviteAction::{Allow, Block, Ignore};
        if self.enabled == Some(false) {
            return Allow;
        }
        let (user, server) = (inviter.as_str(), inviter.server_name().host());
        let lists = [
            (&self.allowed_users, user, Allow),
            (&self.ignored_users, user, Ignore),
            (&self.blocked_users, user, Block),
            (&self.allowed_servers, server, Allow),
            (&self.ignored_servers, server, Ignore),
            (&self.blocked_servers, server, Block),
        ];
        let is_in = |globs: &[String], text| globs.iter().any(|g| WildMatch::new(g).matches(text));
        let found = lists.into_iter().find(|(globs, text, _)| is_in(globs, text));
        found.map_or(Allow, |(.., action)| action)
    }
}

impl View {
    /// What a user has set down about invites. What cannot be read sets down nothing.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn invite_permission(&self, user: &UserId) -> Result<InvitePermission, ViewError> {
        Ok(InvitePermission {
            stable: self.setting(user, "m.invite_permission_config")?,
            filter: self.setting(user, "org.matrix.msc4155.invite_permission_config")?,
        })
    }

    /// Whether a user wants to be told of invites of this one.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn takes_invites_of(&self, user: &UserId, sender: &str) -> Result<bool, ViewError> {
        let Ok(sender) = <&UserId>::try_from(sender) else { return Ok(false) };
        Ok(self.invite_permission(user)?.action(sender) == InviteAction::Allow)
    }

    /// The event by which a user is invited to a room, and the room's id. `entry` is the user's
    /// relation to the room; this server may be in it or not.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn invite(
        &self,
        user: &UserId,
        num: RoomNum,
        entry: &MembershipEntry,
    ) -> Result<Option<(OwnedRoomId, StoredEvent)>, ViewError> {
        if let Some(told) = self.store.out_of_band(num, user.as_str())? {
            let room_id = OwnedRoomId::try_from(told.room_id.as_str()).ok();
            return Ok(room_id.map(|room_id| (room_id, told_member(num, entry, &told))));
        }
        let Some(room) = self.room_by_num(num)? else { return Ok(None) };
        Ok(self.store.event(entry.event)?.map(|event| (room.room_id, event)))
    }

    fn setting<T: DeserializeOwned + Default>(
        &self,
        user: &UserId,
        data_type: &str,
    ) -> Result<T, ViewError> {
        let data = self.global_account_data(user, data_type)?;
        Ok(data.and_then(|data| serde_json::from_slice(&data).ok()).unwrap_or_default())
    }
}

/// A user's member event in a room that this server is not in, as if it were a stored one.
pub(super) fn told_member(
    num: RoomNum,
    entry: &MembershipEntry,
    told: &OutOfBandEntry,
) -> StoredEvent {
    StoredEvent {
        num: EventNum::default(),
        meta: EventMeta {
            event_id: told.event_id.clone(),
            room: num,
            pos: entry.pos,
            depth: 0,
            state_before: StateRoot::EMPTY,
            state_key: None,
            auth_events: Vec::new(),
            flags: EventFlags { outlier: true, ..EventFlags::default() },
            redacted_because: None,
            transaction: None,
        },
        json: told.member.clone().into(),
    }
}

#[cfg(test)]
mod tests {
    use ruma::user_id;
    use serde_json::json;

    use super::{InviteAction::*, *};

    #[test]
    fn the_first_list_that_names_the_inviter_decides() {
        let filter = json!({
            "allowed_users": ["@good:bad.org", "@very?good:*"], "ignored_users": ["@dull:*"],
            "blocked_users": ["@dull:*", "@evil:*"], "allowed_servers": ["home.org"],
            "ignored_servers": ["dull.org"], "blocked_servers": ["*.org"],
        });
        let permission = |enabled: bool| {
            let mut filter = filter.clone();
            filter["enabled"] = json!(enabled);
            InvitePermission {
                filter: serde_json::from_value(filter).unwrap(),
                ..Default::default()
            }
        };
        for (inviter, action) in [
            (user_id!("@good:bad.org"), Allow),
            (user_id!("@very-good:bad.org"), Allow),
            (user_id!("@dull:home.org"), Ignore),
            (user_id!("@evil:home.org"), Block),
            (user_id!("@other:home.org:8448"), Allow),
            (user_id!("@other:dull.org"), Ignore),
            (user_id!("@other:bad.org"), Block),
            (user_id!("@other:bad.com"), Allow),
        ] {
            assert_eq!(permission(true).action(inviter), action, "{inviter}");
            assert_eq!(permission(false).action(inviter), Allow, "{inviter}");
        }
    }

    #[test]
    fn the_stricter_of_both_forms_decides() {
        let stable = |action: &str| serde_json::from_value(json!({ "default_action": action }));
        let friend = user_id!("@friend:x");
        let filter = || InviteFilter { allowed_users: vec!["@*".to_owned()], ..Default::default() };
        let of = |action| InvitePermission { stable: stable(action).unwrap(), filter: filter() };
        assert_eq!(of("block").action(friend), Block);
        assert_eq!(of("something").action(friend), Allow);
        assert_eq!(InvitePermission::default().action(friend), Allow);
    }
}
