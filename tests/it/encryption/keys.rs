//! Keys of devices, and keys that are given out once.

use std::{
    collections::BTreeSet,
    sync::{
        Barrier, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use serde_json::{Value, json};

use super::{
    CLAIM, QUERY, UPLOAD, claim, claimed, device_keys, one_time_keys, publish, query, try_claim,
    upload,
};
use crate::common::{Ask, Server, path};

// Checklist 5.9, 5.12
#[test]
fn keys_of_devices_are_published() {
    let mut server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let nobody = json!({ "device_keys": { "@nobody:localhost": [] } });
    assert_eq!(bob.http.post(QUERY, &nobody).ok()["device_keys"], Value::Null);
    assert_eq!(query(&bob, &alice)["device_keys"], json!({ &alice.id: {} }));
    let keys = device_keys(&alice, 1);
    let mut sent = keys.clone();
    sent["unsigned"] = json!({ "device_display_name": "my own idea" });
    upload(&alice, json!({ "device_keys": sent })).ok();
    assert_eq!(query(&bob, &alice)["device_keys"][&alice.id][&alice.device], keys);
    let rename = path("/_matrix/client/v3/devices/{}", &[&alice.device]);
    alice.http.put(&rename, &json!({ "display_name": "phone" })).ok();
    server.restart();
    let [alice, bob] = [&alice, &bob].map(|user| server.again(user));
    let mut named = keys.clone();
    named["unsigned"] = json!({ "device_display_name": "phone" });
    assert_eq!(query(&bob, &alice)["device_keys"][&alice.id], json!({ &alice.device: named }));
    // Some devices, and those that are not there.
    let wanted = |device: &str| json!({ "device_keys": { &alice.id: [device] }, "timeout": 1 });
    let of = |device: &str| bob.http.post(QUERY, &wanted(device)).ok()["device_keys"].clone();
    assert_eq!(of(&alice.device)[&alice.id][&alice.device], named);
    assert_eq!(of("OTHER"), json!({ &alice.id: {} }));
    // Who is nowhere to be reached.
    let far = json!({ "device_keys": { "@far:elsewhere.invalid": [] } });
    let answer = bob.http.post(QUERY, &far).ok();
    assert!(answer["failures"]["elsewhere.invalid"].is_object(), "{}", answer.body);
    let far =
        json!({ "one_time_keys": { "@far:elsewhere.invalid": { "D": "signed_curve25519" } } });
    let answer = bob.http.post(CLAIM, &far).ok();
    assert!(answer["failures"]["elsewhere.invalid"].is_object(), "{}", answer.body);
    // A logout takes the keys with it.
    alice.http.post("/_matrix/client/v3/logout", &json!({})).ok();
    assert_eq!(of(&alice.device), json!({ &alice.id: {} }));
    for at in [UPLOAD, QUERY, CLAIM] {
        server.http.post(at, &json!({})).refused(401, "M_MISSING_TOKEN");
    }
}

#[test]
fn keys_of_others_are_refused() {
    let server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let mut other_id = device_keys(&alice, 1);
    other_id["keys"] = json!({ "ed25519:OTHER": "x" });
    let mut none = device_keys(&alice, 1);
    none["keys"] = json!({});
    for keys in [device_keys(&bob, 1), other_id, none] {
        upload(&alice, json!({ "device_keys": keys })).refused(400, "M_INVALID_PARAM");
    }
    for body in [
        json!({ "device_keys": { "user_id": alice.id } }),
        json!({ "device_keys": [] }),
        json!({ "one_time_keys": { "signed_curve25519:A": 7 } }),
        json!({ "fallback_keys": { "signed_curve25519:A": [] } }),
        json!({ "fallback_keys": { "signed_curve25519:A": { "signatures": {} } } }),
    ] {
        upload(&alice, body).refused(400, "M_BAD_JSON");
    }
    assert_eq!(query(&bob, &alice)["device_keys"], json!({ &alice.id: {} }));
    let many = |range| json!({ "one_time_keys": one_time_keys(range) });
    upload(&alice, many(0..1000)).ok();
    upload(&alice, many(1000..1001)).refused(400, "M_LIMIT_EXCEEDED");
}

// Checklist 4.9, 5.5, 5.6
#[test]
fn one_time_keys_are_given_out_in_order_and_then_the_fallback_key() {
    let mut server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    publish(&alice, 1);
    let counts = |answer: &crate::common::Answer| answer["one_time_key_counts"].clone();
    let first = upload(&alice, json!({})).ok();
    assert_eq!(counts(&first), json!({ "signed_curve25519": 0 }));
    assert_eq!(claimed(&claim(&bob, &alice).ok(), &alice), None);
    upload(&alice, json!({ "one_time_keys": one_time_keys(5..7) })).ok();
    let again = upload(&alice, json!({ "one_time_keys": one_time_keys(5..7) })).ok();
    assert_eq!(counts(&again), json!({ "signed_curve25519": 2 }));
    let mut other = one_time_keys(6..8);
    other["signed_curve25519:K0006"]["key"] = json!("another");
    upload(&alice, json!({ "one_time_keys": other })).refused(400, "M_INVALID_PARAM");
    let fallback = |id: &str| {
        json!({ "fallback_keys": { format!("signed_curve25519:{id}"):
            { "key": id, "fallback": true, "signatures": {} } } })
    };
    let mut more = fallback("F1");
    more["one_time_keys"] = one_time_keys(0..2);
    let more = upload(&alice, more).ok();
    assert_eq!(counts(&more), json!({ "signed_curve25519": 4 }));
    let synced = |user| -> (Value, Value) {
        let answer = crate::common::User::sync(user, Ask::initial()).ok();
        let counts = &answer["device_one_time_keys_count"];
        (counts.clone(), answer["device_unused_fallback_key_types"].clone())
    };
    let unused = json!(["signed_curve25519"]);
    assert_eq!(synced(&alice), (json!({ "signed_curve25519": 4 }), unused.clone()));
    // In the order of the uploads, not of their names.
    for id in ["K0005", "K0006"] {
        let given = claim(&bob, &alice).ok();
        assert_eq!(claimed(&given, &alice), Some(format!("signed_curve25519:{id}")));
    }
    server.restart();
    let [alice, bob] = [&alice, &bob].map(|user| server.again(user));
    for id in ["K0000", "K0001", "F1", "F1"] {
        let given = claim(&bob, &alice).ok();
        assert_eq!(claimed(&given, &alice), Some(format!("signed_curve25519:{id}")));
    }
    assert_eq!(synced(&alice), (json!({ "signed_curve25519": 0 }), json!([])));
    // The same key once more is no news, another one is.
    upload(&alice, fallback("F1")).ok();
    assert_eq!(synced(&alice).1, json!([]));
    upload(&alice, fallback("F2")).ok();
    assert_eq!(synced(&alice).1, unused);
    assert_eq!(claimed(&claim(&bob, &alice).ok(), &alice), Some("signed_curve25519:F2".into()));
    // What waits also says how many keys there are.
    let since = alice.sync(Ask::initial()).ok().next_batch();
    let empty = alice.sync(Ask::since(&since).wait(10)).ok();
    assert_eq!(empty["device_unused_fallback_key_types"], json!([]));
    // A login that ends takes its keys with it.
    alice.http.post("/_matrix/client/v3/logout", &json!({})).ok();
    assert_eq!(claimed(&claim(&bob, &alice).ok(), &alice), None);
}

// Checklist 5.5
#[test]
fn no_key_is_given_out_twice_by_many_at_once_and_across_a_kill() {
    let mut server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    publish(&alice, 1);
    let keys = json!({ "one_time_keys": one_time_keys(0..20), "fallback_keys":
        { "signed_curve25519:F": { "key": "f", "fallback": true, "signatures": {} } } });
    upload(&alice, keys).ok();
    let given = Mutex::new(Vec::new());
    let race = |bob: &crate::common::User| {
        thread::scope(|scope| {
            for _ in 0..32 {
                scope.spawn(|| {
                    let id = claimed(&claim(bob, &alice).ok(), &alice).unwrap();
                    given.lock().unwrap().push(id);
                });
            }
        });
        std::mem::take(&mut *given.lock().unwrap())
    };
    let ids = race(&bob);
    let fallbacks = ids.iter().filter(|id| id.ends_with(":F")).count();
    assert_eq!((ids.iter().collect::<BTreeSet<_>>().len(), fallbacks), (21, 12), "{ids:?}");
    // Killed while 32 ask: what somebody has got, nobody else gets.
    upload(&alice, json!({ "one_time_keys": one_time_keys(100..400) })).ok();
    let (answered, got) = (Barrier::new(33), Mutex::new(Vec::new()));
    let is_back = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..32 {
            scope.spawn(|| {
                let mut first = true;
                // Whoever did not notice that the server was away stops as well.
                while !is_back.load(Ordering::Relaxed)
                    && let Ok(answer) = try_claim(&bob, &alice)
                {
                    got.lock().unwrap().extend(claimed(&answer, &alice));
                    if std::mem::take(&mut first) {
                        answered.wait();
                    }
                }
            });
        }
        // Each has got one, and asks for another.
        answered.wait();
        server.restart();
        is_back.store(true, Ordering::Relaxed);
    });
    let bob = server.again(&bob);
    let mut all: Vec<_> = got.into_inner().unwrap();
    all.extend((0..10).flat_map(|_| race(&bob)));
    all.retain(|id| !id.ends_with(":F"));
    let given = all.len();
    all.sort();
    all.dedup();
    assert!(given == all.len() && (32..=300).contains(&given), "{given}: {all:?}");
}
