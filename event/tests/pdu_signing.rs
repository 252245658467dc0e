//! Building our own events, who must have signed one, and when a redaction applies.

mod pdu_common;

use parlour_event::{
    Pdu, RoomVersion,
    hashes::{self, encode_base64},
    json::{MAX_DEPTH, Object, Value, parse_lax, parse_object},
    pdu::{EventReference, FormatError, PduBuilder},
    redaction,
    signing::{self, KeyError, PublicKey, SignatureError, SigningKey, Verified},
};
use pdu_common::{key, message, object, version};
use ruma::{OwnedRoomId, owned_user_id, server_name};
use serde_json::json;

fn builder(version: &RoomVersion, event_type: &str) -> PduBuilder {
    let previous = message(version);
    let previous = Pdu::from_wire(version, {
        let mut previous = previous;
        signing::hash_and_sign_event(version, &mut previous, "domain", &key());
        previous
    })
    .expect("a valid event");
    let reference = EventReference::to(version, &previous);
    PduBuilder {
        room_id: Some(previous.room_id().clone()),
        sender: owned_user_id!("@a:domain"),
        event_type: event_type.to_owned(),
        state_key: None,
        content: object(json!({"body": "x"})),
        prev_events: vec![reference.clone()],
        auth_events: vec![reference],
        depth: 4,
        origin_server_ts: 5,
        redacts: None,
        event_localpart: (version.number() < 3).then(|| "local".to_owned()),
    }
}

fn build(version: &RoomVersion, builder: PduBuilder) -> Result<Pdu, FormatError> {
    builder.build_and_sign(version, server_name!("domain"), &key())
}

fn verify(version: &RoomVersion, event: &Object) -> Result<Verified, SignatureError> {
    signing::verify_event(version, event, |_, id| {
        (id == "ed25519:test").then(|| key().public_key())
    })
}

#[test]
fn what_we_build_passes_our_own_checks() {
    for number in 1..=12 {
        let version = version(number);
        let pdu = build(version, builder(version, "m.room.message")).expect("a valid event");
        assert_eq!(verify(version, pdu.json()), Ok(Verified::All));
        let received = Pdu::from_wire(version, pdu.json().clone()).expect("a valid event");
        assert_eq!(received.event_id(), pdu.event_id());
        assert_eq!(received.prev_events(), pdu.prev_events());
        if number < 3 {
            assert_eq!(pdu.event_id().as_str(), "$local:domain");
        }
    }
}

#[test]
fn references_carry_the_hash_where_they_must() {
    let version = version(2);
    let mut previous = message(version);
    signing::hash_and_sign_event(version, &mut previous, "domain", &key());
    let hash = encode_base64(&hashes::reference_hash(version, &previous));
    let pdu = build(version, builder(version, "m.room.message")).expect("a valid event");
    let expected = Value::from(json!([["$e:domain", {"sha256": hash}]]));
    assert_eq!(pdu.json()["prev_events"], expected);

    let mut bare = builder(version, "m.room.message");
    bare.prev_events = vec![previous_id(&pdu).into()];
    build(version, bare).expect_err("the hash is missing");
}

fn previous_id(pdu: &Pdu) -> ruma::OwnedEventId {
    pdu.prev_events()[0].clone()
}

#[test]
fn our_own_events_are_strict_in_every_version() {
    for number in 1..=12 {
        let version = version(number);
        for content in ["{\"a\":1.5}", "{\"a\":[9007199254740992]}", "{\"a\":1e3}"] {
            let mut builder = builder(version, "m.room.message");
            builder.content =
                parse_lax(content.as_bytes()).expect("JSON").as_object().expect("one").clone();
            let error = build(version, builder).expect_err("not canonical");
            assert!(matches!(error, FormatError::Json(_)), "version {number}: {error}");
        }
    }
}

