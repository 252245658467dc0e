//! What other servers ask for their users, request by request.

use super::*;

// Checklist 13.15, 13.16
#[test]
fn a_join_is_made_of_a_template() {
    let (near, far) = (Server::start_federated(&[]), Server::start_federated(&[]));
    let (alice, door) = (near.user("alice"), Door::new(&near, &far));
    let bob = format!("@bob:{}", far.name());
    for version in ["1", "3", "6", "11", "12"] {
        let body = json!({ "preset": "public_chat", "room_version": version });
        let room = alice.create_room(body).room_id();
        let template = door.template("join", &room, &bob).ok();
        assert_eq!(template["room_version"], version);
        assert_eq!(template["event"]["state_key"], bob);
        assert_eq!(template["event"]["content"], json!({ "membership": "join" }));
        let before = state_of(&alice, &room);
        let join = door.event(&template, |event| set(event, "displayname", "Bob"));
        let answer = door.send("v2/send_join", &room, &join).ok();
        // State and auth chain are those before the join.
        let state = answer["state"].as_array().unwrap();
        assert_eq!(state.len(), before.len());
        assert!(state.iter().all(|event| event["state_key"] != bob));
        assert!(kinds(&answer["auth_chain"]).contains(&"m.room.create"));
        assert_eq!(answer["members_omitted"], Value::Null);
        assert_eq!(alice.state(&room, "m.room.member", &bob).ok()["displayname"], "Bob");
        // Who has lost the answer asks again.
        let again = door.send("v2/send_join", &room, &join).ok();
        assert_eq!(again["state"], answer["state"]);
    }
}

// Checklist 13.16
#[test]
fn templates_are_for_who_may_have_them() {
    let (near, far) = (Server::start_federated(&[]), Server::start_federated(&[]));
    let (alice, door) = (near.user("alice"), Door::new(&near, &far));
    let bob = format!("@bob:{}", far.name());
    let room = alice.public_room();
    let knock = json!([{ "type": "m.room.join_rules", "content": { "join_rule": "knock" } }]);
    let knocking = alice.create_room(json!({ "initial_state": knock })).room_id();
    for (what, room) in [("join", &room), ("knock", &knocking)] {
        for known in ["?ver=9", "?ver=9&ver=org.example"] {
            let refused = door.make(what, room, &bob, known);
            assert_eq!(refused["room_version"], "12");
            refused.refused(400, "M_INCOMPATIBLE_ROOM_VERSION");
        }
        door.template(what, room, &bob).ok();
        door.template(what, room, &alice.id).refused(403, "M_FORBIDDEN");
        door.template(what, "!nothing:localhost", &bob).refused(404, "M_NOT_FOUND");
    }
    // Without the parameter it is version 1 alone.
    door.make("join", &room, &bob, "").refused(400, "M_INCOMPATIBLE_ROOM_VERSION");
    assert_eq!(door.make("knock", &knocking, &bob, "").status, 400);
    // Nobody may knock at a public room, or join one that is closed, or leave where they are not.
    door.template("knock", &room, &bob).refused(403, "M_FORBIDDEN");
    door.template("join", &knocking, &bob).refused(403, "M_FORBIDDEN");
    door.make("leave", &room, &bob, "").refused(403, "M_FORBIDDEN");
    door.make("leave", &room, &alice.id, "").refused(403, "M_FORBIDDEN");
}

// Checklist 12.7
#[test]
fn servers_that_a_room_keeps_out_get_nothing() {
    let (near, far) = (Server::start_federated(&[]), Server::start_federated_by_address());
    let (alice, door) = (near.user("alice"), Door::new(&near, &far));
    let bob = format!("@bob:{}", far.name());
    let room = alice.public_room();
    let template = door.template("join", &room, &bob).ok();
    let join = door.event(&template, |_| {});
    let list = json!({ "allow": ["*"], "deny": ["127.*"] });
    alice.set_state(&room, "m.room.server_acl", "", list).ok();
    for what in ["join", "leave", "knock"] {
        door.template(what, &room, &bob).refused(403, "M_FORBIDDEN");
    }
    let endpoints =
        ["v1/send_join", "v2/send_join", "v1/send_leave", "v2/send_leave", "v1/send_knock"];
    for endpoint in endpoints {
        door.send(endpoint, &room, &join).refused(403, "M_FORBIDDEN");
    }
}

