//! Upgrading rooms.

use serde_json::{Value, json};

use super::{alias_path, member, put_alias};
use crate::common::{Answer, Server, User, path};

fn upgrade(user: &User, room: &str, body: Value) -> Answer {
    let at = path("/_matrix/client/v3/rooms/{}/upgrade", &[room]);
    user.http.post(&at, &body)
}

fn to(user: &User, room: &str, version: &str) -> String {
    upgrade(user, room, json!({ "new_version": version })).text("replacement_room")
}

fn state(user: &User, room: &str, kind: &str) -> Value {
    user.state(room, kind, "").ok().body
}

fn data_path(user: &User, room: Option<&str>, kind: &str) -> String {
    match room {
        Some(room) => {
            path("/_matrix/client/v3/user/{}/rooms/{}/account_data/{}", &[&user.id, room, kind])
        }
        None => path("/_matrix/client/v3/user/{}/account_data/{}", &[&user.id, kind]),
    }
}

// Checklist 8.11
#[test]
fn the_new_room_is_like_the_old_one() {
    let server = Server::start();
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(|name| server.user(name));
    let copied = [
        ("m.room.join_rules", json!({ "join_rule": "knock" })),
        ("m.room.history_visibility", json!({ "history_visibility": "joined" })),
        ("m.room.guest_access", json!({ "guest_access": "forbidden" })),
        ("m.room.encryption", json!({ "algorithm": "m.megolm.v1.aes-sha2" })),
        ("m.room.server_acl", json!({ "allow": ["*"], "deny": ["evil.example"] })),
        ("m.room.name", json!({ "name": "Name" })),
        ("m.room.topic", json!({ "topic": "Topic" })),
        ("m.room.avatar", json!({ "url": "mxc://localhost/avatar" })),
    ];
    for (old_version, new_version) in
        [("1", "6"), ("9", "11"), ("10", "12"), ("12", "12"), ("12", "11")]
    {
        let initial: Vec<_> =
            copied.iter().map(|(k, c)| json!({ "type": k, "content": c })).collect();
        let room = alice
            .create_room(json!({ "room_version": old_version, "initial_state": initial,
            "creation_content": { "type": "org.example.type", "m.federate": false } }));
        let room = room.room_id();
        alice.set_state(&room, "org.example.own", "", json!({ "a": 1 })).ok();
        alice.membership(&room, "ban", json!({ "user_id": carol.id, "reason": "noise" })).ok();
        alice.invite(&room, &bob).ok();
        let said = alice.say(&room, "the last word").event_id();
        let new = to(&alice, &room, new_version);
        let what = format!("{old_version} to {new_version}");
        for (kind, content) in &copied {
            assert_eq!(state(&alice, &new, kind), *content, "{what}: {kind}");
        }
        let create = state(&alice, &new, "m.room.create");
        assert_eq!(
            (&create["type"], &create["m.federate"]),
            (&json!("org.example.type"), &json!(false))
        );
        assert_eq!(create["room_version"], new_version);
        assert_eq!(create["predecessor"]["room_id"], *room, "{what}");
        let event = if new_version == "12" { Value::Null } else { json!(said) };
        assert_eq!(create["predecessor"]["event_id"], event, "{what}");
        alice.state(&new, "org.example.own", "").refused(404, "M_NOT_FOUND");
        let banned = member(&alice, &new, &carol);
        assert_eq!((&banned["membership"], &banned["reason"]), (&json!("ban"), &json!("noise")));
        alice.state(&new, "m.room.member", &bob.id).refused(404, "M_NOT_FOUND");
        let tombstone = state(&alice, &room, "m.room.tombstone");
        assert_eq!(tombstone["replacement_room"], *new);
        assert!(tombstone["body"].is_string());
        let old_levels = state(&alice, &room, "m.room.power_levels");
        assert_eq!(
            (&old_levels["events_default"], &old_levels["invite"]),
            (&json!(50), &json!(50))
        );
        let new_levels = state(&alice, &new, "m.room.power_levels");
        assert_eq!((&new_levels["events_default"], &new_levels["invite"]), (&json!(0), &json!(0)));
        let own = if new_version == "12" { Value::Null } else { json!(100) };
        assert_eq!(new_levels["users"][&alice.id], own, "{what}");
        alice.set_state(&new, "m.room.name", "", json!({ "name": "Still mine" })).ok();
    }
}

