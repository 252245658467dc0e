//! Full text search.

use std::{fs, time::Duration};

use serde_json::{Value, json};

use crate::common::{Answer, Server, User, deadline, path};

const SEARCH: &str = "/_matrix/client/v3/search";

fn ask(user: &User, criteria: Value) -> Answer {
    user.http.post(SEARCH, &json!({ "search_categories": { "room_events": criteria } }))
}

fn find(user: &User, criteria: Value) -> Value {
    ask(user, criteria).ok()["search_categories"]["room_events"].clone()
}

fn ids(results: &Value) -> Vec<&str> {
    let all = results["results"].as_array().into_iter().flatten();
    all.map(|one| one["result"]["event_id"].as_str().unwrap()).collect()
}

/// The ids of what is found, newest first.
fn found(user: &User, term: &str) -> Vec<String> {
    let results = find(user, json!({ "search_term": term, "order_by": "recent" }));
    ids(&results).into_iter().map(str::to_owned).collect()
}

fn edit(user: &User, room: &str, event: &str, text: &str) -> String {
    let content = json!({ "msgtype": "m.text", "body": format!("* {text}"),
        "m.new_content": { "msgtype": "m.text", "body": text },
        "m.relates_to": { "rel_type": "m.replace", "event_id": event } });
    user.send(room, "m.room.message", content).event_id()
}

#[test]
fn words_are_found_in_messages_names_and_topics() {
    let mut server = Server::start();
    let alice = server.user("alice");
    let room = alice.public_room();
    let body = alice.say(&room, "Martians and MEN are running home").event_id();
    let set = |kind: &str, content: Value| alice.set_state(&room, kind, "", content).event_id();
    let name = set("m.room.name", json!({ "name": "The martian room" }));
    let topic = set(
        "m.room.topic",
        json!({ "topic": "Of men", "m.topic": { "m.text":
        [{ "body": "<b>loud</b>", "mimetype": "text/html" }, { "body": "and martians" }] } }),
    );
    alice.send(&room, "org.example", json!({ "body": "martians" })).ok();
    assert_eq!(found(&alice, "martians"), [&topic, &name, &body].map(String::as_str));
    assert_eq!(found(&alice, "men martian"), [&*topic, &*body], "all words, and their stems");
    assert_eq!(found(&alice, "\"martians and men\""), [&*body], "words in a row");
    assert_eq!(found(&alice, "\"running are\""), [""; 0]);
    assert_eq!(found(&alice, "loud"), [""; 0]);
    assert_eq!(found(&alice, "* - \"\""), [""; 0]);
    for (keys, expected) in [
        (json!(["content.body"]), vec![&body]),
        (json!(["content.name", "content.topic"]), vec![&topic, &name]),
        (json!([]), vec![]),
    ] {
        let results = find(
            &alice,
            json!({ "search_term": "martian", "keys": keys,
            "order_by": "recent" }),
        );
        assert_eq!(ids(&results), expected, "{keys}");
    }
    let results = find(&alice, json!({ "search_term": "run martians" }));
    assert_eq!(results["highlights"], json!(["martians", "running"]));
    assert_eq!(results["count"], 1);
    assert!(results["results"][0]["rank"].as_f64().unwrap() > 0.0);
    assert_eq!(results["results"][0]["result"]["room_id"], json!(room));
    assert!(results["results"][0]["context"].is_null(), "none was asked for");
    server.restart();
    let alice = server.again(&alice);
    let late = alice.say(&room, "more martians").event_id();
    assert_eq!(found(&alice, "martians").len(), 4);
    assert_eq!(found(&alice, "martians")[0], late);
}

