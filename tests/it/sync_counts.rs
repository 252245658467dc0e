//! Unread counts in `/sync`.

use serde_json::{Value, json};

use crate::common::{Ask, Server, User, path};

/// Notifications, highlights and the threads' notifications, as a first sync has them.
fn unread(user: &User, room: &str, threads: bool) -> (Value, Value, Value) {
    let filter = json!({ "room": { "timeline": { "unread_thread_notifications": threads } } });
    let answer = user.sync(Ask::initial().filter(filter)).ok();
    let room = &answer["rooms"]["join"][room];
    let counts = &room["unread_notifications"];
    let mut by_thread = room["unread_thread_notifications"].clone();
    for thread in by_thread.as_object_mut().into_iter().flatten() {
        *thread.1 = thread.1["notification_count"].clone();
    }
    (counts["notification_count"].clone(), counts["highlight_count"].clone(), by_thread)
}

fn count(user: &User, room: &str) -> Value {
    unread(user, room, false).0
}

fn read(user: &User, room: &str, kind: &str, event: &str, body: Value) {
    let verb = path("/_matrix/client/v3/rooms/{}/receipt/{}/{}", &[room, kind, event]);
    user.http.post(&verb, &body).ok();
}

fn in_thread(user: &User, room: &str, root: &str) -> String {
    let content = json!({ "msgtype": "m.text", "body": "in a thread",
        "m.relates_to": { "rel_type": "m.thread", "event_id": root } });
    user.send(room, "m.room.message", content).event_id()
}

// Checklist 4.10
#[test]
fn a_message_and_its_count_come_together() {
    let server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let room = alice.public_room();
    bob.join(&room).ok();
    let token = bob.sync(Ask::initial()).ok().next_batch();
    let event = alice.say(&room, "one").event_id();
    let answer = bob.sync(Ask::since(&token)).ok();
    let counts = |answer: &Value| answer["rooms"]["join"][&room]["unread_notifications"].clone();
    assert_eq!(counts(&answer.body), json!({ "notification_count": 1, "highlight_count": 0 }));
    // Reading on another device is news, even where receipts are not wanted.
    read(&server.login("bob"), &room, "m.read.private", &event, json!({}));
    let filter = json!({ "room": { "ephemeral": { "types": [] } } });
    let answer = bob.sync(Ask::since(&answer.next_batch()).filter(filter)).ok();
    assert_eq!(counts(&answer.body)["notification_count"], 0);
    assert_eq!(count(&alice, &room), 0, "one's own words do not count");
}

// Checklist 9.3
#[test]
fn the_receipt_that_is_farther_counts() {
    let server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let room = alice.public_room();
    bob.join(&room).ok();
    let sent: Vec<_> = (0..5).map(|n| alice.say(&room, &n.to_string()).event_id()).collect();
    assert_eq!(count(&bob, &room), 5);
    read(&bob, &room, "m.read.private", &sent[2], json!({}));
    assert_eq!(count(&bob, &room), 2);
    read(&bob, &room, "m.read", &sent[0], json!({}));
    assert_eq!(count(&bob, &room), 2, "the public receipt is behind");
    read(&bob, &room, "m.read", &sent[3], json!({}));
    assert_eq!(count(&bob, &room), 1);
    bob.say(&room, "an answer").ok();
    assert_eq!(count(&bob, &room), 0, "who answers has read");
}

#[test]
fn mentions_are_highlighted_and_redacted_messages_forgotten() {
    let server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let room = alice.public_room();
    bob.join(&room).ok();
    let mention = json!({ "msgtype": "m.text", "body": "bob!", "m.mentions":
        { "user_ids": [bob.id] } });
    let event = alice.send(&room, "m.room.message", mention).event_id();
    let everybody = json!({ "msgtype": "m.text", "body": "all!", "m.mentions": { "room": true } });
    alice.send(&room, "m.room.message", everybody.clone()).ok();
    alice.send(&room, "org.example.quiet", json!({})).ok();
    let notice = json!({ "msgtype": "m.notice", "body": "from a bot" });
    alice.send(&room, "m.room.message", notice).ok();
    assert_eq!(unread(&bob, &room, false), (json!(2), json!(2), Value::Null));
    alice.redact(&room, &event, "a mistake").ok();
    assert_eq!(unread(&bob, &room, false), (json!(1), json!(1), Value::Null));
    // Bob has no power to call everybody.
    bob.send(&room, "m.room.message", everybody).ok();
    assert_eq!(unread(&alice, &room, false), (json!(1), json!(0), Value::Null));
}

