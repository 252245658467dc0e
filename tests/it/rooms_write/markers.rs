//! Typing, receipts and read markers.

use serde_json::{Value, json};

use crate::common::{Answer, Server, User, path};

fn receipt(user: &User, room: &str, kind: &str, event: &str, body: Value) -> Answer {
    let at = path("/_matrix/client/v3/rooms/{}/receipt/{}/{}", &[room, kind, event]);
    user.http.post(&at, &body)
}

fn fully_read(user: &User, room: &str) -> Answer {
    let at = "/_matrix/client/v3/user/{}/rooms/{}/account_data/m.fully_read";
    user.http.get(&path(at, &[&user.id, room]))
}

#[test]
fn members_type_for_themselves() {
    let server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let room = alice.public_room();
    let types = |by: &User, whom: &User, body: Value| {
        by.http.put(&path("/_matrix/client/v3/rooms/{}/typing/{}", &[&room, &whom.id]), &body)
    };
    types(&alice, &alice, json!({ "typing": true, "timeout": 30_000 })).ok();
    types(&alice, &alice, json!({ "typing": false })).ok();
    types(&alice, &bob, json!({ "typing": false })).refused(403, "M_FORBIDDEN");
    types(&bob, &bob, json!({ "typing": true, "timeout": 1 })).refused(403, "M_FORBIDDEN");
    bob.join(&room).ok();
    types(&bob, &bob, json!({ "typing": true, "timeout": 1 })).ok();
    types(&bob, &bob, json!({ "typing": true })).ok();
    types(&bob, &bob, json!({ "typing": true, "timeout": "long" })).refused(400, "M_BAD_JSON");
    types(&bob, &bob, json!({})).refused(400, "M_BAD_JSON");
    types(&bob, &bob, json!({ "typing": "yes" })).refused(400, "M_BAD_JSON");
}

#[test]
fn receipts_are_for_events_that_the_reader_can_see() {
    let server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let joined_only = json!([{ "type": "m.room.history_visibility",
        "content": { "history_visibility": "joined" } }]);
    let room = alice.create_room(json!({ "preset": "public_chat", "initial_state": joined_only }));
    let (room, other) = (room.room_id(), alice.public_room());
    let early = alice.say(&room, "early").event_id();
    let elsewhere = alice.say(&other, "elsewhere").event_id();
    receipt(&bob, &room, "m.read", &early, json!({})).refused(403, "M_FORBIDDEN");
    receipt(&bob, "!nothing:localhost", "m.read", &early, json!({})).refused(403, "M_FORBIDDEN");
    bob.join(&room).ok();
    let late = alice.say(&room, "late").event_id();
    for kind in ["m.read", "m.read.private", "m.fully_read"] {
        receipt(&bob, &room, kind, &late, json!({})).ok();
        receipt(&bob, &room, kind, &late, json!({})).ok();
        for event in [early.as_str(), &elsewhere, "$nothing"] {
            receipt(&bob, &room, kind, event, json!({})).refused(404, "M_NOT_FOUND");
        }
    }
    receipt(&bob, &room, "org.example", &late, json!({})).refused(400, "M_INVALID_PARAM");
    assert_eq!(fully_read(&bob, &room).ok()["event_id"], late.as_str());
    fully_read(&alice, &room).refused(404, "M_NOT_FOUND");
    // A body is not needed.
    let at = path("/_matrix/client/v3/rooms/{}/receipt/m.read/{}", &[&room, &late]);
    bob.http.send("POST", &at, b"").ok();
    bob.http.send("POST", &at, b"{").refused(400, "M_NOT_JSON");
}

// Checklist 9.1, 9.4
#[test]
fn a_receipts_thread_is_one_that_its_event_is_in() {
    let server = Server::start();
    let alice = server.user("alice");
    let room = alice.public_room();
    let root = alice.say(&room, "root").event_id();
    let alone = alice.say(&room, "alone").event_id();
    let relate = |kind: &str, relation: &str, to: &str| {
        let relation = json!({ "rel_type": relation, "event_id": to });
        alice.send(&room, kind, json!({ "body": "x", "m.relates_to": relation })).event_id()
    };
    let reply = relate("org.example.message", "m.thread", &root);
    let reaction = relate("org.example.reaction", "m.annotation", &reply);
    let on_root = relate("org.example.reaction", "m.annotation", &root);
    let read = |event: &str, thread: Value| {
        receipt(&alice, &room, "m.read", event, json!({ "thread_id": thread }))
    };
    for (event, thread, fits) in [
        (&root, "main", true),
        (&root, root.as_str(), true),
        (&reply, &root, true),
        (&reply, "main", false),
        (&reaction, &root, true),
        (&reaction, "main", false),
        (&on_root, "main", true),
        (&alone, "main", true),
        (&alone, &root, false),
        (&reply, &alone, false),
        (&reply, "nonsense", false),
        (&reply, "", false),
    ] {
        let answer = read(event, json!(thread));
        if fits {
            answer.ok()
        } else {
            answer.refused(400, "M_INVALID_PARAM")
        };
    }
    for thread in [json!(1), json!([]), json!(null)] {
        read(&root, thread).refused(400, "M_INVALID_PARAM");
    }
    let threaded = json!({ "thread_id": "main" });
    receipt(&alice, &room, "m.fully_read", &root, threaded).refused(400, "M_INVALID_PARAM");
}

// Checklist 9.5
#[test]
fn read_markers_are_set_together_or_not_at_all() {
    let server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let room = alice.public_room();
    let [first, second] = ["1", "2"].map(|text| alice.say(&room, text).event_id());
    let at = path("/_matrix/client/v3/rooms/{}/read_markers", &[&room]);
    let set = |body: Value| alice.http.post(&at, &body);
    set(json!({ "m.fully_read": first, "m.read": second, "m.read.private": second })).ok();
    assert_eq!(fully_read(&alice, &room).ok()["event_id"], first.as_str());
    set(json!({})).ok();
    set(json!({ "m.fully_read": second, "m.read": "$nothing" })).refused(404, "M_NOT_FOUND");
    assert_eq!(fully_read(&alice, &room).ok()["event_id"], first.as_str());
    set(json!({ "m.fully_read": 1 })).refused(400, "M_BAD_JSON");
    bob.http.post(&at, &json!({ "m.read": first })).refused(403, "M_FORBIDDEN");
}
