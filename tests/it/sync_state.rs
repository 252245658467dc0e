//! The state that goes along with timelines, and members that are left out of it.

use serde_json::{Value, json};

use crate::common::{Answer, Ask, Server, User};

fn types(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["type"].as_str().unwrap()).collect()
}

/// The users whose member events are in a list.
fn members(events: &[Value]) -> Vec<String> {
    let members = events.iter().filter(|event| event["type"] == "m.room.member");
    let mut members: Vec<_> =
        members.map(|event| event["state_key"].as_str().unwrap().to_owned()).collect();
    members.sort();
    members
}

fn sorted(users: &[&User]) -> Vec<String> {
    let mut ids: Vec<_> = users.iter().map(|user| user.id.clone()).collect();
    ids.sort();
    ids
}

fn lazy(limit: u32) -> Value {
    json!({ "room": { "state": { "lazy_load_members": true }, "timeline": { "limit": limit } } })
}

fn state_after(answer: &Answer, room: &str) -> Option<Vec<Value>> {
    let section = answer["rooms"]["join"][room]["state_after"].as_object()?;
    Some(section.get("events").and_then(Value::as_array).cloned().unwrap_or_default())
}

// Checklist 4.4
#[test]
fn lazy_loading_sends_those_who_speak_and_oneself() {
    let server = Server::start();
    let [alice, bob, carol, dave] = ["alice", "bob", "carol", "dave"].map(|name| server.user(name));
    let room = alice.create_room(json!({ "preset": "public_chat", "name": "Hall" })).room_id();
    for user in [&bob, &carol, &dave] {
        user.join(&room).ok();
    }
    bob.say(&room, "one").ok();
    let first = carol.sync(Ask::initial().filter(lazy(1))).ok();
    assert_eq!(members(&first.state_before(&room)), sorted(&[&bob, &carol]));
    // A member who has not been sent yet comes with the first message, and not again.
    dave.say(&room, "two").ok();
    bob.say(&room, "three").ok();
    let second = carol.sync(Ask::since(&first.next_batch()).filter(lazy(10))).ok();
    assert_eq!(members(&second.state_before(&room)), sorted(&[&dave]));
    dave.say(&room, "four").ok();
    let third = carol.sync(Ask::since(&second.next_batch()).filter(lazy(10))).ok();
    assert!(members(&third.state_before(&room)).is_empty(), "{}", third.body);
    // An answer that did not arrive does not count.
    let again = carol.sync(Ask::since(&first.next_batch()).filter(lazy(10))).ok();
    assert_eq!(members(&again.state_before(&room)), sorted(&[&dave]));
    // Nor does what another device was sent.
    let other = server.login("carol");
    let others = other.sync(Ask::since(&second.next_batch()).filter(lazy(10))).ok();
    assert_eq!(members(&others.state_before(&room)), sorted(&[&dave]));
    let redundant = json!({ "room": { "state": { "lazy_load_members": true,
        "include_redundant_members": true } } });
    let third = carol.sync(Ask::since(&second.next_batch()).filter(redundant)).ok();
    assert_eq!(members(&third.state_before(&room)), sorted(&[&dave]));
}

// Checklist 4.4, 4.5
#[test]
fn lazy_loading_keeps_heroes_and_changes_in_a_gap() {
    let server = Server::start();
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(|name| server.user(name));
    let room = alice.public_room();
    bob.join(&room).ok();
    alice.say(&room, "hello").ok();
    let first = bob.sync(Ask::initial().filter(lazy(1))).ok();
    let summary = &first["rooms"]["join"][&room]["summary"];
    assert_eq!(summary["m.heroes"], json!([alice.id]), "a room without a name");
    assert_eq!(members(&first.state_before(&room)), sorted(&[&alice, &bob]));
    carol.join(&room).ok();
    for n in 0..3 {
        alice.say(&room, &n.to_string()).ok();
    }
    let gap = bob.sync(Ask::since(&first.next_batch()).filter(lazy(1))).ok();
    assert_eq!(gap["rooms"]["join"][&room]["timeline"]["limited"], true);
    assert_eq!(members(&gap.state_before(&room)), sorted(&[&carol]));
    let summary = &gap["rooms"]["join"][&room]["summary"];
    assert_eq!(summary["m.joined_member_count"], 3);
    assert_eq!(summary["m.heroes"], json!([alice.id, carol.id]));
    alice.say(&room, "nothing about members").ok();
    let quiet = bob.sync(Ask::since(&gap.next_batch()).filter(lazy(1))).ok();
    assert!(quiet["rooms"]["join"][&room]["summary"].is_null(), "it has not changed");
}

