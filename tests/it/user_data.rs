//! Users' own data: profiles, account data, filters; and what the server says that it can do.

use std::time::Duration;

use serde_json::{Value, json};

use crate::common::{Server, User, deadline, path};

#[test]
fn capabilities_say_what_can_be_done() {
    let server = Server::start();
    let alice = server.user("alice");
    let at = "/_matrix/client/v3/capabilities";
    let all = alice.http.get(at).ok()["capabilities"].clone();
    assert_eq!(all["m.room_versions"]["default"], "12");
    for version in 1..=12 {
        assert_eq!(all["m.room_versions"]["available"][version.to_string()], "stable");
    }
    let enabled = |name: &str, by_default| all[name]["enabled"].as_bool().unwrap_or(by_default);
    assert!(enabled("m.change_password", true), "{all}");
    assert!(!enabled("m.3pid_changes", true), "{all}");
    assert!(enabled("m.get_login_token", false), "{all}");
    assert!(enabled("m.profile_fields", true), "{all}");
    assert!(enabled("m.set_displayname", true), "{all}");
    assert!(enabled("m.set_avatar_url", true), "{all}");
    server.http.get(at).refused(401, "M_MISSING_TOKEN");
}

fn profile(user: &str) -> String {
    path("/_matrix/client/v3/profile/{}", &[user])
}

fn field(user: &str, name: &str) -> String {
    path("/_matrix/client/v3/profile/{}/{}", &[user, name])
}

#[test]
fn a_profile_is_set_read_and_emptied() {
    let server = Server::start();
    let alice = server.user("alice");
    assert_eq!(server.http.get(&profile(&alice.id)).ok().body, json!({}));
    let values = [
        ("displayname", json!("Alice")),
        ("avatar_url", json!("mxc://localhost/cat")),
        ("m.tz", json!("Europe/Berlin")),
        ("org.example.job", json!({ "title": "editor", "years": [1, 2.5, null] })),
        ("org.example.nothing", json!(null)),
    ];
    for (name, value) in &values {
        server.http.get(&field(&alice.id, name)).refused(404, "M_NOT_FOUND");
        assert_eq!(
            alice.http.put(&field(&alice.id, name), &json!({ *name: value })).ok().body,
            json!({})
        );
        let one = server.http.get(&field(&alice.id, name)).ok();
        assert_eq!(one.body, json!({ *name: value }));
    }
    let all: serde_json::Map<String, Value> =
        values.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    assert_eq!(server.http.get(&profile(&alice.id)).ok().body, Value::Object(all));
    for (name, _) in &values {
        for _ in 0..2 {
            alice.http.send("DELETE", &field(&alice.id, name), b"").ok();
        }
        server.http.get(&field(&alice.id, name)).refused(404, "M_NOT_FOUND");
    }
    assert_eq!(server.http.get(&profile(&alice.id)).ok().body, json!({}));
    // The way of older clients.
    alice.http.put(&field(&alice.id, "displayname"), &json!({ "displayname": "Alice" })).ok();
    alice.http.put(&field(&alice.id, "displayname"), &json!({ "displayname": "" })).ok();
    server.http.get(&field(&alice.id, "displayname")).refused(404, "M_NOT_FOUND");
}

