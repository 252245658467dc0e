//! Rooms come and go in `/sync` with the user's membership.

use serde_json::{Value, json};

use crate::common::{Answer, Ask, Server, User, path};

fn bodies(events: &[Value]) -> Vec<&str> {
    events.iter().filter_map(|event| event["content"]["body"].as_str()).collect()
}

fn types(events: &Value) -> Vec<&str> {
    events.as_array().unwrap().iter().map(|event| event["type"].as_str().unwrap()).collect()
}

fn set_account_data(user: &User, kind: &str, content: Value) {
    let at = path("/_matrix/client/v3/user/{}/account_data/{}", &[&user.id, kind]);
    user.http.put(&at, &content).ok();
}

fn now(user: &User) -> String {
    user.sync(Ask::initial()).ok().next_batch()
}

fn news(user: &User, since: &str) -> Answer {
    user.sync(Ask::since(since)).ok()
}

#[test]
fn a_room_that_was_just_joined_is_there_in_full() {
    let server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let room = alice.create_room(json!({ "preset": "public_chat", "topic": "Old" })).room_id();
    alice.say(&room, "before bob").ok();
    let token = now(&bob);
    bob.join(&room).ok();
    let filter = json!({ "room": { "timeline": { "limit": 2 } } });
    let answer = bob.sync(Ask::since(&token).filter(filter)).ok();
    let timeline = answer.timeline(&room);
    assert_eq!(bodies(&timeline), ["before bob"], "shared history is there");
    assert_eq!(timeline[1]["state_key"], json!(bob.id));
    assert_eq!(answer["rooms"]["join"][&room]["timeline"]["limited"], true);
    let state = answer.state_before(&room);
    for kind in ["m.room.create", "m.room.topic", "m.room.power_levels", "m.room.join_rules"] {
        assert!(state.iter().any(|event| event["type"] == kind), "{kind} in {state:?}");
    }
    let is_bob = |event: &Value| event["state_key"] == json!(bob.id);
    assert!(!state.iter().any(is_bob), "the state before the timeline has no bob yet");
    assert_eq!(answer["rooms"]["join"][&room]["summary"]["m.joined_member_count"], 2);
    assert_eq!(answer["rooms"]["join"][&room]["summary"]["m.heroes"], json!([alice.id]));
    assert!(news(&bob, &answer.next_batch())["rooms"].is_null());
}

#[test]
fn what_was_said_before_the_join_stays_hidden_where_the_room_says_so() {
    let server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let visibility = json!({ "type": "m.room.history_visibility", "state_key": "",
        "content": { "history_visibility": "joined" } });
    let body = json!({ "preset": "public_chat", "initial_state": [visibility] });
    let room = alice.create_room(body).room_id();
    alice.say(&room, "secret").ok();
    bob.join(&room).ok();
    alice.say(&room, "welcome").ok();
    let answer = bob.sync(Ask::initial()).ok();
    assert_eq!(bodies(&answer.timeline(&room)), ["welcome"]);
    assert!(!answer.body.to_string().contains("secret"));
}

// Checklist 4.7
#[test]
fn who_leaves_sees_the_room_until_then_and_once() {
    let server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let room = alice.public_room();
    bob.join(&room).ok();
    let token = now(&bob);
    alice.say(&room, "last words").ok();
    let kick = json!({ "user_id": bob.id, "reason": "noise" });
    alice.membership(&room, "kick", kick).ok();
    alice.say(&room, "he is gone").ok();
    let answer = news(&bob, &token);
    let left = &answer["rooms"]["leave"][&room];
    let events = left["timeline"]["events"].as_array().unwrap();
    assert_eq!(bodies(events), ["last words"]);
    assert_eq!(events.last().unwrap()["content"]["reason"], "noise");
    assert!(answer["rooms"]["join"].is_null());
    alice.say(&room, "still gone").ok();
    assert!(news(&bob, &answer.next_batch())["rooms"].is_null(), "it is told once");
    assert!(bob.sync(Ask::initial()).ok()["rooms"].is_null());
    let with_left = || {
        let filter = json!({ "room": { "include_leave": true } });
        bob.sync(Ask::initial().filter(filter)).ok()
    };
    let all = with_left();
    let left = &all["rooms"]["leave"][&room];
    assert!(types(&left["timeline"]["events"]).ends_with(&["m.room.message", "m.room.member"]));
    assert!(!all.body.to_string().contains("gone"), "{}", all.body);
    bob.membership(&room, "forget", json!({})).ok();
    assert!(with_left()["rooms"].is_null(), "forgotten is forgotten");
}

