//! Inviting users of other servers.

use super::*;
use crate::common::FakeServer;

fn about(user: &User) -> Value {
    json!({ "user_id": user.id })
}

// Checklist 4.8, 13.19
#[test]
fn an_invite_reaches_a_user_of_another_server() {
    let (near, mut far) = (Server::start_federated(&[]), Server::start_federated(&[]));
    let (alice, bob) = (near.user("alice"), far.user("bob"));
    let mut since = now(&bob);
    for version in ["1", "6", "10", "11", "12"] {
        let body = json!({ "name": "Parlour", "room_version": version });
        let room = alice.create_room(body).room_id();
        alice.invite(&room, &bob).ok();
        assert_eq!(membership(&alice, &room, &bob), "invite");
        let sync = sync_to(&bob, &since, "invite", &room);
        let seen = told(&sync, "invite", &room);
        assert_eq!(seen["m.room.name"]["name"], "Parlour");
        assert_eq!(seen["m.room.create"]["room_version"], version);
        let events = sync["rooms"]["invite"][&room]["invite_state"]["events"].clone();
        let members: Vec<_> = (events.as_array().unwrap().iter())
            .filter(|event| event["type"] == "m.room.member")
            .map(|event| (&event["state_key"], &event["content"]["membership"]))
            .collect();
        assert!(members.contains(&(&json!(alice.id), &json!("join"))), "{members:?}");
        assert!(members.contains(&(&json!(bob.id), &json!("invite"))), "{members:?}");
        // It stays until it is answered, and nothing else of the room can be seen.
        far.restart();
        let bob = far.again(&bob);
        assert_eq!(sections(&bob.sync(Ask::initial()).ok(), &room), ["invite"]);
        bob.room(&room, "messages?dir=b").refused(403, "M_FORBIDDEN");
        bob.room(&room, "members").refused(403, "M_FORBIDDEN");
        bob.membership(&room, "forget", json!({})).refused(400, "M_UNKNOWN");
        bob.join(&room).ok();
        since = sync_to(&bob, &sync.next_batch(), "join", &room).next_batch();
        assert_eq!(state_of(&bob, &room), state_of(&alice, &room));
        assert_eq!(sections(&bob.sync(Ask::initial()).ok(), &room), ["join"]);
    }
}

// Checklist 8.5
#[test]
fn an_invite_is_rejected_where_it_came_from() {
    let (near, far) = (Server::start_federated(&[]), Server::start_federated(&[]));
    let (alice, bob) = (near.user("alice"), far.user("bob"));
    let room = alice.create_room(json!({})).room_id();
    let mut since = now(&bob);
    for _ in 0..2 {
        alice.invite(&room, &bob).ok();
        since = sync_to(&bob, &since, "invite", &room).next_batch();
        bob.membership(&room, "leave", json!({ "reason": "busy" })).ok();
        let sync = sync_to(&bob, &since, "leave", &room);
        let events = sync["rooms"]["leave"][&room]["timeline"]["events"].clone();
        assert_eq!(events[0]["content"]["membership"], "leave");
        since = sync.next_batch();
        let left = alice.state(&room, "m.room.member", &bob.id).ok();
        assert_eq!((&left["membership"], &left["reason"]), (&json!("leave"), &json!("busy")));
        bob.leave(&room).ok();
    }
    assert!(sections(&bob.sync(Ask::initial()).ok(), &room).is_empty());
    let with_left = json!({ "room": { "include_leave": true } });
    let sync = bob.sync(Ask::initial().filter(with_left.clone())).ok();
    assert_eq!(sections(&sync, &room), ["leave"]);
    bob.membership(&room, "forget", json!({})).ok();
    assert!(sections(&bob.sync(Ask::initial().filter(with_left)).ok(), &room).is_empty());
    bob.join(&room).refused(403, "M_FORBIDDEN");
    alice.invite(&room, &bob).ok();
    sync_to(&bob, &since, "invite", &room);
    bob.join(&room).ok();
}

// Checklist 8.5
#[test]
fn an_invite_from_nowhere_can_be_rejected() {
    let (mut near, mut far) = (Server::start_federated(&[]), Server::start_federated(&[]));
    let (alice, bob) = (near.user("alice"), far.user("bob"));
    let room = alice.create_room(json!({})).room_id();
    let since = now(&bob);
    alice.invite(&room, &bob).ok();
    let since = sync_to(&bob, &since, "invite", &room).next_batch();
    near.kill();
    assert!(bob.join(&room).status >= 500);
    bob.leave(&room).ok();
    sync_to(&bob, &since, "leave", &room);
    far.restart();
    let bob = far.again(&bob);
    assert!(sections(&bob.sync(Ask::initial()).ok(), &room).is_empty());
    near.restart();
    assert_eq!(membership(&near.again(&alice), &room, &bob), "invite");
}

