//! The power levels that a room begins with.

use parlour_event::{
    RoomVersion,
    json::{Object, Value},
};
use ruma::{OwnedUserId, UserId};

use crate::client::local;

/// The power of who moderates.
const MODERATOR: i64 = 50;
/// The power of who made the room, before room version 12.
pub(crate) const ADMINISTRATOR: i64 = 100;
/// What a tombstone needs from room version 12 on: more than any level that can be given away
/// without thinking, so that upgrading is left to the creators.
const TOMBSTONE: i64 = 150;

/// What decides on the power levels.
pub(super) struct Levels<'a> {
    pub(super) version: &'a RoomVersion,
    pub(super) creator: &'a UserId,
    /// Those who get as much power as the creator.
    pub(super) trusted: &'a [OwnedUserId],
    /// Whether everybody may invite.
    pub(super) open_invites: bool,
    /// What the client wants different.
    pub(super) wanted: Option<&'a Object>,
}

impl Levels<'_> {
    /// The content of `m.room.power_levels`. What the client gives takes the place of what would
    /// stand there, property by property.
    pub(super) fn content(&self) -> Object {
        let invite = if self.open_invites { 0 } else { MODERATOR };
        let mut content = local::members([
            ("ban", MODERATOR.into()),
            ("events", Value::Object(self.events())),
            ("events_default", 0_i64.into()),
            ("invite", invite.into()),
            ("kick", MODERATOR.into()),
            ("redact", MODERATOR.into()),
            ("state_default", MODERATOR.into()),
            ("users", Value::Object(self.users())),
            ("users_default", 0_i64.into()),
        ]);
        for (key, value) in self.wanted.into_iter().flatten() {
            content.insert(key.clone(), value.clone());
        }
        if self.has_privileged_creators() {
            secure_tombstone(&mut content);
        }
        content
    }

    fn has_privileged_creators(&self) -> bool {
        self.version.rules().authorization.explicitly_privilege_room_creators
    }

    fn users(&self) -> Object {
        if self.has_privileged_creators() {
            return Object::new();
        }
        let everyone = std::iter::once(self.creator).chain(self.trusted.iter().map(|user| &**user));
        everyone.map(|user| (user.to_string(), ADMINISTRATOR.into())).collect()
    }

    fn events(&self) -> Object {
        let tombstone = if self.has_privileged_creators() { TOMBSTONE } else { ADMINISTRATOR };
        local::members([
            ("m.room.avatar", MODERATOR.into()),
            ("m.room.canonical_alias", MODERATOR.into()),
            ("m.room.encryption", ADMINISTRATOR.into()),
            ("m.room.history_visibility", ADMINISTRATOR.into()),
            ("m.room.name", MODERATOR.into()),
            ("m.room.power_levels", ADMINISTRATOR.into()),
            ("m.room.server_acl", ADMINISTRATOR.into()),
            ("m.room.tombstone", tombstone.into()),
        ])
    }
}

/// From room version 12 on the level for tombstones must stand there, above `state_default`, also
/// if somebody has brought `events` of their own.
pub(crate) fn secure_tombstone(content: &mut Object) {
    let default = content.get("state_default").and_then(Value::as_i64).unwrap_or(MODERATOR);
    let needed = TOMBSTONE.max(default.saturating_add(1));
    let Some(Value::Object(events)) = content.get_mut("events") else { return };
    let given = events.get("m.room.tombstone").and_then(Value::as_i64);
    if given.is_none_or(|given| given <= default) {
        events.insert("m.room.tombstone".to_owned(), needed.into());
    }
}

#[cfg(test)]
mod tests {
    use ruma::{owned_user_id, user_id};

    use super::*;

    fn content(version: &str, wanted: &str) -> Object {
        let wanted = local::object(wanted.as_bytes()).expect("an object");
        let trusted = [owned_user_id!("@b:x")];
        let levels = Levels {
            version: RoomVersion::parse(version).expect("a version"),
            creator: user_id!("@a:x"),
            trusted: &trusted,
            open_invites: true,
            wanted: Some(&wanted),
        };
        levels.content()
    }

    fn level(content: &Object, field: &str, key: &str) -> Option<i64> {
        content.get(field)?.get(key)?.as_i64()
    }

    #[test]
    fn creators_are_listed_before_version_12_only() {
        for version in RoomVersion::all() {
            let content = content(version.id().as_str(), "{}");
            let expected = (version.number() < 12).then_some(100);
            assert_eq!(level(&content, "users", "@a:x"), expected);
            assert_eq!(level(&content, "users", "@b:x"), expected);
        }
    }

    #[test]
    fn a_tombstone_needs_more_than_other_state_in_version_12() {
        for (wanted, expected) in [
            ("{}", 150),
            (r#"{"events":{}}"#, 150),
            (r#"{"events":{"m.room.tombstone":60}}"#, 60),
            (r#"{"events":{"m.room.tombstone":50}}"#, 150),
            (r#"{"state_default":100,"events":{"m.room.tombstone":100}}"#, 150),
            (r#"{"state_default":200}"#, 201),
        ] {
            let content = content("12", wanted);
            assert_eq!(level(&content, "events", "m.room.tombstone"), Some(expected), "{wanted}");
        }
    }

    #[test]
    fn what_the_client_wants_replaces_whole_properties() {
        let content = content("11", r#"{"events":{"t":7},"ban":1,"users":{"@c:x":9}}"#);
        assert_eq!(content.get("events"), Some(&Value::Object(local::members([("t", 7.into())]))));
        assert_eq!(content.get("ban"), Some(&Value::Integer(1)));
        assert_eq!(level(&content, "users", "@a:x"), None);
        assert_eq!(content.get("kick"), Some(&Value::Integer(50)));
    }
}
