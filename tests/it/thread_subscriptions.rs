//! Thread subscriptions (MSC4306, MSC4308).

use serde_json::{Value, json};

use crate::common::{Ask, Server, User, path};

fn at(room: &str, root: &str) -> String {
    let proposal = "/_matrix/client/unstable/io.element.msc4306";
    proposal.to_owned() + &path("/rooms/{}/thread/{}/subscription", &[room, root])
}

fn reply(user: &User, room: &str, root: &str) -> String {
    let content = json!({ "msgtype": "m.text", "body": "in a thread",
        "m.relates_to": { "rel_type": "m.thread", "event_id": root } });
    user.send(room, "m.room.message", content).event_id()
}

fn list(user: &User, query: &str) -> Value {
    let proposal = "/_matrix/client/unstable/io.element.msc4308/thread_subscriptions?dir=b";
    user.http.get(&format!("{proposal}{query}")).ok().body
}

fn threads(user: &User, room: &str) -> Value {
    let filter = json!({ "room": { "timeline": { "unread_thread_notifications": true } } });
    let answer = user.sync(Ask::initial().filter(filter)).ok();
    let mut threads = answer["rooms"]["join"][room]["unread_thread_notifications"].clone();
    for thread in threads.as_object_mut().into_iter().flatten() {
        *thread.1 = thread.1["notification_count"].clone();
    }
    threads
}

#[test]
fn a_thread_is_subscribed_to_by_hand_or_by_itself() {
    let mut server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let room = alice.public_room();
    let root = alice.say(&room, "the root").event_id();
    let here = at(&room, &root);
    for (method, body) in [("GET", &b""[..]), ("PUT", b"{}"), ("DELETE", b"")] {
        bob.http.send(method, &here, body).refused(404, "M_NOT_FOUND");
        let nowhere = at(&room, "$nothing");
        alice.http.send(method, &nowhere, body).refused(404, "M_NOT_FOUND");
        server.http.send(method, &here, body).refused(401, "M_MISSING_TOKEN");
    }
    bob.join(&room).ok();
    let (first, second) = (reply(&alice, &room, &root), reply(&alice, &room, &root));
    bob.http.get(&here).refused(404, "M_NOT_FOUND");
    bob.http.send("DELETE", &here, b"").ok();
    let by_itself = |cause: &str| bob.http.put(&here, &json!({ "automatic": cause }));
    by_itself(&root).refused(400, "IO.ELEMENT.MSC4306.M_NOT_IN_THREAD");
    by_itself("$nothing").refused(400, "IO.ELEMENT.MSC4306.M_NOT_IN_THREAD");
    by_itself(&first).ok();
    assert_eq!(bob.http.get(&here).ok().body, json!({ "automatic": true }));
    bob.http.put(&here, &json!({})).ok();
    by_itself(&second).ok();
    assert_eq!(bob.http.get(&here).ok().body, json!({ "automatic": false }));
    bob.http.send("DELETE", &here, b"").ok();
    bob.http.get(&here).refused(404, "M_NOT_FOUND");
    // What was there when the user unsubscribed brings no subscription back.
    for known in [&first, &second] {
        by_itself(known).refused(409, "IO.ELEMENT.MSC4306.M_CONFLICTING_UNSUBSCRIPTION");
    }
    by_itself(&reply(&alice, &room, &root)).ok();
    server.restart();
    let bob = server.again(&bob);
    assert_eq!(bob.http.get(&here).ok().body, json!({ "automatic": true }));
    for body in [json!({ "automatic": 1 }), json!({ "automatic": "nonsense" })] {
        bob.http.put(&here, &body).refused(400, "M_BAD_JSON");
    }
}

#[test]
fn changes_are_listed_newest_first() {
    let server = Server::start();
    let alice = server.user("alice");
    let rooms = [alice.public_room(), alice.public_room()];
    let roots: Vec<_> = rooms.iter().map(|room| alice.say(room, "root").event_id()).collect();
    assert_eq!(list(&alice, ""), json!({}));
    alice.http.put(&at(&rooms[0], &roots[0]), &json!({})).ok();
    alice.http.put(&at(&rooms[1], &roots[1]), &json!({})).ok();
    alice.http.send("DELETE", &at(&rooms[0], &roots[0]), b"").ok();
    let all = list(&alice, "");
    let stamp = |kind: &str, n: usize| all[kind][&rooms[n]][&roots[n]]["bump_stamp"].clone();
    let (subscribed, ended) = (stamp("subscribed", 1), stamp("unsubscribed", 0));
    assert!(subscribed.as_u64() < ended.as_u64(), "{all}");
    assert_eq!(all["subscribed"][&rooms[1]][&roots[1]]["automatic"], false);
    let page = list(&alice, "&limit=1");
    assert_eq!(page["unsubscribed"], all["unsubscribed"]);
    assert!(page["subscribed"].is_null(), "{page}");
    let end = page["end"].as_str().unwrap();
    let rest = list(&alice, &path("&limit=5&from={}", &[end]));
    assert_eq!(rest, json!({ "subscribed": all["subscribed"] }));
    let upto = list(&alice, &path("&to={}", &[end]));
    assert_eq!(upto, json!({ "unsubscribed": all["unsubscribed"] }));
    let bad = "/_matrix/client/unstable/io.element.msc4308/thread_subscriptions?dir=b&from=x";
    alice.http.get(bad).refused(400, "M_INVALID_PARAM");
}

#[test]
fn who_subscribes_hears_of_these_threads_alone() {
    let server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let room = alice.public_room();
    bob.join(&room).ok();
    let [one, two] = ["one", "two"].map(|text| alice.say(&room, text).event_id());
    reply(&alice, &room, &one);
    reply(&alice, &room, &two);
    // Whose clients don't know of subscriptions hears of all threads.
    assert_eq!(threads(&bob, &room), json!({ &one: 1, &two: 1 }));
    let since = bob.sync(Ask::initial()).ok().next_batch();
    bob.http.put(&at(&room, &one), &json!({})).ok();
    let answer = bob.sync(Ask::since(&since)).ok();
    let rules = &answer["account_data"]["events"][0]["content"]["global"]["postcontent"];
    assert_eq!(rules.as_array().map(Vec::len), Some(2), "{}", answer.body);
    reply(&alice, &room, &one);
    reply(&alice, &room, &two);
    assert_eq!(threads(&bob, &room), json!({ &one: 2 }));
    let mention = json!({ "msgtype": "m.text", "body": "bob!", "m.mentions":
        { "user_ids": [bob.id] }, "m.relates_to": { "rel_type": "m.thread", "event_id": two } });
    alice.send(&room, "m.room.message", mention).ok();
    assert_eq!(threads(&bob, &room), json!({ &one: 2, &two: 1 }));
    // A muted room is heard in the threads that were subscribed to.
    let mute = path("/_matrix/client/v3/pushrules/global/room/{}", &[&room]);
    bob.http.put(&mute, &json!({ "actions": [] })).ok();
    assert_eq!(threads(&bob, &room), json!({ &one: 2, &two: 1 }));
    let rule = path(
        "/_matrix/client/v3/pushrules/global/{}/{}",
        &["io.element.msc4306.postcontent", ".io.element.msc4306.rule.subscribed_thread"],
    );
    assert_eq!(bob.http.get(&rule).ok()["enabled"], true);
    bob.http.put(&format!("{rule}/enabled"), &json!({ "enabled": false })).ok();
    assert_eq!(threads(&bob, &room), json!({ &two: 1 }));
}
