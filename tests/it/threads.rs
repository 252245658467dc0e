//! Threads: what comes with their roots, and the list of them.

use serde_json::{Value, json};

use super::relations::{bundle, edit, react, relate, relating};
use super::rooms_read::{event, ids, room_with};
use crate::common::{Answer, Server, User, path};

fn threads(user: &User, room: &str, more: &str) -> Answer {
    user.http.get(&(path("/_matrix/client/v1/rooms/{}/threads", &[room]) + more))
}

fn roots(user: &User, room: &str, more: &str) -> Vec<String> {
    let chunk = threads(user, room, more).ok().chunk();
    ids(&chunk).into_iter().map(str::to_owned).collect()
}

fn ignore(user: &User, whom: &Value) {
    let what = path("/_matrix/client/v3/user/{}/account_data/m.ignored_user_list", &[&user.id]);
    user.http.put(&what, &json!({ "ignored_users": whom })).ok();
}

// Checklist 7.12, 7.13
#[test]
fn a_thread_is_summed_up_at_its_root() {
    let mut server = Server::start();
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(|name| server.user(name));
    let room = alice.public_room();
    bob.join(&room).ok();
    carol.join(&room).ok();
    let root = alice.say(&room, "root").event_id();
    let first = relate(&bob, &room, "m.thread", &root);
    let second = relate(&bob, &room, "m.thread", &root);
    edit(&bob, &room, &second, "better");
    react(&carol, &room, &second, "👍").ok();
    let told = |user: &User| {
        let thread = bundle(user, &room, &root)["m.thread"].clone();
        let latest = thread["latest_event"]["event_id"].as_str().unwrap_or_default().to_owned();
        (latest, thread["count"].as_u64(), thread["current_user_participated"].as_bool())
    };
    assert_eq!(told(&bob), (second.clone(), Some(2), Some(true)));
    assert_eq!(told(&alice), (second.clone(), Some(2), Some(true)));
    assert_eq!(told(&carol), (second.clone(), Some(2), Some(false)));
    let latest = &bundle(&carol, &room, &root)["m.thread"]["latest_event"];
    let edited = &latest["unsigned"]["m.relations"]["m.replace"]["content"];
    assert_eq!(edited["m.new_content"]["body"], "better");
    // Neither a reply, an edit nor a reaction can be the root of another thread; a rich reply can.
    for parent in [&first, &second] {
        let content = relating("m.thread", parent, "nested");
        carol.send(&room, "m.room.message", content).refused(400, "M_UNKNOWN");
    }
    let rich = json!({ "msgtype": "m.text", "body": "so what",
        "m.relates_to": { "m.in_reply_to": { "event_id": root } } });
    let rich = carol.send(&room, "m.room.message", rich).event_id();
    relate(&carol, &room, "m.thread", &rich);
    assert_eq!(told(&carol), (second.clone(), Some(2), Some(false)));
    server.restart();
    let [alice, bob, carol] = [&alice, &bob, &carol].map(|user| server.again(user));
    let third = relate(&carol, &room, "m.thread", &root);
    assert_eq!(told(&carol), (third.clone(), Some(3), Some(true)));
    ignore(&alice, &json!({ &carol.id: {} }));
    assert_eq!(told(&alice), (second.clone(), Some(2), Some(true)));
    bob.redact(&room, &second, "no").ok();
    assert_eq!(told(&alice), (first.clone(), Some(1), Some(true)));
    assert_eq!(told(&bob), (third.clone(), Some(2), Some(true)));
    carol.redact(&room, &third, "no").ok();
    assert_eq!(told(&carol), (first.clone(), Some(1), Some(false)));
    bob.redact(&room, &first, "no").ok();
    assert!(bundle(&alice, &room, &root).is_null());
}

