//! What a client's filter does to `/sync`, and what `/sync` refuses.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::common::{Ask, Server, path};

const SYNC: &str = "/_matrix/client/v3/sync";

#[test]
fn rooms_are_chosen_at_each_place() {
    let server = Server::start();
    let alice = server.user("alice");
    let [one, two] = [alice.public_room(), alice.public_room()];
    for room in [&one, &two] {
        let at = "/_matrix/client/v3/user/{}/rooms/{}/account_data/org.example";
        alice.http.put(&path(at, &[&alice.id, room]), &json!({ "a": 1 })).ok();
    }
    let sync = |filter: Value| alice.sync(Ask::initial().filter(filter)).ok();
    let rooms = |filter: Value| {
        let answer = sync(filter);
        let rooms = answer["rooms"]["join"].as_object().cloned().unwrap_or_default();
        [&one, &two].map(|room| rooms.contains_key(room))
    };
    assert_eq!(rooms(json!({})), [true, true]);
    assert_eq!(rooms(json!({ "room": { "rooms": [one] } })), [true, false]);
    assert_eq!(rooms(json!({ "room": { "not_rooms": [one] } })), [false, true]);
    assert_eq!(rooms(json!({ "room": { "rooms": [one], "not_rooms": [one] } })), [false, false]);
    for (part, events) in [("timeline", true), ("state", true), ("account_data", false)] {
        let answer =
            sync(json!({ "room": { "timeline": { "limit": 1 }, part: { "rooms": [one] } } }));
        let has = |room: &String| {
            let section = &answer["rooms"]["join"][room][part]["events"];
            section.as_array().is_some_and(|list| !list.is_empty())
        };
        assert!(has(&one) && !has(&two), "{part} {events}: {}", answer.body);
    }
}

#[test]
fn kinds_of_events_are_chosen() {
    let server = Server::start();
    let alice = server.user("alice");
    let room = alice.public_room();
    let data = path("/_matrix/client/v3/user/{}/account_data/org.example", &[&alice.id]);
    alice.http.put(&data, &json!({ "a": 1 })).ok();
    let token = alice.sync(Ask::initial()).ok().next_batch();
    let event = alice.send(&room, "org.example.picture", json!({ "url": "mxc://a/b" })).event_id();
    alice.say(&room, "text").ok();
    let timeline = |filter: Value| {
        let filter = json!({ "room": { "timeline": filter } });
        let answer = alice.sync(Ask::since(&token).filter(filter)).ok();
        answer.timeline(&room).len()
    };
    assert_eq!(timeline(json!({})), 2);
    assert_eq!(timeline(json!({ "not_types": ["m.*"] })), 1);
    assert_eq!(timeline(json!({ "contains_url": true })), 1);
    assert_eq!(timeline(json!({ "senders": [alice.id] })), 2);
    assert_eq!(timeline(json!({ "not_senders": [alice.id] })), 0);
    assert_eq!(timeline(json!({ "types": [] })), 0);
    let state = |filter: Value| {
        let filter = json!({ "room": { "state": filter, "timeline": { "types": [] } } });
        let answer = alice.sync(Ask::initial().filter(filter)).ok();
        let state = answer.state_before(&room).into_iter();
        state.map(|event| event["type"].as_str().unwrap().to_owned()).collect::<BTreeSet<_>>()
    };
    let all = state(json!({}));
    let without = |kind: &str| {
        let mut others = all.clone();
        assert!(others.remove(kind));
        others
    };
    assert_eq!(
        state(json!({ "types": ["*.member"] })),
        BTreeSet::from(["m.room.member".to_owned()])
    );
    assert_eq!(state(json!({ "not_types": ["m.room.member"] })), without("m.room.member"));
    assert_eq!(state(json!({ "not_types": ["m.room.create"] })), without("m.room.create"));
    assert_eq!(state(json!({ "types": [] })), BTreeSet::new());
    let global = |filter: Value| {
        let answer = alice.sync(Ask::initial().filter(json!({ "account_data": filter }))).ok();
        answer["account_data"]["events"].as_array().map_or(0, Vec::len)
    };
    assert_eq!(global(json!({})), 2);
    assert_eq!(global(json!({ "types": ["org.*"] })), 1);
    assert_eq!(global(json!({ "not_types": ["*"] })), 0);
    let none = json!({ "room": { "timeline": { "limit": 0 } } });
    let answer = alice.sync(Ask::since(&token).filter(none)).ok();
    let section = &answer["rooms"]["join"][&room]["timeline"];
    assert_eq!((&section["limited"], &section["events"]), (&json!(true), &json!([])));
    let from = section["prev_batch"].as_str().unwrap();
    let older = alice.room(&room, &path("messages?dir=b&limit=2&from={}", &[from])).ok();
    assert_eq!(older.chunk()[1]["event_id"], json!(event));
    // Where nothing is shown that could be a start, there is a history to page through, too.
    let nothing = json!({ "room": { "timeline": { "types": [] } } });
    let answer = alice.sync(Ask::initial().filter(nothing)).ok();
    let section = &answer["rooms"]["join"][&room]["timeline"];
    let from = section["prev_batch"].as_str().unwrap();
    let older = alice.room(&room, &path("messages?dir=b&limit=2&from={}", &[from])).ok();
    assert_eq!(older.chunk()[1]["event_id"], json!(event));
}

