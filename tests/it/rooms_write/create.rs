//! `createRoom`

use serde_json::{Value, json};

use super::{alias_path, joined_rooms, kinds, member, set_name};
use crate::common::Server;

// Checklist 8.1
#[test]
fn a_room_begins_with_its_events_in_order() {
    let server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    for version in ["1", "11", "12"] {
        let room = alice.create_room(json!({
            "room_version": version, "preset": "public_chat", "name": "Name", "topic": "Topic",
            "room_alias_name": format!("ordered{version}"), "invite": [bob.id, bob.id],
            "initial_state": [
                { "type": "org.example", "content": { "a": 1 } },
                { "type": "m.room.name", "content": { "name": "Not this" } },
                { "type": "m.room.guest_access", "content": { "guest_access": "can_join" } },
            ],
        }));
        let room = room.room_id();
        let expected = [
            "create",
            "member",
            "power_levels",
            "canonical_alias",
            "join_rules",
            "history_visibility",
            "",
            "guest_access",
            "name",
            "topic",
            "member",
        ];
        let expected = expected.map(|name| match name {
            "" => "org.example".to_owned(),
            name => format!("m.room.{name}"),
        });
        assert_eq!(kinds(&alice, &room), expected, "version {version}");
        let of = |kind: &str| alice.state(&room, kind, "").ok().body;
        assert_eq!(of("m.room.name"), json!({ "name": "Name" }));
        assert_eq!(of("m.room.guest_access"), json!({ "guest_access": "can_join" }));
        let alias = format!("#ordered{version}:localhost");
        assert_eq!(of("m.room.canonical_alias"), json!({ "alias": alias }));
        assert_eq!(server.http.get(&alias_path(&alias)).ok()["room_id"], room.as_str());
        let topic = &of("m.room.topic")["m.topic"]["m.text"][0];
        assert_eq!((&topic["body"], &topic["mimetype"]), (&json!("Topic"), &json!("text/plain")));
    }
}

// Checklist 8.2
#[test]
fn creators_have_the_power_that_their_room_version_gives() {
    let server = Server::start();
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(|name| server.user(name));
    for version in 1..=12 {
        let room = alice.create_room(json!({
            "room_version": version.to_string(), "preset": "trusted_private_chat",
            "invite": [bob.id], "is_direct": true,
            "creation_content": { "creator": "@mallory:localhost", "room_version": "99",
                "additional_creators": [carol.id, bob.id], "m.federate": false,
                "type": "m.space", "org.example": [1] },
        }));
        let room = room.room_id();
        let create = alice.state(&room, "m.room.create", "").ok();
        assert_eq!(create["room_version"], version.to_string());
        let creator = if version < 11 { json!(alice.id) } else { Value::Null };
        assert_eq!(create["creator"], creator, "version {version}");
        assert_eq!((&create["m.federate"], &create["type"]), (&json!(false), &json!("m.space")));
        assert_eq!(create["org.example"], json!([1]));
        let levels = alice.state(&room, "m.room.power_levels", "").ok();
        if version == 12 {
            assert_eq!(create["additional_creators"], json!([carol.id, bob.id]));
            assert_eq!(levels["users"], json!({}));
            assert_eq!(levels["events"]["m.room.tombstone"], 150);
        } else {
            assert_eq!(levels["users"], json!({ (&*alice.id): 100, (&*bob.id): 100 }));
        }
        assert_eq!(member(&alice, &room, &bob)["is_direct"], true);
        bob.join(&room).ok();
        bob.set_state(&room, "m.room.power_levels", "", levels.body.clone()).ok();
    }
}

#[test]
fn names_and_avatars_are_in_the_first_member_events() {
    let server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    set_name(&alice, "Alice A.");
    set_name(&bob, "Bob B.");
    let room = alice.create_room(json!({ "invite": [bob.id] })).room_id();
    assert_eq!(member(&alice, &room, &alice)["displayname"], "Alice A.");
    assert_eq!(member(&alice, &room, &bob)["displayname"], "Bob B.");
    assert!(member(&alice, &room, &bob)["is_direct"].is_null());
}

