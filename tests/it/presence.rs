//! Who is online, and who is told.

use serde_json::{Value, json};

use crate::common::{Answer, Ask, Server, User, path};

/// A server that tells; `idle` and `offline` are seconds.
fn server(idle: &str, offline: &str) -> Server {
    Server::start_with(&[
        ("PARLOUR_PRESENCE__ENABLED", "true"),
        ("PARLOUR_PRESENCE__IDLE_SECONDS", idle),
        ("PARLOUR_PRESENCE__OFFLINE_SECONDS", offline),
    ])
}

fn at(user: &User) -> String {
    path("/_matrix/client/v3/presence/{}/status", &[&user.id])
}

fn set(user: &User, state: &str) {
    user.http.put(&at(user), &json!({ "presence": state })).ok();
}

/// What a sync tells of somebody; `Null` if nothing.
fn told(answer: &Answer, of: &User) -> Value {
    let events = answer["presence"]["events"].as_array();
    let mut events = events.into_iter().flatten();
    let event = events.find(|event| event["sender"] == of.id.as_str());
    event.map(|event| event["content"].clone()).unwrap_or_default()
}

/// Syncs without being there, until somebody is said to be something; gives the content and the
/// token.
#[track_caller]
fn hears(user: &User, since: &str, of: &User, state: &str) -> (Value, String) {
    let mut token = since.to_owned();
    for _ in 0..100 {
        let ask = Ask::since(&token).wait(1_000).with("set_presence=offline");
        let answer = user.sync(ask).ok();
        token = answer.next_batch();
        let content = told(&answer, of);
        if content["presence"] == state {
            return (content, token);
        }
    }
    panic!("{} never heard that {} is {state}", user.id, of.id);
}

#[track_caller]
fn start_of(user: &User) -> String {
    user.sync(Ask::initial().with("set_presence=offline")).ok().next_batch()
}

/// Users in one public room.
fn together<const N: usize>(server: &Server, names: [&str; N]) -> ([User; N], String) {
    let users = names.map(|name| server.user(name));
    let room = users[0].public_room();
    users[1..].iter().for_each(|user| drop(user.join(&room).ok()));
    (users, room)
}

// Checklist 4.12, 9.8
#[test]
fn who_syncs_is_online_to_those_who_share_a_room() {
    let server = server("300", "5");
    let ([alice, bob], _) = together(&server, ["alice", "bob"]);
    let carol = server.user("carol");
    let token = start_of(&alice);
    assert_eq!(bob.http.get(&at(&bob)).ok().body, json!({ "presence": "offline" }));
    bob.sync(Ask::initial()).ok();
    let (content, token) = hears(&alice, &token, &bob, "online");
    assert_eq!(content["currently_active"], true);
    assert!(content["last_active_ago"].is_u64() && content["status_msg"].is_null());
    let asked = alice.http.get(&at(&bob)).ok();
    assert_eq!((&asked["presence"], &asked["currently_active"]), (&"online".into(), &true.into()));
    // A first sync tells who is there.
    let first = alice.sync(Ask::initial().with("set_presence=offline")).ok();
    assert_eq!(told(&first, &bob)["presence"], "online");
    assert_eq!(told(&first, &alice), Value::Null);
    // Then he is gone.
    let (content, token) = hears(&alice, &token, &bob, "offline");
    assert!(content["currently_active"].is_null() && content["last_active_ago"].is_u64());
    assert_eq!(alice.http.get(&at(&bob)).ok()["presence"], "offline");
    let first = alice.sync(Ask::initial().with("set_presence=offline")).ok();
    assert_eq!(told(&first, &bob), Value::Null);
    // Syncing does not make him be there if he does not want it. What Alice says after it has been
    // heard after it.
    bob.sync(Ask::initial().with("set_presence=offline")).ok();
    set(&alice, "unavailable");
    let (_, token) = hears(&alice, &token, &alice, "unavailable");
    assert_eq!(alice.http.get(&at(&bob)).ok()["presence"], "offline");
    bob.sync(Ask::initial().with("set_presence=unavailable")).ok();
    hears(&alice, &token, &bob, "unavailable");
    carol.http.get(&at(&bob)).refused(403, "M_FORBIDDEN");
    assert_eq!(carol.sync(Ask::initial()).ok()["presence"], Value::Null);
    set(&carol, "online");
    assert_eq!(told(&alice.sync(Ask::since(&token)).ok(), &carol), Value::Null);
}

