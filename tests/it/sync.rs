//! `/sync`: what is new, each thing once and in order.

use serde_json::{Value, json};

use crate::common::{Answer, Ask, Server, User, path};

fn ids(events: &[Value]) -> Vec<String> {
    events.iter().map(|event| event["event_id"].as_str().unwrap().to_owned()).collect()
}

/// All events of a room from a token on, through as many syncs as it takes to be up to date.
fn follow(user: &User, room: &str, since: &str) -> (Vec<Value>, String) {
    let mut since = since.to_owned();
    let mut events = Vec::new();
    loop {
        let answer = user.sync(Ask::since(&since)).ok();
        let new = answer.timeline(room);
        let next = answer.next_batch();
        if new.is_empty() || next == since {
            return (events, next);
        }
        events.extend(new);
        since = next;
    }
}

#[test]
fn the_first_sync_has_the_whole_picture() {
    let server = Server::start();
    let alice = server.user("alice");
    let room = alice.create_room(json!({ "preset": "public_chat", "name": "Home" })).room_id();
    let event = alice.say(&room, "hello").event_id();
    let first = alice.sync(Ask::initial()).ok();
    let mut all = first.state_before(&room);
    all.extend(first.timeline(&room));
    let has = |kind: &str| all.iter().any(|event| event["type"] == kind);
    for kind in ["m.room.create", "m.room.member", "m.room.power_levels", "m.room.name"] {
        assert!(has(kind), "{kind} in {}", first.body);
    }
    assert_eq!(ids(&all).last(), Some(&event));
    assert_eq!(first["rooms"]["join"][&room]["summary"]["m.joined_member_count"], 1);
}

#[test]
fn an_incremental_sync_has_only_what_is_new() {
    let server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let (room, quiet) = (alice.public_room(), alice.public_room());
    bob.join(&room).ok();
    bob.join(&quiet).ok();
    let token = bob.sync(Ask::initial()).ok().next_batch();
    let nothing = bob.sync(Ask::since(&token)).ok();
    assert!(nothing.timeline(&room).is_empty(), "{}", nothing.body);
    let sent: Vec<_> = (0..5).map(|n| alice.say(&room, &n.to_string()).event_id()).collect();
    let answer = bob.sync(Ask::since(&token)).ok();
    assert_eq!(ids(&answer.timeline(&room)), sent);
    assert_ne!(answer["rooms"]["join"][&room]["timeline"]["limited"], true);
    assert!(answer["rooms"]["join"][&quiet].is_null(), "{}", answer.body);
    // A token stays good: asking again gives the same again.
    assert_eq!(ids(&bob.sync(Ask::since(&token)).ok().timeline(&room)), sent);
    assert!(bob.sync(Ask::since(&answer.next_batch())).ok().timeline(&room).is_empty());
}

#[test]
fn a_waiting_sync_wakes_for_a_message() {
    let server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let room = alice.public_room();
    bob.join(&room).ok();
    let token = bob.sync(Ask::initial()).ok().next_batch();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| bob.sync_until(&token, |a| !a.timeline(&room).is_empty()));
        let event = alice.say(&room, "wake up").event_id();
        assert_eq!(ids(&waiting.join().unwrap().timeline(&room)), [event]);
    });
}

#[test]
fn a_waiting_sync_comes_back_empty_in_time() {
    let server = Server::start();
    let alice = server.user("alice");
    let token = alice.sync(Ask::initial()).ok().next_batch();
    let answer = alice.sync(Ask::since(&token).wait(300)).ok();
    assert!(answer["rooms"]["join"].as_object().is_none_or(serde_json::Map::is_empty));
    alice.sync(Ask::since(&answer.next_batch())).ok();
}

#[test]
fn invites_joins_and_leaves_are_seen() {
    let server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let token = bob.sync(Ask::initial()).ok().next_batch();
    let room = alice.create_room(json!({ "preset": "private_chat", "name": "Secret" })).room_id();
    alice.invite(&room, &bob).ok();
    let invited = bob.sync_until(&token, |a| a["rooms"]["invite"][&room].is_object());
    let stripped = invited["rooms"]["invite"][&room]["invite_state"]["events"].to_string();
    assert!(stripped.contains("Secret") && stripped.contains(&bob.id), "{stripped}");
    bob.join(&room).ok();
    let joined = bob.sync_until(&invited.next_batch(), |a| a["rooms"]["join"][&room].is_object());
    let mut all = joined.state_before(&room);
    all.extend(joined.timeline(&room));
    assert!(all.iter().any(|event| event["type"] == "m.room.create"), "{}", joined.body);
    bob.leave(&room).ok();
    let left = bob.sync_until(&joined.next_batch(), |a| a["rooms"]["leave"][&room].is_object());
    alice.say(&room, "without bob").ok();
    let after = bob.sync(Ask::since(&left.next_batch())).ok();
    assert!(!after.body.to_string().contains("without bob"), "{}", after.body);
}

// Checklist 4.2
#[test]
fn a_long_gap_is_limited_and_can_be_filled() {
    let server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let room = alice.public_room();
    bob.join(&room).ok();
    let token = bob.sync(Ask::initial()).ok().next_batch();
    let mut sent = vec![alice.say(&room, "first").event_id()];
    let name = json!({ "name": "Named in the gap" });
    sent.push(alice.set_state(&room, "m.room.name", "", name).event_id());
    sent.extend((0..20).map(|n| alice.say(&room, &n.to_string()).event_id()));
    let filter = json!({ "room": { "timeline": { "limit": 5 } } });
    let answer = bob.sync(Ask::since(&token).filter(filter)).ok();
    let timeline = &answer["rooms"]["join"][&room]["timeline"];
    assert_eq!(timeline["limited"], true);
    assert_eq!(ids(&answer.timeline(&room)), sent[sent.len() - 5..]);
    let state = answer.state_before(&room);
    assert!(state.iter().any(|event| event["type"] == "m.room.name"), "{state:?}");
    let from = timeline["prev_batch"].as_str().unwrap();
    let gap = bob.room(&room, &path("messages?dir=b&limit=17&from={}", &[from])).ok();
    let mut older = ids(&gap.chunk());
    older.reverse();
    assert_eq!(older, sent[..sent.len() - 5]);
}

