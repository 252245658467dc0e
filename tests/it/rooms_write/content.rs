//! Sending, redacting and setting state.

use serde_json::json;

use super::{kinds, put_alias};
use crate::common::{Server, User, fresh_txn, path};

// Checklist 2.1
#[test]
fn a_transaction_is_done_once_for_its_device_and_endpoint() {
    let mut server = Server::start();
    let alice = server.user("alice");
    let phone = server.login("alice");
    let (room, other) = (alice.public_room(), alice.public_room());
    let text = |body: &str| json!({ "msgtype": "m.text", "body": body });
    let first = alice.send_as(&room, "m.room.message", "1", text("a")).event_id();
    // The second body does not matter: it is the same request.
    assert_eq!(alice.send_as(&room, "m.room.message", "1", text("b")).event_id(), first);
    let old = path("/_matrix/client/r0/rooms/{}/send/m.room.message/1", &[&room]);
    assert_eq!(alice.http.put(&old, &text("c")).event_id(), first);
    let different = [
        alice.send_as(&room, "m.room.message", "2", text("a")).event_id(),
        alice.send_as(&room, "org.example", "1", text("a")).event_id(),
        alice.send_as(&other, "m.room.message", "1", text("a")).event_id(),
        phone.send_as(&room, "m.room.message", "1", text("a")).event_id(),
    ];
    assert!(!different.contains(&first));
    let redact = path("/_matrix/client/v3/rooms/{}/redact/{}/1", &[&room, &different[0]]);
    let redaction = alice.http.put(&redact, &json!({})).event_id();
    assert_eq!(alice.http.put(&redact, &json!({ "reason": "x" })).event_id(), redaction);
    assert_eq!(kinds(&alice, &room).iter().filter(|kind| *kind == "m.room.redaction").count(), 1);
    server.restart();
    let alice = server.again(&alice);
    assert_eq!(alice.send_as(&room, "m.room.message", "1", text("a")).event_id(), first);
    assert_eq!(alice.http.put(&redact, &json!({})).event_id(), redaction);
    let long = "x".repeat(256);
    alice.send_as(&room, "m.room.message", &long, text("a")).refused(400, "M_INVALID_PARAM");
}

// Checklist 7.1
#[test]
fn only_members_can_send_and_only_what_an_event_can_hold() {
    let server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let room = alice.public_room();
    bob.say(&room, "hello?").refused(403, "M_FORBIDDEN");
    bob.say("!nothing:localhost", "hello?").refused(403, "M_FORBIDDEN");
    bob.set_state(&room, "org.example", "", json!({})).refused(403, "M_FORBIDDEN");
    bob.redact(&room, "$nothing", "").refused(403, "M_FORBIDDEN");
    bob.join(&room).ok();
    bob.say(&room, "hello").ok();
    bob.set_state(&room, "m.room.name", "", json!({ "name": "Bob's" })).refused(403, "M_FORBIDDEN");
    bob.set_state(&room, "org.example", &alice.id, json!({})).refused(403, "M_FORBIDDEN");
    alice
        .send(&room, "org.example", json!({ "a": "x".repeat(66_000) }))
        .refused(413, "M_TOO_LARGE");
    let long = "x".repeat(256);
    alice.send(&room, &long, json!({})).refused(413, "M_TOO_LARGE");
    alice.set_state(&room, "org.example", &long, json!({})).refused(413, "M_TOO_LARGE");
    alice.send(&room, "org.example", json!({ "a": 1.5 })).refused(400, "M_BAD_JSON");
    alice.set_state(&room, "org.example", "", json!({ "a": 1.5 })).refused(400, "M_BAD_JSON");
    // The timestamp is for application services.
    let at = path("/_matrix/client/v3/rooms/{}/send/org.example/{}?ts=5", &[&room, &fresh_txn()]);
    let event = alice.http.put(&at, &json!({})).event_id();
    let event = alice.room(&room, &path("event/{}", &[&event])).ok();
    assert_ne!(event["origin_server_ts"], 5);
}