#[test]
fn what_does_not_make_sense_is_refused() {
    let server = Server::start();
    let alice = server.user("alice");
    server.http.post(SEARCH, &json!({})).refused(401, "M_MISSING_TOKEN");
    for body in [
        json!({}),
        json!({ "search_categories": 1 }),
        json!({ "search_categories":
        { "room_events": {} } }),
    ] {
        alice.http.post(SEARCH, &body).refused(400, "M_BAD_JSON");
    }
    alice.http.send("POST", SEARCH, b"").refused(400, "M_NOT_JSON");
    let none = alice.http.post(SEARCH, &json!({ "search_categories": {} })).ok();
    assert_eq!(none.body, json!({ "search_categories": {} }));
    for (key, value) in [
        ("search_term", json!("x".repeat(1_001))),
        ("keys", json!(["content.formatted_body"])),
        ("order_by", json!("length")),
        ("groupings", json!({ "group_by": [{ "key": "type" }] })),
        ("groupings", json!({ "group_by": [{}] })),
    ] {
        let mut criteria = json!({ "search_term": "x" });
        criteria[key] = value;
        ask(&alice, criteria).refused(400, "M_INVALID_PARAM");
    }
    let body = json!({ "search_categories": { "room_events": { "search_term": "x" } } });
    for token in ["nonsense", "f1_1", "s1_1_1"] {
        let at = path("/_matrix/client/v3/search?next_batch={}", &[token]);
        alice.http.post(&at, &body).refused(400, "M_INVALID_PARAM");
    }
}

#[test]
fn redacted_text_is_gone_and_edits_are_followed() {
    let server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let room = alice.public_room();
    bob.join(&room).ok();
    let first = alice.say(&room, "a purple cow").event_id();
    let second = alice.say(&room, "a purple horse").event_id();
    assert_eq!(found(&alice, "purple"), [&*second, &*first]);
    alice.redact(&room, &second, "no").ok();
    assert_eq!(found(&alice, "purple"), [&*first]);
    let once = edit(&alice, &room, &first, "a green cow");
    assert_eq!(found(&alice, "purple"), [""; 0]);
    assert_eq!(found(&alice, "green"), [&*first], "the message, not its edit");
    let twice = edit(&alice, &room, &first, "a yellow cow");
    assert_eq!(found(&alice, "cow"), [&*first]);
    assert_eq!(found(&alice, "green"), [""; 0]);
    alice.redact(&room, &twice, "no").ok();
    assert_eq!(found(&alice, "green"), [&*first], "the edit before holds again");
    alice.redact(&room, &once, "no").ok();
    assert_eq!(found(&alice, "purple"), [&*first]);
    // Nobody edits what others have said.
    let foreign = edit(&bob, &room, &first, "a red cow");
    assert_eq!(found(&alice, "purple"), [&*first]);
    assert_eq!(found(&alice, "red"), [""; 0]);
    assert!(!found(&alice, "cow").is_empty() && !foreign.is_empty());
    edit(&alice, &room, &first, "a blue cow");
    alice.redact(&room, &first, "all of it").ok();
    for word in ["purple", "green", "yellow", "blue"] {
        assert_eq!(found(&alice, word), [""; 0], "{word}");
    }
}

// Checklist 6.11
#[test]
fn only_what_a_user_may_see_is_found() {
    let server = Server::start();
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(|name| server.user(name));
    let joined_only = json!({ "preset": "public_chat", "initial_state": [{
        "type": "m.room.history_visibility", "state_key": "",
        "content": { "history_visibility": "joined" } }] });
    let room = alice.create_room(joined_only).room_id();
    alice.say(&room, "needle before bob").ok();
    bob.join(&room).ok();
    let seen = alice.say(&room, "needle with bob").event_id();
    assert_eq!(found(&bob, "needle"), [&*seen]);
    bob.leave(&room).ok();
    alice.say(&room, "needle after bob").ok();
    assert_eq!(found(&bob, "needle"), [&*seen], "a room that was left, up to the leave");
    assert_eq!(found(&alice, "needle").len(), 3);
    assert_eq!(found(&carol, "needle"), [""; 0]);
    bob.membership(&room, "forget", json!({})).ok();
    assert_eq!(found(&bob, "needle"), [""; 0]);
    // Nothing is found any more where all is to be encrypted.
    let secret = alice.public_room();
    alice.say(&secret, "thimble in clear").ok();
    assert_eq!(found(&alice, "thimble").len(), 1);
    let encryption = json!({ "algorithm": "m.megolm.v1.aes-sha2" });
    alice.set_state(&secret, "m.room.encryption", "", encryption).ok();
    alice.say(&secret, "thimble again").ok();
    assert_eq!(found(&alice, "thimble"), [""; 0]);
    // Whom one ignores one does not find.
    let open = alice.public_room();
    carol.join(&open).ok();
    carol.say(&open, "a thread").ok();
    assert_eq!(found(&alice, "thread").len(), 1);
    let list = path("/_matrix/client/v3/user/{}/account_data/m.ignored_user_list", &[&alice.id]);
    alice.http.put(&list, &json!({ "ignored_users": { &carol.id: {} } })).ok();
    assert_eq!(found(&alice, "thread"), [""; 0]);
}