// Checklist 7.9
#[test]
fn a_profile_is_checked_and_bounded() {
    let server = Server::start();
    let alice = server.user("alice");
    let bob = server.user("bob");
    let long_key = format!("a{}", "b".repeat(255));
    for (name, body, errcode) in [
        ("displayname", json!({}), "M_MISSING_PARAM"),
        ("displayname", json!({ "avatar_url": "x" }), "M_MISSING_PARAM"),
        ("displayname", json!({ "displayname": 1 }), "M_BAD_JSON"),
        ("displayname", json!({ "displayname": null }), "M_BAD_JSON"),
        ("displayname", json!({ "displayname": "x".repeat(2_000) }), "M_INVALID_PARAM"),
        ("avatar_url", json!({ "avatar_url": "https://example.org/cat" }), "M_INVALID_PARAM"),
        ("avatar_url", json!({ "avatar_url": [] }), "M_BAD_JSON"),
        ("m.tz", json!({ "m.tz": 1 }), "M_BAD_JSON"),
        ("Capital", json!({ "Capital": 1 }), "M_INVALID_PARAM"),
        (&long_key, json!({ &long_key: 1 }), "M_KEY_TOO_LARGE"),
        (
            "org.example.big",
            json!({ "org.example.big": "x".repeat(66_000) }),
            "M_PROFILE_TOO_LARGE",
        ),
    ] {
        alice.http.put(&field(&alice.id, name), &body).refused(400, errcode);
    }
    let name_at = field(&alice.id, "displayname");
    alice.http.send("PUT", &name_at, b"").refused(400, "M_NOT_JSON");
    alice.http.send("PUT", &name_at, b"{").refused(400, "M_NOT_JSON");
    alice.http.send("PUT", &name_at, b"[]").refused(400, "M_BAD_JSON");
    alice.http.send("DELETE", &field(&alice.id, "Capital"), b"").refused(400, "M_INVALID_PARAM");
    let half = |name: &str| json!({ name: "x".repeat(40_000) });
    alice.http.put(&field(&alice.id, "org.example.a"), &half("org.example.a")).ok();
    let second = alice.http.put(&field(&alice.id, "org.example.b"), &half("org.example.b"));
    second.refused(400, "M_PROFILE_TOO_LARGE");
    let name = json!({ "displayname": "Mallory" });
    bob.http.put(&name_at, &name).refused(403, "M_FORBIDDEN");
    bob.http.send("DELETE", &name_at, b"").refused(403, "M_FORBIDDEN");
    server.http.put(&name_at, &name).refused(401, "M_MISSING_TOKEN");
    // The second is of a server that isn't spoken to.
    for (stranger, status, errcode) in [
        ("@nobody:localhost", 404, "M_NOT_FOUND"),
        ("@somebody:elsewhere.example", 403, "M_FORBIDDEN"),
    ] {
        server.http.get(&profile(stranger)).refused(status, errcode);
        server.http.get(&field(stranger, "displayname")).refused(status, errcode);
    }
    server.http.get(&profile("nonsense")).refused(400, "M_INVALID_PARAM");
}

