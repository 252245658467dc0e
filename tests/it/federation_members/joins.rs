//! Joining rooms of other servers.

use super::*;

fn alias_at(server: &Server) -> String {
    format!("#hall:{}", server.name())
}

// Checklist 8.13, 13.14
#[test]
fn an_alias_of_another_server_leads_into_its_room() {
    let (near, mut far) = (Server::start_federated(&[]), Server::start_federated(&[]));
    let alice = near.user("alice");
    let [bob, carol] = ["bob", "carol"].map(|name| far.user(name));
    let name = path("/_matrix/client/v3/profile/{}/displayname", &[&bob.id]);
    bob.http.put(&name, &json!({ "displayname": "Bob" })).ok();
    for version in ["1", "2", "3", "5", "6", "8", "9", "10", "11", "12"] {
        let body = json!({ "preset": "public_chat", "room_version": version, "name": "Hall",
            "room_alias_name": format!("hall{version}") });
        let room = alice.create_room(body).room_id();
        alice.say(&room, "before").ok();
        let alias = format!("#hall{version}:{}", near.name());
        let since = now(&bob);
        assert_eq!(join_via(&bob, &alias, &[]).room_id(), room);
        let sync = sync_to(&bob, &since, "join", &room);
        let kinds: Vec<_> = [sync.state_before(&room), sync.timeline(&room)].concat();
        assert!(kinds.iter().any(|event| event["type"] == "m.room.create"), "{version}");
        assert_eq!(alice.state(&room, "m.room.member", &bob.id).ok()["displayname"], "Bob");
        assert_eq!(state_of(&bob, &room), state_of(&alice, &room), "{version}");
        // Once is enough, and who comes later comes in by ordinary means.
        assert_eq!(join_via(&bob, &alias, &[]).room_id(), room);
        assert_eq!(carol.join(&room).room_id(), room);
        assert_eq!(membership(&bob, &room, &carol), "join");
    }
    far.restart();
    let bob = far.again(&bob);
    let rooms = bob.http.get("/_matrix/client/v3/joined_rooms").ok();
    assert_eq!(rooms["joined_rooms"].as_array().unwrap().len(), 10);
    for room in rooms["joined_rooms"].as_array().unwrap() {
        bob.say(room.as_str().unwrap(), "after the restart").ok();
    }
}

#[test]
fn a_canonical_alias_may_be_one_of_another_server() {
    let (near, mut far) = (Server::start_federated(&[]), Server::start_federated(&[]));
    let (alice, bob) = (near.user("alice"), far.user("bob"));
    let room = alice.public_room();
    join_via(&bob, &room, &[&near.name()]).ok();
    let set = |content: Value| alice.set_state(&room, "m.room.canonical_alias", "", content);
    let there = json!({ "alias": alias_at(&far) });
    set(there.clone()).refused(400, "M_BAD_ALIAS");
    let at = path("/_matrix/client/v3/directory/room/{}", &[&alias_at(&far)]);
    bob.http.put(&at, &json!({ "room_id": room })).ok();
    set(there.clone()).ok();
    // What stands there already is not asked for again.
    far.kill();
    set(json!({ "alias": alias_at(&far), "alt_aliases": [alias_at(&far)] })).ok();
    set(json!({})).ok();
    set(there).refused(400, "M_BAD_ALIAS");
}