// Checklist 13.15
#[test]
fn what_is_sent_must_be_what_was_asked_for() {
    let (near, far) = (Server::start_federated(&[]), Server::start_federated(&[]));
    let (alice, door) = (near.user("alice"), Door::new(&near, &far));
    let bob = format!("@bob:{}", far.name());
    let room = alice.public_room();
    let template = door.template("join", &room, &bob).ok();
    let good = door.event(&template, |_| {});
    let put = |event: &mut Object, key: &str, value: &str| {
        event.insert(key.to_owned(), value.into());
    };
    for endpoint in ["v2/send_join", "v1/send_join"] {
        let refused = |pdu: &Pdu| {
            door.send(endpoint, &room, pdu).refused(400, "M_INVALID_PARAM");
        };
        refused(&door.event(&template, |event| put(event, "type", "m.room.name")));
        refused(&door.event(&template, |event| set(event, "membership", "leave")));
        refused(&door.event(&template, |event| put(event, "sender", &alice.id)));
        refused(&door.event(&template, |event| put(event, "state_key", &alice.id)));
        let id = good.event_id().as_str();
        let mut changed = good.json().clone();
        set(&mut changed, "displayname", "not signed");
        let mut unsigned = good.json().clone();
        unsigned.insert("signatures".to_owned(), Json::Object(Object::new()));
        for body in [changed, unsigned] {
            let body = json::to_canonical(&Json::Object(body));
            door.send_as(endpoint, &room, id, &body, "").refused(400, "M_INVALID_PARAM");
        }
        let (body, other) = (good.to_bytes(), "$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
        door.send_as(endpoint, &room, other, &body, "").refused(400, "M_INVALID_PARAM");
    }
    for endpoint in ["v2/send_leave", "v1/send_leave", "v1/send_knock"] {
        door.send(endpoint, &room, &good).refused(400, "M_INVALID_PARAM");
    }
    let nowhere = "!AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    door.send("v2/send_join", nowhere, &good).refused(404, "M_NOT_FOUND");
    // Banned between the template and the join.
    alice.membership(&room, "ban", json!({ "user_id": bob })).ok();
    door.send("v2/send_join", &room, &good).refused(403, "M_FORBIDDEN");
    door.template("join", &room, &bob).refused(403, "M_FORBIDDEN");
    door.template("knock", &room, &bob).refused(403, "M_FORBIDDEN");
}

// Checklist 13.20
#[test]
fn the_first_version_still_answers() {
    let (near, far) = (Server::start_federated(&[]), Server::start_federated(&[]));
    let (alice, door) = (near.user("alice"), Door::new(&near, &far));
    let bob = format!("@bob:{}", far.name());
    let room = alice.public_room();
    let join = door.event(&door.template("join", &room, &bob).ok(), |_| {});
    let answer = door.send("v1/send_join", &room, &join).ok();
    assert_eq!(answer.body[0], 200);
    assert!(kinds(&answer.body[1]["state"]).contains(&"m.room.create"));
    let leave = door.event(&door.make("leave", &room, &bob, "").ok(), |_| {});
    let answer = door.send("v1/send_leave", &room, &leave).ok();
    assert_eq!(answer.body, json!([200, {}]));
    assert_eq!(alice.state(&room, "m.room.member", &bob).ok()["membership"], "leave");
}

// Checklist 13.18
#[test]
fn members_are_left_out_if_that_is_wanted() {
    let (near, far) = (Server::start_federated(&[]), Server::start_federated(&[]));
    let (alice, door) = (near.user("alice"), Door::new(&near, &far));
    let names: Vec<_> = (0..8).map(|number| near.user(&format!("user{number}"))).collect();
    for (name, heroes) in [(Some("Hall"), 0), (None, 6)] {
        let room = alice.create_room(json!({ "preset": "public_chat", "name": name })).room_id();
        names.iter().for_each(|user| drop(user.join(&room).ok()));
        let bob = format!("@bob:{}", far.name());
        let join = door.event(&door.template("join", &room, &bob).ok(), |_| {});
        let (id, body) = (join.event_id().as_str(), join.to_bytes());
        let answer = door.send_as("v2/send_join", &room, id, &body, "?omit_members=true").ok();
        assert_eq!(answer["members_omitted"], true);
        let servers: Vec<_> = answer["servers_in_room"].as_array().unwrap().iter().collect();
        assert!(servers.contains(&&json!(near.name())), "{servers:?}");
        let members =
            kinds(&answer["state"]).iter().filter(|kind| **kind == "m.room.member").count();
        assert_eq!(members, heroes);
        // What is in the state is not in the auth chain once more.
        let chain = kinds(&answer["auth_chain"]);
        assert!(!chain.contains(&"m.room.create") && !chain.contains(&"m.room.power_levels"));
    }
}

// Checklist 13.17, 8.7
#[test]
fn restricted_rooms_say_why_they_do_not_let_in() {
    let (near, far) = (Server::start_federated(&[]), Server::start_federated(&[]));
    let (alice, door) = (near.user("alice"), Door::new(&near, &far));
    let bob = format!("@bob:{}", far.name());
    let club = alice.public_room();
    let restricted = |rooms: &[&str], version: &str| {
        let allow: Vec<_> = (rooms.iter())
            .map(|room| json!({ "type": "m.room_membership", "room_id": room }))
            .collect();
        let content = json!({ "join_rule": "restricted", "allow": allow });
        let state = json!([{ "type": "m.room.join_rules", "content": content }]);
        let body = json!({ "initial_state": state, "room_version": version });
        alice.create_room(body).room_id()
    };
    for version in ["8", "10", "12"] {
        let room = restricted(&[&club], version);
        door.template("join", &room, &bob).refused(403, "M_FORBIDDEN");
        let unknown = restricted(&["!elsewhere:example.org"], version);
        door.template("join", &unknown, &bob).refused(400, "M_UNABLE_TO_AUTHORISE_JOIN");
        door.template("join", &restricted(&[], version), &bob).refused(403, "M_FORBIDDEN");
    }
    let join = door.event(&door.template("join", &club, &bob).ok(), |_| {});
    door.send("v2/send_join", &club, &join).ok();
    for version in ["8", "10", "12"] {
        let room = restricted(&["!elsewhere:example.org", &club], version);
        let template = door.template("join", &room, &bob).ok();
        let by = "join_authorised_via_users_server";
        assert_eq!(template["event"]["content"][by], alice.id);
        // The answer has the signature of the server that vouches.
        let join = door.event(&template, |_| {});
        let answer = door.send("v2/send_join", &room, &join).ok();
        let signed = &answer["event"]["signatures"];
        assert!(signed[near.name()].is_object() && signed[far.name()].is_object());
    }
    // The conditions are those at the time of the join.
    let room = restricted(&[&club], "12");
    let template = door.template("join", &room, &bob).ok();
    alice.membership(&club, "kick", json!({ "user_id": bob })).ok();
    door.send("v2/send_join", &room, &door.event(&template, |_| {})).refused(403, "M_FORBIDDEN");
}

#[test]
fn nobody_who_may_invite_is_left() {
    let (near, far) = (Server::start_federated(&[]), Server::start_federated(&[]));
    let [alice, carol] = ["alice", "carol"].map(|name| near.user(name));
    let door = Door::new(&near, &far);
    let bob = format!("@bob:{}", far.name());
    let club = alice.public_room();
    let join = door.event(&door.template("join", &club, &bob).ok(), |_| {});
    door.send("v2/send_join", &club, &join).ok();
    let allow = json!([{ "type": "m.room_membership", "room_id": club }]);
    let rules = json!({ "join_rule": "restricted", "allow": allow });
    let levels = json!({ "invite": 50, "users": { alice.id.clone(): 100 } });
    let body = json!({ "room_version": "10", "power_level_content_override": levels,
        "initial_state": [{ "type": "m.room.join_rules", "content": rules }],
        "invite": [carol.id] });
    let room = alice.create_room(body).room_id();
    carol.join(&room).ok();
    alice.leave(&room).ok();
    door.template("join", &room, &bob).refused(400, "M_UNABLE_TO_GRANT_JOIN");
}
