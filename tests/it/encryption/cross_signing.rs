//! Cross-signing.

use serde_json::{Value, json};

use super::{device_keys, pair, publish, query, sign};
use crate::common::{Answer, Ask, Server, User, path};

pub(super) const UPLOAD: &str = "/_matrix/client/v3/keys/device_signing/upload";
pub(super) const SIGN: &str = "/_matrix/client/v3/keys/signatures/upload";

const MASTER: u8 = 11;
pub(super) const SELF: u8 = 12;
const OTHERS: u8 = 13;

pub(super) fn public(seed: u8) -> String {
    pair(seed).public_key().to_base64()
}

/// A cross-signing key, signed by the master key if it isn't one.
fn key(user: &str, usage: &str, seed: u8, master: u8) -> Value {
    let public_key = public(seed);
    let id = format!("ed25519:{public_key}");
    let mut key = json!({ "user_id": user, "usage": [usage], "keys": { id: public_key } });
    if seed != master {
        sign(&mut key, user, &public(master), &pair(master));
    }
    key
}

/// All three keys; `base` makes other ones.
pub(super) fn keys(user: &User, base: u8) -> Value {
    let key = |usage, seed| key(&user.id, usage, base + seed, base + MASTER);
    json!({ "master_key": key("master", MASTER), "self_signing_key": key("self_signing", SELF),
        "user_signing_key": key("user_signing", OTHERS) })
}

fn upload(user: &User, body: &Value) -> Answer {
    user.http.post(UPLOAD, body)
}

fn changed(user: &User, since: &mut String) -> Value {
    let answer = user.sync(Ask::since(since)).ok();
    *since = answer.next_batch();
    answer["device_lists"]["changed"].clone()
}

// Checklist 3.17
#[test]
fn keys_are_replaced_only_by_who_has_the_password() {
    let mut server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let room = alice.public_room();
    bob.join(&room).ok();
    let mut since = bob.sync(Ask::initial()).ok().next_batch();
    let first = keys(&alice, 0);
    upload(&alice, &first).ok();
    assert_eq!(changed(&bob, &mut since), json!([alice.id]));
    upload(&alice, &first).ok();
    upload(&alice, &json!({ "master_key": first["master_key"] })).ok();
    upload(&alice, &json!({ "self_signing_key": first["self_signing_key"] })).ok();
    assert_eq!(changed(&bob, &mut since), Value::Null);
    server.restart();
    let [alice, bob] = [&alice, &bob].map(|user| server.again(user));
    let seen = query(&bob, &alice);
    assert_eq!(seen["master_keys"][&alice.id], first["master_key"]);
    assert_eq!(seen["self_signing_keys"][&alice.id], first["self_signing_key"]);
    assert_eq!(seen["user_signing_keys"], Value::Null);
    let own = query(&alice, &alice);
    assert_eq!(own["user_signing_keys"][&alice.id], first["user_signing_key"]);
    let second = keys(&alice, 20);
    alice.confirmed("POST", UPLOAD, second.clone()).ok();
    assert_eq!(query(&bob, &alice)["master_keys"][&alice.id], second["master_key"]);
    assert_eq!(changed(&bob, &mut since), json!([alice.id]));
    // One of them alone, signed by the master key that is here.
    let other = key(&alice.id, "self_signing", 77, 20 + MASTER);
    let one = json!({ "self_signing_key": other });
    alice.confirmed("POST", UPLOAD, one).ok();
    assert_eq!(query(&bob, &alice)["self_signing_keys"][&alice.id], other);
}