#[test]
fn servers_are_tried_in_turn() {
    let (near, far) = (Server::start_federated(&[]), Server::start_federated(&[]));
    let other = Server::start_federated(&[]);
    let (alice, bob) = (near.user("alice"), far.user("bob"));
    let room = alice.public_room();
    // In this version the id does not say where the room is.
    join_via(&bob, &room, &[]).refused(404, "M_UNKNOWN");
    bob.join(&room).refused(404, "M_UNKNOWN");
    join_via(&bob, &room, &["localhost:1"]).refused(502, "M_UNKNOWN");
    join_via(&bob, &room, &["localhost:1", &other.name()]).refused(404, "M_NOT_FOUND");
    join_via(&bob, &room, &[&far.name(), "elsewhere.example.org"]).refused(404, "M_UNKNOWN");
    let servers = ["localhost:1", &other.name(), &near.name()];
    assert_eq!(join_via(&bob, &room, &servers).room_id(), room);
    // Here it does.
    let body = json!({ "preset": "public_chat", "room_version": "11" });
    let room = alice.create_room(body).room_id();
    assert_eq!(bob.join(&room).room_id(), room);
    join_via(&bob, &format!("#nothing:{}", near.name()), &[]).refused(404, "M_NOT_FOUND");
    join_via(&bob, "#nothing:localhost:1", &[]).refused(502, "M_UNKNOWN");
}

#[test]
fn many_come_at_once() {
    let (near, far) = (Server::start_federated(&[]), Server::start_federated(&[]));
    let alice = near.user("alice");
    let body = json!({ "preset": "public_chat", "room_alias_name": "hall" });
    let room = alice.create_room(body).room_id();
    let users: Vec<_> = (0..8).map(|number| far.user(&format!("user{number}"))).collect();
    let alias = alias_at(&near);
    std::thread::scope(|scope| {
        for user in &users {
            let alias = &alias;
            scope.spawn(move || join_via(user, alias, &[]).ok());
        }
    });
    for user in &users {
        assert_eq!(membership(&users[0], &room, user), "join");
    }
}

// Checklist 8.5
#[test]
fn who_has_left_may_come_back() {
    let (near, mut far) = (Server::start_federated(&[]), Server::start_federated(&[]));
    let (alice, bob) = (near.user("alice"), far.user("bob"));
    let body = json!({ "preset": "public_chat", "room_alias_name": "hall" });
    let room = alice.create_room(body).room_id();
    let mut since = now(&alice);
    for _ in 0..2 {
        join_via(&bob, &alias_at(&near), &[]).ok();
        let hello = bob.say(&room, "hello").event_id();
        bob.leave(&room).ok();
        bob.leave(&room).ok();
        let has = |sync: &Answer, wanted: &dyn Fn(&Value) -> bool| {
            sync.timeline(&room).iter().any(wanted)
        };
        alice.sync_until(&since, |sync| has(sync, &|event| event["event_id"] == json!(hello)));
        let is_over = |event: &Value| event["content"]["membership"] == "leave";
        since = alice.sync_until(&since, |sync| has(sync, &is_over)).next_batch();
        bob.say(&room, "gone").refused(403, "M_FORBIDDEN");
    }
    alice.set_state(&room, "m.room.topic", "", json!({ "topic": "meanwhile" })).ok();
    far.restart();
    let bob = far.again(&bob);
    bob.join(&room).ok();
    assert_eq!(bob.state(&room, "m.room.topic", "").ok()["topic"], "meanwhile");
}

#[test]
fn the_rooms_rules_count_everywhere() {
    let (near, far) = (Server::start_federated(&[]), Server::start_federated(&[]));
    let (alice, bob) = (near.user("alice"), far.user("bob"));
    let via = near.name();
    let banned = alice.public_room();
    alice.membership(&banned, "ban", json!({ "user_id": bob.id })).ok();
    join_via(&bob, &banned, &[&via]).refused(403, "M_FORBIDDEN");
    knock_via(&bob, &banned, &[&via]).refused(403, "M_FORBIDDEN");
    alice.membership(&banned, "unban", json!({ "user_id": bob.id })).ok();
    join_via(&bob, &banned, &[&via]).ok();
    let closed = alice.create_room(json!({})).room_id();
    join_via(&bob, &closed, &[&via]).refused(403, "M_FORBIDDEN");
    let home = alice.create_room(json!({ "preset": "public_chat",
        "creation_content": { "m.federate": false } }));
    join_via(&bob, &home.room_id(), &[&via]).refused(403, "M_FORBIDDEN");
}

