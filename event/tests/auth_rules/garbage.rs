//! Whatever stands in a content: a verdict, never a panic.

use std::sync::Arc;

use parlour_event::{
    Pdu,
    auth::{self, StateView},
    content::{LevelField, PowerLevels},
    json::{Object, Value},
};
use proptest::{
    collection::{btree_map, vec},
    prelude::*,
    sample::select,
};
use serde_json::json;

use crate::support::*;

const KEYS: [&str; 24] = [
    "membership",
    "join_rule",
    "users",
    "events",
    "notifications",
    "users_default",
    "ban",
    "kick",
    "invite",
    "state_default",
    "creator",
    "additional_creators",
    "m.federate",
    "room_version",
    "third_party_invite",
    "signed",
    "mxid",
    "token",
    "signatures",
    "public_key",
    "public_keys",
    "join_authorised_via_users_server",
    ALICE,
    "ed25519:1",
];
const TEXTS: [&str; 16] = [
    "join",
    "leave",
    "invite",
    "ban",
    "knock",
    "public",
    "restricted",
    "knock_restricted",
    ALICE,
    BOB,
    "tok",
    "",
    "@",
    "100",
    " +\u{0}5",
    "AAAA",
];
const TYPES: [&str; 8] = [
    "m.room.create",
    "m.room.member",
    "m.room.power_levels",
    "m.room.join_rules",
    "m.room.third_party_invite",
    "m.room.redaction",
    "m.room.aliases",
    "m.room.message",
];

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Integer),
        any::<f64>().prop_map(Value::Float),
        Just(Value::Integer(50)),
        select(&TEXTS[..]).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::Array),
            object_of(inner).prop_map(Value::Object),
        ]
    })
}

fn object_of(inner: impl Strategy<Value = Value>) -> impl Strategy<Value = Object> {
    let key = prop_oneof![9 => select(&KEYS[..]).prop_map(str::to_owned), 1 => any::<String>()];
    btree_map(key, inner, 0..6)
}

fn event() -> impl Strategy<Value = (&'static str, Option<String>, &'static str, Object)> {
    let key = prop_oneof![
        Just(None),
        select(&TEXTS[..]).prop_map(|key| Some(key.to_owned())),
        any::<String>().prop_map(Some),
    ];
    (select(&TYPES[..]), key, select(&[ALICE, BOB, CAROL][..]), object_of(value()))
}

fn build(room: &Room, id: &str, parts: (&str, Option<String>, &str, Object)) -> Pdu {
    let (event_type, state_key, sender, content) = parts;
    let pdu = Draft { state_key, ..message(sender, event_type, json!({})) };
    let pdu = pdu.extra("room_id", json!(room_id(room.version))).build(room.version, id);
    // Not by way of `Draft`, whose numbers are limited.
    let mut object = pdu.json().clone();
    object.insert("content".to_owned(), Value::Object(content));
    Pdu::from_trusted(room.version, pdu.event_id().clone(), object).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn garbage_never_panics(
        v in 1_u8..=12,
        members in vec(object_of(value()), 3),
        others in vec(object_of(value()), 4),
        parts in event(),
    ) {
        let room = Room::joined(v);
        let users = [ALICE, BOB, CAROL].map(|user| ("m.room.member", user));
        let types = [
            ("m.room.power_levels", ""), ("m.room.join_rules", ""),
            ("m.room.third_party_invite", "tok"), ("m.room.create", ""),
        ];
        let mut garbage = room.clone();
        for ((event_type, key), content) in users.into_iter().chain(types).zip(members.into_iter().chain(others)) {
            let pdu = build(&room, "$create", (event_type, Some(key.to_owned()), ALICE, content));
            garbage.state.insert((event_type.to_owned(), key.to_owned()), Arc::new(pdu));
        }
        let event = build(&room, "$event", parts);
        for state in [&room, &garbage] {
            let verdict = auth::check(room.version, &event, state);
            if let Err(error) = verdict {
                prop_assert!(!error.to_string().is_empty());
            }
        }
        let list: Vec<_> = garbage.state.values().map(|pdu| (pdu.clone(), false)).collect();
        let of_type = event.event_type() == "m.room.create";
        prop_assert_eq!(auth::check_auth_events(room.version, &event, &list).is_ok(), of_type);
    }

    #[test]
    fn garbage_power_levels_never_panic(v in 1_u8..=12, content in object_of(value())) {
        let create = Room::new(v).event("m.room.create", "").unwrap();
        let levels = PowerLevels::of_content(version(v), Some(&create), &content);
        let well_formed = levels.validate().is_ok();
        let questions = [
            levels.user_level(create.sender()).map(|_| ()),
            levels.event_level("membership", true).map(|_| ()),
            levels.notification_level("membership").map(|_| ()),
        ];
        let fields = LevelField::ALL.map(|field| levels.level(field).map(|_| ()));
        // What validates from version 10 on leaves no question open.
        if well_formed && v >= 10 {
            prop_assert!(questions.iter().chain(&fields).all(Result::is_ok));
        }
    }
}
