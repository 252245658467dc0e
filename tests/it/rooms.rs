//! Rooms: making them, who is in them, what is in them.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::common::{Server, User, path};

/// The content of each piece of state, as `type/key`.
fn state_of(user: &User, room: &str) -> Vec<(String, Value)> {
    let state = user.room(room, "state").ok();
    let entry = |event: &Value| {
        let text = |key: &str| event[key].as_str().unwrap().to_owned();
        (format!("{}/{}", text("type"), text("state_key")), event["content"].clone())
    };
    state.body.as_array().unwrap().iter().map(entry).collect()
}

fn bodies(events: &[Value]) -> Vec<String> {
    let said = events.iter().filter(|event| event["type"] == "m.room.message");
    said.map(|event| event["content"]["body"].as_str().unwrap_or("(redacted)").to_owned()).collect()
}

#[test]
fn every_room_version_makes_a_room_that_works() {
    let server = Server::start();
    let alice = server.user("alice");
    let bob = server.user("bob");
    for version in 1..=12 {
        let version = version.to_string();
        let body = json!({ "preset": "public_chat", "room_version": version, "name": "A room" });
        let room = alice.create_room(body).room_id();
        let create = alice.state(&room, "m.room.create", "").ok();
        assert_eq!(create["room_version"], version.as_str());
        assert_eq!(room.contains(':'), version != "12", "{room}");
        bob.join(&room).ok();
        let event = bob.say(&room, "hello").event_id();
        alice.redact(&room, &event, "because").ok();
        alice.membership(&room, "kick", json!({ "user_id": bob.id })).ok();
        bob.say(&room, "again").refused(403, "M_FORBIDDEN");
    }
    let unknown = json!({ "room_version": "nonsense" });
    alice.create_room(unknown).refused(400, "M_UNSUPPORTED_ROOM_VERSION");
}

#[test]
fn presets_set_the_rules_of_a_room() {
    let server = Server::start();
    let alice = server.user("alice");
    for (preset, join, history, guests) in [
        ("private_chat", "invite", "shared", "can_join"),
        ("trusted_private_chat", "invite", "shared", "can_join"),
        ("public_chat", "public", "shared", "forbidden"),
    ] {
        let room = alice.create_room(json!({ "preset": preset })).room_id();
        let rule = |kind: &str, key: &str| alice.state(&room, kind, "").ok()[key].clone();
        assert_eq!(rule("m.room.join_rules", "join_rule"), join, "{preset}");
        assert_eq!(rule("m.room.history_visibility", "history_visibility"), history, "{preset}");
        assert_eq!(rule("m.room.guest_access", "guest_access"), guests, "{preset}");
    }
}

#[test]
fn the_creator_decides_what_a_room_starts_with() {
    let server = Server::start();
    let alice = server.user("alice");
    let bob = server.user("bob");
    let room = alice.create_room(json!({
        "name": "The name", "topic": "The topic", "room_version": "11", "invite": [bob.id],
        "creation_content": { "org.example.kind": "test" },
        "power_level_content_override": { "events": { "org.example": 77 } },
        "initial_state": [
            { "type": "m.room.join_rules", "state_key": "", "content": { "join_rule": "knock" } },
            { "type": "org.example", "state_key": "key", "content": { "a": 1 } },
        ],
    }));
    let room = room.room_id();
    let of = |kind: &str, key: &str| alice.state(&room, kind, key).ok().body;
    assert_eq!(of("m.room.name", ""), json!({ "name": "The name" }));
    assert_eq!(of("m.room.topic", "")["topic"], "The topic");
    assert_eq!(of("org.example", "key"), json!({ "a": 1 }));
    assert_eq!(of("m.room.join_rules", ""), json!({ "join_rule": "knock" }));
    assert_eq!(of("m.room.create", "")["org.example.kind"], "test");
    let levels = of("m.room.power_levels", "");
    assert_eq!(levels["events"]["org.example"], 77);
    assert_eq!(levels["users"][&alice.id], 100);
    assert_eq!(of("m.room.member", &bob.id)["membership"], "invite");
    let kinds: Vec<_> = state_of(&alice, &room).into_iter().map(|(key, _)| key).collect();
    assert_eq!(kinds.iter().collect::<BTreeSet<_>>().len(), kinds.len(), "{kinds:?}");
}