// Checklist 6.4
#[test]
fn filters_order_and_pages() {
    let server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let rooms = [alice.public_room(), alice.public_room()];
    rooms.iter().for_each(|room| drop(bob.join(room).ok()));
    let mut sent = Vec::new();
    for n in 0..12 {
        let user = [&alice, &bob][n % 2];
        sent.insert(0, user.say(&rooms[n / 6], &format!("apple number {n}")).event_id());
    }
    let best = alice.say(&rooms[0], "apple apple").event_id();
    sent.insert(0, best.clone());
    let with = |filter: Value| {
        let results = find(
            &bob,
            json!({ "search_term": "apple", "order_by": "recent",
            "filter": filter }),
        );
        ids(&results).len()
    };
    assert_eq!(with(json!({})), 10, "so many by default");
    assert_eq!(with(json!({ "limit": 100 })), 13);
    assert_eq!(with(json!({ "limit": 100, "rooms": [rooms[0]] })), 7);
    assert_eq!(with(json!({ "limit": 100, "not_rooms": [rooms[0]] })), 6);
    assert_eq!(with(json!({ "limit": 100, "senders": [bob.id] })), 6);
    assert_eq!(with(json!({ "limit": 100, "not_senders": [bob.id] })), 7);
    assert_eq!(with(json!({ "limit": 100, "types": ["m.room.*"] })), 13);
    assert_eq!(with(json!({ "limit": 100, "types": ["m.room.name"] })), 0);
    assert_eq!(with(json!({ "limit": 100, "not_types": ["m.room.message"] })), 0);
    assert_eq!(with(json!({ "limit": 100, "contains_url": true })), 0);
    let ranked = find(&bob, json!({ "search_term": "apple" }));
    assert_eq!(ids(&ranked)[0], best);
    // Pages go on where the last one ended, whatever is said meanwhile.
    let criteria = json!({ "search_term": "apple", "order_by": "recent",
        "filter": { "limit": 5 } });
    let body = json!({ "search_categories": { "room_events": criteria } });
    let (mut at, mut all) = (SEARCH.to_owned(), Vec::new());
    loop {
        let page = bob.http.post(&at, &body).ok();
        let page = &page["search_categories"]["room_events"];
        all.extend(ids(page).into_iter().map(str::to_owned));
        if all.len() == 5 {
            assert_eq!(page["count"], 13);
        }
        alice.say(&rooms[1], "another apple").ok();
        let Some(token) = page["next_batch"].as_str() else { break };
        at = path("/_matrix/client/v3/search?next_batch={}", &[token]);
    }
    assert_eq!(all, sent);
}