#[test]
fn a_rejected_invite_shows_nothing_of_the_room() {
    let server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let room = alice.create_room(json!({ "name": "Private" })).room_id();
    alice.say(&room, "among us").ok();
    alice.invite(&room, &bob).ok();
    let token = now(&bob);
    bob.leave(&room).ok();
    let answer = news(&bob, &token);
    let left = &answer["rooms"]["leave"][&room];
    assert_eq!(types(&left["timeline"]["events"]), ["m.room.member"]);
    let event = &left["timeline"]["events"][0];
    assert_eq!(event["content"]["membership"], "leave");
    assert_eq!(event["unsigned"]["prev_content"]["membership"], "invite", "bob knows of it");
    assert!(left["state"].is_null(), "{left}");
    assert!(news(&bob, &answer.next_batch())["rooms"].is_null());
    // A ban of somebody who is not there is told as well, and as little of the room.
    alice.membership(&room, "ban", json!({ "user_id": bob.id })).ok();
    let banned = news(&bob, &answer.next_batch());
    let events = &banned["rooms"]["leave"][&room]["timeline"]["events"];
    assert_eq!(types(events), ["m.room.member"]);
}

// Checklist 4.8
#[test]
fn an_invite_comes_once_with_what_helps_to_decide() {
    let server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let room = alice.create_room(json!({ "name": "Garden", "topic": "Plants" })).room_id();
    alice.set_state(&room, "org.example.secret", "", json!({ "a": 1 })).ok();
    let token = now(&bob);
    alice.invite(&room, &bob).ok();
    let answer = news(&bob, &token);
    let events = &answer["rooms"]["invite"][&room]["invite_state"]["events"];
    let kinds = types(events);
    for kind in ["m.room.create", "m.room.join_rules", "m.room.name", "m.room.topic"] {
        assert!(kinds.contains(&kind), "{kind} in {kinds:?}");
    }
    assert!(!kinds.contains(&"org.example.secret"));
    let events = events.as_array().unwrap();
    for user in [&alice, &bob] {
        let is_member = |event: &&Value| event["state_key"] == json!(user.id);
        assert_eq!(events.iter().filter(is_member).count(), 1, "{events:?}");
    }
    for event in events {
        let mut keys: Vec<_> = event.as_object().unwrap().keys().map(String::as_str).collect();
        keys.sort_unstable();
        assert_eq!(keys, ["content", "sender", "state_key", "type"]);
    }
    alice.say(&room, "is he coming?").ok();
    assert!(news(&bob, &answer.next_batch())["rooms"].is_null());
    assert!(bob.sync(Ask::initial()).ok()["rooms"]["invite"][&room].is_object());
}

// Checklist 6.7
#[test]
fn unwanted_invites_are_kept_away() {
    let server = Server::start();
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(|name| server.user(name));
    let token = now(&bob);
    set_account_data(&bob, "m.ignored_user_list", json!({ "ignored_users": { &alice.id: {} } }));
    let rooms = [&alice, &carol].map(|user| {
        let room = user.create_room(json!({})).room_id();
        user.invite(&room, &bob).ok();
        room
    });
    let invited = |answer: &Answer, room: &str| answer["rooms"]["invite"][room].is_object();
    for answer in [news(&bob, &token), bob.sync(Ask::initial()).ok()] {
        assert!(!invited(&answer, &rooms[0]) && invited(&answer, &rooms[1]), "{}", answer.body);
    }
    set_account_data(&bob, "m.invite_permission_config", json!({ "default_action": "block" }));
    assert!(bob.sync(Ask::initial()).ok()["rooms"].is_null());
}

// Checklist 4.8
#[test]
fn a_knock_is_seen_by_who_knocks() {
    let server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let rule = json!({ "type": "m.room.join_rules", "content": { "join_rule": "knock" } });
    let room = alice.create_room(json!({ "name": "Club", "initial_state": [rule] })).room_id();
    let token = now(&bob);
    bob.set_state(&room, "m.room.member", &bob.id, json!({ "membership": "knock" })).ok();
    let answer = news(&bob, &token);
    let events = &answer["rooms"]["knock"][&room]["knock_state"]["events"];
    assert!(types(events).contains(&"m.room.name"), "{events}");
    let own = events.as_array().unwrap().iter().find(|event| event["state_key"] == json!(bob.id));
    assert_eq!(own.unwrap()["content"]["membership"], "knock");
    assert!(news(&bob, &answer.next_batch())["rooms"].is_null());
}

