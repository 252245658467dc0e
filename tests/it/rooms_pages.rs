//! Paging through history: `/messages` and `/context`.

use serde_json::{Value, json};

use super::rooms_read::{event, ids, pages, room_with, said, say_all, with_filter};
use crate::common::{Answer, Ask, Server, path};

#[test]
fn pages_go_on_behind_what_is_invisible() {
    let server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let room = room_with(&alice, "joined");
    say_all(&alice, &room, (0..3).map(|n| format!("before {n}")));
    bob.join(&room).ok();
    alice.say(&room, "first time").ok();
    bob.leave(&room).ok();
    say_all(&alice, &room, (0..150).map(|n| format!("meanwhile {n}")));
    bob.join(&room).ok();
    let page = bob.room(&room, "messages?dir=b&limit=4").ok();
    let membership = |event: &Value| event["content"]["membership"].clone();
    let chunk = page.chunk();
    assert_eq!(said(&chunk), ["first time"]);
    assert_eq!([0, 1, 3].map(|at| membership(&chunk[at])), ["join", "leave", "join"]);
    assert_eq!(ids(&bob.room(&room, "messages?dir=b&limit=2").ok().chunk()), ids(&chunk[..2]));
    // What came before the rule was made is visible, and between it and Bob there is nothing.
    let mut all = pages(&bob, &room, "messages?dir=b&limit=1");
    assert_eq!(ids(&all[..4]), ids(&chunk));
    assert_eq!(all[4]["type"], "m.room.history_visibility");
    assert_eq!(all.last().unwrap()["type"], "m.room.create");
    all.reverse();
    assert_eq!(ids(&pages(&bob, &room, "messages?dir=f&limit=3")), ids(&all));
    let create = json!({ "types": ["m.room.create"] });
    let found = bob.room(&room, &with_filter("messages?dir=b", &create)).ok();
    assert_eq!(found.chunk().len(), 1);
    assert!(found["end"].is_null(), "{}", found.body);
    bob.leave(&room).ok();
    say_all(&alice, &room, (0..3).map(|n| format!("after {n}")));
    let last = bob.room(&room, "messages?dir=f&limit=100").ok();
    assert!(last["end"].is_null(), "{}", last.body);
}

// Checklist 4.14
#[test]
fn a_page_has_two_ends() {
    let server = Server::start();
    let alice = server.user("alice");
    let room = alice.public_room();
    let sent = say_all(&alice, &room, (0..10).map(|n| n.to_string()));
    let newest = alice.room(&room, "messages?dir=b&limit=4").ok();
    assert_eq!(said(&newest.chunk()), ["9", "8", "7", "6"]);
    let (start, end) = (newest.clone().text("start"), newest.text("end"));
    let turn = |dir: &str, from: &str| {
        alice.room(&room, &path("messages?dir={}&limit=3&from={}", &[dir, from])).ok()
    };
    assert_eq!(said(&turn("f", &end).chunk()), ["6", "7", "8"]);
    assert_eq!(said(&turn("b", &end).chunk()), ["5", "4", "3"]);
    assert_eq!(turn("b", &end).text("start"), end);
    let live = turn("f", &start);
    assert!(live.chunk().is_empty() && live["end"].is_null(), "{}", live.body);
    // A stop at a place between the two ends, whatever the direction.
    let stop = turn("b", &end).text("end");
    let bounded = |dir: &str, from: &str, to: &str| {
        let what = path("messages?dir={}&limit=50&from={}&to={}", &[dir, from, to]);
        alice.room(&room, &what).ok()
    };
    let backwards = bounded("b", &start, &stop);
    assert_eq!(said(&backwards.chunk()), ["9", "8", "7", "6", "5", "4", "3"]);
    assert!(backwards["end"].is_null(), "{}", backwards.body);
    let forwards = bounded("f", &stop, &start).chunk();
    assert_eq!(ids(&forwards), sent[3..].iter().map(String::as_str).collect::<Vec<_>>());
    assert!(bounded("f", &start, &stop).chunk().is_empty());
    let nothing = alice.room(&room, "messages?dir=b&limit=0").ok();
    assert!(nothing.chunk().is_empty(), "{}", nothing.body);
    let all = alice.room(&room, "messages?dir=f&limit=9007199254740991").ok();
    assert_eq!(all.chunk()[0]["type"], "m.room.create");
    assert!(all["end"].is_null(), "{}", all.body);
}