// Checklist 8.7, 13.17
#[test]
fn members_of_one_room_may_join_another() {
    let (near, far) = (Server::start_federated(&[]), Server::start_federated(&[]));
    let (alice, [bob, carol]) = (near.user("alice"), ["bob", "carol"].map(|name| far.user(name)));
    let via = near.name();
    for (version, rule) in [("8", "restricted"), ("10", "knock_restricted"), ("12", "restricted")] {
        let club = alice.public_room();
        let allow = json!([{ "type": "m.room_membership", "room_id": club }]);
        let rules = json!({ "join_rule": rule, "allow": allow });
        let state = json!([{ "type": "m.room.join_rules", "content": rules }]);
        let body = json!({ "room_version": version, "initial_state": state });
        let room = alice.create_room(body).room_id();
        join_via(&bob, &room, &[&via]).refused(403, "M_FORBIDDEN");
        join_via(&bob, &club, &[&via]).ok();
        join_via(&bob, &room, &[&via]).ok();
        assert_eq!(state_of(&bob, &room), state_of(&alice, &room));
        // Nobody of this server may invite, so it asks the other one for the next.
        carol.join(&room).refused(403, "M_FORBIDDEN");
        carol.join(&club).ok();
        let levels = json!({ "invite": 50, "users": { alice.id.clone(): 100 } });
        let levels = if version == "12" { json!({ "invite": 50 }) } else { levels };
        alice.set_state(&room, "m.room.power_levels", "", levels).ok();
    }
}

#[test]
fn guests_stay_at_home() {
    let near = Server::start_federated(&[]);
    let far = Server::start_federated(&[("PARLOUR_REGISTRATION__GUESTS", "true")]);
    let alice = near.user("alice");
    let body = json!({ "preset": "public_chat", "room_version": "11" });
    let room = alice.create_room(body).room_id();
    let answer = far.http.post("/_matrix/client/v3/register?kind=guest", &json!({}));
    let guest = User::from_login(&far.http, &answer);
    guest.join(&room).refused(403, "M_GUEST_ACCESS_FORBIDDEN");
}

#[test]
fn what_takes_the_place_of_the_state_at_a_join_tells_what_that_was() {
    let (near, far) = (Server::start_federated(&[]), Server::start_federated(&[]));
    let (alice, bob) = (near.user("alice"), far.user("bob"));
    for visibility in ["shared", "joined"] {
        let state = json!([{ "type": "m.room.history_visibility",
            "content": { "history_visibility": visibility } }]);
        let room = alice.create_room(json!({ "name": "Old", "initial_state": state })).room_id();
        alice.invite(&room, &bob).ok();
        bob.join(&room).ok();
        let since = now(&bob);
        let name = alice.set_state(&room, "m.room.name", "", json!({ "name": "New" })).event_id();
        let member = json!({ "membership": "join", "displayname": "Alice" });
        let member = alice.set_state(&room, "m.room.member", &alice.id, member).event_id();
        let has = |sync: &Answer, id: &str| {
            sync.timeline(&room).iter().any(|event| event["event_id"] == json!(id))
        };
        bob.sync_until(&since, |sync| has(sync, &member));
        let before = |id: &str| {
            let event = bob.room(&room, &path("event/{}", &[id])).ok();
            assert!(event["unsigned"]["replaces_state"].is_string(), "{event:?}");
            event["unsigned"]["prev_content"].clone()
        };
        assert_eq!(before(&name), json!({ "name": "Old" }));
        assert_eq!(before(&member), json!({ "membership": "join" }));
        // Who was invited knows of it.
        let own = state_of(&bob, &room).into_iter().find(|(_, key, _)| *key == bob.id);
        let (_, _, own) = own.unwrap();
        let expected = match visibility {
            "shared" => json!({ "membership": "invite" }),
            _ => Value::Null,
        };
        assert_eq!(before(&own), expected);
    }
}
