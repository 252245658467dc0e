//! History that is not here: users page back, and other servers are asked.

use serde_json::{Value, json};

use super::{join, pair};
use crate::common::{Ask, User, path};

/// How many messages there are before the other server comes.
const OLD: usize = 230;

/// All messages of a room from its end back to its beginning, newest first, and what came last.
fn page_back(user: &User, room: &str, limit: usize) -> (Vec<String>, Value) {
    page_back_from(user, room, limit, String::new())
}

fn page_back_from(user: &User, room: &str, limit: usize, mut from: String) -> (Vec<String>, Value) {
    let (mut texts, mut last) = (Vec::new(), Value::Null);
    for _ in 0..200 {
        let page = user.room(room, &format!("messages?dir=b&limit={limit}{from}")).ok();
        for event in page.chunk() {
            texts.extend(event["content"]["body"].as_str().map(str::to_owned));
            last = event;
        }
        let Some(end) = page["end"].as_str() else { return (texts, last) };
        from = path("&from={}", &[end]);
    }
    panic!("this does not end");
}

fn expected() -> Vec<String> {
    (0..OLD).rev().map(|n| format!("old {n}")).collect()
}

fn talk(user: &User, room: &str) -> Vec<String> {
    (0..OLD).map(|n| user.say(room, &format!("old {n}")).event_id()).collect()
}

#[test]
fn a_user_pages_back_to_before_the_own_servers_time() {
    let (mut near, mut far) = pair();
    let (alice, bob, carol) = (near.user("alice"), far.user("bob"), far.user("carol"));
    let room = alice.public_room();
    talk(&alice, &room);
    join(&bob, &room, &near).ok();
    carol.join(&room).ok();
    // Two at once, and a third one.
    let (first, second) = std::thread::scope(|scope| {
        let first = scope.spawn(|| page_back(&bob, &room, 50));
        let second = scope.spawn(|| page_back(&carol, &room, 500));
        (first.join().unwrap(), second.join().unwrap())
    });
    for (texts, last) in [first, second, page_back(&bob, &room, 7)] {
        assert_eq!(texts, expected());
        assert_eq!(last["type"], "m.room.create");
    }
    // It is here now, and is found.
    near.kill();
    let found = |user: &User| {
        let criteria = json!({ "search_categories": { "room_events": { "search_term": "123" } } });
        let answer = user.http.post("/_matrix/client/v3/search", &criteria).ok();
        answer["search_categories"]["room_events"]["results"][0]["result"]["content"]["body"]
            .clone()
    };
    assert_eq!(found(&bob), "old 123");
    far.restart();
    let bob = far.again(&bob);
    assert_eq!(found(&bob), "old 123");
    let (texts, last) = page_back(&bob, &room, 100);
    assert_eq!(texts, expected());
    assert_eq!(last["type"], "m.room.create");
    // None of it is new.
    let sync = bob.sync(Ask::initial()).ok();
    let timeline = sync.timeline(&room);
    assert!(timeline.iter().all(|event| event["content"]["body"].is_null()), "{timeline:?}");
    // The timeline says that it does not begin with the room, and leads back from where it begins.
    let section = &sync["rooms"]["join"][&room]["timeline"];
    assert_eq!(section["limited"], true);
    let from = path("&from={}", &[section["prev_batch"].as_str().unwrap()]);
    assert_eq!(page_back_from(&bob, &room, 500, from).0, expected());
}

#[test]
fn who_cannot_be_reached_keeps_nobody_waiting_for_ever() {
    let (mut near, far) = pair();
    let (alice, bob) = (near.user("alice"), far.user("bob"));
    let room = alice.public_room();
    talk(&alice, &room);
    join(&bob, &room, &near).ok();
    near.kill();
    let (texts, _) = page_back(&bob, &room, 10);
    assert_eq!(texts, Vec::<String>::new());
    assert_eq!(bob.say(&room, "still here").status, 200);
    near.restart();
    assert_eq!(page_back(&bob, &room, 100).0[0], "still here");
}

#[test]
fn what_was_said_among_members_alone_stays_among_them() {
    let (near, far) = pair();
    let (alice, bob) = (near.user("alice"), far.user("bob"));
    let room = alice.create_room(json!({ "preset": "public_chat", "initial_state": [{
        "type": "m.room.history_visibility", "content": { "history_visibility": "joined" } }] }));
    let room = room.room_id();
    alice.say(&room, "secret").event_id();
    join(&bob, &room, &near).ok();
    let (texts, _) = page_back(&bob, &room, 100);
    assert_eq!(texts, Vec::<String>::new());
}

// Checklist 6.4
#[test]
fn single_events_are_brought_in_when_somebody_asks() {
    let (near, far) = pair();
    let (alice, bob, eve) = (near.user("alice"), far.user("bob"), far.user("eve"));
    let room = alice.public_room();
    let said = talk(&alice, &room);
    join(&bob, &room, &near).ok();
    let event = |user: &User, id: &str| user.room(&room, &path("event/{}", &[id]));
    event(&eve, &said[200]).refused(404, "M_NOT_FOUND");
    let found = event(&bob, &said[200]).ok();
    assert_eq!(found["content"]["body"], "old 200");
    event(&bob, "$nothing").refused(404, "M_NOT_FOUND");
    let around = bob.room(&room, &path("context/{}?limit=4", &[&said[100]])).ok();
    assert_eq!(around["event"]["content"]["body"], "old 100");
    let time = alice.room(&room, &path("event/{}", &[&said[30]])).ok();
    let time = time["origin_server_ts"].as_u64().unwrap();
    let at = path("/_matrix/client/v1/rooms/{}/timestamp_to_event?", &[&room]);
    let nearest = |user: &User| user.http.get(&format!("{at}ts={time}&dir=f"));
    let told = nearest(&alice).ok();
    assert_eq!(nearest(&bob).ok().body, told.body);
    nearest(&eve).refused(403, "M_FORBIDDEN");
    // From there it goes on in both directions.
    let id = told["event_id"].as_str().unwrap().to_owned();
    let around = bob.room(&room, &path("context/{}?limit=2", &[&id])).ok();
    let start = around["start"].as_str().unwrap();
    let before = bob.room(&room, &path("messages?dir=b&limit=5&from={}", &[start])).ok();
    let before: Vec<_> = before.chunk().iter().map(|e| e["content"]["body"].clone()).collect();
    assert_eq!(before.len(), 5);
    // And the whole of it is there in the end, each event once.
    assert_eq!(page_back(&bob, &room, 100).0, expected());
}

/// A server that comes back finds what it has missed.
#[test]
fn gaps_in_the_middle_are_filled() {
    let (near, mut far) = pair();
    let (alice, bob) = (near.user("alice"), far.user("bob"));
    let room = alice.public_room();
    join(&bob, &room, &near).ok();
    bob.say(&room, "here").event_id();
    let since = bob.sync(Ask::initial()).next_batch();
    far.kill();
    talk(&alice, &room);
    far.restart();
    let bob = far.again(&bob);
    alice.say(&room, "now").event_id();
    bob.sync_until(&since, |sync| {
        sync.timeline(&room).iter().any(|event| event["content"]["body"] == "now")
    });
    let texts = page_back(&bob, &room, 50).0;
    let mut all = vec!["now".to_owned()];
    all.extend(expected());
    all.push("here".to_owned());
    assert_eq!(texts, all);
}