#[test]
fn results_come_with_context_state_and_groups() {
    let server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let name = path("/_matrix/client/v3/profile/{}/displayname", &[&alice.id]);
    alice.http.put(&name, &json!({ "displayname": "Alice" })).ok();
    let rooms = [alice.public_room(), alice.public_room()];
    rooms.iter().for_each(|room| drop(bob.join(room).ok()));
    let around: Vec<_> =
        (0..3).map(|n| alice.say(&rooms[0], &format!("before {n}")).event_id()).collect();
    let pear = bob.say(&rooms[0], "a pear").event_id();
    let after = alice.say(&rooms[0], "after").event_id();
    let other = alice.say(&rooms[1], "the other pear").event_id();
    let results = find(
        &bob,
        json!({ "search_term": "pear", "order_by": "recent",
        "include_state": true,
        "event_context": { "before_limit": 2, "after_limit": 1, "include_profile": true },
        "groupings": { "group_by": [{ "key": "room_id" }, { "key": "sender" }] } }),
    );
    assert_eq!(ids(&results), [&*other, &*pear]);
    let context = &results["results"][1]["context"];
    let of = |key: &str| {
        let events = context[key].as_array().unwrap().iter();
        events.map(|event| event["event_id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(of("events_before"), [&*around[2], &*around[1]]);
    assert_eq!(of("events_after"), [&*after]);
    assert_eq!(context["profile_info"][&alice.id]["displayname"], "Alice");
    assert!(context["profile_info"][&bob.id].is_object());
    let start = context["start"].as_str().unwrap();
    let more = bob.room(&rooms[0], &path("messages?dir=b&limit=1&from={}", &[start])).ok();
    assert_eq!(more.chunk()[0]["event_id"], json!(around[0]));
    for room in &rooms {
        let state = results["state"][room].as_array().unwrap();
        assert!(state.iter().any(|event| event["type"] == "m.room.create"));
    }
    let groups = &results["groups"];
    assert_eq!(groups["room_id"][&rooms[0]]["results"], json!([pear]));
    assert_eq!(groups["room_id"][&rooms[1]]["results"], json!([other]));
    assert_eq!(groups["sender"][&bob.id]["results"], json!([pear]));
    assert_eq!(groups["room_id"][&rooms[1]]["order"], 0);
    let plain = find(&bob, json!({ "search_term": "pear", "event_context": {} }));
    assert!(!plain["results"][0]["context"]["events_before"].as_array().unwrap().is_empty());
}

#[test]
fn a_group_has_pages_of_its_own() {
    let server = Server::start();
    let alice = server.user("alice");
    let rooms = [alice.public_room(), alice.public_room()];
    let mut sent = [Vec::new(), Vec::new()];
    for n in 0..8 {
        let event = alice.say(&rooms[n % 2], "plum").event_id();
        sent[n % 2].insert(0, event);
    }
    let criteria = json!({ "search_term": "plum", "order_by": "recent", "filter": { "limit": 3 },
        "groupings": { "group_by": [{ "key": "room_id" }] } });
    let body = json!({ "search_categories": { "room_events": criteria } });
    let mut got = Vec::new();
    let mut at = SEARCH.to_owned();
    loop {
        let page = alice.http.post(&at, &body).ok();
        let group = &page["search_categories"]["room_events"]["groups"]["room_id"][&rooms[0]];
        let results = group["results"].as_array().cloned().unwrap_or_default();
        got.extend(results.into_iter().map(|id| id.as_str().unwrap().to_owned()));
        let Some(token) = group["next_batch"].as_str() else { break };
        at = path("/_matrix/client/v3/search?next_batch={}", &[token]);
    }
    assert_eq!(got, sent[0]);
}

#[test]
fn an_upgraded_room_is_searched_with_what_it_was() {
    let server = Server::start();
    let alice = server.user("alice");
    let old = alice.public_room();
    let said = alice.say(&old, "a fig").event_id();
    let new = alice.create_room(json!({ "preset": "public_chat", "creation_content":
        { "predecessor": { "room_id": old, "event_id": said } } }));
    let filter = |room: &str| json!({ "search_term": "fig", "filter": { "rooms": [room] } });
    assert_eq!(ids(&find(&alice, filter(&new.room_id()))), [&*said]);
}

#[test]
fn a_damaged_or_missing_index_is_built_anew() {
    let mut server = Server::start();
    let alice = server.user("alice");
    let room = alice.public_room();
    let said = alice.say(&room, "a quince").event_id();
    assert_eq!(found(&alice, "quince"), [&*said]);
    let again = |server: &Server| {
        let alice = server.again(&alice);
        let until = deadline(Duration::from_secs(20));
        while found(&alice, "quince") != [&*said] {
            assert!(!until.passed(), "the index was not built anew");
        }
    };
    let dir = server.data().join("search");
    server.kill();
    fs::write(dir.join("text.sqlite"), [7; 10_000]).unwrap();
    server.restart();
    again(&server);
    server.kill();
    fs::remove_dir_all(&dir).unwrap();
    server.restart();
    again(&server);
}

#[test]
fn results_tell_of_their_children() {
    let server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let room = alice.public_room();
    bob.join(&room).ok();
    let root = alice.say(&room, "a thread begins").event_id();
    let reply = json!({ "msgtype": "m.text", "body": "and goes on",
        "m.relates_to": { "rel_type": "m.thread", "event_id": root } });
    let reply = bob.send(&room, "m.room.message", reply).event_id();
    let results = find(&alice, json!({ "search_term": "begins" }));
    assert_eq!(ids(&results), [&*root]);
    let thread = &results["results"][0]["result"]["unsigned"]["m.relations"]["m.thread"];
    assert_eq!((&thread["count"], &thread["latest_event"]["event_id"]), (&json!(1), &json!(reply)));
}