// Checklist 4.11, 9.1, 9.4
#[test]
fn threads_are_counted_apart_for_those_who_ask() {
    let server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let room = alice.public_room();
    bob.join(&room).ok();
    let root = alice.say(&room, "the root").event_id();
    let first = in_thread(&alice, &room, &root);
    in_thread(&alice, &room, &root);
    assert_eq!(unread(&bob, &room, false), (json!(3), json!(0), Value::Null));
    assert_eq!(unread(&bob, &room, true), (json!(1), json!(0), json!({ &root: 2 })));
    read(&bob, &room, "m.read", &first, json!({ "thread_id": root }));
    assert_eq!(unread(&bob, &room, true), (json!(1), json!(0), json!({ &root: 1 })));
    read(&bob, &room, "m.read", &root, json!({ "thread_id": "main" }));
    assert_eq!(unread(&bob, &room, true), (json!(0), json!(0), json!({ &root: 1 })));
    let last = in_thread(&alice, &room, &root);
    assert_eq!(unread(&bob, &room, true), (json!(0), json!(0), json!({ &root: 2 })));
    read(&bob, &room, "m.read", &last, json!({}));
    assert_eq!(unread(&bob, &room, true), (json!(0), json!(0), Value::Null));
}

#[test]
fn what_one_has_redacted_or_ignores_is_not_counted() {
    let server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let room = bob.public_room();
    alice.join(&room).ok();
    let root = bob.say(&room, "the root").event_id();
    let reply = in_thread(&alice, &room, &root);
    in_thread(&alice, &room, &root);
    assert_eq!(unread(&bob, &room, true).2, json!({ &root: 2 }));
    bob.redact(&room, &reply, "off topic").ok();
    assert_eq!(unread(&bob, &room, true).2, json!({ &root: 1 }));
    let list = path("/_matrix/client/v3/user/{}/account_data/m.ignored_user_list", &[&bob.id]);
    bob.http.put(&list, &json!({ "ignored_users": { &alice.id: {} } })).ok();
    assert_eq!(unread(&bob, &room, true).2, Value::Null);
}

#[test]
fn counts_survive_a_restart_and_begin_anew_with_a_join() {
    let mut server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let room = alice.public_room();
    alice.say(&room, "before bob").ok();
    bob.join(&room).ok();
    let event = alice.say(&room, "one").event_id();
    alice.say(&room, "two").ok();
    read(&bob, &room, "m.read", &event, json!({}));
    assert_eq!(count(&bob, &room), 1);
    server.restart();
    let [alice, bob] = [&alice, &bob].map(|user| server.again(user));
    assert_eq!(count(&bob, &room), 1);
    bob.leave(&room).ok();
    alice.say(&room, "while he is away").ok();
    bob.join(&room).ok();
    assert_eq!(count(&bob, &room), 0);
    alice.say(&room, "he is back").ok();
    assert_eq!(count(&bob, &room), 1);
}

#[test]
fn who_comes_and_goes_counts_for_those_alone_who_want_to_hear_of_it() {
    let server = Server::start();
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(|name| server.user(name));
    let room = alice.public_room();
    bob.join(&room).ok();
    bob.say(&room, "hello").ok();
    assert_eq!(count(&alice, &room), 1);
    let is_member = json!({ "kind": "event_match", "key": "type", "pattern": "m.room.member" });
    let rule = json!({ "conditions": [is_member], "actions": ["notify"] });
    alice.http.put("/_matrix/client/v3/pushrules/global/override/doors", &rule).ok();
    assert_eq!(count(&alice, &room), 2, "what was unread is looked at again");
    carol.join(&room).ok();
    assert_eq!((count(&alice, &room), count(&bob, &room)), (json!(3), json!(0)));
}