// Checklist 4.14
#[test]
fn tokens_of_sync_and_of_messages_fit_together() {
    let server = Server::start();
    let alice = server.user("alice");
    let room = alice.public_room();
    say_all(&alice, &room, (0..6).map(|n| n.to_string()));
    let filter = json!({ "room": { "timeline": { "limit": 2 } } });
    let sync = alice.sync(Ask::initial().filter(filter)).ok();
    assert_eq!(said(&sync.timeline(&room)), ["4", "5"]);
    let prev = sync["rooms"]["join"][&room]["timeline"]["prev_batch"].as_str().unwrap();
    say_all(&alice, &room, (6..9).map(|n| n.to_string()));
    let turn = |dir: &str, from: &str, to: &str| {
        let what = path("messages?dir={}&limit=50&from={}&to={}", &[dir, from, to]);
        alice.room(&room, &what).ok().chunk()
    };
    let next = sync.next_batch();
    let older = path("messages?dir=b&limit=2&from={}", &[prev]);
    let page = alice.room(&room, &older).ok();
    assert_eq!(said(&page.chunk()), ["3", "2"]);
    let end = page.text("end");
    assert_eq!(said(&turn("f", &end, &next)), ["2", "3", "4", "5"]);
    assert_eq!(said(&turn("b", &next, prev)), ["5", "4"]);
    let newer = alice.room(&room, &path("messages?dir=f&from={}", &[&next])).ok();
    assert_eq!(said(&newer.chunk()), ["6", "7", "8"]);
    // Whoever syncs with a token of a room's history is told so.
    alice.sync(Ask::since(&end)).refused(400, "M_INVALID_PARAM");
}

#[test]
fn bad_parameters_are_named() {
    let server = Server::start();
    let alice = server.user("alice");
    let room = alice.public_room();
    let id = alice.say(&room, "hello").event_id();
    for what in [
        "messages?dir=b&from=garbage",
        "messages?dir=b&from=",
        "messages?dir=f&to=s1_1",
        "messages?dir=x",
        "messages?dir=b&limit=-1",
        "messages?dir=b&limit=many",
        "messages?dir=b&filter=%7B",
        "messages?dir=b&filter=%7B%22types%22:1%7D",
        "members?at=g1_01_1",
        "state/m.room.create/?format=odd",
    ] {
        alice.room(&room, what).refused(400, "M_INVALID_PARAM");
    }
    alice.room(&room, "messages").refused(400, "M_MISSING_PARAM");
    let context = path("context/{}?limit=-1", &[&id]);
    alice.room(&room, &context).refused(400, "M_INVALID_PARAM");
    server.http.get("/_matrix/client/v3/rooms/!a:b/state").refused(401, "M_MISSING_TOKEN");
    alice.room(&room, "state/m.room.create/other").refused(404, "M_NOT_FOUND");
    alice.room(&room, "state/never.seen/").refused(404, "M_NOT_FOUND");
    event(&alice, &room, "$nothing:localhost").refused(404, "M_NOT_FOUND");
}

#[test]
fn filters_pick_events_of_a_page() {
    let server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let room = alice.public_room();
    bob.join(&room).ok();
    alice.say(&room, "from alice").ok();
    bob.say(&room, "from bob").ok();
    let image = json!({ "msgtype": "m.image", "body": "an image", "url": "mxc://a/b" });
    bob.send(&room, "m.room.message", image).ok();
    bob.send(&room, "org.example.other", json!({ "body": "other" })).ok();
    for (filter, expected) in [
        (json!({ "types": ["m.room.message"] }), vec!["from alice", "from bob", "an image"]),
        (json!({ "types": ["m.room.mess*"], "senders": [alice.id] }), vec!["from alice"]),
        (json!({ "types": ["m.room.*"], "not_senders": [alice.id], "contains_url": false }), {
            vec!["from bob"]
        }),
        (json!({ "contains_url": true }), vec!["an image"]),
        (json!({ "not_types": ["m.room.message"] }), vec![]),
        (json!({ "types": [] }), vec![]),
        (json!({ "not_rooms": [room] }), vec![]),
        (json!({ "rooms": [] }), vec![]),
        (json!({ "rooms": [room], "limit": 1, "contains_url": true }), vec!["an image"]),
    ] {
        let what = with_filter("messages?dir=f&limit=100", &filter);
        assert_eq!(said(&alice.room(&room, &what).ok().chunk()), expected, "{filter}");
    }
    let few = with_filter("messages?dir=b&limit=100", &json!({ "limit": 2 }));
    assert_eq!(alice.room(&room, &few).ok().chunk().len(), 2);
    let one_by_one = with_filter("messages?dir=f&limit=1", &json!({ "types": ["m.room.message"] }));
    assert_eq!(pages(&alice, &room, &one_by_one).len(), 3);
}

