//! Knocking.

use serde_json::{Value, json};

use super::{member, put_alias};
use crate::common::{Answer, Ask, Server, User, path};

fn knock(user: &User, room_or_alias: &str, body: Value) -> Answer {
    let at = path("/_matrix/client/v3/knock/{}?via=elsewhere.example", &[room_or_alias]);
    user.http.post(&at, &body)
}

fn room_with(owner: &User, rule: &str, version: &str) -> String {
    let rules = json!([{ "type": "m.room.join_rules", "content": { "join_rule": rule } }]);
    let body =
        json!({ "name": "Behind the door", "initial_state": rules, "room_version": version });
    owner.create_room(body).room_id()
}

/// The types of the stripped state of a section of `/sync`.
fn stripped(sync: &Answer, section: &str, room: &str) -> Vec<String> {
    let state = match section {
        "knock" => "knock_state",
        _ => "invite_state",
    };
    let events = sync["rooms"][section][room][state]["events"].as_array().cloned();
    let events = events.unwrap_or_default();
    events.iter().map(|event| event["type"].as_str().unwrap().to_owned()).collect()
}

// Checklist 4.8, 8.6
#[test]
fn who_knocks_is_seen_and_let_in_by_an_invite() {
    let mut server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let tokens = [&alice, &bob].map(|user| user.sync(Ask::initial()).ok().next_batch());
    for version in ["7", "12"] {
        let room = room_with(&alice, "knock", version);
        assert_eq!(knock(&bob, &room, json!({ "reason": "please" })).room_id(), room);
        let knocked = member(&alice, &room, &bob);
        assert_eq!(
            (&knocked["membership"], &knocked["reason"]),
            (&json!("knock"), &json!("please"))
        );
        // The room's members see it, and bob what the room shows to those at the door.
        let seen = alice.sync_until(&tokens[0], |sync| {
            let events = [sync.timeline(&room), sync.state_before(&room)].concat();
            events.iter().any(|event| event["content"]["membership"] == "knock")
        });
        assert!(seen["rooms"]["join"][&room]["timeline"].is_object());
        let at_the_door = |sync: &Answer| {
            let kinds = stripped(sync, "knock", &room);
            let needed = ["m.room.create", "m.room.join_rules", "m.room.name", "m.room.member"];
            needed.iter().all(|kind| kinds.iter().any(|found| found == kind))
        };
        let sync = bob.sync_until(&tokens[1], at_the_door);
        assert!(sync["rooms"]["invite"].is_null() && sync["rooms"]["join"].is_null());
        assert!(at_the_door(&bob.sync(Ask::initial()).ok()), "also in a first sync");
        bob.room(&room, "messages?dir=b").refused(403, "M_FORBIDDEN");
        // A second knock is the same.
        knock(&bob, &room, json!({ "reason": "please" })).ok();
        let before = bob.sync(Ask::initial()).ok().next_batch();
        alice.invite(&room, &bob).ok();
        let sync = bob.sync_until(&before, |sync| !stripped(sync, "invite", &room).is_empty());
        assert!(sync["rooms"]["knock"].is_null());
        bob.join(&room).ok();
        let sync = bob.sync(Ask::since(&sync.next_batch())).ok();
        assert!(!sync.timeline(&room).is_empty());
        bob.leave(&room).ok();
    }
    let room = room_with(&alice, "knock_restricted", "10");
    put_alias(&alice, "#door:localhost", &room).ok();
    assert_eq!(knock(&bob, "#door:localhost", json!({})).room_id(), room);
    server.restart();
    let bob = server.again(&bob);
    assert!(!stripped(&bob.sync(Ask::initial()).ok(), "knock", &room).is_empty());
}

// Checklist 8.5, 8.6
#[test]
fn a_knock_is_taken_back_or_turned_down() {
    let server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let room = room_with(&alice, "knock", "12");
    for turn_down in [false, true] {
        knock(&bob, &room, json!({})).ok();
        let token = bob.sync(Ask::initial()).ok().next_batch();
        match turn_down {
            false => bob.leave(&room).ok(),
            true => alice.membership(&room, "kick", json!({ "user_id": bob.id })).ok(),
        };
        let sync = bob.sync_until(&token, |sync| sync["rooms"]["leave"][&room].is_object());
        let events = sync["rooms"]["leave"][&room]["timeline"]["events"].as_array().unwrap();
        assert_eq!(events.len(), 1, "the room is none of bob's business: {events:?}");
        assert_eq!(events[0]["content"]["membership"], "leave");
        assert!(bob.sync(Ask::initial()).ok()["rooms"]["knock"].is_null());
    }
}

// Checklist 8.6
#[test]
fn a_knock_is_refused_where_nobody_listens() {
    let server = Server::start();
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(|name| server.user(name));
    for (rule, version) in
        [("public", "12"), ("invite", "12"), ("knock", "6"), ("knock_restricted", "9")]
    {
        let room = room_with(&alice, rule, version);
        knock(&bob, &room, json!({})).refused(403, "M_FORBIDDEN");
    }
    let room = room_with(&alice, "knock", "12");
    knock(&alice, &room, json!({})).refused(403, "M_FORBIDDEN");
    alice.invite(&room, &bob).ok();
    knock(&bob, &room, json!({})).refused(403, "M_FORBIDDEN");
    alice.membership(&room, "ban", json!({ "user_id": carol.id })).ok();
    knock(&carol, &room, json!({})).refused(403, "M_FORBIDDEN");
    knock(&carol, "!nothing:localhost", json!({})).refused(404, "M_NOT_FOUND");
    knock(&carol, "#nothing:localhost", json!({})).refused(404, "M_NOT_FOUND");
    knock(&carol, "!nothing:elsewhere.example", json!({})).refused(404, "M_UNKNOWN");
    knock(&carol, "#nothing:elsewhere.example", json!({})).refused(403, "M_FORBIDDEN");
    knock(&carol, &room, json!({ "reason": 1 })).refused(400, "M_BAD_JSON");
}
