//! `/_synapse/admin/v1/event_reports`

use serde_json::{Value, json};

use super::{for_administrators, has_keys};
use crate::common::{Server, path};

const REPORTS: &str = "/_synapse/admin/v1/event_reports";

const KEYS: [&str; 10] = [
    "id",
    "received_ts",
    "room_id",
    "name",
    "canonical_alias",
    "event_id",
    "user_id",
    "reason",
    "score",
    "sender",
];

// Checklist 6.12
#[test]
fn administrators_read_reports_page_by_page_and_strike_them_off() {
    let mut server = Server::start();
    let root = server.admin("root");
    let (alice, bob) = (server.user("alice"), server.user("bob"));
    let room = alice.create_room(json!({ "preset": "public_chat", "name": "A room",
        "room_alias_name": "room" }));
    let room = room.room_id();
    let event = alice.say(&room, "something bad").event_id();
    bob.join(&room).ok();
    let at = path("/_matrix/client/v3/rooms/{}/report/{}", &[&room, &event]);
    bob.http.post(&at, &json!({ "reason": "it is bad" })).ok();
    alice.http.post(&at, &json!({})).ok();
    let reason = json!({ "reason": "the whole room" });
    bob.http.post(&path("/_matrix/client/v3/rooms/{}/report", &[&room]), &reason).ok();
    bob.http.post(&path("/_matrix/client/v3/rooms/{}/report", &["!no:localhost"]), &reason).ok();
    let reason = json!({ "reason": "that one" });
    bob.http.post(&path("/_matrix/client/v3/users/{}/report", &[&alice.id]), &reason).ok();
    bob.http.post(&path("/_matrix/client/v3/users/{}/report", &["@no:localhost"]), &reason).ok();
    server.restart();
    let root = server.again(&root);

    let all = root.http.get(REPORTS).ok();
    has_keys(&all.body, &["event_reports", "total"]);
    assert_eq!(all["total"], 4);
    let all = all["event_reports"].as_array().unwrap().clone();
    all.iter().for_each(|report| has_keys(report, &KEYS));
    let [of_user, of_room, second, first] = &all[..] else { panic!("{all:?}") };
    assert_eq!(first["reason"], "it is bad");
    assert_eq!((&first["event_id"], &first["room_id"]), (&json!(event), &json!(room)));
    assert_eq!((&first["sender"], &first["user_id"]), (&json!(alice.id), &json!(bob.id)));
    assert_eq!(
        (&first["name"], &first["canonical_alias"]),
        (&json!("A room"), &json!("#room:localhost"))
    );
    assert!(first["received_ts"].as_u64().unwrap() > 1_600_000_000_000);
    assert_eq!((&second["reason"], &second["user_id"]), (&Value::Null, &json!(alice.id)));
    assert_eq!((&of_room["room_id"], &of_room["event_id"]), (&json!(room), &Value::Null));
    assert_eq!((&of_user["sender"], &of_user["room_id"]), (&json!(alice.id), &Value::Null));

    let ids = |query: &str| {
        let answer = root.http.get(&format!("{REPORTS}?{query}")).ok();
        let reports = answer["event_reports"].as_array().unwrap();
        let ids: Vec<_> = reports.iter().map(|report| report["id"].clone()).collect();
        (ids, answer["total"].clone(), answer["next_token"].clone())
    };
    let id = |report: &Value| report["id"].clone();
    assert_eq!(ids("limit=1"), (vec![id(of_user)], json!(4), json!(1)));
    assert_eq!(ids("limit=2&from=3"), (vec![id(first)], json!(4), Value::Null));
    assert_eq!(ids("dir=f&limit=1").0, [id(first)]);
    let escaped = |key: &str, value: &str| format!("{key}={}", path("{}", &[value]));
    assert_eq!(ids(&escaped("user_id", &alice.id)).0, [id(second)]);
    assert_eq!(ids(&escaped("room_id", &room)).0, [id(of_room), id(second), id(first)]);
    assert_eq!(ids(&escaped("event_sender_user_id", &alice.id)).1, 3);
    for wrong in ["limit=x", "from=-1", "dir=up"] {
        root.http.get(&format!("{REPORTS}?{wrong}")).refused(400, "M_INVALID_PARAM");
    }

    let one = |id: &Value| format!("{REPORTS}/{id}");
    let details = root.http.get(&one(&first["id"])).ok();
    has_keys(&details.body, &[&KEYS[..], &["event_json"]].concat());
    assert_eq!(details["event_json"]["content"]["body"], "something bad");
    assert_eq!(root.http.get(&one(&of_room["id"])).ok()["event_json"], Value::Null);
    assert_eq!(root.http.send("DELETE", &one(&first["id"]), b"").ok().body, json!({}));
    root.http.get(&one(&first["id"])).refused(404, "M_NOT_FOUND");
    root.http.send("DELETE", &one(&first["id"]), b"").refused(404, "M_NOT_FOUND");
    root.http.get(&format!("{REPORTS}/x")).refused(400, "M_INVALID_PARAM");
    assert_eq!(ids("").1, 3);
    for at in [REPORTS, &one(&second["id"])] {
        for_administrators(&server, &server.again(&alice), "GET", at);
    }
    for_administrators(&server, &server.again(&alice), "DELETE", &one(&second["id"]));
}
