//! Devices: the list, names, and deletion.

use serde_json::{Value, json};

use crate::common::{Ask, PASSWORD, Server, path};

const DEVICES: &str = "/_matrix/client/v3/devices";
const WHOAMI: &str = "/_matrix/client/v3/account/whoami";

fn device(id: &str) -> String {
    path("/_matrix/client/v3/devices/{}", &[id])
}

#[test]
fn devices_are_listed_named_and_seen() {
    let mut server =
        Server::start_with(&[("PARLOUR_SERVER__TRUSTED_PROXIES", r#"["127.0.0.0/8"]"#)]);
    let alice = server.user("alice");
    let login = json!({ "type": "m.login.password", "user": "alice", "password": PASSWORD,
        "device_id": "PHONE", "initial_device_display_name": "A phone" });
    let elsewhere = server.http.with_header("X-Forwarded-For", "192.0.2.1");
    elsewhere.post("/_matrix/client/v3/login", &login).ok();
    let phone = alice.http.get(&device("PHONE")).ok();
    assert_eq!((&phone["device_id"], &phone["display_name"]), (&json!("PHONE"), &json!("A phone")));
    assert_eq!(phone["last_seen_ip"], "192.0.2.1");
    let list = alice.http.get(DEVICES).ok()["devices"].as_array().unwrap().clone();
    assert_eq!(list.len(), 2);
    let of = |list: &[Value], id: &str| {
        list.iter().find(|device| device["device_id"] == id).unwrap().clone()
    };
    assert_eq!(of(&list, "PHONE"), phone.body);
    let own = of(&list, &alice.device);
    assert!(own.get("display_name").is_none(), "{own}");
    assert_eq!(own["last_seen_ip"], "127.0.0.1");
    // A request from elsewhere is seen at once.
    alice.http.with_header("X-Forwarded-For", "192.0.2.7").get(WHOAMI).ok();
    let seen = server.login("alice").http.get(&device(&alice.device)).ok();
    assert_eq!(seen["last_seen_ip"], "192.0.2.7");
    assert!(seen["last_seen_ts"].as_u64() >= own["last_seen_ts"].as_u64(), "{}", seen.body);
    alice.http.put(&device("PHONE"), &json!({ "display_name": "Old phone" })).ok();
    alice.http.put(&device("PHONE"), &json!({})).ok();
    // A stop in peace keeps when and where; a kill, the names.
    alice.http.with_header("X-Forwarded-For", "192.0.2.9").get(WHOAMI).ok();
    assert!(server.terminate().success());
    server.restart();
    let seen = server.login("alice").http.get(&device(&alice.device)).ok();
    assert_eq!(seen["last_seen_ip"], "192.0.2.9");
    server.restart();
    let alice = server.again(&alice);
    let phone = alice.http.get(&device("PHONE")).ok();
    assert_eq!(phone["display_name"], "Old phone");
    assert_eq!(phone["last_seen_ip"], "192.0.2.1");
    for body in [json!({}), json!({ "display_name": "x" })] {
        alice.http.put(&device("NONE"), &body).refused(404, "M_NOT_FOUND");
    }
    alice.http.get(&device("NONE")).refused(404, "M_NOT_FOUND");
    let long = json!({ "display_name": "x".repeat(256) });
    alice.http.put(&device("PHONE"), &long).refused(400, "M_INVALID_PARAM");
    alice.http.put(&device("PHONE"), &json!({ "display_name": 1 })).refused(400, "M_BAD_JSON");
    // Others' devices are not there at all.
    let bob = server.user("bob");
    bob.http.get(&device("PHONE")).refused(404, "M_NOT_FOUND");
    bob.http.put(&device("PHONE"), &json!({})).refused(404, "M_NOT_FOUND");
    server.http.get(DEVICES).refused(401, "M_MISSING_TOKEN");
}

#[test]
fn devices_are_deleted_when_the_password_confirms_it() {
    let mut server = Server::start();
    let alice = server.user("alice");
    let others: Vec<_> = (0..3).map(|_| server.login("alice")).collect();
    alice.confirmed("DELETE", &device(&others[0].device), json!({})).ok();
    alice.http.get(&device(&others[0].device)).refused(404, "M_NOT_FOUND");
    others[0].http.get(WHOAMI).refused(401, "M_UNKNOWN_TOKEN");
    // It was removed previously.
    alice.confirmed("DELETE", &device(&others[0].device), json!({})).ok();
    let bob = server.user("bob");
    let devices = json!([others[1].device, others[2].device, "NONE", bob.device]);
    alice
        .confirmed("POST", "/_matrix/client/v3/delete_devices", json!({ "devices": devices }))
        .ok();
    server.restart();
    let (alice, bob) = (server.again(&alice), server.again(&bob));
    for other in &others {
        server.again(other).http.get(WHOAMI).refused(401, "M_UNKNOWN_TOKEN");
    }
    bob.http.get(WHOAMI).ok();
    let left = alice.http.get(DEVICES).ok()["devices"].as_array().unwrap().len();
    assert_eq!(left, 1);
    alice.http.post("/_matrix/client/v3/delete_devices", &json!({})).refused(400, "M_BAD_JSON");
    server.http.send("DELETE", &device("X"), b"").refused(401, "M_MISSING_TOKEN");
    // A request with an empty body asks for the flows.
    assert_eq!(alice.http.send("DELETE", &device("X"), b"").status, 401);
}

#[test]
fn a_deleted_device_stops_waiting_for_news() {
    let server = Server::start();
    let alice = server.user("alice");
    let phone = server.login("alice");
    let since = phone.sync(Ask::initial()).next_batch();
    let waiting = std::thread::spawn({
        let phone = phone.clone();
        move || phone.sync(Ask::since(&since).wait(20_000)).status
    });
    server.await_parked(1);
    alice.confirmed("DELETE", &device(&phone.device), json!({})).ok();
    assert_eq!(waiting.join().unwrap(), 200, "answered, and not by a timeout of the client");
    phone.sync(Ask::initial()).refused(401, "M_UNKNOWN_TOKEN");
}
