//! The format of events: what is accepted in which room version, and what is refused and why.

mod pdu_common;

use parlour_event::{
    Pdu, RoomVersion,
    hashes::{self, encode_base64},
    json::{JsonError, NotAllowed, Object, Value, parse_lax, parse_object},
    pdu::FormatError,
    signing,
};
use pdu_common::{key, message, object, version};
use proptest::prelude::*;
use serde_json::json;

const HASH: &str = "n5bqF5uDCYbqvF2Kfs9HYbJyg2RyVYkPQnMZVQK3Gk0";

fn signed(version: &RoomVersion, mut event: Object) -> Object {
    signing::hash_and_sign_event(version, &mut event, "domain", &key());
    event
}

fn with(version: &RoomVersion, field: &str, value: impl Into<Value>) -> Object {
    let mut event = signed(version, message(version));
    event.insert(field.to_owned(), value.into());
    event
}

fn without(version: &RoomVersion, field: &str) -> Object {
    let mut event = signed(version, message(version));
    event.remove(field);
    event
}

fn references(version: &RoomVersion, count: usize) -> Value {
    let one = message(version)["prev_events"].as_array().expect("an array")[0].clone();
    Value::Array(vec![one; count])
}

fn error(version: &RoomVersion, event: Object) -> FormatError {
    Pdu::from_wire(version, event).expect_err("must be refused")
}

#[test]
fn the_fields_are_taken_out() {
    for number in 1..=12 {
        let version = version(number);
        let event = signed(version, message(version));
        let pdu = Pdu::from_wire(version, event.clone()).expect("a valid event");
        assert_eq!(pdu.sender().as_str(), "@a:domain");
        assert_eq!(pdu.event_type(), "m.room.message");
        assert_eq!(pdu.state_key(), None);
        assert_eq!((pdu.depth(), pdu.origin_server_ts()), (3, 1_700_000_000_000));
        assert_eq!((pdu.prev_events().len(), pdu.auth_events().len()), (1, 2));
        assert_eq!(pdu.content()["body"], "hello".into());
        assert_eq!(pdu.json(), &event);
        let expected = match number {
            1 | 2 => "$e:domain".to_owned(),
            3 => format!("${}", encode_base64(&hashes::reference_hash(version, &event))),
            _ => {
                format!("${}", hashes::encode_base64_url(&hashes::reference_hash(version, &event)))
            }
        };
        assert_eq!(pdu.event_id().as_str(), expected);

        // Through bytes, and out of our own store.
        let again = parse_object(version, &pdu.to_bytes()).expect("canonical JSON");
        assert_eq!(again, event);
        let trusted = Pdu::from_trusted(version, pdu.event_id().clone(), again).expect("stored");
        assert_eq!(format!("{trusted:?}"), format!("{pdu:?}"));
    }
}

#[test]
fn required_fields() {
    for number in 1..=12 {
        let version = version(number);
        for field in [
            "room_id",
            "sender",
            "type",
            "content",
            "depth",
            "origin_server_ts",
            "prev_events",
            "auth_events",
            "hashes",
            "signatures",
        ] {
            assert_eq!(error(version, without(version, field)), FormatError::Missing { field });
            for wrong in [json!(null), json!(true), json!([[]]), json!([1])] {
                Pdu::from_wire(version, with(version, field, wrong)).expect_err(field);
            }
        }
        let event_id = Pdu::from_wire(version, without(version, "event_id"));
        assert_eq!(event_id.is_ok(), number >= 3);
        for field in ["state_key", "unsigned"] {
            for wrong in [json!(null), json!(1), json!([])] {
                Pdu::from_wire(version, with(version, field, wrong)).expect_err(field);
            }
        }
    }
}

#[test]
fn references_have_hashes_in_versions_1_and_2_only() {
    let bare = Value::from(vec![Value::from(format!("${HASH}:domain"))]);
    let with_hash = Value::from(json!([[format!("${HASH}:domain"), {"sha256": HASH}]]));
    for number in 1..=12 {
        let version = version(number);
        for field in ["prev_events", "auth_events"] {
            let accepts = |value: &Value| {
                Pdu::from_wire(version, with(version, field, value.clone())).is_ok()
            };
            assert_eq!((accepts(&with_hash), accepts(&bare)), (number < 3, number >= 3));
            for wrong in [json!(["x"]), json!([["$a:b"]]), json!([[1, {}]]), json!([{}]), json!({})]
            {
                assert!(!accepts(&wrong.into()), "version {number}, {field}");
            }
        }
    }
}

// Checklist 13.5
#[test]
fn limits_of_counts() {
    for number in 1..=12 {
        let version = version(number);
        for (field, limit) in [("prev_events", 20), ("auth_events", 10)] {
            Pdu::from_wire(version, with(version, field, references(version, limit)))
                .expect("at the limit");
            let event = with(version, field, references(version, limit + 1));
            let expected = FormatError::TooMany { field, count: limit + 1, limit };
            assert_eq!(error(version, event.clone()), expected);
            // There is old history that would be refused now.
            Pdu::from_history(version, event).expect("history");
        }
    }
}

