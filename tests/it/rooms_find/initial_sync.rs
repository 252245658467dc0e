//! `rooms/{roomId}/initialSync`

use serde_json::{Value, json};

use crate::common::{Server, path};

#[test]
fn a_room_is_looked_into_as_far_as_one_may() {
    let server = Server::start();
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(|name| server.user(name));
    let room = alice.create_room(json!({ "visibility": "public", "name": "Name" })).room_id();
    bob.join(&room).ok();
    let tag =
        path("/_matrix/client/v3/user/{}/rooms/{}/account_data/org.example", &[&bob.id, &room]);
    bob.http.put(&tag, &json!({ "a": 1 })).ok();
    for n in 0..25 {
        alice.say(&room, &n.to_string()).ok();
    }
    let said = |body: &Value| {
        let events = body["messages"]["chunk"].as_array().unwrap().iter();
        let said = events.map(|event| event["content"]["body"].as_str().unwrap_or("-").to_owned());
        said.collect::<Vec<_>>()
    };
    let seen = bob.room(&room, "initialSync").ok();
    assert_eq!((&seen["membership"], &seen["visibility"]), (&json!("join"), &json!("public")));
    assert_eq!(seen["account_data"], json!([{ "type": "org.example", "content": { "a": 1 } }]));
    assert_eq!(said(&seen.body), (5..25).map(|n| n.to_string()).collect::<Vec<_>>());
    let start =
        path("messages?dir=b&from={}&limit=1", &[seen["messages"]["start"].as_str().unwrap()]);
    assert_eq!(bob.room(&room, &start).ok().chunk()[0]["content"]["body"], "4");
    let end = path("messages?dir=f&from={}", &[seen["messages"]["end"].as_str().unwrap()]);
    assert!(bob.room(&room, &end).ok().chunk().is_empty());
    assert!(seen["state"].as_array().unwrap().iter().any(|e| e["content"]["name"] == "Name"));
    // Who has left sees it as it was then.
    bob.leave(&room).ok();
    alice.set_state(&room, "m.room.name", "", json!({ "name": "Later" })).ok();
    let seen = bob.room(&room, "initialSync").ok();
    assert_eq!(seen["membership"], "leave");
    assert_eq!(said(&seen.body).last().unwrap(), "-", "the last is the own leave");
    assert!(seen["state"].as_array().unwrap().iter().all(|e| e["content"]["name"] != "Later"));
    bob.membership(&room, "forget", json!({})).ok();
    bob.room(&room, "initialSync").refused(403, "M_FORBIDDEN");
    // Strangers see what everybody may.
    carol.room(&room, "initialSync").refused(403, "M_FORBIDDEN");
    carol.room("!nothing:localhost", "initialSync").refused(403, "M_FORBIDDEN");
    let readable = json!({ "history_visibility": "world_readable" });
    alice.set_state(&room, "m.room.history_visibility", "", readable).ok();
    alice.say(&room, "for all").ok();
    let seen = carol.room(&room, "initialSync").ok();
    assert_eq!(
        (said(&seen.body).last().unwrap().as_str(), &seen["membership"]),
        ("for all", &Value::Null)
    );
}