// Checklist 8.5
#[test]
fn who_is_not_invited_any_more_is_told() {
    let (near, far) = (Server::start_federated(&[]), Server::start_federated(&[]));
    let (alice, bob) = (near.user("alice"), far.user("bob"));
    let knock = json!([{ "type": "m.room.join_rules", "content": { "join_rule": "knock" } }]);
    let mut since = now(&bob);
    for verb in ["kick", "ban"] {
        let room = alice.create_room(json!({ "initial_state": knock })).room_id();
        alice.invite(&room, &bob).ok();
        since = sync_to(&bob, &since, "invite", &room).next_batch();
        alice.membership(&room, verb, json!({ "user_id": bob.id, "reason": "no" })).ok();
        let sync = sync_to(&bob, &since, "leave", &room);
        let events = &sync["rooms"]["leave"][&room]["timeline"]["events"];
        assert_eq!(
            (&events[0]["sender"], &events[0]["content"]["reason"]),
            (&json!(alice.id), &json!("no"))
        );
        bob.join(&room).refused(403, "M_FORBIDDEN");
        let room = alice.create_room(json!({ "initial_state": knock })).room_id();
        knock_via(&bob, &room, &[&near.name()]).ok();
        since = sync_to(&bob, &sync.next_batch(), "knock", &room).next_batch();
        alice.membership(&room, verb, about(&bob)).ok();
        since = sync_to(&bob, &since, "leave", &room).next_batch();
    }
}

// Checklist 13.19
#[test]
fn an_invite_to_a_room_that_others_are_in_comes_once() {
    let (near, far) = (Server::start_federated(&[]), Server::start_federated(&[]));
    let (alice, [bob, carol]) = (near.user("alice"), ["bob", "carol"].map(|name| far.user(name)));
    let room = alice.create_room(json!({ "name": "Parlour" })).room_id();
    alice.invite(&room, &carol).ok();
    carol.join(&room).ok();
    let since = now(&bob);
    alice.invite(&room, &bob).ok();
    let sync = sync_to(&bob, &since, "invite", &room);
    assert_eq!(told(&sync, "invite", &room)["m.room.name"]["name"], "Parlour");
    assert_eq!(membership(&carol, &room, &bob), "invite");
    let event = alice.say(&room, "later").event_id();
    let at_carols =
        |sync: &Answer| sync.timeline(&room).iter().any(|found| found["event_id"] == json!(event));
    carol.sync_until(&since, at_carols);
    let later = bob.sync(Ask::since(&sync.next_batch())).ok();
    assert!(sections(&later, &room).is_empty(), "it has come before");
    bob.leave(&room).ok();
    assert_eq!(membership(&carol, &room, &bob), "leave");
}

#[test]
fn an_invite_stays_when_somebody_else_brings_the_room_here() {
    let (near, far) = (Server::start_federated(&[]), Server::start_federated(&[]));
    let (alice, [bob, carol]) = (near.user("alice"), ["bob", "carol"].map(|name| far.user(name)));
    let room = alice.create_room(json!({})).room_id();
    let since = now(&bob);
    for user in [&bob, &carol] {
        alice.invite(&room, user).ok();
    }
    let since = sync_to(&bob, &since, "invite", &room).next_batch();
    carol.join(&room).ok();
    assert_eq!(membership(&carol, &room, &bob), "invite");
    assert_eq!(sections(&bob.sync(Ask::initial()).ok(), &room), ["invite"]);
    let at_alices = now(&alice);
    bob.join(&room).ok();
    sync_to(&bob, &since, "join", &room);
    alice.sync_until(&at_alices, |_| membership(&alice, &room, &bob) == "join");
    assert_eq!(state_of(&bob, &room), state_of(&alice, &room));
}