#[test]
fn a_long_sync_keeps_its_user_online() {
    let server = server("300", "3");
    let ([alice, bob], room) = together(&server, ["alice", "bob"]);
    let token = start_of(&alice);
    let bobs = start_of(&bob);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| bob.sync_until(&bobs, |a| !a.timeline(&room).is_empty()));
        hears(&alice, &token, &bob, "online");
        // Longer than it takes to be gone.
        let ask = Ask::since(&start_of(&alice)).wait(4_000).with("set_presence=offline");
        assert_eq!(told(&alice.sync(ask).ok(), &bob), Value::Null);
        assert_eq!(alice.http.get(&at(&bob)).ok()["presence"], "online");
        alice.say(&room, "done").ok();
        waiting.join().unwrap();
    });
    hears(&alice, &token, &bob, "offline");
}

// Checklist 9.8
#[test]
fn who_does_nothing_is_idle_until_he_does_something() {
    let server = server("3", "60");
    let ([alice, bob], room) = together(&server, ["alice", "bob"]);
    let token = start_of(&alice);
    set(&bob, "online");
    let (_, token) = hears(&alice, &token, &bob, "online");
    let (_, token) = hears(&alice, &token, &bob, "unavailable");
    let event = bob.say(&room, "back").event_id();
    let (_, token) = hears(&alice, &token, &bob, "online");
    let (_, token) = hears(&alice, &token, &bob, "unavailable");
    let typing = path("/_matrix/client/v3/rooms/{}/typing/{}", &[&room, &bob.id]);
    bob.http.put(&typing, &json!({ "typing": false })).ok();
    let (_, token) = hears(&alice, &token, &bob, "online");
    let (_, token) = hears(&alice, &token, &bob, "unavailable");
    let read = path("/_matrix/client/v3/rooms/{}/receipt/m.read/{}", &[&room, &event]);
    bob.http.post(&read, &json!({})).ok();
    let (_, token) = hears(&alice, &token, &bob, "online");
    set(&bob, "unavailable");
    let (_, token) = hears(&alice, &token, &bob, "unavailable");
    set(&bob, "offline");
    hears(&alice, &token, &bob, "offline");
}

// Checklist 7.9
#[test]
fn status_and_name_are_told_and_the_status_is_kept() {
    let mut server = server("300", "2");
    let ([alice, bob], _) = together(&server, ["alice", "bob"]);
    let token = start_of(&alice);
    bob.http.put(&at(&bob), &json!({ "presence": "online", "status_msg": "at tea" })).ok();
    let (content, token) = hears(&alice, &token, &bob, "online");
    assert_eq!(content["status_msg"], "at tea");
    let name = path("/_matrix/client/v3/profile/{}/displayname", &[&bob.id]);
    bob.http.put(&name, &json!({ "displayname": "Bob the First" })).ok();
    let (content, token) = hears(&alice, &token, &bob, "online");
    assert_eq!(content["displayname"], "Bob the First");
    // He was there when the server was killed, and does not come back.
    server.restart();
    let [alice, bob] = [alice, bob].map(|user| server.again(&user));
    let (content, token) = hears(&alice, &token, &bob, "offline");
    assert_eq!(content["status_msg"], "at tea");
    server.restart();
    let [alice, bob] = [alice, bob].map(|user| server.again(&user));
    let asked = alice.http.get(&at(&bob)).ok();
    assert_eq!((&asked["presence"], &asked["status_msg"]), (&"offline".into(), &"at tea".into()));
    assert!(asked["last_active_ago"].is_u64());
    set(&bob, "online");
    let (content, _) = hears(&alice, &token, &bob, "online");
    assert!(content["status_msg"].is_null());
}

#[test]
fn who_wants_not_to_be_seen_is_not() {
    let server = server("300", "60");
    let ([alice, bob], _) = together(&server, ["alice", "bob"]);
    let token = start_of(&alice);
    let wish = path("/_matrix/client/v3/user/{}/account_data/org.parlour.presence", &[&bob.id]);
    bob.http.put(&at(&bob), &json!({ "presence": "online", "status_msg": "secret" })).ok();
    let (_, token) = hears(&alice, &token, &bob, "online");
    bob.http.put(&wish, &json!({ "hidden": true })).ok();
    let (content, token) = hears(&alice, &token, &bob, "offline");
    assert_eq!(content, json!({ "presence": "offline" }));
    bob.sync(Ask::initial()).ok();
    assert_eq!(alice.http.get(&at(&bob)).ok().body, json!({ "presence": "offline" }));
    bob.http.put(&wish, &json!({ "hidden": false })).ok();
    hears(&alice, &token, &bob, "online");
}