// Checklist 8.11
#[test]
fn who_had_power_keeps_it_and_creators_are_named_anew() {
    let server = Server::start();
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(|name| server.user(name));
    let levels = |room: &str| state(&alice, room, "m.room.power_levels");
    let room = alice.create_room(json!({ "room_version": "12", "preset": "public_chat",
        "creation_content": { "additional_creators": [bob.id] } }));
    let room = room.room_id();
    alice
        .set_state(&room, "m.room.power_levels", "", json!({ "users": { (&*carol.id): 60 } }))
        .ok();
    // Creators are not taken along, unless they are named.
    let next = to(&alice, &room, "12");
    assert_eq!(state(&alice, &next, "m.room.create")["additional_creators"], Value::Null);
    assert_eq!(levels(&next)["users"], json!({ (&*carol.id): 60 }));
    let body = json!({ "new_version": "12", "additional_creators": [carol.id, alice.id] });
    let named = upgrade(&alice, &next, body).text("replacement_room");
    let create = state(&alice, &named, "m.room.create");
    assert_eq!(create["additional_creators"], json!([carol.id]));
    assert_eq!(levels(&named)["users"], json!({}), "creators must not be named there");
    // Where creators are not above all, what they had is written down.
    let body = json!({ "new_version": "11", "additional_creators": [bob.id] });
    let back = upgrade(&alice, &named, body).text("replacement_room");
    assert_eq!(levels(&back)["users"], json!({ (&*alice.id): 100, (&*carol.id): 100 }));
    assert_eq!(state(&alice, &back, "m.room.create")["additional_creators"], Value::Null);
    let bad = json!({ "new_version": "12", "additional_creators": ["nobody"] });
    upgrade(&alice, &back, bad).refused(400, "M_BAD_JSON");
}

// Checklist 8.11
#[test]
fn aliases_and_the_entry_in_the_directory_move() {
    let mut server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let room = alice.create_room(json!({ "visibility": "public", "room_alias_name": "main" }));
    let room = room.room_id();
    bob.join(&room).ok();
    put_alias(&bob, "#bobs:localhost", &room).ok();
    let content = json!({ "alias": "#main:localhost", "alt_aliases": ["#bobs:localhost"] });
    alice.set_state(&room, "m.room.canonical_alias", "", content.clone()).ok();
    let new = to(&alice, &room, "12");
    server.restart();
    let [alice, bob] = [&alice, &bob].map(|user| server.again(user));
    for alias in ["#main:localhost", "#bobs:localhost"] {
        assert_eq!(server.http.get(&alias_path(alias)).ok()["room_id"], *new);
    }
    assert_eq!(alice.room(&room, "aliases").ok()["aliases"], json!([]));
    let mut moved = alice.room(&new, "aliases").ok()["aliases"].as_array().unwrap().clone();
    moved.sort_by_key(Value::to_string);
    assert_eq!(moved, [json!("#bobs:localhost"), json!("#main:localhost")]);
    assert_eq!(state(&alice, &new, "m.room.canonical_alias"), content);
    assert_eq!(state(&alice, &room, "m.room.canonical_alias"), json!({ "alt_aliases": [] }));
    let list = server.http.get("/_matrix/client/v3/publicRooms").ok();
    let listed: Vec<_> = list["chunk"].as_array().unwrap().iter().map(|r| &r["room_id"]).collect();
    assert_eq!(listed, [&json!(new)]);
    // The alias is still bob's to remove.
    bob.http.send("DELETE", &alias_path("#bobs:localhost"), b"").ok();
}

