//! Redaction, hashes and signatures against ruma's, on generated events of all room versions.

mod pdu_common;

use parlour_event::{
    RoomVersion, hashes,
    json::{MAX_INTEGER, Object, Value, to_canonical},
    redaction::{redact, redact_content},
    signing::{self, SigningKey, Verified},
};
use pdu_common::{from_ruma, key, object, to_ruma, version};
use proptest::prelude::*;
use ruma::{
    canonical_json,
    serde::Base64,
    signatures::{self, Ed25519KeyPair, PublicKeyMap, PublicKeySet},
};

const TYPES: &[&str] = &[
    "m.room.member",
    "m.room.create",
    "m.room.join_rules",
    "m.room.power_levels",
    "m.room.history_visibility",
    "m.room.redaction",
    "m.room.aliases",
    "m.room.message",
    "m.room.server_acl",
    "org.example.custom",
    "",
];

const CONTENT_KEYS: &[&str] = &[
    "membership",
    "creator",
    "join_rule",
    "allow",
    "ban",
    "events",
    "events_default",
    "kick",
    "redact",
    "state_default",
    "users",
    "users_default",
    "invite",
    "history_visibility",
    "redacts",
    "aliases",
    "room_version",
    "m.federate",
    "additional_creators",
    "notifications",
    "body",
    "deny",
    "reason",
    "displayname",
];

const TOP_KEYS: &[&str] = &[
    "origin",
    "membership",
    "prev_state",
    "redacts",
    "state_key",
    "event_id",
    "replaces_state",
    "age_ts",
    "prev_content",
    "org.example.extra",
    "outlier",
];

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        (-MAX_INTEGER..=MAX_INTEGER).prop_map(Value::Integer),
        "\\PC{0,12}".prop_map(Value::String),
        any::<String>().prop_map(Value::String),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::btree_map("[a-z.]{1,8}", inner, 0..4).prop_map(Value::Object),
        ]
    })
}

fn members(keys: &'static [&'static str]) -> impl Strategy<Value = Object> {
    let key = prop::sample::select(keys).prop_map(ToOwned::to_owned);
    prop::collection::btree_map(key, values(), 0..8)
}

fn third_party_invites() -> impl Strategy<Value = Option<Object>> {
    let key = prop::sample::select(&["signed", "display_name", "x"][..]);
    prop::option::of(prop::collection::btree_map(key.prop_map(ToOwned::to_owned), values(), 0..3))
}

fn events() -> impl Strategy<Value = (&'static RoomVersion, Object)> {
    (
        1_u8..=12,
        prop::sample::select(TYPES),
        members(CONTENT_KEYS),
        third_party_invites(),
        members(TOP_KEYS),
        members(&["age", "prev_content"]),
    )
        .prop_map(|(number, event_type, mut content, invite, extra, unsigned)| {
            let version = version(number);
            if let Some(invite) = invite {
                content.insert("third_party_invite".to_owned(), invite.into());
            }
            let mut event = pdu_common::message(version);
            for (key, value) in extra {
                event.entry(key).or_insert(value);
            }
            event.insert("type".to_owned(), event_type.into());
            event.insert("content".to_owned(), content.into());
            event.insert("unsigned".to_owned(), unsigned.into());
            (version, event)
        })
}

/// The PKCS#8 document in which ruma wants the key of [`key`].
fn ruma_key() -> Ed25519KeyPair {
    let mut der = vec![
        0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04,
        0x20,
    ];
    der.extend([7; 32]);
    Ed25519KeyPair::from_der(&der, "test".to_owned()).expect("a key")
}

