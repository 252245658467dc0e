//! The fuzz targets' checks on drawn bytes: without a fuzzer's guidance, but in every run of the
//! tests. Events that are valid, with bytes or values replaced, get deeper than bytes alone.

#[path = "../../fuzz/checks.rs"]
mod checks;

use proptest::{prelude::*, sample::Index};
use serde_json::{Value, json};

const HASH: &str = "$n5bqF5uDCYbqvF2Kfs9HYbJyg2RyVYkPQnMZVQK3Gk0";

/// Values where none like them is expected.
fn strange() -> Vec<Value> {
    vec![
        Value::Null,
        json!(true),
        json!(-1),
        json!(1.5),
        json!(i64::MAX),
        json!(u64::MAX),
        json!(9_007_199_254_740_991_i64),
        json!(1e300),
        json!(""),
        json!("100"),
        json!("9".repeat(40)),
        json!("\u{0}"),
        json!("@:"),
        json!("@b:domain"),
        json!("\u{10ffff}".repeat(300)),
        json!("x".repeat(70_000)),
        json!([]),
        json!([null]),
        json!([[HASH, { "sha256": 1 }]]),
        json!({}),
        json!({ "": null }),
        json!({ "@a:domain": "100", "@b": {} }),
        json!({ "ed25519:1": "AA" }),
    ]
}

fn event(kind: &str, key: Option<&str>, content: Value) -> Value {
    let mut event = json!({
        "room_id": "!r:domain", "sender": "@a:domain", "type": kind, "content": content, "depth": 3,
        "event_id": "$e:domain", "origin_server_ts": 1_700_000_000_000_i64, "prev_events": [HASH],
        "auth_events": [HASH], "hashes": { "sha256": "AA" }, "unsigned": { "age": 1 },
        "signatures": { "domain": { "ed25519:1": "AA" } }, "redacts": HASH, "origin": "domain",
    });
    if let Some(key) = key {
        event["state_key"] = json!(key);
    }
    event
}

/// An event of every kind that the authorisation rules know.
fn events() -> Vec<Value> {
    let levels = json!({ "users": { "@a:domain": 100, "@b:domain": 50 }, "users_default": 0,
        "events": { "m.room.name": 50 }, "events_default": 0, "state_default": 50, "ban": 50,
        "kick": 50, "redact": 50, "invite": 0, "notifications": { "room": 50 } });
    let signed = json!({ "mxid": "@b:domain", "token": "t", "signatures":
        { "id.domain": { "ed25519:0": "AA" } } });
    let third_party = json!({ "display_name": "b", "key_validity_url": "https://id.domain/valid",
        "public_key": "AA", "public_keys": [{ "public_key": "AA" }] });
    let rules = json!({ "join_rule": "restricted", "allow": [{ "type": "m.room_membership",
        "room_id": "!s:domain" }] });
    let created = json!({ "creator": "@a:domain", "room_version": "11", "m.federate": false,
        "additional_creators": ["@b:domain"], "predecessor": { "room_id": "!o:domain",
        "event_id": HASH } });
    let member = |membership: &str| json!({ "membership": membership });
    vec![
        event("m.room.create", Some(""), created),
        event("m.room.member", Some("@a:domain"), member("join")),
        event("m.room.power_levels", Some(""), levels),
        event("m.room.join_rules", Some(""), rules),
        event("m.room.third_party_invite", Some("t"), third_party),
        event(
            "m.room.member",
            Some("@b:domain"),
            json!({ "membership": "invite",
            "third_party_invite": { "display_name": "b", "signed": signed } }),
        ),
        event(
            "m.room.member",
            Some("@b:domain"),
            json!({ "membership": "join",
            "join_authorised_via_users_server": "@a:domain" }),
        ),
        event("m.room.member", Some("@b:domain"), member("ban")),
        event("m.room.member", Some("@b:domain"), member("knock")),
        event("m.room.aliases", Some("domain"), json!({ "aliases": ["#a:domain"] })),
        event("m.room.redaction", None, json!({ "redacts": HASH, "reason": "spam" })),
        event("m.room.history_visibility", Some(""), json!({ "history_visibility": "shared" })),
        event("m.room.message", None, json!({ "msgtype": "m.text", "body": "hello" })),
    ]
}