#[test]
fn who_comes_back_gets_the_room_again_but_no_event_twice() {
    let server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let room = alice.create_room(json!({ "preset": "public_chat", "name": "A" })).room_id();
    bob.join(&room).ok();
    alice.say(&room, "one").ok();
    let token = now(&bob);
    // Within one gap.
    bob.leave(&room).ok();
    alice.say(&room, "two").ok();
    bob.join(&room).ok();
    let answer = news(&bob, &token);
    assert_eq!(bodies(&answer.timeline(&room)), ["two"]);
    let state = answer.state_before(&room);
    assert!(state.iter().any(|event| event["type"] == "m.room.create"), "{state:?}");
    // With a sync between.
    bob.leave(&room).ok();
    let left = news(&bob, &answer.next_batch());
    assert!(left["rooms"]["leave"][&room].is_object());
    alice.say(&room, "three").ok();
    assert!(news(&bob, &left.next_batch())["rooms"].is_null());
    bob.join(&room).ok();
    let back = news(&bob, &left.next_batch());
    assert_eq!(bodies(&back.timeline(&room)), ["three"]);
    assert_eq!(back["rooms"]["join"][&room]["timeline"]["limited"], true);
    assert!(back.state_before(&room).iter().any(|event| event["type"] == "m.room.name"));
}

// Checklist 6.7
#[test]
fn a_join_after_a_refusal_begins_the_timeline_anew() {
    let server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let room = alice.public_room();
    let mut since = now(&bob);
    for verb in ["ban", "unban"] {
        alice.membership(&room, verb, json!({ "user_id": bob.id })).ok();
        let answer = news(&bob, &since);
        assert!(answer["rooms"]["leave"][&room].is_object(), "{verb}: {}", answer.body);
        since = answer.next_batch();
    }
    bob.join(&room).ok();
    // The client has the unban already: without a gap the beginning would come behind it.
    let joined = news(&bob, &since);
    assert_eq!(joined["rooms"]["join"][&room]["timeline"]["limited"], true);
}

// Checklist 6.7
#[test]
fn ignored_users_are_not_heard_but_their_state_holds() {
    let server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let room = alice.public_room();
    bob.join(&room).ok();
    set_account_data(&bob, "m.ignored_user_list", json!({ "ignored_users": { &alice.id: {} } }));
    let token = now(&bob);
    alice.say(&room, "psst").ok();
    alice.set_state(&room, "m.room.topic", "", json!({ "topic": "Silence" })).ok();
    let answer = news(&bob, &token);
    let kinds: Vec<_> = answer.timeline(&room).iter().map(|e| e["type"].clone()).collect();
    assert_eq!(kinds, ["m.room.topic"]);
    // What was missed meanwhile does not come late, also not to a sync that has waited. A fresh
    // one has it.
    let token = answer.next_batch();
    alice.say(&room, "psst again").ok();
    set_account_data(&bob, "m.ignored_user_list", json!({ "ignored_users": {} }));
    let heard = alice.say(&room, "hello").event_id();
    let answer = news(&bob, &token);
    let ids: Vec<_> = answer.timeline(&room).iter().map(|e| e["event_id"].clone()).collect();
    assert_eq!(ids, [json!(heard)]);
    let fresh = bob.sync(Ask::initial()).ok().timeline(&room);
    assert!(fresh.iter().any(|event| event["content"]["body"] == "psst again"), "{fresh:?}");
}