fn ruma_keys(key: &SigningKey) -> PublicKeyMap {
    let public = Base64::new(key.public_key().to_bytes().to_vec());
    let keys = PublicKeySet::from([(key.key_id().to_owned(), public)]);
    PublicKeyMap::from([("domain".to_owned(), keys)])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, ..ProptestConfig::default() })]

    #[test]
    fn redaction((version, event) in events()) {
        let rules = &version.rules().redaction;
        let theirs = canonical_json::redact(to_ruma(&event), rules, None).expect("redactable");
        let ours = redact(version, event.clone());
        prop_assert_eq!(&ours, &from_ruma(&theirs));
        prop_assert_eq!(redact(version, ours.clone()), ours.clone(), "not idempotent");

        let mut content = event["content"].as_object().expect("an object").clone();
        redact_content(version, event["type"].as_str().expect("text"), &mut content);
        prop_assert_eq!(Some(&content), ours["content"].as_object());
    }

    #[test]
    fn hashing((version, event) in events()) {
        let theirs = signatures::content_hash(&to_ruma(&event)).expect("small enough");
        prop_assert_eq!(hashes::content_hash(&event), *theirs.as_inner());

        let theirs = signatures::reference_hash(&to_ruma(&event), version.rules());
        let ours = hashes::reference_hash(version, &event);
        let ours = if version.number() < 4 {
            hashes::encode_base64(&ours)
        } else {
            hashes::encode_base64_url(&ours)
        };
        prop_assert_eq!(ours, theirs.expect("small enough"));
        let redacted = redact(version, event.clone());
        prop_assert_eq!(
            hashes::reference_hash(version, &redacted),
            hashes::reference_hash(version, &event)
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn signing_and_checking((version, mut event) in events()) {
        // Who else must have signed is tested in tables.
        event.insert("sender".to_owned(), "@a:domain".into());
        event.insert("event_id".to_owned(), "$e:domain".into());
        if let Some(content) = event.get_mut("content").and_then(Value::as_object_mut) {
            content.remove("third_party_invite");
            // ruma demands text here.
            content.insert("membership".to_owned(), "join".into());
        }
        let key = key();
        let mut theirs = to_ruma(&event);
        signatures::hash_and_sign_event(
            "domain", &ruma_key(), &mut theirs, &version.rules().redaction,
        ).expect("signable");
        signing::hash_and_sign_event(version, &mut event, "domain", &key);
        prop_assert_eq!(&event, &from_ruma(&theirs));

        let check = |event: &Object| {
            signing::verify_event(version, event, |server, key_id| {
                (server == "domain" && key_id == key.key_id()).then(|| key.public_key())
            })
        };
        prop_assert_eq!(check(&event), Ok(Verified::All));
        signatures::verify_event(&ruma_keys(&key), &theirs, version.rules()).expect("valid");

        // A redacted copy still carries valid signatures.
        let redacted = redact(version, event.clone());
        prop_assert!(check(&redacted).is_ok());
        // What changes anything that redaction keeps is found out.
        event.insert("depth".to_owned(), 99_i64.into());
        prop_assert!(check(&event).is_err());
        signatures::verify_event(&ruma_keys(&key), &to_ruma(&event), version.rules())
            .expect_err("ruma finds it out as well");
    }

    #[test]
    fn any_object_can_be_signed(mut value in members(CONTENT_KEYS)) {
        let key = key();
        let mut theirs = to_ruma(&value);
        signatures::sign_json("domain", &ruma_key(), &mut theirs).expect("signable");
        signing::sign_json(&mut value, "domain", &key);
        prop_assert_eq!(to_canonical(&value.clone().into()), to_canonical(&from_ruma(&theirs).into()));
        signing::verify_json(&value, "domain", |_| Some(key.public_key())).expect("valid");
        signatures::verify_json(&ruma_keys(&key), &theirs).expect("valid");
    }
}

/// ruma keeps a `third_party_invite` that is no object; the rule allows only its key `signed`.
#[test]
fn a_third_party_invite_that_is_no_object_goes() {
    for number in 1..=12 {
        let event = object(serde_json::json!({
            "type": "m.room.member",
            "content": {"membership": "invite", "third_party_invite": "secret"},
        }));
        let redacted = redact(version(number), event.clone());
        let expected = object(serde_json::json!({
            "type": "m.room.member",
            "content": {"membership": "invite"},
        }));
        assert_eq!(redacted, expected, "version {number}");
        assert_eq!(
            hashes::reference_hash(version(number), &event),
            hashes::reference_hash(version(number), &expected)
        );
    }
}