/// Replaces or removes something somewhere in a value.
fn mutate(value: &mut Value, path: &[Index], strange: Value, remove: bool) {
    let Some((first, rest)) = path.split_first() else {
        *value = strange;
        return;
    };
    match value {
        Value::Object(map) if !map.is_empty() => {
            let key = map.keys().nth(first.index(map.len())).cloned().unwrap_or_default();
            if remove && rest.is_empty() {
                map.remove(&key);
            } else if let Some(inner) = map.get_mut(&key) {
                mutate(inner, rest, strange, remove);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            let index = first.index(items.len());
            mutate(&mut items[index], rest, strange, remove);
        }
        _ => *value = strange,
    }
}

/// Where, with what, and whether to remove instead.
fn mutation() -> impl Strategy<Value = (Vec<Index>, Value, bool)> {
    let path = prop::collection::vec(any::<Index>(), 1..5);
    (path, prop::sample::select(strange()), prop::bool::weighted(0.2))
}

/// Bytes put in place of others.
fn damage() -> impl Strategy<Value = Vec<(Index, u8)>> {
    prop::collection::vec((any::<Index>(), any::<u8>()), 0..3)
}

fn damaged(mut bytes: Vec<u8>, damage: &[(Index, u8)]) -> Vec<u8> {
    for (place, byte) in damage {
        let place = place.index(bytes.len());
        bytes[place] = *byte;
    }
    bytes
}

fn all_of_them(version: u8, bytes: &[u8]) {
    checks::canonical_json(bytes);
    let bytes = [&[version], bytes].concat();
    checks::pdu(&bytes);
    checks::redaction(&bytes);
    checks::authorisation(&bytes);
}

/// `PROPTEST_CASES`, where it is set, says how many.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(2_000)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn bytes(bytes in prop::collection::vec(any::<u8>(), 0..200), version: u8) {
        all_of_them(version, &bytes);
    }

    #[test]
    fn characters_of_json(text in r#"[\[\]{},:"\\0-9eE.+-tfn ud8]{0,60}"#, version: u8) {
        all_of_them(version, text.as_bytes());
    }

    #[test]
    fn events_with_something_wrong(
        event in prop::sample::select(events()),
        mutations in prop::collection::vec(mutation(), 0..3),
        damage in damage(),
        version: u8,
    ) {
        let mut event = event;
        for (path, strange, remove) in mutations {
            mutate(&mut event, &path, strange, remove);
        }
        all_of_them(version, &damaged(event.to_string().into_bytes(), &damage));
    }

    #[test]
    fn rooms_with_something_wrong(
        event in prop::sample::select(events()),
        state in prop::sample::subsequence(events(), 0..=events().len()),
        mutations in prop::collection::vec(mutation(), 0..4),
        version: u8,
    ) {
        let mut room = vec![event];
        room.extend(state);
        let mut room = Value::Array(room);
        for (path, strange, remove) in mutations {
            mutate(&mut room, &path, strange, remove);
        }
        all_of_them(version, room.to_string().as_bytes());
    }
}

/// What is deeply nested or long is refused or read, and never the end of the stack.
#[test]
fn depths_and_lengths() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}"), ("[{\"a\":", "}]")] {
        for levels in [99, 100, 101, 128, 5_000, 200_000] {
            let whole = open.repeat(levels) + "1" + &close.repeat(levels);
            all_of_them(11, whole.as_bytes());
            all_of_them(11, open.repeat(levels).as_bytes());
        }
    }
    for long in ["\"", "9", "1e", "\\", "0.", " ", "-", "\\ud800", "\u{0}"] {
        all_of_them(0, long.repeat(100_000).as_bytes());
        all_of_them(0, format!("{{\"a\":\"{}\"}}", long.repeat(10_000)).as_bytes());
    }
}
