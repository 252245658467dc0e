//! The harness itself: a checker that accepts everything would prove nothing.

use std::panic;

use serde_json::{Value, json};

use crate::common::check_schema;

const SYNC: &str = "/_matrix/client/v3/sync";

fn accepts(method: &str, path: &str, status: u16, body: &Value) -> bool {
    panic::catch_unwind(|| check_schema(method, path, status, body)).is_ok()
}

fn sync_with(event: Value) -> Value {
    json!({ "next_batch": "x", "rooms": { "join": { "!a:b": { "timeline": { "events": [event],
        "prev_batch": "y" } } } } })
}

#[test]
fn answers_are_held_against_their_operation_and_status() {
    let error = json!({ "errcode": "M_UNKNOWN", "error": "why" });
    for (method, path, status, body, good) in [
        ("GET", SYNC, 200, json!({ "next_batch": "x" }), true),
        ("GET", SYNC, 200, json!({}), false),
        ("GET", "/_matrix/client/r0/sync?since=s", 200, json!({}), false),
        ("GET", SYNC, 201, json!({ "next_batch": "x" }), false),
        ("GET", SYNC, 404, error.clone(), true),
        ("GET", SYNC, 404, json!({}), false),
        ("POST", SYNC, 405, error.clone(), true),
        ("POST", SYNC, 200, json!({ "next_batch": "x" }), false),
        ("GET", "/_matrix/client/v3/no/such/path", 200, json!({}), false),
        ("GET", "/_matrix/client/v3/no/such/path", 404, error, true),
        ("POST", "/_matrix/client/v3/createRoom", 200, json!({ "room_id": "!a:b" }), true),
        ("POST", "/_matrix/client/v3/createRoom", 200, json!({ "room": "!a:b" }), false),
    ] {
        assert_eq!(accepts(method, path, status, &body), good, "{method} {path} {status} {body}");
    }
}

#[test]
fn the_paths_of_state_are_one_operation() {
    let template = "/_matrix/client/v3/rooms/{roomId}/state/{eventType}/{stateKey}";
    for path in ["v3/rooms/!a/state/m.room.name", "r0/rooms/!a/state/m.room.name/"] {
        let found = check_schema("GET", &format!("/_matrix/client/{path}"), 200, &json!({}));
        assert_eq!(found, Some(template), "{path}");
    }
    let whole = check_schema("GET", "/_matrix/client/v3/rooms/!a/state", 200, &json!([]));
    assert_eq!(whole, Some("/_matrix/client/v3/rooms/{roomId}/state"));
}

#[test]
fn events_are_held_against_their_type() {
    let member = |content: Value| {
        sync_with(json!({ "type": "m.room.member", "state_key": "@a:b", "sender": "@a:b",
            "event_id": "$e", "origin_server_ts": 1, "content": content }))
    };
    assert!(accepts("GET", SYNC, 200, &member(json!({ "membership": "join" }))));
    assert!(!accepts("GET", SYNC, 200, &member(json!({ "membership": "here" }))));
    assert!(!accepts("GET", SYNC, 200, &member(json!({ "displayname": "A" }))));
}