// Checklist 6.7, 6.8
#[test]
fn nobody_has_to_take_invites() {
    let (near, far) = (Server::start_federated(&[]), Server::start_federated(&[]));
    let (alice, bob) = (near.user("alice"), far.user("bob"));
    let room = alice.create_room(json!({})).room_id();
    let data = |kind: &str, content: Value| {
        bob.http
            .put(&path("/_matrix/client/v3/user/{}/account_data/{}", &[&bob.id, kind]), &content)
    };
    data("m.invite_permission_config", json!({ "default_action": "block" })).ok();
    alice.invite(&room, &bob).refused(403, "M_INVITE_BLOCKED");
    assert_eq!(membership(&alice, &room, &bob), "none");
    data("m.invite_permission_config", json!({})).ok();
    data("m.ignored_user_list", json!({ "ignored_users": { alice.id.clone(): {} } })).ok();
    alice.invite(&room, &bob).ok();
    assert!(sections(&bob.sync(Ask::initial()).ok(), &room).is_empty());
    data("m.ignored_user_list", json!({ "ignored_users": {} })).ok();
    assert_eq!(sections(&bob.sync(Ask::initial()).ok(), &room), ["invite"]);
    let nobody = json!({ "user_id": format!("@nobody:{}", far.name()) });
    alice.membership(&room, "invite", nobody).refused(403, "M_FORBIDDEN");
    let stranger = json!({ "user_id": "@someone:elsewhere.example.org" });
    alice.membership(&room, "invite", stranger).refused(403, "M_FORBIDDEN");
    let dead = json!({ "user_id": "@someone:localhost:1" });
    alice.membership(&room, "invite", dead).refused(502, "M_UNKNOWN");
    // Who may not invite at home does not get so far.
    let carol = near.user("carol");
    carol.membership(&room, "invite", about(&bob)).refused(403, "M_FORBIDDEN");
    alice.membership(&room, "ban", about(&bob)).ok();
    alice.invite(&room, &bob).refused(403, "M_FORBIDDEN");
}

// Checklist 8.1, 8.2
#[test]
fn rooms_are_made_with_users_of_other_servers() {
    let (near, far) = (Server::start_federated(&[]), Server::start_federated(&[]));
    let (alice, [bob, carol]) = (near.user("alice"), ["bob", "carol"].map(|name| far.user(name)));
    let dead = "@someone:localhost:1";
    let body = json!({ "preset": "trusted_private_chat", "is_direct": true,
        "invite": [bob.id, dead, carol.id] });
    let room = alice.create_room(body).room_id();
    for user in [&bob, &carol] {
        let invited = alice.state(&room, "m.room.member", &user.id).ok();
        assert_eq!(
            (&invited["membership"], &invited["is_direct"]),
            (&json!("invite"), &json!(true))
        );
        user.join(&room).ok();
    }
    assert_eq!(alice.state(&room, "m.room.member", dead).status, 404);
    bob.set_state(&room, "m.room.name", "", json!({ "name": "ours" })).ok();
    let member = json!({ "type": "m.room.member", "state_key": bob.id,
        "content": { "membership": "invite" } });
    let refused = alice.create_room(json!({ "initial_state": [member] }));
    refused.refused(400, "M_INVALID_PARAM");
}

