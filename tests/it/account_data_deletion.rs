//! Deleting account data (MSC3391), and what goes with a device (MSC3890).

use serde_json::{Value, json};

use crate::common::{Answer, Ask, Server, User, path};

fn at(user: &User, room: Option<&str>, kind: &str) -> String {
    match room {
        Some(room) => path("/user/{}/rooms/{}/account_data/{}", &[&user.id, room, kind]),
        None => path("/user/{}/account_data/{}", &[&user.id, kind]),
    }
}

fn known(path: &str) -> String {
    format!("/_matrix/client/v3{path}")
}

fn delete(user: &User, path: &str) -> Answer {
    let proposal = "/_matrix/client/unstable/org.matrix.msc3391";
    user.http.send("DELETE", &format!("{proposal}{path}"), b"")
}

/// The content of a type in a section of account data; `Null` if it is not there.
fn content(section: &Value, kind: &str) -> Value {
    let events = section["events"].as_array().cloned().unwrap_or_default();
    let event = events.into_iter().find(|event| event["type"] == kind);
    event.map_or(Value::Null, |event| event["content"].clone())
}

#[test]
fn what_is_deleted_is_gone_and_clients_are_told() {
    let mut server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let id = alice.public_room();
    let section = |answer: &Answer, room: Option<&str>| match room {
        Some(room) => answer["rooms"]["join"][room]["account_data"].clone(),
        None => answer["account_data"].clone(),
    };
    for room in [None, Some(id.as_str())] {
        let here = at(&alice, room, "org.example");
        delete(&alice, &here).ok();
        alice.http.put(&known(&here), &json!({ "x": 1 })).ok();
        let token = alice.sync(Ask::initial()).ok().next_batch();
        assert_eq!(delete(&alice, &here).ok().body, json!({}));
        alice.http.get(&known(&here)).refused(404, "M_NOT_FOUND");
        let news = section(&alice.sync(Ask::since(&token)).ok(), room);
        assert_eq!(content(&news, "org.example"), json!({}), "{news}");
        let first = section(&alice.sync(Ask::initial()).ok(), room);
        assert_eq!(content(&first, "org.example"), Value::Null);
        // The way of clients that cannot delete.
        let other = at(&alice, room, "org.example.other");
        alice.http.put(&known(&other), &json!({ "x": 1 })).ok();
        alice.http.put(&known(&other), &json!({})).ok();
        let first = section(&alice.sync(Ask::initial()).ok(), room);
        assert_eq!(content(&first, "org.example.other"), Value::Null);
        for kind in ["m.push_rules", "m.fully_read"] {
            delete(&alice, &at(&alice, room, kind)).refused(405, "M_BAD_JSON");
        }
        delete(&bob, &here).refused(403, "M_FORBIDDEN");
    }
    delete(&alice, &at(&alice, Some("!nowhere:localhost"), "x")).refused(404, "M_NOT_FOUND");
    delete(&alice, &at(&alice, Some("nonsense"), "x")).refused(400, "M_INVALID_PARAM");
    server.restart();
    let alice = server.again(&alice);
    let here = known(&at(&alice, None, "org.example"));
    alice.http.get(&here).refused(404, "M_NOT_FOUND");
    alice.http.put(&here, &json!({ "again": true })).ok();
    assert_eq!(alice.http.get(&here).ok().body, json!({ "again": true }));
}

#[test]
fn notification_settings_of_a_device_go_with_it() {
    let server = Server::start();
    let alice = server.user("alice");
    let names = |device: &User| {
        let stems = ["m", "org.matrix.msc3890"];
        stems.map(|stem| format!("{stem}.local_notification_settings.{}", device.device))
    };
    let told = |device: &User| {
        for kind in names(device) {
            let here = known(&at(&alice, None, &kind));
            alice.http.put(&here, &json!({ "is_silenced": true })).ok();
        }
    };
    let [other, third] = [server.login("alice"), server.login("alice")];
    [&alice, &other, &third].into_iter().for_each(told);
    let token = alice.sync(Ask::initial()).ok().next_batch();
    other.http.post("/_matrix/client/v3/logout", &json!({})).ok();
    let news = alice.sync(Ask::since(&token)).ok();
    for kind in names(&other) {
        assert_eq!(content(&news["account_data"], &kind), json!({}));
        alice.http.get(&known(&at(&alice, None, &kind))).refused(404, "M_NOT_FOUND");
    }
    for kind in names(&third) {
        alice.http.get(&known(&at(&alice, None, &kind))).ok();
    }
    alice.http.post("/_matrix/client/v3/logout/all", &json!({})).ok();
    let again = server.login("alice");
    for kind in names(&third).into_iter().chain(names(&alice)) {
        again.http.get(&known(&at(&again, None, &kind))).refused(404, "M_NOT_FOUND");
    }
}