#[test]
fn what_a_room_stands_on_is_not_redacted() {
    let server = Server::start();
    let alice = server.user("alice");
    for version in ["1", "10", "12"] {
        let room = alice.create_room(json!({ "room_version": version })).room_id();
        let open = json!({ "allow": ["*"] });
        let acl = alice.set_state(&room, "m.room.server_acl", "", open).event_id();
        let state = alice.room(&room, "state").ok();
        let mut events = state.body.as_array().unwrap().iter();
        let create = events.find(|event| event["type"] == "m.room.create").unwrap();
        for target in [create["event_id"].as_str().unwrap(), &acl] {
            alice.redact(&room, target, "").refused(403, "M_FORBIDDEN");
            let redaction = json!({ "redacts": target });
            alice.send(&room, "m.room.redaction", redaction).refused(403, "M_FORBIDDEN");
        }
        assert!(alice.state(&room, "m.room.server_acl", "").ok()["allow"].is_array());
    }
}

// Checklist 7.6
#[test]
fn redactions_need_an_event_of_the_room_and_power_over_it() {
    let server = Server::start();
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(|name| server.user(name));
    for version in ["1", "3", "10", "11", "12"] {
        let create =
            || alice.create_room(json!({ "preset": "public_chat", "room_version": version }));
        let (room, other) = (create().room_id(), create().room_id());
        bob.join(&room).ok();
        carol.join(&room).ok();
        let send = |by: &User, target: &str| {
            by.send(&room, "m.room.redaction", json!({ "redacts": target, "reason": "r" }))
        };
        let content =
            |event: &str| alice.room(&room, &path("event/{}", &[event])).ok()["content"].clone();
        let said = bob.say(&room, "regretted").event_id();
        carol.redact(&room, &said, "not mine").refused(403, "M_FORBIDDEN");
        send(&carol, &said).refused(403, "M_FORBIDDEN");
        assert_eq!(content(&said)["body"], "regretted", "version {version}");
        let redaction = bob.redact(&room, &said, "mine").event_id();
        assert_eq!(content(&said), json!({}), "version {version}");
        let shown = alice.room(&room, &path("event/{}", &[&redaction])).ok();
        assert_eq!((&shown["redacts"], &shown["content"]["redacts"]), (&json!(said), &json!(said)));
        assert_eq!(shown["content"]["reason"], "mine");
        let said = bob.say(&room, "noise").event_id();
        send(&alice, &said).ok();
        assert_eq!(content(&said), json!({}), "version {version}");
        let elsewhere = alice.say(&other, "elsewhere").event_id();
        alice.redact(&room, &elsewhere, "").refused(404, "M_NOT_FOUND");
        alice.redact(&room, "$nothing:localhost", "").refused(404, "M_NOT_FOUND");
        send(&alice, &elsewhere).refused(404, "M_NOT_FOUND");
        alice.send(&room, "m.room.redaction", json!({})).refused(400, "M_BAD_JSON");
        alice.send(&room, "m.room.redaction", json!({ "redacts": 1 })).refused(400, "M_BAD_JSON");
    }
}

// Checklist 1.10, 2.4
#[test]
fn state_can_be_set_in_all_forms_of_the_path() {
    let server = Server::start();
    let alice = server.user("alice");
    let room = alice.public_room();
    for version in ["v3", "r0"] {
        for (form, key) in [("org.example", ""), ("org.example/", ""), ("org.example/k", "k")] {
            let start = path("/_matrix/client/{}/rooms/{}/state/", &[version, &room]);
            let body = json!({ "form": form, "version": version });
            let event = alice.http.put(&format!("{start}{form}"), &body).event_id();
            assert_eq!(alice.state(&room, "org.example", key).ok().body, body);
            // What is so already makes no new event.
            let again = alice.http.put(&format!("{start}{form}"), &body).event_id();
            assert_eq!(again, event);
        }
    }
    let start = path("/_matrix/client/v3/rooms/{}/state/org.example", &[&room]);
    alice.http.post(&start, &json!({})).refused(405, "M_UNRECOGNIZED");
}

