//! The end of an account: what is gone, what stays, and what others still see.

use serde_json::{Value, json};

use crate::common::{Ask, PASSWORD, Server, User, path};

const DEACTIVATE: &str = "/_matrix/client/v3/account/deactivate";
const LOGIN: &str = "/_matrix/client/v3/login";
const WHOAMI: &str = "/_matrix/client/v3/account/whoami";

fn profile(user: &User) -> String {
    path("/_matrix/client/v3/profile/{}", &[&user.id])
}

/// The membership of a user, when it is what is wanted.
#[track_caller]
fn await_membership(watcher: &User, room: &str, whom: &User, wanted: &str) {
    let since = watcher.sync(Ask::initial()).next_batch();
    let is_so = || {
        let state = watcher.state(room, "m.room.member", &whom.id);
        state.body["membership"] == wanted
    };
    if !is_so() {
        watcher.sync_until(&since, |_| is_so());
    }
}

#[test]
fn a_deactivated_user_is_gone_from_everywhere() {
    let mut server = Server::start();
    let (alice, bob) = (server.user("alice"), server.user("bob"));
    let other = server.login("alice");
    let name = json!({ "displayname": "Alice" });
    alice.http.put(&(profile(&alice) + "/displayname"), &name).ok();
    let data = path("/_matrix/client/v3/user/{}/account_data/org.example", &[&alice.id]);
    alice.http.put(&data, &json!({ "a": 1 })).ok();
    let (joined, invited) = (bob.public_room(), bob.public_room());
    alice.join(&joined).ok();
    alice.say(&joined, "I was here").event_id();
    bob.invite(&invited, &alice).ok();
    server.http.post(DEACTIVATE, &json!({ "erase": 1 })).refused(400, "M_BAD_JSON");
    server.http.with_token("x").post(DEACTIVATE, &json!({})).refused(401, "M_UNKNOWN_TOKEN");
    let answer = alice.confirmed("POST", DEACTIVATE, json!({ "id_server": "id.example" })).ok();
    assert_eq!(answer.body, json!({ "id_server_unbind_result": "success" }));
    server.restart();
    let bob = server.again(&bob);
    for gone in [server.again(&alice), server.again(&other)] {
        gone.http.get(WHOAMI).refused(401, "M_UNKNOWN_TOKEN");
    }
    await_membership(&bob, &joined, &alice, "leave");
    await_membership(&bob, &invited, &alice, "leave");
    bob.http.get(&profile(&alice)).refused(404, "M_NOT_FOUND");
    bob.invite(&joined, &alice).refused(404, "M_NOT_FOUND");
    // Without erasure what was said stays.
    let said = bob.room(&joined, "messages?dir=b").ok().chunk();
    assert!(said.iter().any(|event| event["content"]["body"] == "I was here"), "{said:?}");
    // The name stays taken, and nobody can log in.
    for password in [PASSWORD, "wrong"] {
        let login = json!({ "type": "m.login.password", "user": "alice", "password": password });
        server.http.post(LOGIN, &login).refused(403, "M_USER_DEACTIVATED");
    }
    let register = json!({ "username": "alice", "auth": { "type": "m.login.dummy" } });
    server.http.post("/_matrix/client/v3/register", &register).refused(400, "M_USER_IN_USE");
    let auth = alice.password_stage(&Value::Null);
    let mut again = json!({ "auth": auth });
    again["auth"].as_object_mut().unwrap().remove("session");
    let refused = server.http.post(DEACTIVATE, &again);
    assert_eq!((refused.status, &refused["errcode"]), (401, &json!("M_FORBIDDEN")));
}

#[test]
fn the_password_alone_may_end_an_account_and_login_tokens_end_with_it() {
    let server = Server::start();
    let alice = server.user("alice");
    let at = "/_matrix/client/v1/login/get_token";
    let token = alice.confirmed("POST", at, json!({})).ok()["login_token"].clone();
    let asked = server.http.post(DEACTIVATE, &json!({}));
    assert_eq!(asked.status, 401);
    let body = json!({ "auth": alice.password_stage(&asked["session"]) });
    server.http.post(DEACTIVATE, &body).ok();
    alice.http.get(WHOAMI).refused(401, "M_UNKNOWN_TOKEN");
    let login = json!({ "type": "m.login.token", "token": token });
    server.http.post(LOGIN, &login).refused(403, "M_USER_DEACTIVATED");
}

