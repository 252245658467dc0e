//! What other servers are told of devices and keys.

use std::{collections::BTreeMap, thread, time::Duration};

use serde_json::{Value, json};

use super::{
    cross_signing::{self, SELF, SIGN, public},
    device_keys, pair, publish, query, sign,
};
use crate::common::{Answer, Ask, Server, Taker, User, Visitor, deadline, path};

fn is_news(edu: &Value) -> bool {
    edu["edu_type"] == "m.device_list_update" || edu["edu_type"] == "m.signing_key_update"
}

fn is_update(edu: &Value) -> bool {
    edu["edu_type"] == "m.device_list_update"
}

/// Checks that updates form a chain, and returns what they say.
#[track_caller]
fn chain(updates: &[Value]) -> Vec<&Value> {
    let contents: Vec<_> = updates.iter().map(|edu| &edu["content"]).collect();
    for pair in contents.windows(2) {
        assert_eq!(pair[1]["prev_id"], json!([pair[0]["stream_id"]]));
        assert!(pair[1]["stream_id"].as_u64() > pair[0]["stream_id"].as_u64());
    }
    contents
}

/// Waits until something is so.
#[track_caller]
fn await_that(is_so: impl Fn() -> bool) {
    let until = deadline(Duration::from_secs(40));
    while !is_so() {
        assert!(!until.passed());
        thread::sleep(Duration::from_millis(20));
    }
}

fn rename(user: &User, name: &str) {
    let at = path("/_matrix/client/v3/devices/{}", &[&user.device]);
    user.http.put(&at, &json!({ "display_name": name })).ok();
}

/// The list as another server asks for it.
fn listed(near: &Server, far: &Taker, user: &User) -> Answer {
    let at = path("/_matrix/federation/v1/user/devices/{}", &[&user.id]);
    far.server.origin.get(near, &at).ok()
}

// Checklist 5.14, 5.15
#[test]
fn every_change_is_told_and_names_the_one_before() {
    let (near, far) = (Server::start_federated(&[]), Taker::start());
    let [alice, stranger] = ["alice", "stranger"].map(|name| near.user(name));
    let _visitor = Visitor::new(&near, &alice, &far.server.origin, "11");
    publish(&stranger, 7);
    publish(&alice, 1);
    publish(&alice, 1);
    far.await_edus(is_news, 1);
    rename(&alice, "phone");
    far.await_edus(is_news, 2);
    let second = near.login("alice");
    publish(&second, 2);
    far.await_edus(is_news, 3);
    let keys = cross_signing::keys(&alice, 0);
    alice.http.post(cross_signing::UPLOAD, &keys).ok();
    far.await_edus(is_news, 4);
    let mut signed = device_keys(&alice, 1);
    sign(&mut signed, &alice.id, &public(SELF), &pair(SELF));
    let signatures = json!({ &alice.id: { &alice.device: signed } });
    alice.http.post(SIGN, &signatures).ok();
    far.await_edus(is_news, 5);
    second.http.post("/_matrix/client/v3/logout", &json!({})).ok();
    let news = far.await_edus(is_news, 6);
    let kinds: Vec<_> = news.iter().map(is_update).collect();
    assert_eq!(kinds, [true, true, true, false, true, true]);
    let signing = json!({ "user_id": alice.id, "master_key": keys["master_key"],
        "self_signing_key": keys["self_signing_key"] });
    assert_eq!(news[3]["content"], signing, "who signs whom is nobody else's business");
    let updates: Vec<_> = news.into_iter().filter(is_update).collect();
    let updates = chain(&updates);
    let devices: Vec<_> = updates.iter().map(|content| &content["device_id"]).collect();
    assert_eq!(
        devices,
        [&alice.device, &alice.device, &second.device, &alice.device, &second.device]
    );
    assert!(updates.iter().all(|content| content["user_id"] == alice.id));
    assert_eq!(updates[0]["prev_id"], Value::Null);
    assert_eq!(updates[0]["keys"]["keys"], device_keys(&alice, 1)["keys"]);
    assert_eq!(updates[0]["device_display_name"], Value::Null);
    assert_eq!(updates[1]["device_display_name"], "phone");
    assert_eq!(updates[3]["keys"]["signatures"], signed["signatures"]);
    assert_eq!((&updates[4]["deleted"], &updates[4]["keys"]), (&json!(true), &Value::Null));
    let list = listed(&near, &far, &alice);
    assert_eq!(list["stream_id"], updates[4]["stream_id"]);
    assert_eq!(list["devices"].as_array().map(Vec::len), Some(1), "{}", list.body);
    // Whoever has asked for the list can go on from there.
    rename(&alice, "old phone");
    let updates = far.await_edus(is_update, 6);
    assert_eq!(updates[5]["content"]["prev_id"], json!([list["stream_id"]]));
}