// Checklist 7.9
#[test]
fn a_new_name_is_told_in_all_joined_rooms() {
    let mut server = Server::start();
    let alice = server.user("alice");
    let rooms: Vec<String> = (0..5).map(|_| alice.public_room()).collect();
    let left = alice.public_room();
    alice.leave(&left).ok();
    let name = json!({ "displayname": "Alice" });
    alice.http.put(&field(&alice.id, "displayname"), &name).ok();
    // Whether it has come into the rooms already or not, a kill does not lose it.
    server.restart();
    let alice = server.again(&alice);
    let said = |room: &str| alice.state(room, "m.room.member", &alice.id).ok().body;
    for room in &rooms {
        let until = deadline(Duration::from_secs(20));
        while said(room)["displayname"] != "Alice" {
            assert!(!until.passed(), "{room} never heard of it");
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(said(room)["membership"], "join");
    }
    assert_eq!(said(&left)["membership"], "leave");
}

// Checklist 7.10
#[test]
fn account_data_are_kept_per_user_and_room() {
    let mut server = Server::start();
    let alice = server.user("alice");
    let bob = server.user("bob");
    let at = |user: &User, kind: &str| {
        path("/_matrix/client/v3/user/{}/account_data/{}", &[&user.id, kind])
    };
    let here = at(&alice, "org.example");
    alice.http.get(&here).refused(404, "M_NOT_FOUND");
    let content = json!({ "a": 1.5, "b": { "c": ["é", null] } });
    assert_eq!(alice.http.put(&here, &content).ok().body, json!({}));
    assert_eq!(alice.http.get(&here).ok().body, content);
    alice.http.put(&here, &json!({})).ok();
    assert_eq!(alice.http.get(&here).ok().body, json!({}));
    alice.http.put(&here, &content).ok();
    bob.http.get(&here).refused(403, "M_FORBIDDEN");
    bob.http.put(&here, &json!({})).refused(403, "M_FORBIDDEN");
    bob.http.get(&at(&bob, "org.example")).refused(404, "M_NOT_FOUND");
    for kind in ["m.fully_read", "m.push_rules"] {
        alice.http.put(&at(&alice, kind), &json!({})).refused(405, "M_BAD_JSON");
    }
    for (body, errcode) in [("", "M_NOT_JSON"), ("{", "M_NOT_JSON"), ("[]", "M_BAD_JSON")] {
        alice.http.send("PUT", &here, body.as_bytes()).refused(400, errcode);
    }
    let big = json!({ "x": "x".repeat(1 << 20) });
    alice.http.put(&here, &big).refused(413, "M_TOO_LARGE");
    let long = at(&alice, &"t".repeat(256));
    alice.http.put(&long, &json!({})).refused(400, "M_INVALID_PARAM");
    let rules = alice.http.get(&at(&alice, "m.push_rules")).ok();
    assert_eq!(rules["global"]["override"][0]["rule_id"], ".m.rule.master");
    server.restart();
    let alice = server.again(&alice);
    assert_eq!(alice.http.get(&here).ok().body, content);
}

// Checklist 7.10
#[test]
fn account_data_of_a_room_are_for_who_has_been_there() {
    let server = Server::start();
    let alice = server.user("alice");
    let bob = server.user("bob");
    let room = alice.public_room();
    let at = |user: &User, room: &str, kind: &str| {
        let template = "/_matrix/client/v3/user/{}/rooms/{}/account_data/{}";
        path(template, &[&user.id, room, kind])
    };
    let here = at(&alice, &room, "org.example");
    alice.http.get(&here).refused(404, "M_NOT_FOUND");
    alice.http.put(&here, &json!({ "x": 1 })).ok();
    assert_eq!(alice.http.get(&here).ok().body, json!({ "x": 1 }));
    alice.leave(&room).ok();
    assert_eq!(alice.http.get(&here).ok().body, json!({ "x": 1 }));
    let other = alice.public_room();
    alice.http.get(&at(&alice, &other, "org.example")).refused(404, "M_NOT_FOUND");
    bob.http.get(&here).refused(403, "M_FORBIDDEN");
    bob.http.put(&here, &json!({})).refused(403, "M_FORBIDDEN");
    bob.http.put(&at(&bob, &room, "org.example"), &json!({})).refused(404, "M_NOT_FOUND");
    let nowhere = at(&alice, "!nowhere:localhost", "org.example");
    alice.http.put(&nowhere, &json!({})).refused(404, "M_NOT_FOUND");
    let no_room = at(&alice, "nonsense", "org.example");
    alice.http.put(&no_room, &json!({})).refused(400, "M_INVALID_PARAM");
    alice.http.get(&no_room).refused(400, "M_INVALID_PARAM");
    for kind in ["m.fully_read", "m.push_rules"] {
        alice.http.put(&at(&alice, &room, kind), &json!({})).refused(405, "M_BAD_JSON");
    }
    alice.http.send("PUT", &here, b"[]").refused(400, "M_BAD_JSON");
}

#[test]
fn filters_are_stored_checked_and_private() {
    let server = Server::start();
    let alice = server.user("alice");
    let bob = server.user("bob");
    let filters = path("/_matrix/client/v3/user/{}/filter", &[&alice.id]);
    let filter = json!({ "event_fields": ["type", "content"], "room": {
        "timeline": { "limit": 10, "types": ["m.room.message"], "senders": ["@a:b"] },
        "state": { "lazy_load_members": true } } });
    let id = alice.http.post(&filters, &filter).text("filter_id");
    let at = |id: &str| path("/_matrix/client/v3/user/{}/filter/{}", &[&alice.id, id]);
    assert_eq!(alice.http.get(&at(&id)).ok().body, filter);
    assert_eq!(alice.http.post(&filters, &filter).text("filter_id"), id);
    assert_ne!(alice.http.post(&filters, &json!({})).text("filter_id"), id);
    alice.http.get(&at("0")).refused(404, "M_NOT_FOUND");
    bob.http.get(&at(&id)).refused(403, "M_FORBIDDEN");
    bob.http.post(&filters, &filter).refused(403, "M_FORBIDDEN");
    for wrong in [
        json!({ "room": [] }),
        json!({ "event_fields": "type" }),
        json!({ "room": { "timeline": { "limit": "ten" } } }),
        json!({ "room": { "timeline": { "senders": ["nobody"] } } }),
        json!({ "room": { "rooms": ["nowhere"] } }),
    ] {
        alice.http.post(&filters, &wrong).refused(400, "M_BAD_JSON");
    }
    let big = json!({ "event_fields": ["x".repeat(70_000)] });
    alice.http.post(&filters, &big).refused(413, "M_TOO_LARGE");
}