// Checklist 8.3
#[test]
fn visibility_chooses_the_preset_where_none_is_given() {
    let server = Server::start();
    let alice = server.user("alice");
    for (body, rule) in [
        (json!({}), "invite"),
        (json!({ "visibility": "private" }), "invite"),
        (json!({ "visibility": "public" }), "public"),
        (json!({ "visibility": "public", "preset": "private_chat" }), "invite"),
    ] {
        let room = alice.create_room(body.clone()).room_id();
        let rules = alice.state(&room, "m.room.join_rules", "").ok();
        assert_eq!(rules["join_rule"], rule, "{body}");
        let create = alice.state(&room, "m.room.create", "").ok();
        assert_eq!(create["room_version"], "12", "the version where none is given");
    }
}

#[test]
fn a_room_whose_parameters_contradict_each_other_is_not_made() {
    let server = Server::start();
    let alice = server.user("alice");
    let powerless = json!({ "users": {}, "users_default": 0, "events_default": 0 });
    for body in [
        json!({ "room_version": "11", "name": "X", "power_level_content_override": powerless }),
        json!({ "power_level_content_override": { "users": { (&*alice.id): 100 } } }),
        json!({ "invite": [alice.id] }),
        json!({ "initial_state": [{ "type": "m.room.create", "content": {} }] }),
    ] {
        let mut body = body;
        body["room_alias_name"] = json!("still_free");
        alice.create_room(body).refused(400, "M_INVALID_ROOM_STATE");
    }
    assert_eq!(joined_rooms(&alice), json!([]));
    server.http.get(&alias_path("#still_free:localhost")).refused(404, "M_NOT_FOUND");
    alice.create_room(json!({ "room_alias_name": "still_free" })).ok();
    alice.create_room(json!({ "room_alias_name": "still_free" })).refused(400, "M_ROOM_IN_USE");
}

#[test]
fn malformed_parameters_are_refused() {
    let server = Server::start();
    let alice = server.user("alice");
    let initial = |event: Value| json!({ "initial_state": [event] });
    let create = |content: Value| json!({ "creation_content": content });
    let levels = |content: Value| json!({ "power_level_content_override": content });
    let pid =
        json!({ "id_server": "x", "id_access_token": "x", "medium": "email", "address": "x" });
    let big = "x".repeat(70_000);
    for (body, status, code) in [
        (json!({ "room_version": "13" }), 400, "M_UNSUPPORTED_ROOM_VERSION"),
        (json!({ "preset": "no_such_preset" }), 400, "M_INVALID_PARAM"),
        (json!({ "visibility": "no_such_visibility" }), 400, "M_INVALID_PARAM"),
        (json!({ "room_alias_name": "with:colon" }), 400, "M_INVALID_PARAM"),
        (json!({ "room_alias_name": "" }), 400, "M_INVALID_PARAM"),
        (json!({ "room_alias_name": "x".repeat(255) }), 400, "M_INVALID_PARAM"),
        (json!({ "invite_3pid": [pid] }), 403, "M_SERVER_NOT_TRUSTED"),
        (json!({ "invite": ["@nobody:localhost"] }), 404, "M_NOT_FOUND"),
        (json!({ "invite": ["@nobody:elsewhere.example"] }), 403, "M_FORBIDDEN"),
        (create(json!({ "m.federate": "no" })), 400, "M_BAD_JSON"),
        (create(json!({ "type": 1 })), 400, "M_BAD_JSON"),
        (create(json!({ "additional_creators": "@a:b" })), 400, "M_BAD_JSON"),
        (create(json!({ "a": 1.5 })), 400, "M_BAD_JSON"),
        (levels(json!({ "ban": "50" })), 400, "M_BAD_JSON"),
        (levels(json!({ "users": { (&*alice.id): "100" } })), 400, "M_BAD_JSON"),
        (initial(json!({ "content": {} })), 400, "M_BAD_JSON"),
        (initial(json!({ "type": "a" })), 400, "M_BAD_JSON"),
        (initial(json!({ "type": "a", "state_key": 1, "content": {} })), 400, "M_BAD_JSON"),
        (
            initial(json!({ "type": "m.room.power_levels", "content": { "ban": "1" } })),
            400,
            "M_BAD_JSON",
        ),
        (
            initial(json!({ "type": "m.room.canonical_alias",
            "content": { "alias": "#other:localhost" } })),
            400,
            "M_BAD_ALIAS",
        ),
        (initial(json!({ "type": "a", "content": { "a": big } })), 413, "M_TOO_LARGE"),
    ] {
        alice.create_room(body).refused(status, code);
    }
    assert_eq!(joined_rooms(&alice), json!([]));
}