// Checklist 9.1, 9.2
#[test]
fn receipts_go_to_whom_they_concern() {
    let mut server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let room = alice.public_room();
    bob.join(&room).ok();
    let [first, second] = ["1", "2"].map(|text| alice.say(&room, text).event_id());
    let tokens = [now(&alice), now(&bob)];
    let send = |kind: &str, event: &str, body: Value| {
        let verb = path("/_matrix/client/v3/rooms/{}/receipt/{}/{}", &[&room, kind, event]);
        bob.http.post(&verb, &body).ok();
    };
    send("m.read.private", &second, json!({}));
    send("m.read", &first, json!({ "thread_id": "main" }));
    send("m.read", &first, json!({}));
    let receipts = |user: &User, token: &str| {
        let answer = news(user, token);
        let all = answer.ephemeral(&room).into_iter();
        all.filter(|event| event["type"] == "m.receipt").map(|e| e["content"].clone()).collect()
    };
    let alices: Vec<Value> = receipts(&alice, &tokens[0]);
    let threads: Vec<_> =
        alices.iter().map(|content| &content[&first]["m.read"][&bob.id]["thread_id"]).collect();
    assert_eq!(threads, [&json!("main"), &Value::Null], "one event has one of them");
    assert!(alices.iter().all(|content| content[&second].is_null()), "{alices:?}");
    let bobs: Vec<Value> = receipts(&bob, &tokens[1]);
    assert!(bobs[0][&second]["m.read.private"][&bob.id]["ts"].is_u64(), "{bobs:?}");
    // Nor does a restart give away what is private: not to old tokens, not to new clients.
    server.restart();
    let alice = server.again(&alice);
    for answer in [alice.sync(Ask::initial()).ok(), news(&alice, &tokens[0])] {
        let text = answer.body.to_string();
        assert!(text.contains("m.read") && !text.contains("m.read.private"), "{text}");
    }
}

// Checklist 9.7
#[test]
fn who_stops_typing_is_taken_off_the_list() {
    let server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let room = alice.public_room();
    bob.join(&room).ok();
    let token = now(&alice);
    let typing = path("/_matrix/client/v3/rooms/{}/typing/{}", &[&room, &bob.id]);
    let who = |answer: &Answer| {
        let events = answer.ephemeral(&room).into_iter();
        events.map(|event| event["content"]["user_ids"].clone()).collect::<Vec<_>>()
    };
    bob.http.put(&typing, &json!({ "typing": true, "timeout": 30_000 })).ok();
    let seen = alice.sync_until(&token, |answer| !who(answer).is_empty());
    assert_eq!(who(&seen), [json!([bob.id])]);
    assert!(news(&alice, &seen.next_batch())["rooms"].is_null());
    bob.http.put(&typing, &json!({ "typing": false })).ok();
    let seen = alice.sync_until(&seen.next_batch(), |answer| !who(answer).is_empty());
    assert_eq!(who(&seen), [json!([])]);
    // Nor does anybody type who has left, or was made to leave.
    let stopped = |since: &str, leave: &dyn Fn()| {
        bob.http.put(&typing, &json!({ "typing": true })).ok();
        let seen = alice.sync_until(since, |answer| who(answer) == [json!([bob.id])]);
        leave();
        let seen = alice.sync_until(&seen.next_batch(), |answer| who(answer) == [json!([])]);
        seen.next_batch()
    };
    let since = stopped(&seen.next_batch(), &|| drop(bob.leave(&room).ok()));
    bob.join(&room).ok();
    let about = json!({ "user_id": bob.id });
    let since = stopped(&since, &|| drop(alice.membership(&room, "kick", about.clone()).ok()));
    bob.join(&room).ok();
    stopped(&since, &|| drop(alice.membership(&room, "ban", about.clone()).ok()));
}

// Checklist 9.5
#[test]
fn account_data_of_rooms_comes_with_the_room() {
    let server = Server::start();
    let alice = server.user("alice");
    let room = alice.public_room();
    let event = alice.say(&room, "here").event_id();
    let token = now(&alice);
    let markers = path("/_matrix/client/v3/rooms/{}/read_markers", &[&room]);
    alice.http.post(&markers, &json!({ "m.fully_read": event })).ok();
    let data = |answer: &Answer| answer["rooms"]["join"][&room]["account_data"]["events"].clone();
    let marked = json!([{ "type": "m.fully_read", "content": { "event_id": event } }]);
    let answer = news(&alice, &token);
    assert_eq!(data(&answer), marked);
    assert!(news(&alice, &answer.next_batch())["rooms"].is_null());
    let first = alice.sync(Ask::initial()).ok();
    assert_eq!(data(&first), marked);
    let global = types(&first["account_data"]["events"]).join(" ");
    assert!(global.contains("m.push_rules"), "{global}");
}