#[test]
fn who_is_erased_is_heard_only_by_those_who_were_there() {
    let mut server = Server::start();
    let (alice, bob, carol) = (server.user("alice"), server.user("bob"), server.user("carol"));
    alice.http.put(&(profile(&alice) + "/displayname"), &json!({ "displayname": "Alice" })).ok();
    let room = bob.public_room();
    alice.join(&room).ok();
    let event = alice.say(&room, "my secret").event_id();
    alice.set_state(&room, "m.room.member", &alice.id, json!({ "membership": "join" })).ok();
    bob.say(&room, "bob's words").event_id();
    alice.confirmed("POST", DEACTIVATE, json!({ "erase": true })).ok();
    await_membership(&bob, &room, &alice, "leave");
    carol.join(&room).ok();
    server.restart();
    let (bob, carol) = (server.again(&bob), server.again(&carol));
    let one = format!("event/{}", path("{}", &[&event]));
    assert_eq!(bob.room(&room, &one).ok()["content"]["body"], "my secret");
    assert_eq!(carol.room(&room, &one).ok()["content"], json!({}));
    let context = format!("context/{}", path("{}", &[&event]));
    let raw = json!({ "event_format": "federation", "room": { "timeline": { "limit": 50 } } });
    let seen = |user: &User| {
        let asked = ["messages?dir=b&limit=100", &context, &format!("{context}?limit=0")];
        let pages = asked.map(|what| user.room(&room, what).ok().page).concat();
        let lazily = path("messages?dir=b&filter={}", &[r#"{"lazy_load_members":true}"#]);
        let lazily = user.room(&room, &lazily).ok().page;
        let asks = [Ask::initial(), Ask::initial().filter(raw.clone())];
        pages + &lazily + &asks.map(|ask| user.sync(ask).ok().page).concat()
    };
    let (by_bob, by_carol) = (seen(&bob), seen(&carol));
    assert!(by_bob.contains("my secret") && by_bob.contains("\"Alice\""), "{by_bob}");
    assert!(!by_carol.contains("my secret") && !by_carol.contains("\"Alice\""), "{by_carol}");
    assert!(by_carol.contains("bob's words"), "{by_carol}");
}

#[test]
fn leaving_the_rooms_goes_on_after_a_kill() {
    let mut server = Server::start();
    let (alice, bob) = (server.user("alice"), server.user("bob"));
    let rooms: Vec<_> = (0..40).map(|_| bob.public_room()).collect();
    rooms.iter().for_each(|room| drop(alice.join(room).ok()));
    alice.confirmed("POST", DEACTIVATE, json!({})).ok();
    server.restart();
    let bob = server.again(&bob);
    rooms.iter().for_each(|room| await_membership(&bob, room, &alice, "leave"));
}

#[test]
fn what_was_said_of_ones_presence_ends_with_the_account() {
    for restarted in [false, true] {
        let mut server = Server::start_with(&[("PARLOUR_PRESENCE__ENABLED", "true")]);
        let (mut root, mut bob) = (server.admin("root"), server.user("bob"));
        let alice = server.user("alice");
        let room = bob.public_room();
        alice.join(&room).ok();
        let status = path("/_matrix/client/v3/presence/{}/status", &[&alice.id]);
        alice.http.put(&status, &json!({ "presence": "online", "status_msg": "here" })).ok();
        let since = bob.sync(Ask::initial()).next_batch();
        let is_here = |user: &User| user.http.get(&status).ok()["status_msg"] == "here";
        if !is_here(&bob) {
            bob.sync_until(&since, |_| is_here(&bob));
        }
        alice.confirmed("POST", DEACTIVATE, json!({})).ok();
        await_membership(&bob, &room, &alice, "leave");
        if restarted {
            server.restart();
            (root, bob) = (server.again(&root), server.again(&bob));
        }
        let again = path("/_synapse/admin/v2/users/{}", &[&alice.id]);
        root.http.put(&again, &json!({ "deactivated": false, "password": PASSWORD })).ok();
        let alice = server.login("alice");
        alice.join(&room).ok();
        let seen = bob.http.get(&status).ok();
        assert_eq!(seen["presence"], "offline", "{}", seen.body);
        assert!(seen["status_msg"].is_null(), "{}", seen.body);
    }
}
