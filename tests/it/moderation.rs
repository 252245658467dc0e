//! What administrators do about accounts, and what users report to them.

use serde_json::{Value, json};

use crate::common::{Ask, PASSWORD, Server, User, path};

const CAPABILITIES: &str = "/_matrix/client/v3/capabilities";
const WHOAMI: &str = "/_matrix/client/v3/account/whoami";
const LOGIN: &str = "/_matrix/client/v3/login";

fn lock(user: &str) -> String {
    path("/_matrix/client/v1/admin/lock/{}", &[user])
}

fn suspend(user: &str) -> String {
    path("/_matrix/client/v1/admin/suspend/{}", &[user])
}

fn login(name: &str, password: &str) -> Value {
    json!({ "type": "m.login.password", "password": password,
        "identifier": { "type": "m.id.user", "user": name } })
}

// Checklist 3.6
#[test]
fn a_locked_account_does_nothing_but_log_out_and_keeps_its_logins() {
    let mut server = Server::start();
    let root = server.admin("root");
    let (alice, second) = (server.user("alice"), server.login("alice"));
    let room = alice.public_room();
    assert_eq!(root.http.get(&lock(&alice.id)).ok().body, json!({ "locked": false }));
    let answer = root.http.put(&lock(&alice.id), &json!({ "locked": true })).ok();
    assert_eq!(answer.body, json!({ "locked": true }));
    assert_eq!(root.http.get(&lock(&alice.id)).ok().body, json!({ "locked": true }));
    server.restart();
    let again = |user: &User| server.again(user);
    let (root, alice, second) = (again(&root), again(&alice), again(&second));
    let locked = |answer: crate::common::Answer| {
        let refused = answer.refused(401, "M_USER_LOCKED");
        assert_eq!(refused["soft_logout"], true);
    };
    locked(alice.http.get(WHOAMI));
    locked(alice.sync(Ask::initial()));
    locked(alice.say(&room, "still here?"));
    locked(alice.leave(&room));
    locked(alice.http.get(CAPABILITIES));
    locked(server.http.post(LOGIN, &login("alice", PASSWORD)));
    server.http.post(LOGIN, &login("alice", "wrong")).refused(403, "M_FORBIDDEN");
    second.http.post("/_matrix/client/v3/logout", &json!({})).ok();
    second.http.get(WHOAMI).refused(401, "M_UNKNOWN_TOKEN");
    root.http.put(&lock(&alice.id), &json!({ "locked": false })).ok();
    alice.http.get(WHOAMI).ok();
    alice.say(&room, "here again").ok();
    root.http.put(&lock(&alice.id), &json!({ "locked": true })).ok();
    alice.http.post("/_matrix/client/v3/logout/all", &json!({})).ok();
    alice.http.get(WHOAMI).refused(401, "M_UNKNOWN_TOKEN");
}

// Checklist 3.7
#[test]
fn a_suspended_account_reads_leaves_and_takes_back_what_it_said() {
    let server = Server::start();
    let root = server.admin("root");
    let (alice, bob) = (server.user("alice"), server.user("bob"));
    let (room, other) = (alice.public_room(), bob.public_room());
    bob.join(&room).ok();
    let own = alice.say(&room, "hello").event_id();
    let foreign = bob.say(&room, "hello yourself").event_id();
    bob.invite(&other, &alice).ok();
    let suspended = json!({ "suspended": true });
    assert_eq!(root.http.put(&suspend(&alice.id), &suspended).ok().body, suspended);
    assert_eq!(root.http.get(&suspend(&alice.id)).ok().body, suspended);
    let refused = |answer: crate::common::Answer| drop(answer.refused(403, "M_USER_SUSPENDED"));
    refused(alice.say(&room, "unfair"));
    refused(alice.join(&other));
    refused(alice.http.post(&path("/_matrix/client/v3/join/{}", &[&other]), &json!({})));
    refused(alice.invite(&room, &root));
    for verb in ["kick", "ban", "unban"] {
        refused(alice.membership(&room, verb, json!({ "user_id": bob.id })));
    }
    refused(alice.create_room(json!({})));
    let upgrade = path("/_matrix/client/v3/rooms/{}/upgrade", &[&room]);
    refused(alice.http.post(&upgrade, &json!({ "new_version": "11" })));
    refused(alice.http.post(&path("/_matrix/client/v3/knock/{}", &[&other]), &json!({})));
    refused(alice.set_state(&room, "m.room.name", "", json!({ "name": "Unfair" })));
    let joined = json!({ "membership": "join" });
    refused(alice.set_state(&other, "m.room.member", &alice.id, joined));
    refused(alice.redact(&room, &foreign, "unfair"));
    let redaction =
        |event: &str| alice.send(&room, "m.room.redaction", json!({ "redacts": event }));
    refused(redaction(&foreign));
    for field in ["displayname", "avatar_url"] {
        let at = path("/_matrix/client/v3/profile/{}/{}", &[&alice.id, field]);
        refused(alice.http.put(&at, &json!({ field: "mxc://localhost/unfair" })));
        refused(alice.http.send("DELETE", &at, b""));
    }
    // What is left.
    assert!(alice.sync(Ask::initial()).ok()["rooms"]["join"][&room].is_object());
    alice.room(&room, "messages?dir=b").ok();
    alice.redact(&room, &own, "sorry").ok();
    let mine = alice.room(&room, "messages?dir=b&limit=1").chunk()[0]["event_id"].clone();
    redaction(mine.as_str().unwrap()).ok();
    alice.leave(&other).ok();
    alice.set_state(&room, "m.room.member", &alice.id, json!({ "membership": "leave" })).ok();
    let second = server.login("alice");
    refused(second.join(&room));
    second.http.post("/_matrix/client/v3/logout", &json!({})).ok();
    root.http.put(&suspend(&alice.id), &json!({ "suspended": false })).ok();
    alice.join(&room).ok();
    alice.say(&room, "back").ok();
}