// Checklist 4.4
#[test]
fn lazy_loading_renews_members_that_the_client_knows() {
    let server = Server::start();
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(|name| server.user(name));
    let room = alice.create_room(json!({ "preset": "public_chat", "name": "Hall" })).room_id();
    let rename = |name: &str| {
        let content = json!({ "membership": "join", "displayname": name });
        bob.set_state(&room, "m.room.member", &bob.id, content).ok();
        // What has been renamed is not in the timeline.
        alice.say(&room, name).ok();
    };
    for after in [false, true] {
        for user in [&bob, &carol] {
            user.join(&room).ok();
        }
        let sync = |ask: Ask, limit: u32| {
            let ask = ask.filter(lazy(limit)).with(&format!("use_state_after={after}"));
            let answer = carol.sync(ask).ok();
            let state = match after {
                true => state_after(&answer, &room).unwrap(),
                false => answer.state_before(&room),
            };
            let is_bob = |event: &&Value| event["state_key"] == bob.id.as_str();
            (answer.next_batch(), state.iter().find(is_bob).map(|e| e["content"].clone()))
        };
        bob.say(&room, "I am here").ok();
        let (known, member) = sync(Ask::initial(), 1);
        assert!(member.is_some(), "he has spoken");
        rename("Robert");
        let (known, member) = sync(Ask::since(&known).with("full_state=true"), 1);
        assert_eq!(member.expect("all state, but not this?")["displayname"], "Robert");
        rename("Rob");
        carol.leave(&room).ok();
        carol.join(&room).ok();
        let (_, member) = sync(Ask::since(&known), 1);
        assert_eq!(member.expect("she has not heard that she left")["displayname"], "Rob");
    }
}

// Checklist 4.5
#[test]
fn heroes_are_the_first_five_others_or_those_who_left() {
    let server = Server::start();
    let users: Vec<_> = (0..8).map(|n| server.user(&format!("user{n}"))).collect();
    let room = users[0].public_room();
    for user in &users[1..] {
        user.join(&room).ok();
    }
    let heroes = |user: &User| {
        user.sync(Ask::initial()).ok()["rooms"]["join"][&room]["summary"]["m.heroes"].clone()
    };
    let ids: Vec<_> = users.iter().map(|user| user.id.as_str()).collect();
    assert_eq!(heroes(&users[7]), json!(ids[..5]));
    assert_eq!(heroes(&users[2]), json!([ids[0], ids[1], ids[3], ids[4], ids[5]]));
    for user in &users[1..] {
        user.leave(&room).ok();
    }
    assert_eq!(heroes(&users[0]), json!(ids[1..6]));
}

