//! What the tests of PDUs share.

#![allow(dead_code, unreachable_pub)] // each test binary uses its own part

use parlour_event::{
    RoomVersion,
    json::{Object, Value, parse_lax},
    signing::SigningKey,
};

pub fn key() -> SigningKey {
    SigningKey::from_seed(&[7; 32], "test").expect("a valid version")
}

pub fn version(number: u8) -> &'static RoomVersion {
    RoomVersion::parse(&number.to_string()).expect("a supported version")
}

pub fn object(value: serde_json::Value) -> Object {
    match Value::from(value) {
        Value::Object(object) => object,
        other => panic!("{other:?} is no object"),
    }
}

/// The same object in ruma's types.
pub fn to_ruma(object: &Object) -> ruma::CanonicalJsonObject {
    let value = serde_json::to_value(object).expect("JSON");
    serde_json::from_value(value).expect("canonical JSON")
}

/// ruma's object in our types.
pub fn from_ruma(object: &ruma::CanonicalJsonObject) -> Object {
    let bytes = serde_json::to_vec(object).expect("JSON");
    match parse_lax(&bytes).expect("JSON") {
        Value::Object(object) => object,
        other => panic!("{other:?} is no object"),
    }
}

/// A valid, unsigned message event of a room version.
pub fn message(version: &RoomVersion) -> Object {
    let number = version.number();
    let hash = "n5bqF5uDCYbqvF2Kfs9HYbJyg2RyVYkPQnMZVQK3Gk0";
    let reference = |name: &str| {
        if number < 3 {
            serde_json::json!([format!("${name}:domain"), {"sha256": hash}])
        } else {
            serde_json::json!(format!("${hash}"))
        }
    };
    let room_id = if number < 12 { "!r:domain".to_owned() } else { format!("!{hash}") };
    let mut event = object(serde_json::json!({
        "room_id": room_id,
        "sender": "@a:domain",
        "type": "m.room.message",
        "content": {"body": "hello", "msgtype": "m.text"},
        "depth": 3,
        "origin_server_ts": 1_700_000_000_000_i64,
        "prev_events": [reference("p")],
        "auth_events": [reference("a"), reference("b")],
    }));
    if number < 3 {
        event.insert("event_id".to_owned(), "$e:domain".into());
    }
    event
}
