//! The auth check of a message, a join, and a power level change, by the number of users in the
//! power levels. The first two must not depend on it.

#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]

use std::{collections::HashMap, hint::black_box, sync::Arc};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use parlour_event::{Pdu, RoomVersion, auth, json::Value};
use serde_json::json;

const ADMIN: &str = "@admin:example.org";

type State = HashMap<(&'static str, String), Arc<Pdu>>;

fn pdu(version: &RoomVersion, id: &str, mut event: serde_json::Value) -> Pdu {
    for (key, value) in [
        ("room_id", json!("!room:example.org")),
        ("prev_events", json!(["$prev"])),
        ("auth_events", json!([])),
        ("depth", json!(1)),
        ("origin_server_ts", json!(1)),
    ] {
        event[key] = value;
    }
    let Value::Object(event) = Value::from(event) else { panic!("an object") };
    Pdu::from_trusted(version, id.try_into().expect("an event id"), event).expect("a PDU")
}

fn levels(users: usize, last: i64) -> serde_json::Value {
    let mut content = json!({ "users": { ADMIN: 100 }, "events": { "m.room.name": 50 } });
    for user in 1..users {
        content["users"][format!("@user{user:05}:example.org")] = json!(user % 50);
    }
    content["users"]["@zoe:example.org"] = json!(last);
    content
}

fn room(version: &RoomVersion, users: usize) -> State {
    [
        ("m.room.create", "", json!({ "creator": ADMIN })),
        ("m.room.member", ADMIN, json!({ "membership": "join" })),
        ("m.room.join_rules", "", json!({ "join_rule": "public" })),
        ("m.room.power_levels", "", levels(users, 1)),
    ]
    .into_iter()
    .map(|(event_type, key, content)| {
        let event =
            json!({ "type": event_type, "state_key": key, "sender": ADMIN, "content": content });
        ((event_type, key.to_owned()), Arc::new(pdu(version, "$state", event)))
    })
    .collect()
}

fn bench(criterion: &mut Criterion) {
    let version = RoomVersion::parse("11").expect("a known version");
    let mut group = criterion.benchmark_group("auth_check");
    for users in [10, 1_000, 50_000] {
        let state = room(version, users);
        // The types are static, so that the look-up here costs no allocation for them.
        let view = |event_type: &str, key: &str| {
            let event_type =
                ["m.room.create", "m.room.member", "m.room.join_rules", "m.room.power_levels"]
                    .into_iter()
                    .find(|known| *known == event_type)?;
            state.get(&(event_type, key.to_owned())).cloned()
        };
        let joiner = "@new:example.net";
        for (name, event) in [
            (
                "message",
                json!({
                    "type": "m.room.message", "sender": ADMIN, "content": { "body": "hello" },
                }),
            ),
            (
                "join",
                json!({
                    "type": "m.room.member", "state_key": joiner, "sender": joiner,
                    "content": { "membership": "join" },
                }),
            ),
            (
                "power_levels",
                json!({
                    "type": "m.room.power_levels", "state_key": "", "sender": ADMIN,
                    "content": levels(users, 2),
                }),
            ),
        ] {
            let event = pdu(version, "$event", event);
            assert_eq!(auth::check(version, &event, &view), Ok(()));
            group.bench_function(BenchmarkId::new(name, users), |bencher| {
                bencher.iter(|| auth::check(version, black_box(&event), black_box(&view)));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