// Checklist 4.1
#[test]
fn state_after_is_the_state_at_the_end() {
    let server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let room = alice.create_room(json!({ "preset": "public_chat", "topic": "Old" })).room_id();
    let after = |ask: Ask| alice.sync(ask.with("use_state_after=true")).ok();
    let first = after(Ask::initial());
    let state = state_after(&first, &room).unwrap();
    assert!(types(&state).contains(&"m.room.create"), "all of it: {state:?}");
    assert!(first["rooms"]["join"][&room]["state"].is_null());
    let topic = json!({ "topic": "New" });
    let event = alice.set_state(&room, "m.room.topic", "", topic).event_id();
    let second = after(Ask::since(&first.next_batch()));
    assert_eq!(second.timeline(&room)[0]["event_id"], json!(event));
    assert_eq!(state_after(&second, &room).unwrap()[0]["event_id"], json!(event));
    alice.say(&room, "no state").ok();
    let third = after(Ask::since(&second.next_batch()));
    assert_eq!(state_after(&third, &room), Some(Vec::new()), "there, though empty");
    // In the usual form, what the timeline tells is not told twice.
    let plain = alice.sync(Ask::since(&first.next_batch())).ok();
    assert!(plain.state_before(&room).is_empty());
    assert!(plain["rooms"]["join"][&room]["state_after"].is_null());
    bob.join(&room).ok();
    bob.leave(&room).ok();
    let left = json!({ "room": { "include_leave": true } });
    let left = bob.sync(Ask::initial().filter(left).with("use_state_after=true")).ok();
    let events = left["rooms"]["leave"][&room]["state_after"]["events"].as_array().unwrap();
    assert!(types(events).contains(&"m.room.create"));
}

#[test]
fn state_that_the_timeline_does_not_show_is_not_lost() {
    let server = Server::start();
    let alice = server.user("alice");
    let room = alice.public_room();
    let token = alice.sync(Ask::initial()).ok().next_batch();
    alice.set_state(&room, "m.room.topic", "", json!({ "topic": "First" })).ok();
    alice.set_state(&room, "m.room.topic", "", json!({ "topic": "Second" })).ok();
    alice.say(&room, "text").ok();
    let filter = json!({ "room": { "timeline": { "types": ["m.room.message"] } } });
    let answer = alice.sync(Ask::since(&token).filter(filter)).ok();
    assert_eq!(types(&answer.timeline(&room)), ["m.room.message"]);
    let state = answer.state_before(&room);
    assert_eq!(state.len(), 1, "{state:?}");
    assert_eq!(state[0]["content"]["topic"], "Second");
    // A change that is cut in two: the earlier half is in the state, the later in the timeline.
    let filter = json!({ "room": { "timeline": { "limit": 2 } } });
    let answer = alice.sync(Ask::since(&token).filter(filter)).ok();
    assert_eq!(answer.state_before(&room)[0]["content"]["topic"], "First");
    assert_eq!(answer.timeline(&room)[0]["content"]["topic"], "Second");
}

// Checklist 4.6
#[test]
fn full_state_comes_at_once_and_does_not_repeat_the_timeline() {
    let server = Server::start();
    let alice = server.user("alice");
    let room = alice.create_room(json!({ "name": "Here" })).room_id();
    let token = alice.sync(Ask::initial()).ok().next_batch();
    let answer = alice.sync(Ask::since(&token).with("full_state=true").wait(50_000)).ok();
    assert!(answer.timeline(&room).is_empty());
    let state = answer.state_before(&room);
    for kind in ["m.room.create", "m.room.name", "m.room.member", "m.room.power_levels"] {
        assert!(types(&state).contains(&kind), "{kind} in {state:?}");
    }
}

#[test]
fn a_timeline_does_not_undo_a_change_that_it_does_not_show() {
    let server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let room = alice.create_room(json!({ "preset": "public_chat", "topic": "Old" })).room_id();
    let hidden = json!({ "history_visibility": "joined" });
    alice.set_state(&room, "m.room.history_visibility", "", hidden).ok();
    alice.set_state(&room, "m.room.topic", "", json!({ "topic": "New" })).ok();
    bob.join(&room).ok();
    let answer =
        bob.sync(Ask::initial().filter(json!({ "room": { "timeline": { "limit": 50 } } })));
    let answer = answer.ok();
    let mut all = answer.state_before(&room);
    all.extend(answer.timeline(&room));
    // The old topic was said when all could read it, the new one when only members could.
    let topic = all.iter().rfind(|event| event["type"] == "m.room.topic").unwrap();
    assert_eq!(topic["content"]["topic"], "New");
    assert_eq!(answer["rooms"]["join"][&room]["timeline"]["limited"], true);
}
