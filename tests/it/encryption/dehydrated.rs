//! Dehydrated devices (MSC3814).

use serde_json::{Value, json};

use super::{device_keys, one_time_keys, query};
use crate::common::{Ask, Server, User, fresh_txn, path};

const AT: &str = "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device";

const WHO: &str = "/_matrix/client/v3/account/whoami";

fn device(user: &User, id: &str, seed: u8) -> Value {
    let named = User { device: id.to_owned(), ..user.clone() };
    json!({ "device_id": id, "initial_device_display_name": "asleep",
        "device_data": { "algorithm": "org.matrix.msc3814.v2", "device_pickle": "abc", "nonce": "n" },
        "device_keys": device_keys(&named, seed), "one_time_keys": one_time_keys(0..2) })
}

fn events(user: &User, id: &str, from: Option<&Value>) -> crate::common::Answer {
    let body = from.map_or(json!({}), |from| json!({ "next_batch": from }));
    user.http.post(&format!("{AT}{}", path("/{}/events", &[id])), &body)
}

#[test]
fn a_dehydrated_device_gets_messages_until_it_is_taken_over() {
    let mut server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let room = alice.public_room();
    bob.join(&room).ok();
    alice.http.get(AT).refused(404, "M_NOT_FOUND");
    alice.http.send("DELETE", AT, b"").refused(404, "M_NOT_FOUND");
    events(&alice, "D1", None).refused(404, "M_NOT_FOUND");
    let since = bob.sync(Ask::initial()).ok().next_batch();
    assert_eq!(
        alice.http.put(AT, &device(&alice, "D1", 1)).ok().body,
        json!({ "device_id": "D1" })
    );
    alice.http.put(AT, &device(&alice, "D1", 1)).refused(400, "M_INVALID_PARAM");
    let own = alice.device.clone();
    alice.http.put(AT, &device(&alice, &own, 1)).refused(400, "M_INVALID_PARAM");
    alice.http.put(AT, &json!({ "device_id": "D2" })).refused(400, "M_BAD_JSON");
    let heard = bob.sync(Ask::since(&since)).ok();
    assert_eq!(heard["device_lists"]["changed"], json!([alice.id]));
    let seen = query(&bob, &alice)["device_keys"][&alice.id]["D1"].clone();
    assert_eq!(seen["unsigned"]["device_display_name"], "asleep");
    for n in 0..101 {
        let at = path("/_matrix/client/v3/sendToDevice/m.test/{}", &[&fresh_txn()]);
        let to = json!({ "messages": { &alice.id: { "D1": { "n": n } } } });
        bob.http.put(&at, &to).ok();
    }
    server.restart();
    let [alice, bob] = [&alice, &bob].map(|user| server.again(user));
    let found = alice.http.get(AT).ok();
    assert_eq!(found["device_id"], "D1");
    assert_eq!(found["device_data"], device(&alice, "D1", 1)["device_data"]);
    events(&alice, "D2", None).refused(403, "M_FORBIDDEN");
    // Again from the beginning, as often as it takes.
    for _ in 0..2 {
        let first = events(&alice, "D1", None).ok();
        assert_eq!(first["events"].as_array().map(Vec::len), Some(100));
        let second = events(&alice, "D1", Some(&first["next_batch"])).ok();
        assert_eq!(second["events"][0]["content"]["n"], 100);
        let end = events(&alice, "D1", Some(&second["next_batch"])).ok();
        assert_eq!((&end["events"], &end["next_batch"]), (&json!([]), &second["next_batch"]));
    }
    events(&alice, "D1", Some(&json!("x"))).refused(400, "M_INVALID_PARAM");
    // Another one takes its place.
    alice.http.put(AT, &device(&alice, "D2", 2)).ok();
    let devices = query(&bob, &alice)["device_keys"][&alice.id].clone();
    assert!(devices["D1"].is_null() && !devices["D2"].is_null(), "{devices}");
    assert_eq!(alice.http.send("DELETE", AT, b"").ok().body, json!({ "device_id": "D2" }));
    alice.http.get(AT).refused(404, "M_NOT_FOUND");
    assert_eq!(query(&bob, &alice)["device_keys"][&alice.id], json!({}));
    server.http.get(AT).refused(401, "M_MISSING_TOKEN");
}

// Who has very many devices loses one that was not used for long, and never the one that nobody uses.
#[test]
fn a_dehydrated_device_outlives_many_logins() {
    let server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    alice.http.put(AT, &device(&alice, "D1", 1)).ok();
    let at = path("/_matrix/client/v3/sendToDevice/m.test/{}", &[&fresh_txn()]);
    bob.http.put(&at, &json!({ "messages": { &alice.id: { "D1": { "n": 1 } } } })).ok();
    let second = server.login("alice");
    for _ in 0..498 {
        server.login("alice");
    }
    alice.http.get(WHO).refused(401, "M_UNKNOWN_TOKEN");
    second.http.get(WHO).ok();
    let devices = second.http.get("/_matrix/client/v3/devices").ok();
    assert_eq!(devices["devices"].as_array().map(Vec::len), Some(500));
    assert_eq!(second.http.get(AT).ok()["device_id"], "D1");
    assert_eq!(events(&second, "D1", None).ok()["events"][0]["content"], json!({ "n": 1 }));
    // Another one in its place costs nobody a login.
    second.http.put(AT, &device(&alice, "D2", 2)).ok();
    second.http.get(WHO).ok();
}