#[test]
fn membership_goes_through_all_its_changes() {
    let server = Server::start();
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(|name| server.user(name));
    let room = alice.create_room(json!({ "preset": "private_chat" })).room_id();
    let member =
        |user: &User| alice.state(&room, "m.room.member", &user.id).ok().text("membership");
    bob.join(&room).refused(403, "M_FORBIDDEN");
    alice.invite(&room, &bob).ok();
    assert_eq!(member(&bob), "invite");
    bob.join(&room).ok();
    bob.join(&room).ok();
    assert_eq!(member(&bob), "join");
    assert_eq!(bob.http.get("/_matrix/client/v3/joined_rooms").ok()["joined_rooms"], json!([room]));
    alice.membership(&room, "kick", json!({ "user_id": bob.id, "reason": "noise" })).ok();
    let kicked = alice.state(&room, "m.room.member", &bob.id).ok();
    assert_eq!((&kicked["membership"], &kicked["reason"]), (&json!("leave"), &json!("noise")));
    alice.membership(&room, "ban", json!({ "user_id": bob.id })).ok();
    assert_eq!(member(&bob), "ban");
    alice.invite(&room, &bob).refused(403, "M_FORBIDDEN");
    bob.join(&room).refused(403, "M_FORBIDDEN");
    alice.membership(&room, "unban", json!({ "user_id": bob.id })).ok();
    assert_eq!(member(&bob), "leave");
    alice.invite(&room, &carol).ok();
    carol.leave(&room).ok();
    assert_eq!(member(&carol), "leave");
    carol.membership(&room, "forget", json!({})).ok();
    let still_in = alice.membership(&room, "forget", json!({}));
    assert_eq!(still_in.status, 400, "{}", still_in.body);
}

#[test]
fn members_are_listed_and_filtered() {
    let server = Server::start();
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(|name| server.user(name));
    let room = alice.public_room();
    bob.join(&room).ok();
    carol.join(&room).ok();
    carol.leave(&room).ok();
    let names = |query: &str| -> BTreeSet<String> {
        let answer = alice.room(&room, query).ok();
        let key = |event: Value| event["state_key"].as_str().unwrap().to_owned();
        answer.chunk().into_iter().map(key).collect()
    };
    let all = |users: &[&User]| users.iter().map(|user| user.id.clone()).collect::<BTreeSet<_>>();
    assert_eq!(names("members"), all(&[&alice, &bob, &carol]));
    assert_eq!(names("members?membership=join"), all(&[&alice, &bob]));
    assert_eq!(names("members?not_membership=leave"), all(&[&alice, &bob]));
    assert_eq!(names("members?membership=leave"), all(&[&carol]));
    let joined = alice.room(&room, "joined_members").ok();
    assert_eq!(joined["joined"].as_object().unwrap().len(), 2);
}

#[test]
fn power_decides_who_may_do_what() {
    let server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let room = alice.public_room();
    bob.join(&room).ok();
    bob.set_state(&room, "m.room.name", "", json!({ "name": "Bob's" })).refused(403, "M_FORBIDDEN");
    bob.membership(&room, "kick", json!({ "user_id": alice.id })).refused(403, "M_FORBIDDEN");
    let event = alice.say(&room, "mine").event_id();
    bob.redact(&room, &event, "no").refused(403, "M_FORBIDDEN");
    let mut levels = alice.state(&room, "m.room.power_levels", "").ok().body;
    levels["users"][&bob.id] = json!(50);
    alice.set_state(&room, "m.room.power_levels", "", levels).ok();
    bob.set_state(&room, "m.room.name", "", json!({ "name": "Bob's" })).ok();
    assert_eq!(alice.state(&room, "m.room.name", "").ok()["name"], "Bob's");
    let foreign = json!({ "a": 1 });
    bob.set_state(&room, "org.example", &alice.id, foreign).refused(403, "M_FORBIDDEN");
}