/// What is built can be read again: the event adds levels to its content.
#[test]
fn nesting_is_bounded_where_it_can_still_be_read() {
    let content = |levels: usize| {
        let text = format!("{{\"a\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
        parse_lax(text.as_bytes()).expect("JSON").as_object().expect("one").clone()
    };
    for number in 1..=12 {
        let version = version(number);
        let nested = |levels| {
            build(version, PduBuilder { content: content(levels), ..builder(version, "x") })
        };
        let pdu = nested(MAX_DEPTH - 2).expect("the deepest");
        parse_object(version, &pdu.to_bytes()).expect("what we write, we read");
        nested(MAX_DEPTH - 1).expect_err("too deep");
    }
}

// Checklist 13.6
#[test]
fn depth_stays_at_its_limit() {
    for number in 1..=12 {
        let version = version(number);
        let mut builder = builder(version, "m.room.message");
        builder.depth = u64::MAX;
        let limit = if number < 6 { i64::MAX as u64 } else { (1 << 53) - 1 };
        assert_eq!(build(version, builder).expect("a valid event").depth(), limit);
    }
}

#[test]
fn redacts_goes_where_the_version_wants_it() {
    for number in 1..=12 {
        let version = version(number);
        let mut builder = builder(version, "m.room.redaction");
        let target = builder.prev_events[0].event_id.clone();
        builder.redacts = Some(target.clone());
        let pdu = build(version, builder).expect("a valid event");
        assert_eq!(pdu.redacts(), Some(&target));
        assert_eq!(pdu.json().contains_key("redacts"), number < 11);
        assert_eq!(pdu.content().contains_key("redacts"), number >= 11);
    }
}

#[test]
fn a_version_12_room_is_named_by_its_create_event() {
    let create = |number: u8, room_id: Option<OwnedRoomId>| {
        let version = version(number);
        let builder = PduBuilder {
            room_id,
            state_key: Some(String::new()),
            prev_events: vec![],
            auth_events: vec![],
            ..builder(version, "m.room.create")
        };
        build(version, builder)
    };
    let pdu = create(12, None).expect("a valid event");
    assert_eq!(pdu.room_id().as_str()[1..], pdu.event_id().as_str()[1..]);
    assert_eq!(create(11, None).expect_err("no id"), FormatError::Missing { field: "room_id" });
    create(11, Some("!r:domain".try_into().expect("an id"))).expect("a valid event");
}

#[test]
fn versions_1_and_2_need_a_localpart() {
    for number in 1..=12 {
        let version = version(number);
        let mut builder = builder(version, "m.room.message");
        builder.event_localpart = None;
        assert_eq!(build(version, builder).is_ok(), number >= 3);
    }
}

#[test]
fn our_own_events_have_limits() {
    let version = version(11);
    let mut large = builder(version, "m.room.message");
    large.content.insert("body".to_owned(), "x".repeat(70_000).into());
    assert!(build(version, large).expect_err("too large").is_too_large());
    let long = builder(version, &"t".repeat(256));
    assert!(build(version, long).expect_err("too long").is_too_large());
}

type Servers = &'static [&'static str];

/// Who must have signed, by room version.
#[test]
fn required_signers() {
    let member = |membership: &str, extra: serde_json::Value| {
        let mut content = json!({"membership": membership});
        for (key, value) in extra.as_object().expect("an object") {
            content[key] = value.clone();
        }
        json!({"type": "m.room.member", "state_key": "@b:b", "sender": "@a:a",
            "event_id": "$e:e", "content": content})
    };
    let join_via = member("join", json!({"join_authorised_via_users_server": "@c:c:1"}));
    let invite = member("invite", json!({"third_party_invite": {"signed": {}}}));
    let rows: [(serde_json::Value, Servers, Servers, Servers); 6] = [
        // event, versions 1 and 2, versions 3 to 7, versions 8 to 12
        (json!({"type": "x", "sender": "@a:a", "event_id": "$e:e"}), &["a", "e"], &["a"], &["a"]),
        (json!({"type": "x", "sender": "@a:a", "event_id": "$e:a"}), &["a"], &["a"], &["a"]),
        (member("invite", json!({})), &["a", "e"], &["a"], &["a"]),
        (invite, &["e"], &[], &[]),
        (member("join", json!({"third_party_invite": {}})), &["a", "e"], &["a"], &["a"]),
        (join_via, &["a", "e"], &["a"], &["a", "c:1"]),
    ];
    for (event, oldest, middle, newest) in rows {
        for number in 1..=12 {
            let expected = match number {
                1 | 2 => oldest,
                3..=7 => middle,
                _ => newest,
            };
            let servers = signing::required_servers(version(number), &object(event.clone()));
            let servers = servers.expect("valid ids");
            let servers: Vec<_> = servers.iter().map(|server| server.as_str()).collect();
            assert_eq!(servers, expected, "version {number}: {event}");
        }
    }
}

#[test]
fn signers_that_cannot_be_told() {
    let via = json!({"type": "m.room.member", "sender": "@a:a", "content":
        {"membership": "join", "join_authorised_via_users_server": 1}});
    for (number, event, field) in [
        (10, json!({"type": "x"}), "sender"),
        (10, json!({"type": "x", "sender": "a"}), "sender"),
        (1, json!({"type": "x", "sender": "@a:a"}), "event_id"),
        (1, json!({"type": "x", "sender": "@a:a", "event_id": "$e"}), "event_id"),
        (10, via, "join_authorised_via_users_server"),
    ] {
        let error = signing::required_servers(version(number), &object(event));
        assert_eq!(error, Err(SignatureError::BadSigner(field)));
    }
}