#[test]
fn events_take_the_shape_that_is_asked_for() {
    let server = Server::start();
    let alice = server.user("alice");
    let room = alice.public_room();
    let token = alice.sync(Ask::initial()).ok().next_batch();
    alice.send(&room, "org.example", json!({ "kept": { "a": 1 }, "dropped": 2 })).ok();
    let event = |filter: Value| {
        let answer = alice.sync(Ask::since(&token).filter(filter)).ok();
        answer.timeline(&room).remove(0)
    };
    let cut = event(json!({ "event_fields": ["type", "content.kept"] }));
    assert_eq!(cut["content"], json!({ "kept": { "a": 1 } }));
    assert!(cut["unsigned"].is_null() && cut["event_id"].is_string(), "{cut}");
    let whole = event(json!({ "event_format": "federation" }));
    for field in ["auth_events", "prev_events", "hashes", "signatures", "depth", "event_id"] {
        assert!(!whole[field].is_null(), "{field} in {whole}");
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let server = Server::start();
    let alice = server.user("alice");
    alice.sync(Ask::initial()).ok();
    let get = |query: &str, arguments: &[&str]| {
        alice.http.get(&format!("{SYNC}?{}", path(query, arguments)))
    };
    get("filter={}", &["{"]).refused(400, "M_NOT_JSON");
    get("filter={}", &["{\"room\":3}"]).refused(400, "M_BAD_JSON");
    get("filter={}", &["{\"event_format\":\"raw\"}"]).refused(400, "M_BAD_JSON");
    get("filter={}", &["nobody-stored-this"]).refused(400, "M_INVALID_PARAM");
    for since in ["", "s", "s1_1", "g1_1_1", "s1_99999999999_0", "\u{0}", "s1_-1_0"] {
        get("since={}", &[since]).refused(400, "M_INVALID_PARAM");
    }
    get("timeout={}", &["soon"]).refused(400, "M_INVALID_PARAM");
    for presence in ["offline", "unavailable", "online"] {
        get("set_presence={}", &[presence]).ok();
    }
    get("set_presence={}", &["away"]).refused(400, "M_INVALID_PARAM");
    server.http.get(SYNC).refused(401, "M_MISSING_TOKEN");
    server.http.with_token("wrong").get(SYNC).refused(401, "M_UNKNOWN_TOKEN");
    alice.http.get("/_matrix/client/r0/sync").ok();
}

#[test]
fn a_flood_of_wakes_finds_every_waiting_client() {
    let server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let room = alice.public_room();
    bob.join(&room).ok();
    let token = bob.sync(Ask::initial()).ok().next_batch();
    let devices: Vec<_> = (0..8).map(|_| server.login("bob")).collect();
    std::thread::scope(|scope| {
        let waiting: Vec<_> = devices
            .iter()
            .map(|device| {
                let token = token.clone();
                let room = &room;
                scope.spawn(move || device.sync_until(&token, |a| !a.timeline(room).is_empty()))
            })
            .collect();
        let event = alice.say(&room, "for all").event_id();
        for waiting in waiting {
            assert_eq!(waiting.join().unwrap().timeline(&room)[0]["event_id"], json!(event));
        }
    });
}