#[test]
fn limits_of_field_lengths_are_in_bytes() {
    // 127 letters of two bytes each.
    let longest = |prefix: &str, suffix: &str| {
        let room = 255 - prefix.len() - suffix.len();
        format!("{prefix}{}{}{suffix}", "é".repeat(room / 2), "x".repeat(room % 2))
    };
    for number in [1, 6, 11] {
        let version = version(number);
        let mut fields = vec![
            ("type", longest("", "")),
            ("state_key", longest("", "")),
            ("sender", longest("@", ":domain")),
            ("room_id", longest("!", ":domain")),
        ];
        if number == 1 {
            fields.push(("event_id", longest("$", ":domain")));
        }
        for (field, text) in fields {
            assert_eq!(text.len(), 255);
            Pdu::from_wire(version, with(version, field, text.clone())).expect("at the limit");
            let longer = text.replacen('é', "éx", 1);
            let error = error(version, with(version, field, longer));
            assert_eq!(error, FormatError::FieldTooLong { field, bytes: 256 });
            assert!(error.is_too_large());
        }
    }
}

#[test]
fn limit_of_the_whole_event() {
    for number in 1..=12 {
        let version = version(number);
        let sized = |extra: usize| {
            let mut event = message(version);
            let content = event.get_mut("content").and_then(Value::as_object_mut);
            content.expect("an object").insert("body".to_owned(), "x".repeat(extra).into());
            signed(version, event)
        };
        let base = parlour_event::json::to_canonical(&sized(0).into()).len();
        let pdu = Pdu::from_wire(version, sized(65_536 - base)).expect("at the limit");
        assert_eq!(pdu.to_bytes().len(), 65_536);
        let error = error(version, sized(65_537 - base));
        assert_eq!(error, FormatError::TooLarge { bytes: 65_537 });
        assert!(error.is_too_large());
    }
}

// Checklist 13.6
#[test]
fn depth() {
    let limit = (1_i64 << 53) - 1;
    for number in 1..=12 {
        let version = version(number);
        let accepts = |depth: Value| Pdu::from_wire(version, with(version, "depth", depth)).is_ok();
        assert!(accepts(0_i64.into()) && accepts(limit.into()));
        assert_eq!(accepts((limit + 1).into()), number < 6, "version {number}");
        assert_eq!(accepts(i64::MAX.into()), number < 6, "version {number}");
        let beyond = parse_lax(b"9223372036854775808").expect("JSON");
        assert!(!accepts(beyond) && !accepts((-1_i64).into()) && !accepts(Value::Float(3.0)));
        assert!(!accepts("3".into()));
    }
}

// Checklist 7.2
#[test]
fn numbers_in_the_content() {
    for number in 1..=12 {
        let version = version(number);
        for (text, what) in [
            ("1.5", NotAllowed::Fraction),
            ("9007199254740992", NotAllowed::IntegerRange),
            ("99999999999999999999", NotAllowed::IntegerRange),
        ] {
            let mut event = message(version);
            let value = parse_lax(format!("{{\"n\":[{text}]}}").as_bytes()).expect("JSON");
            event.insert("content".to_owned(), value);
            let result = Pdu::from_wire(version, signed(version, event));
            if number < 6 {
                let pdu = result.expect("lax rooms take any number");
                assert!(String::from_utf8(pdu.to_bytes()).expect("UTF-8").contains(text));
            } else {
                let expected = FormatError::Json(JsonError::NotAllowed { at: 0, what });
                assert_eq!(result.expect_err("strict"), expected);
            }
        }
    }
}

// Checklist 13.11
#[test]
fn identifiers() {
    for number in 1..=12 {
        let version = version(number);
        for sender in ["", "a:domain", "@a", "@a:", "@a:dom ain", "@a\u{0}b:domain", "!a:domain"] {
            let error = error(version, with(version, "sender", sender));
            assert!(matches!(error, FormatError::BadIdentifier { field: "sender", .. }));
        }
        // Historical user ids stay valid.
        for sender in ["@Upper Case!:domain", "@:domain", "@日本:domain:8448", "@a/b=c:[::1]"] {
            Pdu::from_wire(version, with(version, "sender", sender)).expect(sender);
        }
        let room = |id: &str| Pdu::from_wire(version, with(version, "room_id", id)).is_ok();
        assert_eq!((room("!r:domain"), room(&format!("!{HASH}"))), (number < 12, number == 12));
        assert!(!room("") && !room("r:domain") && !room("!r") && !room(&format!("!{HASH}x")));
        let event_id = |id: &str| Pdu::from_wire(version, with(version, "event_id", id)).is_ok();
        assert_eq!((event_id("$x"), event_id("x:y")), (number >= 3, number >= 3));
    }
}