#[test]
fn signatures_of_unknown_keys_are_skipped_but_known_ones_must_hold() {
    let version = version(10);
    let other = SigningKey::from_seed(&[8; 32], "other").expect("a valid version");
    let mut event = message(version);
    signing::hash_and_sign_event(version, &mut event, "domain", &key());
    signing::sign_event(version, &mut event, "elsewhere", &other);
    assert_eq!(verify(version, &event), Ok(Verified::All));

    let set = |event: &Object, server: &str, id: &str, signature: &str| {
        let mut event = event.clone();
        let signatures = event.get_mut("signatures").and_then(Value::as_object_mut);
        let entry = signatures.and_then(|all| all.get_mut(server)).and_then(Value::as_object_mut);
        entry.expect("an entry").insert(id.to_owned(), signature.into());
        event
    };
    for id in ["ed25519:unknown", "rsa:test", "ed25519", ""] {
        let event = set(&event, "domain", id, "garbage");
        assert_eq!(verify(version, &event), Ok(Verified::All), "{id}");
        let ids: Vec<_> = signing::server_key_ids(&event, "domain").collect();
        assert_eq!(ids.contains(&id), id == "ed25519:unknown");
    }
    for garbage in ["", "garbage", "*", &encode_base64(&[0; 64]), &encode_base64(&[0; 63])] {
        let error = verify(version, &set(&event, "domain", "ed25519:test", garbage));
        assert!(matches!(error, Err(SignatureError::Invalid { .. })), "{garbage}: {error:?}");
    }
    let unsigned = SignatureError::Unsigned("domain".to_owned());
    assert_eq!(signing::verify_event(version, &event, |_, _| None), Err(unsigned.clone()));
    event.insert("signatures".to_owned(), json!({"elsewhere": {}}).into());
    assert_eq!(verify(version, &event), Err(unsigned));
}

#[test]
fn a_changed_body_is_taken_for_a_redacted_copy() {
    for number in 1..=12 {
        let version = version(number);
        let mut event = message(version);
        event.insert("event_id".to_owned(), "$e:domain".into());
        signing::hash_and_sign_event(version, &mut event, "domain", &key());
        event.insert("content".to_owned(), json!({"body": "forged"}).into());
        assert_eq!(verify(version, &event), Ok(Verified::SignaturesOnly));
        event.insert("hashes".to_owned(), json!({"sha256": "?"}).into());
        assert!(verify(version, &event).is_err(), "hashes are signed");
    }
}

#[test]
fn keys() {
    for bad in ["", "a b", "a:b", "é", "a-b"] {
        let error = SigningKey::from_seed(&[7; 32], bad).expect_err("a bad version");
        assert_eq!(error, KeyError::BadVersion(bad.to_owned()));
    }
    let public = key().public_key();
    assert_eq!(PublicKey::from_base64(&public.to_base64()), Ok(public));
    assert_eq!(PublicKey::from_bytes(&public.to_bytes()), Ok(public));
    for bad in ["", "?", "AAAA"] {
        assert_eq!(PublicKey::from_base64(bad), Err(KeyError::BadPublicKey));
    }
    assert!(!format!("{:?}", key()).contains('7'), "the seed must not show");
}

// Checklist 13.9
#[test]
fn when_a_redaction_applies() {
    for number in 1..=12 {
        let version = version(number);
        let target = build(version, builder(version, "m.room.message")).expect("a valid event");
        let redaction = |sender: &str, named: bool| {
            let mut builder = builder(version, "m.room.redaction");
            builder.event_localpart = Some("redaction".to_owned());
            builder.sender = sender.try_into().expect("a user id");
            let other = builder.prev_events[0].event_id.clone();
            builder.redacts = Some(if named { target.event_id().clone() } else { other });
            build(version, builder).expect("a valid event")
        };
        let applies = |sender, named, level| {
            redaction::applies(version, &redaction(sender, named), &target, level)
        };
        assert!(applies("@b:domain", true, false), "same domain");
        assert!(applies("@b:other", true, true), "power");
        assert_eq!(applies("@b:other", true, false), number < 3, "the auth rules decided");
        assert!(!applies("@b:domain", false, true), "another event is named");
        assert!(!redaction::applies(version, &target, &target, true));
    }
}
