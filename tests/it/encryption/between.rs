//! Keys of users of other servers.

use serde_json::{Value, json};

use super::{CLAIM, claimed, device_keys, one_time_keys, publish, query, sign, upload};
use crate::common::{Answer, Ask, FakeServer, Server, Visitor, path};

// Checklist 5.5, 5.9
#[test]
fn keys_are_asked_for_at_the_users_own_server() {
    let [one, two] = [Server::start_federated(&[]), Server::start_federated(&[])];
    let (alice, bob) = (one.user("alice"), two.user("bob"));
    publish(&bob, 1);
    upload(
        &bob,
        json!({ "one_time_keys": one_time_keys(0..1), "fallback_keys":
        { "signed_curve25519:F": { "key": "f", "fallback": true, "signatures": {} } } }),
    )
    .ok();
    let mut master = json!({ "user_id": bob.id, "usage": ["master"], "keys": {} });
    let public = super::pair(11).public_key().to_base64();
    master["keys"][format!("ed25519:{public}")] = json!(public);
    sign(&mut master, &bob.id, &bob.device, &super::pair(1));
    let at = "/_matrix/client/v3/keys/device_signing/upload";
    bob.http.post(at, &json!({ "master_key": master })).ok();
    let answer = query(&alice, &bob);
    let keys = device_keys(&bob, 1);
    assert_eq!(answer["device_keys"], json!({ &bob.id: { &bob.device: keys } }));
    assert_eq!(answer["master_keys"], json!({ &bob.id: master }));
    assert_eq!(answer["failures"], Value::Null);
    for id in ["K0000", "F", "F"] {
        let wanted = json!({ "one_time_keys": { &bob.id: { &bob.device: "signed_curve25519" } } });
        let given = alice.http.post(CLAIM, &wanted).ok();
        assert_eq!(claimed(&given, &bob), Some(format!("signed_curve25519:{id}")));
    }
    let rename = path("/_matrix/client/v3/devices/{}", &[&bob.device]);
    bob.http.put(&rename, &json!({ "display_name": "phone" })).ok();
    let devices = path("/_matrix/federation/v1/user/devices/{}", &[&bob.id]);
    let listed = one.origin().get(&two, &devices).ok();
    let device = &listed["devices"][0];
    assert_eq!(
        (&device["device_id"], &device["device_display_name"]),
        (&json!(bob.device), &json!("phone"))
    );
    assert_eq!(device["keys"]["keys"], keys["keys"]);
    assert_eq!(listed["master_key"], master);
    assert!(listed["stream_id"].as_u64() > Some(0), "{}", listed.body);
}

fn update(user: &str) -> Value {
    json!({ "edu_type": "m.device_list_update", "content": { "user_id": user, "device_id": "D",
        "stream_id": 7, "prev_id": [5] } })
}

fn changed(answer: &Answer) -> Vec<Value> {
    answer["device_lists"]["changed"].as_array().cloned().unwrap_or_default()
}

// Checklist 5.7
#[test]
fn changes_of_keys_elsewhere_are_told_to_those_who_share_a_room() {
    let (near, far) = (Server::start_federated(&[]), FakeServer::start(|_| |_: &_| None));
    let [alice, eve] = ["alice", "eve"].map(|name| near.user(name));
    let mut since = alice.sync(Ask::initial()).ok().next_batch();
    let visitor = Visitor::new(&near, &alice, &far.origin, "11");
    let user = visitor.user.clone();
    let answer = alice.sync_until(&since, |answer| !changed(answer).is_empty());
    assert_eq!(changed(&answer), [json!(user)]);
    since = answer.next_batch();
    let eves = eve.sync(Ask::initial()).ok().next_batch();
    let signing = json!({ "edu_type": "m.signing_key_update", "content": { "user_id": user } });
    for edu in [update(&user), signing] {
        let stranger = update(&format!("@stranger:{}", far.name()));
        visitor.transact(&[], &[update(&alice.id), stranger, edu]).ok();
        let answer = alice.sync_until(&since, |answer| !changed(answer).is_empty());
        assert_eq!(changed(&answer), [json!(user)]);
        since = answer.next_batch();
    }
    assert_eq!(changed(&eve.sync(Ask::since(&eves)).ok()), [Value::Null; 0]);
    let leave = visitor.member("leave");
    visitor.accepted(&[leave]);
    let left = |answer: &Answer| answer["device_lists"]["left"].clone();
    let answer = alice.sync_until(&since, |answer| !left(answer).is_null());
    assert_eq!(left(&answer), json!([user]));
}

// Checklist 5.4
#[test]
fn messages_from_elsewhere_come_once() {
    let mut near = Server::start_federated(&[]);
    let far = FakeServer::start(|_| |_: &_| None);
    let alice = near.user("alice");
    let since = alice.sync(Ask::initial()).ok().next_batch();
    let message = |sender: &str, id: &str, text: &str| {
        json!({ "edu_type": "m.direct_to_device", "content": { "sender": sender, "type": "m.test",
            "message_id": id, "messages": { &alice.id: { "*": { "text": text } } } } })
    };
    let sender = format!("@bob:{}", far.name());
    let send = |near: &Server, number: u32, edus: &[Value]| {
        let body = json!({ "origin": far.name(), "origin_server_ts": 1, "pdus": [], "edus": edus });
        let at = path("/_matrix/federation/v1/send/{}", &[&format!("t{number}")]);
        far.origin.send(near, "PUT", &at, body.to_string().as_bytes()).ok();
    };
    let texts = |answer: &Answer| -> Vec<Value> {
        let events = answer["to_device"]["events"].as_array().into_iter().flatten();
        events.map(|event| event["content"]["text"].clone()).collect()
    };
    let long = "x".repeat(33);
    let edus = [
        message(&alice.id, "a", "forged"),
        message(&sender, &long, "long"),
        message(&sender, "one", "first"),
        message(&sender, "one", "again"),
    ];
    send(&near, 1, &edus);
    let answer = alice.sync_until(&since, |answer| !texts(answer).is_empty());
    assert_eq!(texts(&answer), ["first"]);
    assert_eq!(answer["to_device"]["events"][0]["sender"], sender);
    near.restart();
    let alice = near.again(&alice);
    send(&near, 2, &[message(&sender, "one", "late"), message(&sender, "two", "second")]);
    let answer = alice.sync_until(&answer.next_batch(), |answer| !texts(answer).is_empty());
    assert_eq!(texts(&answer), ["second"]);
}