#[test]
fn new_members_see_each_other() {
    let server = server("300", "60");
    let ([alice, bob], room) = together(&server, ["alice", "bob"]);
    let erin = server.user("erin");
    let token = start_of(&alice);
    set(&bob, "online");
    let (_, token) = hears(&alice, &token, &bob, "online");
    let hers = erin.sync(Ask::initial()).ok().next_batch();
    erin.join(&room).ok();
    let answer = erin.sync(Ask::since(&hers)).ok();
    assert_eq!(told(&answer, &bob)["presence"], "online");
    hears(&alice, &token, &erin, "online");
    // Who has left is heard of no more.
    erin.leave(&room).ok();
    let left = erin.sync(Ask::since(&answer.next_batch())).ok().next_batch();
    set(&bob, "unavailable");
    hears(&alice, &token, &bob, "unavailable");
    assert_eq!(told(&erin.sync(Ask::since(&left)).ok(), &bob), Value::Null);
    erin.http.get(&at(&bob)).refused(403, "M_FORBIDDEN");
}

#[test]
fn filters_and_ignoring_apply_to_presence() {
    let server = server("300", "60");
    let ([alice, bob, carol], _) = together(&server, ["alice", "bob", "carol"]);
    let token = start_of(&alice);
    set(&bob, "online");
    set(&carol, "online");
    hears(&alice, &token, &bob, "online");
    hears(&alice, &token, &carol, "online");
    let count = |filter: Value| {
        let filter = json!({ "presence": filter });
        let answer = alice.sync(Ask::initial().filter(filter).with("set_presence=offline")).ok();
        answer["presence"]["events"].as_array().map_or(0, Vec::len)
    };
    assert_eq!(count(json!({})), 2);
    assert_eq!(count(json!({ "limit": 1 })), 1);
    assert_eq!(count(json!({ "types": ["m.pres*"] })), 2);
    assert_eq!(count(json!({ "types": [] })), 0);
    assert_eq!(count(json!({ "not_types": ["m.presence"] })), 0);
    assert_eq!(count(json!({ "senders": [bob.id] })), 1);
    assert_eq!(count(json!({ "not_senders": [bob.id] })), 1);
    let list = path("/_matrix/client/v3/user/{}/account_data/m.ignored_user_list", &[&alice.id]);
    alice.http.put(&list, &json!({ "ignored_users": { &bob.id: {} } })).ok();
    assert_eq!(count(json!({})), 1);
}

#[test]
fn presence_is_ones_own_and_makes_sense() {
    let telling = server("300", "60");
    let [alice, bob] = ["alice", "bob"].map(|name| telling.user(name));
    let online = json!({ "presence": "online" });
    bob.http.put(&at(&alice), &online).refused(403, "M_FORBIDDEN");
    telling.http.put(&at(&alice), &online).refused(401, "M_MISSING_TOKEN");
    telling.http.get(&at(&alice)).refused(401, "M_MISSING_TOKEN");
    alice
        .http
        .get("/_matrix/client/v3/presence/@nobody:localhost/status")
        .refused(403, "M_FORBIDDEN");
    alice.http.put(&at(&alice), &json!({ "presence": "busy" })).refused(400, "M_INVALID_PARAM");
    alice.http.put(&at(&alice), &json!({})).refused(400, "M_BAD_JSON");
    alice.http.put(&at(&alice), &json!({ "presence": 1 })).refused(400, "M_BAD_JSON");
    let long = json!({ "presence": "online", "status_msg": "x".repeat(1_025) });
    alice.http.put(&at(&alice), &long).refused(400, "M_INVALID_PARAM");
    let silent = Server::start();
    let alice = silent.user("alice");
    alice.http.put(&at(&alice), &online).refused(403, "M_FORBIDDEN");
    alice.http.get(&at(&alice)).refused(404, "M_NOT_FOUND");
    assert_eq!(alice.sync(Ask::initial()).ok()["presence"], Value::Null);
}