// Checklist 1.10
#[test]
fn state_is_read_in_all_its_forms() {
    let server = Server::start();
    let alice = server.user("alice");
    let room = alice.public_room();
    let empty = path("/_matrix/client/v3/rooms/{}/state/org.example", &[&room]);
    alice.http.put(&empty, &json!({ "key": "empty" })).ok();
    alice.set_state(&room, "org.example", "a/b c", json!({ "key": "odd" })).ok();
    for form in ["", "/"] {
        assert_eq!(alice.http.get(&format!("{empty}{form}")).ok()["key"], "empty");
        let old = empty.replace("/v3/", "/r0/");
        assert_eq!(alice.http.get(&format!("{old}{form}")).ok()["key"], "empty");
    }
    assert_eq!(alice.state(&room, "org.example", "a/b c").ok()["key"], "odd");
    alice.state(&room, "org.example", "none").refused(404, "M_NOT_FOUND");
    let whole = alice.room(&room, "state/org.example/?format=event").ok();
    assert_eq!(
        (&whole["type"], &whole["content"]["key"]),
        (&json!("org.example"), &json!("empty"))
    );
    assert!(
        state_of(&alice, &room).contains(&("org.example/a/b c".into(), json!({ "key": "odd" })))
    );
}

// Checklist 2.1
#[test]
fn a_transaction_id_counts_once_per_device_and_room() {
    let server = Server::start();
    let alice = server.user("alice");
    let other_device = server.login("alice");
    let (room, second_room) = (alice.public_room(), alice.public_room());
    let text = |body: &str| json!({ "msgtype": "m.text", "body": body });
    let send = |user: &User, room: &str, body: &str| {
        user.send_as(room, "m.room.message", "same", text(body)).event_id()
    };
    let first = send(&alice, &room, "one");
    assert_eq!(first, send(&alice, &room, "one"));
    assert_eq!(first, send(&alice, &room, "changed"));
    assert_ne!(first, send(&other_device, &room, "two"));
    assert_ne!(first, send(&alice, &second_room, "three"));
    let said = bodies(&alice.room(&room, "messages?dir=f").ok().chunk());
    assert_eq!(said, ["one", "two"]);
    let target = alice.say(&room, "victim").event_id();
    let redact = path("/_matrix/client/v3/rooms/{}/redact/{}/same", &[&room, &target]);
    let once = alice.http.put(&redact, &json!({})).event_id();
    assert_eq!(once, alice.http.put(&redact, &json!({})).event_id());
    assert_ne!(once, first);
}