#[test]
fn the_create_event_of_version_12_makes_the_room_id() {
    let create = |number: u8| {
        let mut event = message(version(number));
        event.remove("room_id");
        event.insert("type".to_owned(), "m.room.create".into());
        event.insert("state_key".to_owned(), "".into());
        event.insert("prev_events".to_owned(), Value::Array(vec![]));
        event.insert("auth_events".to_owned(), Value::Array(vec![]));
        signed(version(number), event)
    };
    let pdu = Pdu::from_wire(version(12), create(12)).expect("a valid event");
    assert_eq!(pdu.room_id().as_str(), pdu.event_id().as_str().replace('$', "!"));
    assert!(!pdu.json().contains_key("room_id"));
    let trusted = Pdu::from_trusted(version(12), pdu.event_id().clone(), pdu.json().clone());
    assert_eq!(trusted.expect("stored").room_id(), pdu.room_id());
    for number in 1..=11 {
        assert_eq!(
            error(version(number), create(number)),
            FormatError::Missing { field: "room_id" }
        );
    }
}

#[test]
fn what_a_redaction_redacts() {
    for number in 1..=12 {
        let version = version(number);
        let target = if number < 3 { "$t:domain".to_owned() } else { format!("${HASH}") };
        let mut event = message(version);
        event.insert("type".to_owned(), "m.room.redaction".into());
        event.insert("content".to_owned(), json!({"redacts": target}).into());
        let in_content = Pdu::from_wire(version, signed(version, event.clone())).expect("valid");
        event.insert("content".to_owned(), json!({}).into());
        event.insert("redacts".to_owned(), target.clone().into());
        let on_top = Pdu::from_wire(version, signed(version, event)).expect("valid");
        let (new, old) = (in_content.redacts().is_some(), on_top.redacts().is_some());
        assert_eq!((new, old), (number >= 11, number < 11), "version {number}");
        // Only redactions redact.
        let other = Pdu::from_wire(version, with(version, "redacts", target)).expect("valid");
        assert_eq!(other.redacts(), None);
        // A redacted redaction keeps its target only where redaction keeps the field.
        assert_eq!(in_content.redacted(version).redacts().is_some(), number >= 11);
        assert_eq!(on_top.redacted(version).redacts(), None);
    }
}

#[test]
fn redacting_keeps_the_id() {
    for number in 1..=12 {
        let version = version(number);
        let pdu = Pdu::from_wire(version, signed(version, message(version))).expect("valid");
        let redacted = pdu.clone().redacted(version);
        assert!(redacted.content().is_empty());
        let again = Pdu::from_wire(version, redacted.into_json()).expect("valid");
        assert_eq!(again.event_id(), pdu.event_id());
    }
}

fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(|truth| json!(truth)),
        any::<i64>().prop_map(|number| json!(number)),
        any::<f64>().prop_map(|number| json!(number)),
        any::<String>().prop_map(|text| json!(text)),
        Just(json!("@a:b")),
        Just(json!("$a:b")),
        Just(json!("m.room.member")),
        Just(json!("m.room.create")),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|list| json!(list)),
            prop::collection::btree_map("[a-z0-9]{1,6}", inner, 0..4).prop_map(|map| json!(map)),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    /// Any field replaced by anything: a clear answer, no panic; what is accepted holds.
    #[test]
    fn wrong_types_never_panic(
        number in 1_u8..=12,
        changes in prop::collection::vec((0_usize..20, any_json()), 1..3),
    ) {
        const FIELDS: [&str; 14] = [
            "room_id", "sender", "type", "content", "depth", "origin_server_ts", "prev_events",
            "auth_events", "hashes", "signatures", "event_id", "state_key", "redacts", "unsigned",
        ];
        let version = version(number);
        let mut event = signed(version, message(version));
        for (index, value) in changes {
            match FIELDS.get(index) {
                Some(field) => event.insert((*field).to_owned(), value.into()),
                None => event.insert(format!("extra{index}"), value.into()),
            };
        }
        let _ = signing::verify_event(version, &event, |_, _| Some(key().public_key()));
        match Pdu::from_wire(version, event.clone()) {
            Ok(pdu) => {
                let again = parse_object(version, &pdu.to_bytes()).expect("what we write, we read");
                let again = Pdu::from_wire(version, again).expect("still valid");
                prop_assert_eq!(again.event_id(), pdu.event_id());
                prop_assert!(again.content() == pdu.content());
            }
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
        let redacted = parlour_event::redaction::redact(version, event.clone());
        prop_assert_eq!(
            hashes::reference_hash(version, &redacted),
            hashes::reference_hash(version, &event)
        );
    }

    #[test]
    fn objects_that_are_no_events_are_refused(number in 1_u8..=12, value in any_json()) {
        let event = object(json!({"content": value}));
        prop_assert!(Pdu::from_wire(version(number), event).is_err());
    }
}