// Checklist 3.10, 5.10
#[test]
fn keys_that_are_none_are_refused() {
    let server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let without_master = json!({ "self_signing_key": keys(&alice, 0)["self_signing_key"] });
    upload(&alice, &without_master).refused(400, "M_MISSING_PARAM");
    upload(&alice, &keys(&bob, 0)).refused(400, "M_INVALID_PARAM");
    let mut wrong = keys(&alice, 0);
    wrong["master_key"]["usage"] = json!(["self_signing"]);
    upload(&alice, &wrong).refused(400, "M_INVALID_PARAM");
    let mut two = keys(&alice, 0);
    two["master_key"]["keys"]["ed25519:two"] = json!("two");
    upload(&alice, &two).refused(400, "M_INVALID_PARAM");
    let mut unsigned = keys(&alice, 0);
    unsigned["user_signing_key"].as_object_mut().unwrap().remove("signatures");
    upload(&alice, &unsigned).refused(400, "M_INVALID_SIGNATURE");
    let mut forged = keys(&alice, 0);
    let name = public(MASTER);
    sign(&mut forged["self_signing_key"], &alice.id, &name, &pair(1));
    upload(&alice, &forged).refused(400, "M_INVALID_SIGNATURE");
    upload(&alice, &json!({ "master_key": 1 })).refused(400, "M_BAD_JSON");
    assert_eq!(query(&bob, &alice)["master_keys"], Value::Null);
    server.http.post(UPLOAD, &json!({})).refused(401, "M_MISSING_TOKEN");
    // A device named like the key, and the other way round.
    let login = |device: &str| {
        let body = json!({ "type": "m.login.password", "password": crate::common::PASSWORD,
            "device_id": device, "identifier": { "type": "m.id.user", "user": "alice" } });
        server.http.post("/_matrix/client/v3/login", &body)
    };
    let named = User::from_login(&server.http, &login(&public(SELF)).ok());
    upload(&alice, &keys(&alice, 0)).refused(403, "M_FORBIDDEN");
    named.http.post("/_matrix/client/v3/logout", &json!({})).ok();
    upload(&alice, &keys(&alice, 0)).ok();
    login(&public(SELF)).refused(403, "M_FORBIDDEN");
}

fn sent(user: &User, target: &User, name: &str, signed: &Value) -> Answer {
    user.http.post(SIGN, &json!({ &target.id: { name: signed } })).ok()
}

#[track_caller]
fn failed(answer: &Answer, target: &User, name: &str, errcode: &str) {
    let failure = &answer["failures"][&target.id][name];
    assert_eq!(failure["errcode"], errcode, "{}", answer.body);
}

// Checklist 5.9, 5.11
#[test]
fn signatures_are_seen_by_those_whom_they_concern() {
    let mut server = Server::start();
    let [alice, bob, eve] = ["alice", "bob", "eve"].map(|name| server.user(name));
    let room = alice.public_room();
    for user in [&bob, &eve] {
        user.join(&room).ok();
    }
    for (user, base) in [(&alice, 0), (&bob, 40)] {
        publish(user, base + 1);
        upload(user, &keys(user, base)).ok();
    }
    let [mut alices, mut bobs, mut eves] =
        [&alice, &bob, &eve].map(|user| user.sync(Ask::initial()).ok().next_batch());
    // Her device, signed by her key.
    let mut device = device_keys(&alice, 1);
    let own = device.clone();
    sign(&mut device, &alice.id, &public(SELF), &pair(SELF));
    let done = sent(&alice, &alice, &alice.device, &device);
    assert_eq!(done["failures"], json!({}));
    for (user, since) in [(&alice, &mut alices), (&bob, &mut bobs), (&eve, &mut eves)] {
        assert_eq!(query(user, &alice)["device_keys"][&alice.id][&alice.device], device);
        assert_eq!(changed(user, since), json!([alice.id]));
    }
    // The master key, signed by her device.
    let mut master = keys(&alice, 0)["master_key"].clone();
    sign(&mut master, &alice.id, &alice.device, &pair(1));
    sent(&alice, &alice, &public(MASTER), &master);
    assert_eq!(query(&bob, &alice)["master_keys"][&alice.id], master);
    changed(&bob, &mut bobs);
    // Another user, signed by her: that is hers alone to see.
    let bobs_master = keys(&bob, 40)["master_key"].clone();
    let mut signed = bobs_master.clone();
    sign(&mut signed, &alice.id, &public(OTHERS), &pair(OTHERS));
    changed(&alice, &mut alices);
    let name = public(40 + MASTER);
    assert_eq!(sent(&alice, &bob, &name, &signed)["failures"], json!({}));
    assert_eq!(changed(&alice, &mut alices), json!([bob.id]));
    assert_eq!(changed(&bob, &mut bobs), Value::Null);
    server.restart();
    let [alice, bob, eve] = [&alice, &bob, &eve].map(|user| server.again(user));
    assert_eq!(query(&alice, &bob)["master_keys"][&bob.id], signed);
    for user in [&bob, &eve] {
        assert_eq!(query(user, &bob)["master_keys"][&bob.id], bobs_master);
    }
    // The same once more changes nothing; the device without its new signature neither.
    sent(&alice, &bob, &name, &signed);
    super::upload(&alice, json!({ "device_keys": own })).ok();
    assert_eq!(query(&eve, &alice)["device_keys"][&alice.id][&alice.device], device);
    // New keys: what the old ones have signed is forgotten.
    alice.confirmed("POST", UPLOAD, keys(&alice, 80)).ok();
    assert_eq!(query(&eve, &alice)["device_keys"][&alice.id][&alice.device], own);
    assert_eq!(query(&alice, &bob)["master_keys"][&bob.id], bobs_master);
}