#[test]
fn messages_are_paged_both_ways() {
    let server = Server::start();
    let alice = server.user("alice");
    let room = alice.public_room();
    let said: Vec<_> = (0..25).map(|number| format!("message {number}")).collect();
    said.iter().for_each(|text| drop(alice.say(&room, text).ok()));
    let pages = |dir: &str| {
        let mut all = Vec::new();
        let mut from = String::new();
        loop {
            let what = format!("messages?dir={dir}&limit=7{from}");
            let page = alice.room(&room, &what).ok();
            assert!(page.chunk().len() <= 7);
            all.extend(bodies(&page.chunk()));
            // At the live end, a server may name a point from which there may be more later.
            let Some(end) = page["end"].as_str().filter(|_| !page.chunk().is_empty()) else {
                return all;
            };
            from = path("&from={}", &[end]);
        }
    };
    assert_eq!(pages("f"), said);
    let backwards: Vec<_> = said.iter().rev().cloned().collect();
    assert_eq!(pages("b"), backwards);
    let filter = path("messages?dir=b&filter={}", &[r#"{"types":["m.room.create"]}"#]);
    let filtered = alice.room(&room, &filter).ok().chunk();
    assert!(filtered.iter().all(|event| event["type"] == "m.room.create"), "{filtered:?}");
}

#[test]
fn the_context_of_an_event_has_what_stands_around_it() {
    let server = Server::start();
    let alice = server.user("alice");
    let room = alice.public_room();
    let ids: Vec<_> = (0..9).map(|n| alice.say(&room, &n.to_string()).event_id()).collect();
    let around = alice.room(&room, &path("context/{}?limit=4", &[&ids[4]])).ok();
    let list = |key: &str| bodies(around[key].as_array().unwrap());
    assert_eq!(around["event"]["event_id"], ids[4].as_str());
    assert_eq!(
        (list("events_before"), list("events_after")),
        (vec!["3".to_owned(), "2".to_owned()], vec!["5".to_owned(), "6".to_owned()],)
    );
}

// Checklist 7.8
#[test]
fn redaction_takes_the_content_away_everywhere() {
    let server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let room = alice.public_room();
    bob.join(&room).ok();
    let event = bob.say(&room, "regretted").event_id();
    let redaction = bob.redact(&room, &event, "regret").event_id();
    let left = alice.room(&room, &path("event/{}", &[&event])).ok();
    assert_eq!(left["content"], json!({}));
    assert_eq!(left["unsigned"]["redacted_because"]["event_id"], redaction.as_str());
    let page = alice.room(&room, "messages?dir=b").ok();
    assert!(!page.body["chunk"].to_string().contains("regretted"), "{}", page.body);
}

// Checklist 6.1, 6.3
#[test]
fn history_is_shown_to_those_who_may_see_it() {
    let server = Server::start();
    let alice = server.user("alice");
    for (visibility, before_invite, before_join, after_leave) in [
        ("world_readable", true, true, true),
        ("shared", true, true, false),
        ("invited", false, true, false),
        ("joined", false, false, false),
    ] {
        let bob = server.user(&format!("bob_{visibility}"));
        let rules = json!([{ "type": "m.room.history_visibility", "state_key": "",
            "content": { "history_visibility": visibility } }]);
        let room = alice.create_room(json!({ "initial_state": rules })).room_id();
        let early = alice.say(&room, "before the invite").event_id();
        alice.invite(&room, &bob).ok();
        let invited = alice.say(&room, "before the join").event_id();
        bob.join(&room).ok();
        let joined = alice.say(&room, "while joined").event_id();
        bob.leave(&room).ok();
        let late = alice.say(&room, "after the leave").event_id();
        let page = bob.room(&room, "messages?dir=b&limit=100");
        let listed = bodies(&page.ok().chunk());
        for (event, text, may) in [
            (early, "before the invite", before_invite),
            (invited, "before the join", before_join),
            (joined, "while joined", true),
            (late, "after the leave", after_leave),
        ] {
            let answer = bob.room(&room, &path("event/{}", &[&event]));
            assert_eq!(answer.status, if may { 200 } else { 404 }, "{visibility}: {text}");
            let in_page = listed.iter().any(|said| said == text);
            assert!(in_page == may || text == "after the leave", "{visibility}: {text} {listed:?}");
        }
    }
}

#[test]
fn rooms_outlive_a_kill() {
    let mut server = Server::start();
    let alice = server.user("alice");
    let room = alice.create_room(json!({ "preset": "public_chat", "name": "Home" })).room_id();
    let event = alice.say(&room, "remember").event_id();
    let before = state_of(&alice, &room);
    server.restart();
    let alice = server.again(&alice);
    assert_eq!(state_of(&alice, &room), before);
    let found = alice.room(&room, &path("event/{}", &[&event])).ok();
    assert_eq!(found["content"]["body"], "remember");
    alice.say(&room, "and go on").ok();
    server.user("bob").join(&room).ok();
}
