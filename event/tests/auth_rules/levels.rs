//! `PowerLevels` as a view that others use: levels, defaults, forms of numbers.

use parlour_event::{
    content::{LevelError, LevelField, PowerLevel, PowerLevels},
    json::{self, Object, Value},
};
use ruma::user_id;
use serde_json::json;

use crate::support::*;

fn user_level(v: u8, value: Value) -> Result<PowerLevel, LevelError> {
    let users = Object::from([(BOB.to_owned(), value)]);
    let content = Object::from([("users".to_owned(), Value::Object(users))]);
    PowerLevels::of_content(version(v), None, &content).user_level(user_id!("@bob:a.org"))
}

fn vectors() -> Json {
    serde_json::from_str(include_str!("../data/test-vectors.json")).unwrap()
}

// Checklist 14.9
#[test]
fn vectors_of_levels_in_text() {
    let vectors = &vectors()["power_level_values_room_versions_1_to_9"]["valid_integer_strings"];
    for vector in vectors.as_array().unwrap() {
        let expected = PowerLevel::Int(vector[1].as_i64().unwrap());
        for v in 1..=12 {
            let level = user_level(v, vector[0].clone().into());
            assert_eq!(level.ok(), (v < 10).then_some(expected), "version {v}: {vector}");
        }
    }
}

// Checklist 14.9
#[test]
fn vectors_of_levels_with_fractions() {
    let vectors = &vectors()["power_level_floats_room_versions_1_to_5"];
    for vector in vectors["truncation"].as_array().unwrap() {
        let expected = PowerLevel::Int(vector[1].as_i64().unwrap());
        let value = json::parse_lax(vector[0].as_str().unwrap().as_bytes()).unwrap();
        for v in 1..=12 {
            let level = user_level(v, value.clone());
            assert_eq!(level.ok(), (v < 6).then_some(expected), "version {v}: {vector}");
        }
    }
    for odd in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        assert!((1..=12).all(|v| user_level(v, Value::Float(odd)).is_err()), "{odd}");
    }
    for text in vectors["reject"].as_array().unwrap() {
        let text = text.as_str().unwrap();
        assert!(json::parse_lax(text.as_bytes()).is_err(), "{text}");
        assert!((1..=12).all(|v| user_level(v, text.into()).is_err()), "{text}");
    }
    // "Values outside the range represented by IEE754 binary64 cause the powerlevel event to be
    // rejected": such a number does not even parse, or it is no level.
    if let Ok(value) = json::parse_lax(b"1e400") {
        assert!((1..=12).all(|v| user_level(v, value.clone()).is_err()));
    }
}

#[test]
fn forms_that_are_no_level() {
    for text in ["", " ", "+", "-", "+-5", "++5", "- 5", "5 0", "5.0", "1e2", "0x1", "1_000", "٣"]
    {
        assert!((1..=12).all(|v| user_level(v, text.into()).is_err()), "{text:?}");
    }
    for value in [json!(null), json!(true), json!([]), json!({}), json!([5])] {
        assert!((1..=12).all(|v| user_level(v, value.clone().into()).is_err()), "{value}");
    }
}

#[test]
fn size_of_levels() {
    let most = 9_007_199_254_740_991_i64;
    for v in 1..=12 {
        assert_eq!(user_level(v, Value::Integer(most)), Ok(PowerLevel::Int(most)));
        assert_eq!(user_level(v, Value::Integer(-most)), Ok(PowerLevel::Int(-most)));
        assert_eq!(user_level(v, Value::Integer(most + 1)).is_ok(), v < 6, "version {v}");
    }
    // Where there is no limit, what is beyond an i64 is as high as can be.
    for number in ["99999999999999999999", "1e300", "\"99999999999999999999\""] {
        let value = json::parse_lax(number.as_bytes()).unwrap();
        assert_eq!(user_level(1, value.clone()), Ok(PowerLevel::Int(i64::MAX)), "{number}");
        assert!((6..=12).all(|v| user_level(v, value.clone()).is_err()), "{number}");
    }
}

#[test]
fn order_of_levels() {
    assert!(PowerLevel::Infinite > PowerLevel::Int(i64::MAX));
    assert!(PowerLevel::Int(1) > PowerLevel::Int(-1));
    assert!(PowerLevel::Infinite.reaches(i64::MAX));
    assert!(PowerLevel::Int(50).reaches(50));
    assert!(!PowerLevel::Int(49).reaches(50));
}

#[test]
fn defaults() {
    let (alice, bob) = (user_id!("@alice:a.org"), user_id!("@bob:a.org"));
    for v in 1..=12 {
        let room = Room::new(v);
        let create = &room.state[&("m.room.create".to_owned(), String::new())];
        let infinite = |level| if v < 12 { PowerLevel::Int(level) } else { PowerLevel::Infinite };
        let none = PowerLevels::new(room.version, Some(create), None);
        assert_eq!(none.user_level(alice), Ok(infinite(100)));
        assert_eq!(none.user_level(bob), Ok(PowerLevel::Int(0)));
        let content = Object::new();
        let empty = PowerLevels::of_content(room.version, Some(create), &content);
        assert_eq!(empty.user_level(alice), Ok(infinite(0)));
        for levels in [none, empty] {
            let fields = LevelField::ALL.map(|field| levels.level(field).unwrap());
            assert_eq!(fields, [0, 0, 50, 50, 50, 50, 0]);
            assert_eq!(levels.event_level("m.x", false), Ok(0));
            assert_eq!(levels.event_level("m.x", true), Ok(50));
            assert_eq!(levels.notification_level("room"), Ok(50));
            assert_eq!((levels.invite(), levels.kick()), (Ok(0), Ok(50)));
            assert_eq!((levels.ban(), levels.redact()), (Ok(50), Ok(50)));
        }
    }
}

#[test]
fn explicit_levels() {
    let content = object(json!({
        "users_default": 1, "events_default": 2, "state_default": 3, "ban": 4, "redact": 5,
        "kick": 6, "invite": 7, "users": { BOB: 8 }, "events": { "m.x": 9 },
        "notifications": { "room": 10 },
    }));
    for v in 1..=12 {
        let levels = PowerLevels::of_content(version(v), None, &content);
        assert_eq!(
            LevelField::ALL.map(|field| levels.level(field).unwrap()),
            [1, 2, 3, 4, 5, 6, 7]
        );
        assert_eq!(levels.user_level(user_id!("@bob:a.org")), Ok(PowerLevel::Int(8)));
        assert_eq!(levels.user_level(user_id!("@carol:c.org")), Ok(PowerLevel::Int(1)));
        assert_eq!(levels.event_level("m.x", true), Ok(9));
        assert_eq!(levels.event_level("m.y", true), Ok(3));
        assert_eq!(levels.event_level("m.y", false), Ok(2));
        assert_eq!(levels.notification_level("room"), Ok(10));
        assert_eq!(levels.validate(), Ok(()));
    }
}