// Checklist 5.11
#[test]
fn signatures_that_are_wrong_are_told_one_by_one() {
    let server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    for (user, base) in [(&alice, 0), (&bob, 40)] {
        publish(user, base + 1);
        upload(user, &keys(user, base)).ok();
    }
    let device = device_keys(&alice, 1);
    let with = |mut key: Value, name: &str, seed: u8| {
        sign(&mut key, &alice.id, name, &pair(seed));
        key
    };
    let good = with(device.clone(), &public(SELF), SELF);
    let forged = with(device.clone(), &public(SELF), OTHERS);
    let by_nobody = with(device.clone(), &public(99), 99);
    let mut other = good.clone();
    other["algorithms"] = json!(["mine"]);
    let id = &alice.device;
    for (signed, errcode) in [
        (&forged, "M_INVALID_SIGNATURE"),
        (&by_nobody, "M_INVALID_SIGNATURE"),
        (&other, "M_INVALID_PARAM"),
        (&json!(7), "M_INVALID_PARAM"),
    ] {
        failed(&sent(&alice, &alice, id, signed), &alice, id, errcode);
    }
    failed(&sent(&alice, &alice, "NOWHERE", &good), &alice, "NOWHERE", "M_NOT_FOUND");
    // Another's device is not hers to sign, nor another's master key with her own.
    let bobs = with(device_keys(&bob, 41), &public(SELF), SELF);
    failed(&sent(&alice, &bob, &bob.device, &bobs), &bob, &bob.device, "M_NOT_FOUND");
    let name = public(40 + MASTER);
    let master = with(keys(&bob, 40)["master_key"].clone(), &public(SELF), SELF);
    failed(&sent(&alice, &bob, &name, &master), &bob, &name, "M_INVALID_SIGNATURE");
    assert_eq!(query(&bob, &alice)["device_keys"][&alice.id][id], device);
    // What is right beside it counts.
    let both = json!({ &alice.id: { id: good, "NOWHERE": good } });
    let answer = alice.http.post(SIGN, &both).ok();
    failed(&answer, &alice, "NOWHERE", "M_NOT_FOUND");
    assert_eq!(answer["failures"][&alice.id].as_object().map(serde_json::Map::len), Some(1));
    assert_eq!(query(&bob, &alice)["device_keys"][&alice.id][id], good);
    alice.http.post(SIGN, &json!({ "x": 1 })).refused(400, "M_BAD_JSON");
    server.http.post(SIGN, &json!({})).refused(401, "M_MISSING_TOKEN");
    let gone = path("/_matrix/client/v3/devices/{}", &[id]);
    alice.confirmed("DELETE", &gone, json!({})).ok();
    assert_eq!(query(&bob, &alice)["device_keys"][&alice.id], json!({}));
}