// Checklist 8.11
#[test]
fn members_bring_their_settings_along() {
    let server = Server::start();
    let [alice, bob, mallory] = ["alice", "bob", "mallory"].map(|name| server.user(name));
    let room = alice.public_room();
    bob.join(&room).ok();
    let tags = json!({ "tags": { "m.favourite": { "order": 0.5 } } });
    for user in [&alice, &bob] {
        let put = |room: Option<&str>, kind: &str, content: &Value| {
            user.http.put(&data_path(user, room, kind), content).ok();
        };
        put(Some(&room), "m.tag", &tags);
        put(None, "m.direct", &json!({ (&*mallory.id): [room, "!other:localhost"] }));
    }
    let new = to(&alice, &room, "12");
    bob.join(&new).ok();
    for user in [&alice, &bob] {
        let get = |room: Option<&str>, kind: &str| user.http.get(&data_path(user, room, kind));
        assert_eq!(get(Some(&new), "m.tag").ok().body, tags, "{}", user.id);
        let direct = get(None, "m.direct").ok();
        assert_eq!(direct[&*mallory.id], json!([room, "!other:localhost", new]));
    }
    // What is set down for the new room is not undone by joining it once more.
    let none = json!({ "tags": {} });
    bob.http.put(&data_path(&bob, Some(&new), "m.tag"), &none).ok();
    bob.leave(&new).ok();
    bob.join(&new).ok();
    assert_eq!(bob.http.get(&data_path(&bob, Some(&new), "m.tag")).ok().body, none);
    // A room that only claims to have replaced another gets nothing.
    let claim = json!({ "preset": "public_chat",
        "creation_content": { "predecessor": { "room_id": room, "event_id": "$x" } } });
    let false_heir = mallory.create_room(claim).room_id();
    bob.join(&false_heir).ok();
    bob.http.get(&data_path(&bob, Some(&false_heir), "m.tag")).refused(404, "M_NOT_FOUND");
}

// Checklist 8.11
#[test]
fn only_who_may_end_the_old_room_can_upgrade_it() {
    let server = Server::start();
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(|name| server.user(name));
    let room =
        alice.create_room(json!({ "preset": "public_chat", "room_version": "11" })).room_id();
    bob.join(&room).ok();
    let body = json!({ "new_version": "12" });
    upgrade(&bob, &room, body.clone()).refused(403, "M_FORBIDDEN");
    upgrade(&carol, &room, body.clone()).refused(403, "M_FORBIDDEN");
    upgrade(&carol, "!nothing:localhost", body.clone()).refused(403, "M_FORBIDDEN");
    upgrade(&alice, &room, json!({ "new_version": "13" }))
        .refused(400, "M_UNSUPPORTED_ROOM_VERSION");
    upgrade(&alice, &room, json!({})).refused(400, "M_BAD_JSON");
    upgrade(&alice, &room, json!({ "new_version": 12 })).refused(400, "M_BAD_JSON");
    alice.state(&room, "m.room.tombstone", "").refused(404, "M_NOT_FOUND");
    // Moderators with just enough power can: the copied levels come last.
    let levels = json!({ "users": { (&*alice.id): 100, (&*bob.id): 50 }, "ban": 80,
        "events": { "m.room.tombstone": 50, "m.room.server_acl": 100 } });
    alice.set_state(&room, "m.room.server_acl", "", json!({ "allow": ["*"] })).ok();
    alice.set_state(&room, "m.room.power_levels", "", levels).ok();
    alice.membership(&room, "ban", json!({ "user_id": carol.id })).ok();
    let new = to(&bob, &room, "11");
    assert_eq!(member(&bob, &new, &carol)["membership"], "ban");
    assert_eq!(state(&bob, &new, "m.room.power_levels")["users"][&bob.id], 50);
    assert_eq!(state(&bob, &new, "m.room.server_acl"), json!({ "allow": ["*"] }));
}

// Checklist 8.11
#[test]
fn a_space_keeps_its_rooms() {
    let server = Server::start();
    let alice = server.user("alice");
    let space = alice.create_room(json!({ "creation_content": { "type": "m.space" } })).room_id();
    let child = json!({ "via": ["localhost"], "order": "a" });
    alice.set_state(&space, "m.space.child", "!child:localhost", child.clone()).ok();
    alice.set_state(&space, "m.space.child", "!removed:localhost", json!({})).ok();
    let new = to(&alice, &space, "12");
    assert_eq!(alice.state(&new, "m.space.child", "!child:localhost").ok().body, child);
    alice.state(&new, "m.space.child", "!removed:localhost").refused(404, "M_NOT_FOUND");
}