// Checklist 6.7
#[test]
fn threads_are_listed_by_their_latest_reply() {
    let mut server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let room = alice.public_room();
    bob.join(&room).ok();
    assert!(roots(&alice, &room, "").is_empty());
    let all: Vec<_> = (0..5).map(|n| alice.say(&room, &n.to_string()).event_id()).collect();
    all.iter().for_each(|root| drop(relate(&alice, &room, "m.thread", root)));
    let last = relate(&bob, &room, "m.thread", &all[1]);
    let bobs = bob.say(&room, "bob's").event_id();
    relate(&alice, &room, "m.thread", &bobs);
    let expected = [&bobs, &all[1], &all[4], &all[3], &all[2], &all[0]];
    let check = |alice: &User| {
        assert_eq!(roots(alice, &room, "").iter().collect::<Vec<_>>(), expected);
        let (mut found, mut from) = (Vec::new(), String::new());
        loop {
            let page = threads(alice, &room, &format!("?limit=4{from}")).ok();
            found.extend(ids(&page.chunk()).into_iter().map(str::to_owned));
            let Some(next) = page["next_batch"].as_str() else { break };
            from = path("&from={}", &[next]);
        }
        assert_eq!(found.iter().collect::<Vec<_>>(), expected);
    };
    check(&alice);
    server.restart();
    let [alice, bob] = [&alice, &bob].map(|user| server.again(user));
    check(&alice);
    let chunk = threads(&bob, &room, "?include=all&limit=1").ok().chunk();
    assert_eq!(chunk[0]["unsigned"]["m.relations"]["m.thread"]["count"], 1, "{chunk:?}");
    assert_eq!(roots(&bob, &room, "?include=participated"), [&*bobs, &all[1]]);
    assert_eq!(roots(&alice, &room, "?include=participated").len(), 6);
    ignore(&alice, &json!({ &bob.id: {} }));
    let chunk = threads(&alice, &room, "?limit=1").ok().chunk();
    assert_eq!((&chunk[0]["event_id"], &chunk[0]["content"]), (&json!(bobs), &json!({})));
    ignore(&alice, &json!({}));
    bob.redact(&room, &last, "no").ok();
    assert_eq!(roots(&alice, &room, "?limit=2"), [&*bobs, &all[4]]);
    assert_eq!(roots(&bob, &room, "?include=participated"), [&*bobs]);
    for more in ["?limit=0", "?limit=x", "?from=garbage", "?include=some"] {
        threads(&alice, &room, more).refused(400, "M_INVALID_PARAM");
    }
}

#[test]
fn threads_are_for_those_who_may_read_the_room() {
    let server = Server::start();
    let [alice, bob, eve] = ["alice", "bob", "eve"].map(|name| server.user(name));
    let room = room_with(&alice, "joined");
    let early = alice.say(&room, "early").event_id();
    relate(&alice, &room, "m.thread", &early);
    bob.join(&room).ok();
    let root = alice.say(&room, "root").event_id();
    let reply = relate(&alice, &room, "m.thread", &root);
    threads(&eve, &room, "").refused(403, "M_FORBIDDEN");
    threads(&eve, "!nowhere:localhost", "").refused(403, "M_FORBIDDEN");
    assert_eq!(roots(&bob, &room, ""), [&*root]);
    bob.leave(&room).ok();
    let unseen = relate(&alice, &room, "m.thread", &root);
    let later = alice.say(&room, "later").event_id();
    relate(&alice, &room, "m.thread", &later);
    let chunk = threads(&bob, &room, "").ok().chunk();
    assert_eq!(ids(&chunk), [&*root]);
    let latest = |event: &Value| {
        event["unsigned"]["m.relations"]["m.thread"]["latest_event"]["event_id"].clone()
    };
    assert_eq!(latest(&chunk[0]), reply.as_str());
    assert_eq!(latest(&event(&alice, &room, &root).ok().body), unseen.as_str());
}

#[test]
fn replies_that_come_at_once_are_all_counted() {
    let mut server = Server::start();
    let alice = server.user("alice");
    let room = alice.public_room();
    let root = alice.say(&room, "root").event_id();
    let talkers: Vec<_> = (0..6).map(|n| server.user(&format!("talker{n}"))).collect();
    talkers.iter().for_each(|talker| drop(talker.join(&room).ok()));
    std::thread::scope(|scope| {
        for talker in &talkers {
            scope.spawn(|| {
                for n in 0..8 {
                    let reply = relate(talker, &room, "m.thread", &root);
                    if n % 2 == 0 {
                        talker.redact(&room, &reply, "no").ok();
                    }
                }
            });
        }
    });
    let listed = |user: &User| {
        let what = path("/_matrix/client/v1/rooms/{}/relations/{}", &[&room, &root]);
        user.http.get(&format!("{what}/m.thread?limit=100")).ok().chunk()
    };
    let check = |user: &User| {
        let thread = bundle(user, &room, &root)["m.thread"].clone();
        let all = listed(user);
        assert_eq!((all.len(), thread["count"].as_u64()), (24, Some(24)));
        assert_eq!(thread["latest_event"]["event_id"], all[0]["event_id"]);
    };
    check(&alice);
    server.restart();
    check(&server.again(&alice));
}