// Checklist 5.9, 5.11
#[test]
fn who_has_verified_somebody_elsewhere_sees_it_alone() {
    let [mut one, two] = [Server::start_federated(&[]), Server::start_federated(&[])];
    let ([alice, carol], bob) = (["alice", "carol"].map(|name| one.user(name)), two.user("bob"));
    let room = alice.public_room();
    let join = "/_matrix/client/v3/join/{}?via={}&server_name={}";
    bob.http.post(&path(join, &[&room, &one.name(), &one.name()]), &json!({})).ok();
    upload(&alice, &keys(&alice, 0)).ok();
    let of_bob = keys(&bob, 20);
    upload(&bob, &of_bob).ok();
    let master = &of_bob["master_key"];
    assert_eq!(query(&alice, &bob)["master_keys"][&bob.id], *master);
    let mut signed = master.clone();
    sign(&mut signed, &alice.id, &public(OTHERS), &pair(OTHERS));
    let body = json!({ &bob.id: { public(20 + MASTER): signed } });
    let mut since = alice.sync(Ask::initial()).ok().next_batch();
    let answer = alice.http.post(SIGN, &body).ok();
    assert_eq!(answer["failures"], json!({}), "{}", answer.body);
    assert_eq!(changed(&alice, &mut since), json!([bob.id]));
    one.restart();
    let [alice, carol] = [&alice, &carol].map(|user| one.again(user));
    assert_eq!(query(&alice, &bob)["master_keys"][&bob.id], signed);
    assert_eq!(query(&carol, &bob)["master_keys"][&bob.id], *master);
    assert_eq!(query(&bob, &bob)["master_keys"][&bob.id], *master);
}

// Checklist 5.9
#[test]
fn whose_keys_were_never_asked_for_can_be_signed_too() {
    let (one, two) = (Server::start_federated(&[]), Server::start_federated(&[]));
    let ([alice, carol], bob) = (["alice", "carol"].map(|name| one.user(name)), two.user("bob"));
    [(&alice, 0), (&carol, 60)].iter().for_each(|(user, base)| {
        upload(user, &keys(user, *base)).ok();
    });
    let of_bob = keys(&bob, 20);
    upload(&bob, &of_bob).ok();
    let name = public(20 + MASTER);
    let signed_by = |user: &User, base: u8| {
        let mut signed = of_bob["master_key"].clone();
        sign(&mut signed, &user.id, &public(base + OTHERS), &pair(base + OTHERS));
        signed
    };
    // No room is shared with him, so nothing is remembered but the signature.
    let signed = signed_by(&alice, 0);
    let answer = sent(&alice, &bob, &name, &signed);
    assert_eq!(answer["failures"], json!({}), "{}", answer.body);
    assert_eq!(query(&alice, &bob)["master_keys"][&bob.id], signed);
    // With a room he is known, and asked about once.
    let room = carol.public_room();
    let join = path("/_matrix/client/v3/join/{}?via={}", &[&room, &one.name()]);
    bob.http.post(&join, &json!({})).ok();
    let signed = signed_by(&carol, 60);
    let answer = sent(&carol, &bob, &name, &signed);
    assert_eq!(answer["failures"], json!({}), "{}", answer.body);
    assert_eq!(query(&carol, &bob)["master_keys"][&bob.id], signed);
    // What he does not have, and of whom nobody can say.
    failed(&sent(&carol, &bob, "NOWHERE", &signed), &bob, "NOWHERE", "M_NOT_FOUND");
    let gone = User { id: "@gone:localhost:1".to_owned(), ..bob.clone() };
    failed(&sent(&carol, &gone, "KEY", &signed), &gone, "KEY", "M_UNKNOWN");
}