// Checklist 7.5
#[test]
fn rooms_are_created_once_and_levels_are_numbers() {
    let server = Server::start();
    let alice = server.user("alice");
    for version in ["1", "9", "11"] {
        let room = alice.create_room(json!({ "room_version": version })).room_id();
        let create = alice.state(&room, "m.room.create", "").ok().body;
        alice.set_state(&room, "m.room.create", "", create).refused(403, "M_FORBIDDEN");
        let levels = alice.state(&room, "m.room.power_levels", "").ok().body;
        for (field, wrong) in [
            ("ban", json!("50")),
            ("users", json!({ (&*alice.id): "100" })),
            ("events", json!({ "a": null })),
            ("users_default", json!(true)),
        ] {
            let mut changed = levels.clone();
            changed[field] = wrong;
            let answer = alice.set_state(&room, "m.room.power_levels", "", changed);
            answer.refused(400, "M_BAD_JSON");
        }
        let mut changed = levels.clone();
        changed["ban"] = json!(51);
        alice.set_state(&room, "m.room.power_levels", "", changed).ok();
    }
}

// Checklist 7.4
#[test]
fn a_canonical_alias_leads_to_its_room() {
    let server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let (room, other) = (alice.public_room(), alice.public_room());
    put_alias(&alice, "#here:localhost", &room).ok();
    bob.join(&room).ok();
    put_alias(&bob, "#also:localhost", &room).ok();
    put_alias(&alice, "#there:localhost", &other).ok();
    let set = |content| alice.set_state(&room, "m.room.canonical_alias", "", content);
    for (content, code) in [
        (json!({ "alias": "here" }), "M_INVALID_PARAM"),
        (json!({ "alias": 1 }), "M_INVALID_PARAM"),
        (json!({ "alt_aliases": ["#here:localhost", "also"] }), "M_INVALID_PARAM"),
        (json!({ "alt_aliases": "#here:localhost" }), "M_INVALID_PARAM"),
        (json!({ "alias": "#there:localhost" }), "M_BAD_ALIAS"),
        (json!({ "alias": "#nowhere:localhost" }), "M_BAD_ALIAS"),
        (json!({ "alias": "#here:elsewhere.example" }), "M_BAD_ALIAS"),
        (json!({ "alias": "#here:localhost", "alt_aliases": ["#there:localhost"] }), "M_BAD_ALIAS"),
    ] {
        set(content).refused(400, code);
    }
    set(json!({ "alias": "#here:localhost", "alt_aliases": ["#also:localhost"] })).ok();
    // What stands there already is not checked again, nor is what goes. Bob cannot take it back.
    bob.http.send("DELETE", &super::alias_path("#also:localhost"), b"").ok();
    set(json!({ "alt_aliases": ["#also:localhost"] })).ok();
    set(json!({ "alias": "" })).ok();
    set(json!({ "alt_aliases": ["#also:localhost"] })).refused(400, "M_BAD_ALIAS");
}

#[test]
fn writing_is_limited_by_user_and_kind() {
    let server = Server::start_with(&[
        ("PARLOUR_SERVER__TEST_MODE", "false"),
        ("PARLOUR_LIMITS__MESSAGE__BURST", "3"),
        ("PARLOUR_LIMITS__MESSAGE__PER_SECOND", "0.001"),
        ("PARLOUR_LIMITS__JOIN__BURST", "2"),
        ("PARLOUR_LIMITS__JOIN__PER_SECOND", "0.001"),
    ]);
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let room = alice.public_room();
    let event = alice.say(&room, "first").event_id();
    alice.redact(&room, &event, "").ok();
    alice.set_state(&room, "org.example", "", json!({})).ok();
    alice.say(&room, "too much").refused(429, "M_LIMIT_EXCEEDED");
    alice.redact(&room, &event, "").refused(429, "M_LIMIT_EXCEEDED");
    alice.set_state(&room, "org.example", "", json!({})).refused(429, "M_LIMIT_EXCEEDED");
    alice.invite(&room, &bob).ok();
    alice.create_room(json!({})).refused(429, "M_LIMIT_EXCEEDED");
    alice.invite(&room, &bob).refused(429, "M_LIMIT_EXCEEDED");
    alice.join(&room).refused(429, "M_LIMIT_EXCEEDED");
    // Others, and leaving, are not concerned.
    bob.join(&room).ok();
    bob.say(&room, "hello").ok();
    alice.leave(&room).ok();
}