// Checklist 5.14, 12.6
#[test]
fn who_is_away_hears_of_it_later_also_after_a_crash() {
    let (mut near, far) = (Server::start_federated(&[]), Taker::start());
    let [alice, carol] = ["alice", "carol"].map(|name| near.user(name));
    let room = Visitor::new(&near, &alice, &far.server.origin, "11").room.clone();
    publish(&carol, 9);
    publish(&alice, 1);
    far.await_edus(is_update, 1);
    far.go_away(true);
    rename(&alice, "one");
    near.restart();
    let alice = near.again(&alice);
    rename(&alice, "two");
    near.restart();
    // Whoever comes to that server is told of, too.
    near.again(&carol).join(&room).ok();
    far.go_away(false);
    // What was told in the last seconds before a crash is told once more.
    let by_id = |user: &User| -> BTreeMap<u64, Value> {
        let edus = far.edus().into_iter().rev().filter(is_update);
        let own = edus.filter(|edu| edu["content"]["user_id"] == user.id);
        own.map(|edu| (edu["content"]["stream_id"].as_u64().unwrap(), edu)).collect()
    };
    await_that(|| by_id(&alice).len() == 3 && by_id(&carol).len() == 1);
    let [of_alice, of_carol] =
        [&alice, &carol].map(|user| by_id(user).into_values().collect::<Vec<_>>());
    let names: Vec<_> =
        chain(&of_alice).iter().map(|content| content["device_display_name"].clone()).collect();
    // What is said is what is so now.
    assert_eq!(names, [Value::Null, json!("two"), json!("two")]);
    assert_eq!(of_carol[0]["content"]["keys"]["keys"], device_keys(&carol, 9)["keys"]);
    let list = listed(&near, &far, &carol);
    assert_eq!(list["stream_id"], of_carol[0]["content"]["stream_id"]);
}

// Checklist 5.7, 5.14, 5.15, 12.6
#[test]
fn two_servers_keep_each_other_informed() {
    let (near, mut far) = (Server::start_federated(&[]), Server::start_federated(&[]));
    let (alice, bob) = (near.user("alice"), far.user("bob"));
    let room = alice.public_room();
    let join = path("/_matrix/client/v3/join/{}?via={}", &[&room, &near.name()]);
    bob.http.post(&join, &json!({})).ok();
    publish(&bob, 1);
    let mut since = alice.sync(Ask::initial()).ok().next_batch();
    let device = |user: &User| query(&alice, user)["device_keys"][&bob.id][&user.device].clone();
    assert_eq!(device(&bob)["keys"], device_keys(&bob, 1)["keys"]);
    let mut await_change = || {
        let is_told = |answer: &Answer| answer["device_lists"]["changed"] == json!([bob.id]);
        since = alice.sync_until(&since, is_told).next_batch();
    };
    rename(&bob, "phone");
    // What is told first may still be that the keys are there.
    await_change();
    await_that(|| device(&bob)["unsigned"]["device_display_name"] == "phone");
    let second = far.login("bob");
    publish(&second, 2);
    await_change();
    // The device was there before its keys were, and may have been told of by itself.
    await_that(|| device(&second)["keys"] == device_keys(&second, 2)["keys"]);
    let keys = cross_signing::keys(&bob, 0);
    bob.http.post(cross_signing::UPLOAD, &keys).ok();
    await_change();
    await_that(|| query(&alice, &bob)["master_keys"][&bob.id] == keys["master_key"]);
    // It is killed as soon as it has said yes.
    second.http.post("/_matrix/client/v3/logout", &json!({})).ok();
    far.restart();
    await_that(|| device(&second).is_null());
}
