//! What operators see of other servers, and do about them.

use std::{thread, time::Duration};

use serde_json::{Value, json};

use crate::common::{Server, User, deadline, path};

const LIST: &str = "/_synapse/admin/v1/federation/destinations";

fn one(server: &str) -> String {
    format!("{LIST}/") + &path("{}", &[server])
}

/// Waits until something is true of a destination.
#[track_caller]
fn until(root: &User, server: &str, is_true: impl Fn(&Value) -> bool) -> Value {
    let until = deadline(Duration::from_secs(30));
    loop {
        let answer = root.http.get(&one(server));
        if answer.status == 200 && is_true(&answer.body) {
            return answer.body;
        }
        assert!(!until.passed(), "{}", answer.body);
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn operators_see_who_cannot_be_reached_and_have_it_tried_again() {
    let near = Server::start_federated(&[]);
    let (far, wire) = Server::start_federated_behind_a_wire();
    let (root, alice, bob) = (near.admin("root"), near.user("alice"), far.user("bob"));
    assert_eq!(root.http.get(LIST).ok().body, json!({ "destinations": [], "total": 0 }));
    let room = alice.public_room();
    let join = path("/_matrix/client/v3/join/{}?via={}", &[&room, &near.name()]);
    bob.http.post(&join, &json!({})).ok();
    alice.say(&room, "hello").ok();
    let healthy = until(&root, &far.name(), |known| known["failure_ts"].is_null());
    assert_eq!(healthy["retry_interval"], 0);
    root.http.post(&(one(&far.name()) + "/reset_connection"), &json!({})).refused(400, "M_UNKNOWN");

    wire.cut();
    alice.say(&room, "are you there?").ok();
    let failing = until(&root, &far.name(), |known| known["failure_ts"].is_u64());
    assert!(failing["retry_interval"].as_u64().unwrap() > 0, "{failing}");
    let listed = root.http.get(&format!("{LIST}?order_by=failure_ts&dir=b&limit=1")).ok();
    assert_eq!(
        (&listed["total"], &listed["destinations"][0]["destination"]),
        (&json!(1), &json!(far.name()))
    );
    let found = |query: &str| root.http.get(&format!("{LIST}?{query}")).ok()["total"].clone();
    assert_eq!(
        (found("destination=LOCALHOST"), found("destination=elsewhere")),
        (json!(1), json!(0))
    );
    let rooms = root.http.get(&(one(&far.name()) + "/rooms")).ok();
    assert_eq!((&rooms["total"], &rooms["rooms"][0]["room_id"]), (&json!(1), &json!(room)));
    let metrics = near.http.text("/metrics");
    assert!(metrics.contains("parlour_federation_failing_destinations 1\n"), "{metrics}");
    assert!(metrics.contains("parlour_federation_waiting_destinations 1\n"), "{metrics}");

    wire.mend();
    let admin = |arguments: &[&str]| {
        let arguments = [&["admin", "destinations"], arguments].concat();
        near.run_with(&arguments, &[("PARLOUR_ADMIN_TOKEN", &root.token)]).ok()
    };
    assert!(admin(&["list"]).contains(&far.name()));
    // It may have been tried by itself meanwhile.
    near.run_with(
        &["admin", "destinations", "retry", &far.name()],
        &[("PARLOUR_ADMIN_TOKEN", &root.token)],
    );
    until(&root, &far.name(), |known| known["failure_ts"].is_null());
    assert!(admin(&["show", &far.name()]).contains(&far.name()));
    assert!(admin(&["rooms", &far.name()]).contains(&room));
}

#[test]
fn only_administrators_and_only_what_there_is() {
    let server = Server::start();
    let (root, alice) = (server.admin("root"), server.user("alice"));
    for (method, at) in [
        ("GET", LIST.to_owned()),
        ("GET", one("far.example.org")),
        ("GET", one("far.example.org") + "/rooms"),
        ("POST", one("far.example.org") + "/reset_connection"),
    ] {
        alice.http.send(method, &at, b"{}").refused(403, "M_FORBIDDEN");
        if at != LIST {
            root.http.send(method, &at, b"{}").refused(404, "M_NOT_FOUND");
        }
    }
    for query in ["from=-1", "limit=x", "dir=x", "order_by=size"] {
        root.http.get(&format!("{LIST}?{query}")).refused(400, "M_INVALID_PARAM");
    }
}