// Checklist 13.19
#[test]
fn only_real_invites_are_signed() {
    let (near, far) = (Server::start_federated(&[]), Server::start_federated(&[]));
    let (door, bob) = (Door::new(&far, &near), far.user("bob"));
    let alice = format!("@alice:{}", near.name());
    for version in ["2", "10", "12"] {
        let room = match version {
            "12" => "!AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".to_owned(),
            _ => format!("!room:{}", near.name()),
        };
        let fake = json!({ "room_version": version, "event": {
            "type": "m.room.member", "room_id": room, "sender": alice, "state_key": bob.id,
            "content": { "membership": "invite" }, "depth": 5, "origin_server_ts": 1_700_000_000_000_i64,
            "prev_events": [], "auth_events": [],
        }});
        let far_template = Answer { body: fake, ..far.http.get("/_matrix/client/versions") };
        let invite = |edit: &dyn Fn(&mut Object)| {
            let pdu = door.event(&far_template, |event| edit(event));
            (
                pdu.event_id().to_string(),
                json::to_canonical_string(&Json::Object(pdu.json().clone())),
            )
        };
        let body = |event: &str, version: &str, told: &Value| {
            format!(r#"{{"room_version":"{version}","event":{event},"invite_room_state":{told}}}"#)
        };
        let send =
            |id: &str, body: String| door.send_as("v2/invite", &room, id, body.as_bytes(), "");
        let put = |event: &mut Object, key: &str, value: &str| {
            event.insert(key.to_owned(), value.into());
        };
        let create = json!([{ "type": "m.room.create", "state_key": "", "sender": alice,
            "content": { "room_version": version } }]);
        let wrong: [&dyn Fn(&mut Object); 5] = [
            &|event| put(event, "type", "m.room.name"),
            &|event| set(event, "membership", "join"),
            &|event| put(event, "sender", &bob.id),
            &|event| put(event, "state_key", &alice),
            &|event| put(event, "room_id", &room.replace(['A', 'm'], "b")),
        ];
        for edit in wrong {
            let (id, event) = invite(edit);
            send(&id, body(&event, version, &create)).refused(400, "M_INVALID_PARAM");
        }
        let (id, event) = invite(&|_| {});
        let changed = event.replace(r#""depth":5"#, r#""depth":6"#);
        send(&id, body(&changed, version, &create)).refused(400, "M_INVALID_PARAM");
        send("$other", body(&event, version, &create)).refused(400, "M_INVALID_PARAM");
        let refused = send(&id, body(&event, "org.example.new", &create));
        refused.refused(400, "M_INCOMPATIBLE_ROOM_VERSION");
        // What is told of the room may be left out, but for newer rooms.
        let alone = format!(r#"{{"room_version":"{version}","event":{event}}}"#);
        if version == "12" {
            send(&id, body(&event, version, &json!([]))).refused(400, "M_INVALID_PARAM");
            send(&id, alone).refused(400, "M_INVALID_PARAM");
        } else {
            send(&id, alone).ok();
        }
        send(&id, r#"{"event":{}}"#.to_owned()).refused(400, "M_BAD_JSON");
        let signed = send(&id, body(&event, version, &create)).ok();
        assert!(signed["event"]["signatures"][far.name()].is_object());
        assert!(signed["event"]["signatures"][near.name()].is_object());
        assert_eq!(sections(&bob.sync(Ask::initial()).ok(), &room), ["invite"]);
    }
}

// Checklist 13.19
#[test]
fn the_first_version_takes_the_event_alone() {
    let (near, far) = (Server::start_federated(&[]), Server::start_federated(&[]));
    let (door, bob) = (Door::new(&far, &near), far.user("bob"));
    let (alice, room) = (format!("@alice:{}", near.name()), format!("!room:{}", near.name()));
    let fake = json!({ "room_version": "1", "event": {
        "type": "m.room.member", "room_id": room, "sender": alice, "state_key": bob.id,
        "content": { "membership": "invite" }, "depth": 5, "origin_server_ts": 1_700_000_000_000_i64,
        "prev_events": [], "auth_events": [],
    }});
    let template = Answer { body: fake, ..far.http.get("/_matrix/client/versions") };
    let invite = door.event(&template, |_| {});
    let mut body: Value = serde_json::from_slice(&invite.to_bytes()).unwrap();
    let event = |kind: &str, content: Value| json!({ "type": kind, "state_key": "", "sender": alice, "content": content });
    let told_of =
        [event("m.room.create", json!({})), event("m.room.name", json!({ "name": "Old" }))];
    body["unsigned"] = json!({ "invite_room_state": told_of });
    let id = invite.event_id().as_str();
    let body = body.to_string();
    let signed = door.send_as("v1/invite", &room, id, body.as_bytes(), "").ok();
    assert_eq!(signed.body[0], 200);
    assert!(signed.body[1]["event"]["signatures"][far.name()].is_object());
    let sync = bob.sync(Ask::initial()).ok();
    assert_eq!(told(&sync, "invite", &room)["m.room.name"]["name"], "Old");
}

#[test]
fn other_servers_hear_nothing_of_rooms_that_are_not_for_them() {
    let (near, far) = (Server::start_federated(&[]), FakeServer::start(|_| |_: &_| None));
    let alice = near.user("alice");
    let bob = json!({ "user_id": format!("@bob:{}", far.name()) });
    let body = json!({ "name": "Secret", "creation_content": { "m.federate": false } });
    let room = alice.create_room(body).room_id();
    alice.membership(&room, "invite", bob.clone()).refused(403, "M_FORBIDDEN");
    assert!(!far.asked().iter().any(|asked| asked.path.contains("/invite/")));
    // What a server does not know is not what the client has asked for.
    let room = alice.create_room(json!({})).room_id();
    alice.membership(&room, "invite", bob).refused(502, "M_UNKNOWN");
    assert!(far.asked().iter().any(|asked| asked.is("v2/invite")));
}
