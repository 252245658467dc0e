//! Power levels on both sides of an upgrade.

use parlour_event::{
    Pdu,
    content::{CreateContent, LevelField, PowerLevels},
    json::{Object, Value},
};
use ruma::UserId;

use super::Upgrade;
use crate::client::create_room::power::{ADMINISTRATOR, secure_tombstone};

/// What speaking and inviting need at least in a room that was replaced.
const CLOSED: i64 = 50;

/// The old room's power levels as the new room has them: whoever had power has as much of it, in
/// the form of the new version.
pub(super) fn carried(content: &Object, create: Option<&Pdu>, upgrade: &Upgrade) -> Object {
    let mut content = content.clone();
    for field in LevelField::ALL {
        make_integer(&mut content, field.as_str());
    }
    for field in ["users", "events", "notifications"] {
        let levels = content.get_mut(field).and_then(Value::as_object_mut);
        let Some(levels) = levels else { continue };
        let keys: Vec<_> = levels.keys().cloned().collect();
        keys.iter().for_each(|key| make_integer(levels, key));
    }
    let mut users = match content.remove("users") {
        Some(Value::Object(users)) => users,
        _ => Object::new(),
    };
    users.retain(|user, _| <&UserId>::try_from(user.as_str()).is_ok());
    if upgrade.version.rules().authorization.explicitly_privilege_room_creators {
        users.remove(upgrade.user.as_str());
        upgrade.additional_creators.iter().for_each(|user| drop(users.remove(user.as_str())));
        secure_tombstone(&mut content);
    } else if let Some(create) = create {
        // Creators whose power was not written down.
        for creator in CreateContent::of(create).privileged(upgrade.old.version) {
            users.entry(creator.to_owned()).or_insert_with(|| ADMINISTRATOR.into());
        }
    }
    content.insert("users".to_owned(), Value::Object(users));
    content
}

/// Old rooms have levels as text, which no new event may have; what is no number says nothing.
fn make_integer(levels: &mut Object, key: &str) {
    let read = match levels.get(key) {
        None | Some(Value::Integer(_)) => return,
        Some(Value::String(text)) => text.trim().parse::<i64>().ok(),
        Some(_) => None,
    };
    match read {
        Some(level) => levels.insert(key.to_owned(), level.into()),
        None => levels.remove(key),
    };
}

/// The old room's power levels once it is closed: only who had more than usual power speaks or
/// invites.
pub(super) fn closed(content: &Object, levels: &PowerLevels<'_>) -> Object {
    let mut content = content.clone();
    let of = |field: LevelField| levels.level(field).unwrap_or(field.default_level());
    let needed = CLOSED.max(of(LevelField::UsersDefault).saturating_add(1));
    for field in [LevelField::EventsDefault, LevelField::Invite] {
        if of(field) < needed {
            content.insert(field.as_str().to_owned(), needed.into());
        }
    }
    content
}

#[cfg(test)]
mod tests {
    use parlour_event::RoomVersion;

    use super::*;
    use crate::client::local;

    #[test]
    fn text_becomes_numbers_and_nonsense_goes() {
        let old = r#"{"ban":" 50 ","kick":"x","users":{"@a:x":"100","@b:x":true,"@c:x":7},
            "events":{"t":"3"},"org.example":"kept"}"#;
        let mut content = local::object(old.as_bytes()).unwrap();
        make_integer(&mut content, "ban");
        make_integer(&mut content, "kick");
        let Some(Value::Object(users)) = content.get_mut("users") else { panic!() };
        ["@a:x", "@b:x", "@c:x"].iter().for_each(|user| make_integer(users, user));
        let expected = r#"{"ban":50,"users":{"@a:x":100,"@c:x":7},"events":{"t":"3"},
            "org.example":"kept"}"#;
        assert_eq!(content, local::object(expected.as_bytes()).unwrap());
    }

    #[test]
    fn a_closed_room_needs_more_than_the_usual_power() {
        for (old, events, invite) in [
            ("{}", 50, 50),
            (r#"{"users_default":60}"#, 61, 61),
            (r#"{"events_default":70,"invite":10}"#, 70, 50),
        ] {
            let old = local::object(old.as_bytes()).unwrap();
            let version = RoomVersion::parse("11").unwrap();
            let closed = closed(&old, &PowerLevels::of_content(version, None, &old));
            let level = |field: LevelField| {
                let default = field.default_level();
                closed.get(field.as_str()).and_then(Value::as_i64).unwrap_or(default)
            };
            assert_eq!(level(LevelField::EventsDefault), events);
            assert_eq!(level(LevelField::Invite), invite);
        }
    }
}