#[test]
fn lazy_loading_adds_the_senders() {
    let server = Server::start();
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(|name| server.user(name));
    let room = alice.public_room();
    bob.join(&room).ok();
    carol.join(&room).ok();
    let id = bob.say(&room, "hello").event_id();
    let members = |answer: &Answer| -> Vec<String> {
        let state = answer["state"].as_array().cloned().unwrap_or_default();
        let members = state.iter().filter(|event| event["type"] == "m.room.member");
        let mut keys: Vec<_> =
            members.map(|event| event["state_key"].as_str().unwrap().to_owned()).collect();
        keys.sort();
        keys
    };
    let lazy = json!({ "lazy_load_members": true });
    let page = alice.room(&room, &with_filter("messages?dir=b&limit=1", &lazy)).ok();
    assert_eq!(members(&page), [&*bob.id]);
    let whole = alice.room(&room, "messages?dir=b&limit=1").ok();
    assert!(whole["state"].is_null(), "{}", whole.body);
    let context = path("context/{}", &[&id]) + "?limit=0";
    assert_eq!(members(&alice.room(&room, &context).ok()).len(), 3);
    let lazily = alice.room(&room, &with_filter(&context, &lazy)).ok();
    assert_eq!(members(&lazily), [&*bob.id]);
    let has_create = |event: &Value| event["type"] == "m.room.create";
    assert!(lazily["state"].as_array().unwrap().iter().any(has_create), "{}", lazily.body);
}

#[test]
fn context_splits_its_limit_and_leads_on() {
    let server = Server::start();
    let alice = server.user("alice");
    let room = alice.public_room();
    let set_name = |name: &str| alice.set_state(&room, "m.room.name", "", json!({ "name": name }));
    set_name("Early").ok();
    let sent = say_all(&alice, &room, (0..9).map(|n| n.to_string()));
    set_name("Late").ok();
    let around =
        |limit: &str| alice.room(&room, &(path("context/{}?limit=", &[&sent[4]]) + limit)).ok();
    let list = |answer: &Answer, key: &str| answer[key].as_array().cloned().unwrap_or_default();
    let name = |answer: &Answer| {
        let state = list(answer, "state");
        let name = state.iter().find(|event| event["type"] == "m.room.name").unwrap();
        name["content"]["name"].as_str().unwrap().to_owned()
    };
    let odd = around("3");
    assert_eq!(said(&list(&odd, "events_before")), ["3"]);
    assert_eq!(said(&list(&odd, "events_after")), ["5", "6"]);
    assert_eq!(name(&odd), "Early");
    let wide = around("10");
    assert_eq!(name(&wide), "Late", "the state is that at the last event");
    assert_eq!(list(&wide, "events_after").last().unwrap()["type"], "m.room.name");
    let bare = around("0");
    assert_eq!(bare["event"]["event_id"], sent[4].as_str());
    assert!(list(&bare, "events_before").is_empty() && list(&bare, "events_after").is_empty());
    for answer in [&odd, &bare] {
        let turn = |dir: &str, key: &str| {
            let from = answer.clone().text(key);
            let what = path("messages?dir={}&limit=1&from={}", &[dir, &from]);
            said(&alice.room(&room, &what).ok().chunk()).join("")
        };
        let expected = if answer["events_before"].is_array() { ("2", "7") } else { ("3", "5") };
        assert_eq!((&*turn("b", "start"), &*turn("f", "end")), expected);
    }
    let filter = json!({ "types": ["m.room.name"] });
    let filtered = with_filter(&(path("context/{}", &[&sent[4]]) + "?limit=4"), &filter);
    let filtered = alice.room(&room, &filtered).ok();
    assert_eq!(said(std::slice::from_ref(&filtered["event"])), ["4"]);
    let kinds = |key: &str| list(&filtered, key).iter().all(|e| e["type"] == "m.room.name");
    assert!(["events_before", "events_after", "state"].into_iter().all(kinds), "{filtered:?}");
}

#[test]
fn ignored_users_are_not_heard() {
    let server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let room = alice.public_room();
    bob.join(&room).ok();
    bob.say(&room, "noise").ok();
    let id = alice.say(&room, "signal").event_id();
    let list = path("/_matrix/client/v3/user/{}/account_data/m.ignored_user_list", &[&alice.id]);
    let read = || {
        let page = alice.room(&room, "messages?dir=f&limit=50").ok().chunk();
        let around = alice.room(&room, &path("context/{}", &[&id])).ok();
        let before = around["events_before"].as_array().unwrap().clone();
        let joins = |events: &[Value]| events.iter().any(|e| e["state_key"] == bob.id.as_str());
        assert!(joins(&page) && joins(&before), "state events stay");
        (said(&page).join(","), said(&before).join(","))
    };
    assert_eq!(read(), ("noise,signal".into(), "noise".into()));
    alice.http.put(&list, &json!({ "ignored_users": { &bob.id: {}, &alice.id: {} } })).ok();
    assert_eq!(read(), ("signal".into(), String::new()));
    alice.http.put(&list, &json!({ "ignored_users": ["nonsense"] })).ok();
    assert_eq!(read(), ("noise,signal".into(), "noise".into()));
}
