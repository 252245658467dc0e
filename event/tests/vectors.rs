//! The test vectors of the specification (those on power levels are with the auth rules).

mod pdu_common;

use parlour_event::{
    Pdu, RoomVersion,
    hashes::{self, decode_base64, decode_base64_array, encode_base64},
    json::{Object, canonicalise, parse_strict, to_canonical, to_canonical_string},
    signing::{self, SigningKey, Verified},
};
use pdu_common::{object, version};
use serde_json::Value;

fn vectors() -> Value {
    serde_json::from_str(include_str!("data/test-vectors.json")).expect("the file is JSON")
}

fn each<'a>(parent: &'a Value, key: &str) -> &'a [Value] {
    let list = parent[key].as_array().expect("an array");
    assert!(!list.is_empty(), "{key} is empty");
    list
}

fn text<'a>(parent: &'a Value, key: &str) -> &'a str {
    parent[key].as_str().unwrap_or_else(|| panic!("no text {key}"))
}

fn key(signing: &Value) -> SigningKey {
    let seed = decode_base64_array(text(signing, "seed_base64")).expect("32 bytes");
    let hex: String = seed.iter().map(|byte: &u8| format!("{byte:02x}")).collect();
    assert_eq!(hex, text(signing, "derived_seed_hex"));
    let key = SigningKey::from_seed(&seed, "1").expect("a valid version");
    assert_eq!(key.key_id(), text(signing, "key_id"));
    assert_eq!(key.public_key().to_base64(), text(signing, "derived_public_key_base64"));
    key
}

#[test]
fn unpadded_base64() {
    let vectors = vectors();
    for case in each(&vectors, "unpadded_base64") {
        let (plain, encoded) = (text(case, "input_ascii"), text(case, "unpadded_base64"));
        assert_eq!(encode_base64(plain.as_bytes()), encoded);
        assert_eq!(decode_base64(encoded).as_deref(), Some(plain.as_bytes()));
    }
}

#[test]
fn canonical_json() {
    let vectors = vectors();
    for case in each(&vectors, "canonical_json") {
        let (input, expected) = (text(case, "input_json"), text(case, "canonical_json"));
        let canonical = canonicalise(input.as_bytes()).expect("JSON");
        assert_eq!(String::from_utf8(canonical).expect("UTF-8"), expected);
        let strict = parse_strict(input.as_bytes());
        if input.contains("-0") {
            strict.expect_err("strict rooms must not accept -0 and 1e10");
        } else {
            assert_eq!(to_canonical_string(&strict.expect("strict JSON")), expected);
        }
    }
}

#[test]
fn signed_json() {
    let vectors = vectors();
    let signing = &vectors["signing"];
    let key = key(signing);
    for case in each(signing, "json") {
        let mut signed = object(case["input"].clone());
        signing::sign_json(&mut signed, text(signing, "server_name"), &key);
        assert_eq!(signed, object(case["signed"].clone()));
        signing::verify_json(&signed, "domain", |_| Some(key.public_key())).expect("valid");
        signed.insert("two".to_owned(), "Three".into());
        signing::verify_json(&signed, "domain", |_| Some(key.public_key()))
            .expect_err("a changed object must not verify");
    }
}

#[test]
fn signed_events() {
    let vectors = vectors();
    let signing = &vectors["signing"];
    let key = key(signing);
    for case in each(signing, "events") {
        for number in 1..=10 {
            let version = version(number);
            let mut event = object(case["input"].clone());
            let hash = signing::hash_and_sign_event(version, &mut event, "domain", &key);
            assert_eq!(event, object(case["signed"].clone()), "version {number}");
            assert_eq!(hash, hashes::reference_hash(version, &event));
            assert!(hashes::verify_content_hash(&event));
            if number >= 3 {
                let verified =
                    signing::verify_event(version, &event, |_, _| Some(key.public_key()));
                assert_eq!(verified, Ok(Verified::All), "version {number}");
            }
        }
    }
}

#[test]
fn bytes_that_are_hashed() {
    let vectors = vectors();
    for case in each(&vectors["signing"], "events") {
        let mut hashed: Object = object(case["input"].clone());
        for key in ["hashes", "signatures", "unsigned"] {
            hashed.remove(key);
        }
        let expected = text(case, "derived_bytes_hashed_for_content_hash");
        assert_eq!(to_canonical(&hashed.into()), expected.as_bytes());
    }
}

#[test]
fn reference_hashes() {
    let vectors = vectors();
    for case in each(&vectors["signing"], "events") {
        let signed = object(case["signed"].clone());
        let expected = &case["derived_reference_hash"];
        let early = hashes::reference_hash(version(1), &signed);
        assert_eq!(
            encode_base64(&early),
            text(expected, "room_versions_1_2_hash_in_event_references")
        );
        for (key, numbers) in [
            ("room_version_3_event_id", 3..=3),
            ("room_versions_4_to_10_event_id", 4..=10),
            ("room_version_11_event_id", 11..=11),
        ] {
            let Some(id) = expected[key].as_str() else { continue };
            for number in numbers {
                let pdu = Pdu::from_wire(version(number), signed.clone()).expect("a valid event");
                assert_eq!(pdu.event_id().as_str(), id, "version {number}");
            }
        }
    }
}

#[test]
fn server_names_in_identifiers() {
    let vectors = vectors();
    let version = RoomVersion::parse("10").expect("supported");
    for name in each(&vectors["identifiers"], "valid_server_names") {
        let name = name.as_str().expect("text");
        let mut event = pdu_common::message(version);
        event.insert("sender".to_owned(), format!("@a:{name}").into());
        signing::hash_and_sign_event(version, &mut event, name, &pdu_common::key());
        let pdu = Pdu::from_wire(version, event).expect("a valid event");
        assert_eq!(pdu.sender().server_name().as_str(), name);
        let servers = signing::required_servers(version, pdu.json()).expect("valid ids");
        assert_eq!(servers.first().map(|server| server.as_str()), Some(name));
    }
}