// Checklist 3.8
#[test]
fn only_administrators_lock_and_suspend_and_nobody_learns_who_is_there() {
    let server = Server::start();
    let (root, other) = (server.admin("root"), server.admin("other"));
    let alice = server.user("alice");
    let capability = |user: &User| {
        user.http.get(CAPABILITIES).ok()["capabilities"]["m.account_moderation"].clone()
    };
    assert_eq!(capability(&root), json!({ "lock": true, "suspend": true }));
    assert_eq!(capability(&alice), Value::Null);
    for (at, key) in [(lock as fn(&str) -> String, "locked"), (suspend, "suspended")] {
        let body = json!({ key: true });
        let nobody = "@nobody:localhost";
        for target in [nobody, &alice.id, &root.id, "@a:elsewhere.example"] {
            alice.http.get(&at(target)).refused(403, "M_FORBIDDEN");
            alice.http.put(&at(target), &body).refused(403, "M_FORBIDDEN");
            server.http.get(&at(target)).refused(401, "M_MISSING_TOKEN");
        }
        for (target, status, errcode) in [
            (nobody, 404, "M_NOT_FOUND"),
            (&other.id, 403, "M_FORBIDDEN"),
            ("@a:elsewhere.example", 400, "M_INVALID_PARAM"),
            ("nonsense", 400, "M_INVALID_PARAM"),
        ] {
            root.http.get(&at(target)).refused(status, errcode);
            root.http.put(&at(target), &body).refused(status, errcode);
        }
        assert_eq!(root.http.get(&at(&root.id)).ok()[key], false);
        root.http.put(&at(&root.id), &body).refused(403, "M_FORBIDDEN");
        root.http.put(&at(&alice.id), &json!({})).refused(400, "M_BAD_JSON");
        root.http.put(&at(&alice.id), &json!({ key: "yes" })).refused(400, "M_BAD_JSON");
        root.http.send("PUT", &at(&alice.id), b"").refused(400, "M_NOT_JSON");
        alice.http.get(WHOAMI).ok();
    }
}

// Checklist 6.12
#[test]
fn events_are_reported_by_members_and_rooms_and_users_by_everybody() {
    let server = Server::start();
    let (alice, bob) = (server.user("alice"), server.user("bob"));
    let room = alice.public_room();
    let event = alice.say(&room, "something bad").event_id();
    let of_event = |event: &str| path("/_matrix/client/v3/rooms/{}/report/{}", &[&room, event]);
    let of_room = |room: &str| path("/_matrix/client/v3/rooms/{}/report", &[room]);
    let of_user = |user: &str| path("/_matrix/client/v3/users/{}/report", &[user]);
    let reason = json!({ "reason": "it is bad" });
    bob.http.post(&of_event(&event), &reason).refused(404, "M_NOT_FOUND");
    bob.http.post(&of_event("$nothing"), &reason).refused(404, "M_NOT_FOUND");
    bob.join(&room).ok();
    assert_eq!(bob.http.post(&of_event(&event), &reason).ok().body, json!({}));
    bob.http.post(&of_event(&event), &json!({})).ok();
    bob.http.post(&of_event("$nothing"), &reason).refused(404, "M_NOT_FOUND");
    let elsewhere = path("/_matrix/client/v3/rooms/{}/report/{}", &["!no:localhost", &event]);
    bob.http.post(&elsewhere, &reason).refused(404, "M_NOT_FOUND");
    bob.leave(&room).ok();
    bob.http.post(&of_event(&event), &reason).refused(404, "M_NOT_FOUND");
    for at in [
        of_room(&room),
        of_room("!nowhere:localhost"),
        of_user(&alice.id),
        of_user("@nobody:localhost"),
        of_user("@somebody:elsewhere.example"),
    ] {
        assert_eq!(bob.http.post(&at, &reason).ok().body, json!({}));
        bob.http.post(&at, &json!({ "reason": "" })).ok();
        bob.http.post(&at, &json!({ "reason": 1 })).refused(400, "M_BAD_JSON");
        server.http.post(&at, &reason).refused(401, "M_MISSING_TOKEN");
        let long = json!({ "reason": "x".repeat(20_000) });
        bob.http.post(&at, &long).refused(413, "M_TOO_LARGE");
    }
    bob.http.post(&of_user(&alice.id), &json!({})).refused(400, "M_BAD_JSON");
}

#[test]
fn nobody_fills_the_administrators_desk_alone() {
    let mut server = Server::start();
    let (alice, bob) = (server.user("alice"), server.user("bob"));
    let at = path("/_matrix/client/v3/users/{}/report", &[&alice.id]);
    let reason = json!({ "reason": "again" });
    (0..200).for_each(|_| drop(bob.http.post(&at, &reason).ok()));
    bob.http.post(&at, &reason).refused(429, "M_LIMIT_EXCEEDED");
    alice.http.post(&at, &reason).ok();
    server.restart();
    server.again(&bob).http.post(&at, &reason).refused(429, "M_LIMIT_EXCEEDED");
    server.again(&alice).http.post(&at, &reason).ok();
}