// Checklist 2.3
#[test]
fn the_sender_finds_its_transaction_id_and_nobody_else_does() {
    let server = Server::start();
    let alice = server.user("alice");
    let other_device = server.login("alice");
    let room = alice.public_room();
    let token = alice.sync(Ask::initial()).ok().next_batch();
    let content = json!({ "msgtype": "m.text", "body": "mine" });
    alice.send_as(&room, "m.room.message", "my-txn", content).ok();
    let seen_by = |user: &User| {
        let answer = user.sync(Ask::since(&token)).ok();
        let event = answer.timeline(&room).pop().unwrap();
        assert_eq!(event["content"]["body"], "mine");
        assert!(event["unsigned"]["age"].is_u64(), "{event}");
        event["unsigned"]["transaction_id"].clone()
    };
    assert_eq!(seen_by(&alice), "my-txn");
    assert_eq!(seen_by(&other_device), Value::Null);
}

#[test]
fn filters_are_stored_and_used() {
    let server = Server::start();
    let alice = server.user("alice");
    let room = alice.public_room();
    let token = alice.sync(Ask::initial()).ok().next_batch();
    alice.say(&room, "not this").ok();
    let wanted = alice.send(&room, "org.example.kept", json!({ "a": 1 })).event_id();
    let filter = json!({ "room": { "timeline": { "types": ["org.example.*"] } } });
    let at = path("/_matrix/client/v3/user/{}/filter", &[&alice.id]);
    let id = alice.http.post(&at, &filter).text("filter_id");
    let stored = alice.http.get(&format!("{at}/{id}")).ok();
    assert_eq!(stored["room"]["timeline"]["types"], json!(["org.example.*"]));
    let by_id = alice.sync(Ask::since(&token).with(&path("filter={}", &[&id]))).ok();
    let inline = alice.sync(Ask::since(&token).filter(filter)).ok();
    for answer in [by_id, inline] {
        assert_eq!(ids(&answer.timeline(&room)), [wanted.as_str()]);
    }
    alice.http.get(&format!("{at}/unknown")).refused(404, "M_NOT_FOUND");
}

#[test]
fn typing_receipts_and_account_data_are_delivered() {
    let server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let room = alice.public_room();
    bob.join(&room).ok();
    let event = alice.say(&room, "read me").event_id();
    let token = alice.sync(Ask::initial()).ok().next_batch();
    let typing = path("/_matrix/client/v3/rooms/{}/typing/{}", &[&room, &bob.id]);
    bob.http.put(&typing, &json!({ "typing": true, "timeout": 30_000 })).ok();
    let find = |answer: &Answer, kind: &str| {
        answer.ephemeral(&room).into_iter().find(|event| event["type"] == kind)
    };
    let seen = alice.sync_until(&token, |answer| find(answer, "m.typing").is_some());
    assert_eq!(find(&seen, "m.typing").unwrap()["content"]["user_ids"], json!([bob.id]));
    let receipt = path("/_matrix/client/v3/rooms/{}/receipt/m.read/{}", &[&room, &event]);
    bob.http.post(&receipt, &json!({})).ok();
    let seen = alice.sync_until(&token, |answer| find(answer, "m.receipt").is_some());
    let content = &find(&seen, "m.receipt").unwrap()["content"];
    assert!(content[&event]["m.read"][&bob.id]["ts"].is_u64(), "{content}");
    let data = path("/_matrix/client/v3/user/{}/account_data/org.example", &[&alice.id]);
    alice.http.put(&data, &json!({ "kept": true })).ok();
    assert_eq!(alice.http.get(&data).ok()["kept"], true);
    let seen = alice.sync_until(&token, |a| !a["account_data"]["events"].is_null());
    assert!(seen["account_data"].to_string().contains("org.example"), "{}", seen.body);
    bob.http.put(&data, &json!({})).refused(403, "M_FORBIDDEN");
}

#[test]
fn unread_messages_are_counted_until_they_are_read() {
    let server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let room = alice.public_room();
    bob.join(&room).ok();
    let sent: Vec<_> = (0..3).map(|n| alice.say(&room, &n.to_string()).event_id()).collect();
    let unread = || {
        let answer = bob.sync(Ask::initial()).ok();
        answer["rooms"]["join"][&room]["unread_notifications"]["notification_count"].clone()
    };
    assert_eq!(unread(), 3);
    let receipt = path("/_matrix/client/v3/rooms/{}/receipt/m.read/{}", &[&room, &sent[2]]);
    bob.http.post(&receipt, &json!({})).ok();
    assert_eq!(unread(), 0);
}

#[test]
fn a_token_from_before_a_kill_misses_nothing_and_repeats_nothing() {
    let mut server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let room = alice.public_room();
    bob.join(&room).ok();
    let token = bob.sync(Ask::initial()).ok().next_batch();
    let mut sent: Vec<_> = (0..4).map(|n| alice.say(&room, &n.to_string()).event_id()).collect();
    server.restart();
    let [alice, bob] = [&alice, &bob].map(|user| server.again(user));
    sent.extend((4..8).map(|n| alice.say(&room, &n.to_string()).event_id()));
    assert_eq!(ids(&follow(&bob, &room, &token).0), sent);
}
